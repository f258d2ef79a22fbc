"""Canonical forms, bounds and directions of integer expressions are never wrong."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.ir.cascade import Cascade, ParamDecl, Rank
from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Expr
from attnc.ir.frame import Scope
from attnc.ir.geometry.integers import Integers
from attnc.ir.geometry.monotone import direction
from attnc.ir.geometry.polynomial import TooManyTerms
from attnc.ir.show import show_expr
from tests.ir.written import expression

PARAMS = (
    ParamDecl("w", "int", low=1),
    ParamDecl("s", "int"),
    ParamDecl("t", "int", low=-2, low_open=True, high=2.5),
)
NAMES = tuple(p.name for p in PARAMS)
CASCADE = Cascade("written", (Rank("m"), Rank("n")), PARAMS, (), (), ())
KNOWN = Integers(CASCADE, "n")


def expressions() -> st.SearchStrategy[str]:
    leaves = st.sampled_from(["m", "M", "N", "w", "s", "t", "0", "1", "2", "-3", "7"])

    def node(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        two, three = st.tuples(inner, inner), st.tuples(inner, inner, inner)
        forms = ["({} + {})", "({} - {})", "({} * {})", "min({}, {})", "max({}, {})"]
        return st.one_of(
            st.tuples(st.sampled_from(forms), two).map(lambda p: p[0].format(*p[1])),
            st.tuples(inner, st.sampled_from(["// 2", "// w", "% 3", "% w", "// (w * 2)"])).map(
                lambda p: f"({p[0]} {p[1]})"
            ),
            inner.map(lambda p: f"abs({p})"),
            inner.map(lambda p: f"(-({p}))"),
            three.map("clamp({0[0]}, {0[1]}, {0[2]})".format),
            st.tuples(two, two).map(lambda p: "({} if {} < {} else {})".format(*p[0], *p[1])),
        )

    return st.recursive(leaves, node, max_leaves=6)


def points() -> list[Scope]:
    cases = product((1, 2, 5), (-4, 0, 3), (-1, 0, 2), (0, 6))
    return [
        Scope(
            extents={"m": 9, "n": n},
            params={"w": w, "s": s, "t": t},
            box={"m": range(9)},
        )
        for w, s, t, n in cases
    ]


POINTS = points()


def at(e: Expr, scope: Scope) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.broadcast_to(np.asarray(evaluate(e, scope).data, dtype=np.int64), (9,))


@given(expressions())
def test_what_is_known_holds(text: str) -> None:
    e = expression(text, NAMES)
    try:
        polynomial = KNOWN.polynomial(e)
        low, high = KNOWN.bounds(e)
    except TooManyTerms:
        return
    canonical, along = polynomial.expr(), direction(e, "m", KNOWN)
    for scope in POINTS:
        found = at(e, scope)
        np.testing.assert_array_equal(at(canonical, scope), found)
        assert (low <= found).all() and (found <= high).all()
        assert not KNOWN.nonnegative(polynomial) or (found >= 0).all()
        if along is not None:
            assert (along * np.diff(found) >= 0).all()
            assert along != 0 or (np.diff(found) == 0).all()


@given(expressions(), expressions(), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
def test_conditions_that_are_decided_hold(a: str, b: str, sign: str) -> None:
    e = expression(f"{a} {sign} {b}", NAMES)
    try:
        decided = KNOWN.condition(e)
    except TooManyTerms:
        return
    if decided != e:
        for scope in POINTS:
            np.testing.assert_array_equal(at(decided, scope), at(e, scope))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("m - w + 1", "m - w + 1"),
        ("(m // w + 1) * w", "m // w * w + w"),
        ("(m * w + 3) // w - m", "3 // w"),
        ("(4 * m + 6) // 4", "m + 1"),
        ("(4 * m + 6) // 2", "2 * m + 3"),
        ("(m * w) % w", "0"),
        ("m // 1 + m % 1", "m"),
        ("max(0, m)", "m"),
        ("min(w, w + 1)", "w"),
        ("clamp(m, 0, N)", "min(m, N)"),
        ("clamp(s, 0, N)", "clamp(s, 0, N)"),
        ("abs(m + w)", "m + w"),
        ("1 - m", "1 - m"),
        ("-m - s", "-m - s"),
        ("m if 1 < 2 else s", "m"),
        ("m if w > 0 else s", "m"),
        ("m if s > 0 else s", "if s > 0 then m else s"),
    ],
)
def test_canonical_forms(text: str, form: str) -> None:
    assert show_expr(KNOWN.polynomial(expression(text, NAMES)).expr()) == form


def test_bounds_are_exact_for_large_integers() -> None:
    """2^60 and 2^60 + 1 are the same float."""
    large = 1 << 60
    assert KNOWN.nonnegative(KNOWN.polynomial(expression(f"m + {large + 1} - {large}")))
    assert not KNOWN.nonnegative(KNOWN.polynomial(expression(f"m + {large} - {large + 1}")))
    assert KNOWN.bounds(expression(f"min(m, {large}) // 1 * {10**400}")) == (0, large * 10**400)


def test_the_swept_extent_may_be_zero_but_divides() -> None:
    extent = KNOWN.polynomial(expression("N"))
    assert not KNOWN.nonnegative(extent - 1)
    assert KNOWN.positive(extent)
    assert not KNOWN.positive(KNOWN.polynomial(expression("s", NAMES)))
