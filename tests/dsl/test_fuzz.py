"""Any text gives a cascade or an `AttncError`, in time, and none of it reaches code."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attnc.dsl import check, format_spec, load_text, parse
from attnc.errors import AttncError
from attnc.ir.cascade import Cascade, Concat, Einsum, Statement
from attnc.ir.expr import Apply, Expr, Index, Read
from attnc.ir.ops import OPS
from attnc.ir.types import dtype_of
from attnc.ir.walk import operands, reads, subexprs
from tests.dsl.specs import FILES, SLIDING_WINDOW, spec, trees, words

TEXTS = [SLIDING_WINDOW, *(p.read_text() for p in FILES if "diagnostics" not in p.parts)]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,80}")


def survives(text: str) -> None:
    """Load it; the errors that `check` collects are those that `load_text` raises."""
    start = time.process_time()
    try:
        consistent(load_text(text, "fuzz.attn"))
    except AttncError as e:
        assert str(e) and "Traceback" not in str(e)
    assert time.process_time() - start < 2


def consistent(cascade: Cascade) -> None:
    """Every name is an identifier; every tensor is an input or defined above its first read."""
    known = {t.name: len(t.ranks) for t in cascade.inputs}
    for statement in cascade.statements:
        known.setdefault(statement.tensor, len(statement.indices))
        bound = {r for i in statement.indices for r in _ranks(i)}
        bound |= set(getattr(getattr(statement, "reduce", None), "ranks", ()))
        bound |= set(statement.ranks) if isinstance(statement, Concat) else set()
        bound |= {c for r in cascade.ranks if r.name in bound for c in r.components}
        for e in operands(statement):
            assert _ranks(e) <= bound
            assert all(known[r.tensor] == len(r.indices) for r in reads(e))
        _typed(statement, cascade)
    names = {*known, *(r.name for r in cascade.ranks), *(p.name for p in cascade.params)}
    assert all(_NAME.fullmatch(n) for n in names)
    assert set(cascade.outputs) <= known.keys()


def _ranks(e: Expr) -> set[str]:
    return {s.rank for s in subexprs(e) if isinstance(s, Index)}


def _typed(statement: Statement, cascade: Cascade) -> None:
    """Operands have the types that their operator wants: no conversion is left to later passes."""
    for e in operands(statement):
        for part in subexprs(e):
            if isinstance(part, Read):
                assert all(dtype_of(i, cascade) == "int" for i in part.indices)
            elif isinstance(part, Apply):
                kinds = {dtype_of(a, cascade) for a in part.args[part.op == "select" :]}
                assert len(kinds) == 1, part
                if part.op in ("floordiv", "mod", "exactdiv", "float"):
                    assert kinds == {"int"}
                elif part.op in ("and", "or", "not"):
                    assert kinds == {"bool"}
                elif OPS[part.op].result == "float":
                    assert kinds == {"float"}
    if statement.where is not None:
        assert dtype_of(statement.where, cascade) == "bool"
    if isinstance(statement, Einsum):
        assert statement.dtype == dtype_of(statement.expr, cascade)


@given(st.text())
@example("\x00")
@example("\udcff")
@example("attention x\n\u2028output O[m]")
@example("attention x\n'; import os #")
def test_any_text(text: str) -> None:
    survives(text)


@given(words)
def test_words_of_the_language(text: str) -> None:
    survives(text)
    survives(f"attention x\ninput K[b, n, d]\nS[m, n] = {text}\noutput S[m, n]\n")
    survives(spec(f"O[m] = {text}"))


@given(trees)
def test_well_formed_trees(tree: object) -> None:
    survives(format_spec(tree))  # type: ignore[arg-type]


@given(st.data())
def test_mutated_specs(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(TEXTS))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        other = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.sampled_from([text[other : other + 9], "", "(", "[m]", "n", "-", "0"]))
        text = text[:start] + piece + text[end:]
    survives(text)


@given(st.data())
def test_specs_with_words_exchanged(data: st.DataObject) -> None:
    tokens = re.findall(r"\w+|\s+|[^\w\s]", data.draw(st.sampled_from(TEXTS)))
    places = [i for i, t in enumerate(tokens) if t.isidentifier() or t.isdigit()]
    for _ in range(data.draw(st.integers(1, 5))):
        to, of = data.draw(st.sampled_from(places)), data.draw(st.sampled_from(places))
        tokens[to] = tokens[of]
    survives("".join(tokens))


def test_every_written_spec_lowers() -> None:
    for text in TEXTS:
        assert check(parse(text)) == ()
        consistent(load_text(text))


def test_exponential_macros_and_masks_are_refused() -> None:
    macros = "\n".join(f"def f{i}(x): return f{i - 1}(x) + f{i - 1}(x)" for i in range(1, 40))
    survives(spec(f"def f0(x): return x\n{macros}\nO[m] = f39(T[m])"))
    tall = "\n".join(
        f"def g{i}(n) X[n]:\n  A[n] = g{i - 1}(n) X[n]\n  return g{i - 1}(n) A[n]"
        for i in range(1, 40)
    )
    survives(
        spec(f"def g0(n) X[n]: return softmax(n) X[n]\n{tall}\nO[b, m, n] = g39(n) S[b, m, n]")
    )
    masks = "\n".join(f"mask a{i}[m] = a{i - 1}[m] and a{i - 1}[m]" for i in range(1, 60))
    survives(spec(f"mask a0[m] = m > 1\n{masks}\nO[m] = T[m] where a59[m]"))


@pytest.mark.parametrize(
    "link",
    [
        "def a{0}(x): return a{1}(x)",
        "def a{0}(x): return -(a{1}(x))",
        "def a{0}(x):\n  Y[] = a{1}(x)\n  return Y[]",
        "mask a{0}[m] = not a{1}[m]",
        "def a{0}(x): return if x > 0 then a{1}(max(x, 1)) else 0",
    ],
)
def test_long_chains_of_definitions_are_refused(link: str) -> None:
    first = "mask a0[m] = m > 1" if "mask" in link else "def a0(x): return x"
    chain = "\n".join(link.format(i, i - 1) for i in range(1, 500))
    use = "O[m] = T[m] where a499[m]" if "mask" in link else "O[m] = a499(T[m])"
    text = spec(f"{first}\n{chain}\n{use}")
    survives(text)
    assert [e.code for e in check(parse(text))] == ["E405"]


def test_many_mistakes_are_reported_in_time() -> None:
    lines = "\n".join(f"O{i}[m] = unknown_{i} + T{i}[m] + f{i}(m)" for i in range(700))
    start = time.process_time()
    errors = check(parse(spec(lines)))
    assert len(errors) == 100
    assert time.process_time() - start < 2
