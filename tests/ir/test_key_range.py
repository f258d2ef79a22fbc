"""Closed forms are exact: against the predicate at every point, for all claims made of them."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attnc.ir.cascade import Cascade, ParamDecl, Rank, TensorDecl
from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Expr
from attnc.ir.frame import Scope, Value
from attnc.ir.key_range import KeyRange, key_range
from attnc.ir.visibility import Visibility
from tests.ir.written import expression

PARAMS = (
    ParamDecl("w", "int", low=1),
    ParamDecl("s", "int"),
    ParamDecl("t", "int", low=0, low_open=True, high=4),
    ParamDecl("flag", "bool"),
    ParamDecl("x", "float"),
)
NAMES = tuple(p.name for p in PARAMS)
VALUES = {"w": (1, 2, 3, 40), "s": (-3, 0, 1, 5), "t": (1, 3, 4), "flag": (True, False)}
INPUTS = (
    TensorDecl("end", ("b", "m"), "int"),
    TensorDecl("limit", ("b",), "int"),
    TensorDecl("real", ("b", "m"), "bool"),
    TensorDecl("doc", ("b", "n"), "int"),
)
CASCADE = Cascade("written", (Rank("b"), Rank("m"), Rank("n"), Rank("h")), PARAMS, INPUTS, (), ())
RNG = np.random.default_rng(7)
SIZES = ((9, 7), (5, 12), (1, 1), (8, 0))


def solve(predicate: Expr) -> KeyRange | None:
    return key_range(Visibility("m", "n", ("b",), predicate, predicate), CASCADE)


def tensors(m: int, n: int) -> dict[str, Value]:
    return {
        "end": Value(RNG.integers(-2, n + 2, (2, m)), ("b", "m")),
        "limit": Value(RNG.integers(-2, n + 2, 2), ("b",)),
        "real": Value(RNG.random((2, m)) < 0.7, ("b", "m")),
        "doc": Value(RNG.integers(0, 3, (2, n)), ("b", "n")),
    }


Array = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


def values(e: Expr, scope: Scope) -> Array:
    found = evaluate(e, scope)
    data = np.broadcast_to(found.data, tuple(len(r) for r in scope.box.values()))
    there = True if found.present is None else found.present
    return np.asarray(np.where(there, data, 0), dtype=np.int64)


def check(predicate: Expr, r: KeyRange) -> None:
    """Every point of every case; then what is claimed of the bounds along the row."""
    used = [p for p in VALUES if f"'{p}'" in repr(predicate)]
    for (m, n), chosen in product(SIZES, product(*(VALUES[p] for p in used))):
        scope = Scope(
            tensors=tensors(m, n),
            extents={"b": 2, "m": m, "n": n, "h": 3},
            params=dict(zip(used, chosen, strict=True)),
            box={"b": range(2), "m": range(m), "n": range(n)},
        )
        seen = values(predicate, scope).astype(bool)
        rows = scope.at({"b": range(2), "m": range(m)})
        low, high = values(r.low, rows), values(r.high, rows)
        keys = np.arange(n)
        np.testing.assert_array_equal(
            seen, (low[..., None] <= keys) & (keys < high[..., None]), f"{m=} {n=} {chosen}"
        )
        assert (low >= 0).all() and (high <= n).all()
        for claimed, bound in zip(r.rising, (low, high), strict=True):
            assert not claimed or (np.diff(bound, axis=-1) >= 0).all()
        longer = np.diff(np.maximum(high - low, 0), axis=-1)
        assert not r.growing or (longer >= 0).all()


ROW = ["m", "m // w", "m // w * w", "m % 3", "M - m", "m + N - M", "s", "w", "2", "0", "-1", "N"]
ROW += ["end[b, m]", "limit[b]", "min(m, s)", "max(m, limit[b])", "abs(m - s)", "m // t * t"]
ROW += ["clamp(m - w // 2, 0, N - w)", "(m if m < s else 2 * m)"]
KEY = ["n", "n", "n + s", "n // w", "n // 3", "(n + 1) // t", "2 * n", "-n", "n * w", "n - n % w"]
KEY += ["min(n, {})", "max(n, {})", "clamp(n, {}, {})", "abs(n - ({}))", "n // w * w"]
KEY += ["(n if m < s else n // 2)", "3 * (n // 2) - m", "n - w", "n // (w * t)"]
ALONE = ["m < s", "flag", "real[b, m]", "limit[b] > 2", "m % 2 == 0", "m >= limit[b]"]


def predicates() -> st.SearchStrategy[str]:
    row = st.sampled_from(ROW)
    key = st.tuples(st.sampled_from(KEY), row, row).map(lambda p: p[0].format(p[1], p[2]))
    sign = st.sampled_from(["<", "<=", ">", ">=", "=="])
    one = st.tuples(key, sign, row).map(" ".join)
    leaf = st.one_of(one, one, one, st.sampled_from(ALONE))

    def node(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        two = st.tuples(inner, inner)
        return st.one_of(
            two.map(lambda p: f"({p[0]} and {p[1]})"),
            two.map(lambda p: f"({p[0]} and {p[1]})"),
            two.map(lambda p: f"({p[0]} or {p[1]})"),
            inner.map(lambda p: f"(not {p})"),
            st.tuples(st.sampled_from(ALONE), inner, inner).map(
                lambda p: f"({p[1]} if {p[0]} else {p[2]})"
            ),
        )

    return st.recursive(leaf, node, max_leaves=4)


@given(predicates())
def test_a_range_is_the_predicate_at_every_point(text: str) -> None:
    predicate = expression(text, NAMES)
    found = solve(predicate)
    if found is not None:
        check(predicate, found)
