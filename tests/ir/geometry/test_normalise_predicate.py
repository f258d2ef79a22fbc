"""Normal predicates: equal to what they stand for, and simple where they can be."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.ir.expr import Expr
from attnc.ir.geometry.normalise_predicate import normalise_predicate
from attnc.ir.geometry.value_bounds import ValueBounds
from attnc.ir.walk import subexprs
from tests.ir.geometry.pointwise import holds
from tests.ir.geometry.random_masks import bounds_of, plain_predicate, random_case
from tests.ir.written import expression

EXTENTS = {"m": 1000, "n": 1000, "r": 3, "u": 10, "s": 3, "v": 10}


def normal(e: Expr) -> Expr:
    return normalise_predicate(e, ValueBounds(EXTENTS, {}, {}, {}), frozenset("mru"), frozenset())


@pytest.mark.parametrize(
    "written, same",
    [
        ("m - n < 5", "m - 5 < n"),
        ("m - m % 8 <= n", "8 * (m // 8) <= n"),
        ("m // 8 * 8 > m - 3", "m % 8 < 3"),
        ("2 * m <= 2 * n + 1", "m <= n"),
        ("m % 4 == n % 4", "(m - n) % 4 == 0"),
        ("(r + 3 * u) % 3 == (s + 3 * v) % 3", "r == s"),
        ("(r + 3 * u) // 3 <= v", "u <= v"),
        ("m // 4 // 16 < 3", "m < 192"),
        ("not m <= n", "n < m"),
        ("(m if m < 2000 else n) <= n", "m <= n"),
        ("n * 0 + m >= 0 and n < 1000", "True"),
        ("(m - n) * 2 == 5", "False"),
    ],
)
def test_what_is_equal_becomes_the_same(written: str, same: str) -> None:
    assert normal(expression(written)) == normal(expression(same))


def test_a_maximum_that_repeats_a_coordinate_is_split() -> None:
    found = normal(expression("max(m - n, n - m) + m <= 20"))
    assert not any(getattr(e, "op", "") == "max" for e in subexprs(found))


@given(st.integers(0, 1 << 32))
def test_a_normal_predicate_holds_at_the_same_points(seed: int) -> None:
    r = Random(seed)
    for _ in range(10):
        case = random_case(r)
        axes = case.rows + case.keys
        predicate = plain_predicate(case)
        if predicate is None:
            continue
        rows = frozenset(a.name for a in case.rows)
        found = normalise_predicate(predicate, bounds_of(case), rows, frozenset())
        expected = holds(predicate, axes, case.bound)
        np.testing.assert_array_equal(holds(found, axes, case.bound), expected, repr(predicate))
