"""Classes read off the ends of tiles, against subdivision and against every point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from attnc.ir.expr import Apply, Expr, Index, Number
from attnc.ir.geometry.factor_runs import factor_runs, search_runs
from attnc.ir.geometry.mask_program import Context, FactorProgram, mask_program
from attnc.ir.geometry.row_ranges import RowRanges, range_runs
from attnc.ir.geometry.tile_runs import Runs
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.presence import TRUE
from tests.ir.geometry.pointwise import classes
from tests.ir.written import expression

Lengths = tuple[int, int]


def program(predicate: Expr, lengths: Lengths, tiles: Lengths) -> FactorProgram | None:
    """The one factor of a predicate that ties the rows to the keys."""
    axes = tuple(Axis(*x) for x in zip("mn", lengths, tiles, strict=True))
    context = Context(tuple(zip("mn", lengths, strict=True)), (), (), ())
    found = mask_program(predicate, TRUE, axes[:1], axes[1:], context)
    return found[0] if len(found) == 1 and found[0].rows and found[0].keys else None


def ranges(predicate: Expr, lengths: Lengths) -> RowRanges | None:
    found = program(predicate, lengths, (1, 1))
    return None if found is None else found.ranges


def same(a: Runs, b: Runs) -> bool:
    fields = ("offsets", "start", "stop", "full")
    return a.keys == b.keys and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in fields
    )


def check(predicate: Expr, lengths: Lengths, tiles: Lengths) -> None:
    found = program(predicate, lengths, tiles)
    assert found is not None and found.ranges is not None
    runs = range_runs(found.ranges, found.rows[0].axis, found.keys[0].axis)
    searched = search_runs(found, {})
    assert runs is None or same(runs, searched)
    assert same(factor_runs(found, {}), searched)
    bound = Bound(dict(zip("mn", lengths, strict=True)))
    axes = (found.rows[0].axis,), (found.keys[0].axis,)
    np.testing.assert_array_equal(searched.classes(), classes(predicate, *axes, bound, TRUE))


# A bound of the keys: of the row in steps, shifted, clipped on either side.
@st.composite
def bounds(draw: st.DrawFn) -> Expr:
    row: Expr = Index("m")
    step, by = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    if step > 1:
        row = Apply("floordiv", (Apply("add", (row, Number(draw(st.integers(-9, 9))))), Number(by)))
        row = Apply("mul", (row, Number(step)))
    row = Apply("add", (row, Number(draw(st.integers(-25, 25)))))
    for op in draw(st.lists(st.sampled_from(["min", "max"]), max_size=2)):
        row = Apply(op, (row, Number(draw(st.integers(-5, 40)))))
    return row


@st.composite
def windows(draw: st.DrawFn) -> Expr:
    """Keys between two bounds, of a constant number or not, with another condition or none."""
    low = draw(bounds())
    width = Apply("add", (low, Number(draw(st.integers(0, 12)))))
    high = draw(st.one_of(st.just(width), bounds()))
    found = Apply("and", (Apply("le", (low, Index("n"))), Apply("lt", (Index("n"), high))))
    if draw(st.booleans()):
        other = Apply(draw(st.sampled_from(["le", "gt"])), (Index("n"), draw(bounds())))
        found = Apply("and", (found, other))
    return found


SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
TILES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(windows(), SIZES, TILES)
def test_classes_are_those_of_the_search_and_of_all_points(
    predicate: Expr, lengths: Lengths, tiles: Lengths
) -> None:
    assume(ranges(predicate, lengths) is not None)
    check(predicate, lengths, tiles)


@pytest.mark.parametrize(
    "text",
    [
        "n <= m",
        "n < m - 30",
        "n <= m and m - n < 5",
        "m - n < 3 and n - m < 9",
        "n == m",
        "n // 7 == m // 7",
        "(m + 2) // 5 == (n + 3) // 4",
        "n // 8 - m // 8 < 2 and n // 8 >= m // 8",
        "min(max(m // 3 * 3 - 4, 0), 20) <= n and n < min(max(m // 3 * 3 - 4, 0), 20) + 9",
    ],
)
@pytest.mark.parametrize("lengths", [(37, 29), (29, 37), (64, 64), (5, 40), (80, 6)], ids=str)
def test_windows_are_told_by_the_ends(text: str, lengths: Lengths) -> None:
    predicate = expression(text)
    if program(predicate, lengths, (1, 1)) is None:
        # With so few rows or keys it does not depend on them.
        assert 6 in lengths or 5 in lengths or 29 in lengths
        return
    for tiles in ((1, 1), (8, 8), (7, 5), (16, 3), (100, 100)):
        check(predicate, lengths, tiles)


@pytest.mark.parametrize(
    "text",
    [
        "n >= 9 - m",
        "2 * m <= n and n < 2 * m + 1",
        "m // 8 * 9 <= n and n < m // 8 * 9 + 3",
        "m // 4 * 6 <= n and n < m + 3",
        "n % 2 == m % 2",
        "n <= m and (m - n < 3 or n < 2)",
        "n <= m % 7",
        "m * m <= n",
    ],
)
def test_what_the_ends_do_not_tell_is_searched(text: str) -> None:
    """Bounds that fall, gaps between rows' keys, rows without keys in between, several ranges."""
    assert ranges(expression(text), (40, 40)) is None


def test_rows_that_see_nothing_at_the_ends_of_a_tile() -> None:
    """What is seen begins and ends inside a tile, or is all in the middle of one."""
    for text in ("n <= m - 5 and n > m - 9", "n < m - 10 and n >= m - 20", "n == m - 13"):
        for keys in (2, 3, 20):
            for tile in (3, 8, 32):
                check(expression(text), (32, keys), (tile, 4))


def test_numbers_that_64_bits_may_not_hold_are_not_computed() -> None:
    for power, told in ((40, True), (59, False)):
        found = ranges(expression(f"n <= m // 3 * {1 << power}"), (9, 9))
        assert (found is not None) == told
