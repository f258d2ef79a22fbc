"""Specs to test with: written ones, and strategies that draw trees and broken texts."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from attnc.dsl import tree

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "library" / "specs").glob("*.attn"), *(ROOT / "tests").rglob("*/*.attn")])

SLIDING_WINDOW = '''attention sliding_window
"""Causal sliding-window softmax attention (Beltagy et al. 2020; Mistral 7B)."""

param window: int = 4096 in [1, inf)  # how many keys a query sees

input Q[b, h, m, d]
input K[b, g, n, d]
input V[b, g, n, e]

mask near[m, n] = n <= m and m - n < window

# H / G heads share their keys and values
S[b, h, m, n] = sum(d) Q[b, h, m, d] * K[b, h // (H / G), n, d] / sqrt(D)
P[b, h, m, n] = softmax(n) S[b, h, m, n]  where near[m, n]
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h // (H / G), n, e]

output O[b, h, m, e]
'''


def spec(body: str, output: str = "O[m]") -> str:
    """A small spec around a few lines: scores S[b, m, n], a row T[m], a mask and params."""
    return f"""attention example
param tau: float = 1.0
param window: int[2] = (3, 4)
const param causal: bool = true
input S[b, m, n]
input T[m]
input doc[b, n]: int
mask near[m, n] = n <= m and m - n < window[0]
{body}
keep[b, m, n] = S[b, m, n] + T[m] + doc[b, n] + m
output {output}
"""


_WORDS = (
    "attention input output mask param const rank def return where if then else and or not in inf "
    "true false int float bool sum max min prod mean any all topk concat softmax exp sqrt clamp "
    "neighborhood Q K S T near window b m n d M N H 0 1 2 8 0.5 1e9 = == != < <= > >= + - * / // % "
    '** ( ) [ ] , : # \n """'
).split(" ")
words = st.lists(st.sampled_from(_WORDS), max_size=60).map(" ".join)

names = st.sampled_from(["a", "b", "m", "n", "K", "near", "x1", "tau_2", "_y"])
literals = st.one_of(
    st.integers(0, 2**63 - 1),
    st.floats(0, allow_nan=False, allow_infinity=True),
    st.booleans(),
).map(tree.Literal)
_LEAVES = st.one_of(names.map(tree.Name), literals)


def _tuples(of: st.SearchStrategy[tree.Expr]) -> st.SearchStrategy[tuple[tree.Expr, ...]]:
    return st.lists(of, max_size=3).map(tuple)


def _compound(of: st.SearchStrategy[tree.Expr]) -> st.SearchStrategy[tree.Expr]:
    binary = st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "and", "or"])
    compare = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    over = st.sampled_from(["sum", "mean", "any", "max", "softmax", "topk"])
    chains = st.lists(st.tuples(compare, of), min_size=1, max_size=3)
    return st.one_of(
        st.builds(tree.Access, names, _tuples(of)),
        st.builds(tree.Call, names, _tuples(of)),
        st.builds(tree.Over, over, _tuples(of), of),
        st.builds(tree.Prefix, st.sampled_from(["-", "not"]), of),
        st.builds(tree.Binary, binary, of, of),
        st.builds(
            lambda first, rest: tree.Chain(
                (first, *(e for _, e in rest)), tuple(o for o, _ in rest)
            ),
            of,
            chains,
        ),
        st.builds(tree.IfElse, of, of, of),
    )


expressions = st.recursive(_LEAVES, _compound, max_leaves=12)
_ACCESSES = st.builds(tree.Access, names, _tuples(expressions))
_NAME_NODES = names.map(tree.Name)
_RANKS = st.lists(_NAME_NODES, max_size=3).map(tuple)
_PARTS = st.lists(expressions, min_size=1, max_size=3).map(tuple)
_DTYPES = st.sampled_from(["int", "float", "bool"])
_SIGNED = st.one_of(literals, st.integers(-(2**62), -1).map(tree.Literal))
_RANGES = st.builds(tree.Range, _SIGNED, _SIGNED, st.booleans(), st.booleans())
_ASSIGNS = st.builds(
    tree.Assign,
    _ACCESSES,
    st.one_of(expressions, st.builds(tree.Concat, _NAME_NODES, _PARTS)),
    st.none() | expressions,
)
_FORMALS = st.builds(tree.Formal, names, st.none() | expressions)
_ITEMS: st.SearchStrategy[tree.Item] = st.one_of(
    st.builds(
        tree.Param,
        _NAME_NODES,
        _DTYPES,
        st.none() | st.integers(1, 9).map(tree.Literal),
        st.one_of(st.none(), _SIGNED, st.lists(_SIGNED, min_size=1, max_size=3).map(tuple)),
        st.none() | _RANGES,
        st.booleans(),
    ),
    st.builds(tree.Rank, _NAME_NODES, st.lists(_NAME_NODES, min_size=1, max_size=3).map(tuple)),
    st.builds(tree.Input, _NAME_NODES, _RANKS, _DTYPES),
    st.builds(tree.Mask, _ACCESSES, expressions),
    _ASSIGNS,
    st.builds(tree.Output, st.lists(_ACCESSES, min_size=1, max_size=3).map(tuple)),
    st.builds(
        tree.Macro,
        _NAME_NODES,
        st.lists(_FORMALS, max_size=2).map(tuple),
        st.none() | st.builds(tree.Argument, names, _RANKS),
        st.lists(_ASSIGNS, max_size=2).map(tuple),
        expressions,
    ),
)
trees = st.builds(
    tree.Spec,
    _NAME_NODES,
    st.none()
    | st.sampled_from(["", "One line.", "Two\nlines, # no comment\n", 'A "quote" inside.']),
    st.lists(_ITEMS, max_size=6).map(tuple),
)
