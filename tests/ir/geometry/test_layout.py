"""Shapes of tiles, derived from masks that nobody named."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.dsl import load_text
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param
from attnc.ir.geometry.layout import Layout, TileAxis, layouts, same_residues, tile_shape
from attnc.ir.pipeline import plan
from attnc.ir.plan import SweepStage

SPEC = """attention masked
param d: int = 2 in [1, inf)
param k: int = 2
rank m = (my, mx)
rank n = (ny, nx)
input Q[b, h, m, c]
input K[b, h, n, c]
input V[b, h, n, e]
{declared}
S[b, h, m, n] = sum(c) Q[b, h, m, c] * K[b, h, n, c]
P[b, h, m, n] = softmax(n) S[b, h, m, n]  where {where}
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h, n, e]
output O[b, h, m, e]
"""
D = Param("d")
FLAT = Layout("m", (TileAxis("m"),)), Layout("n", (TileAxis("n"),))


def _plane(y: Expr | None = None, x: Expr | None = None) -> tuple[Layout, Layout]:
    return tuple(  # type: ignore[return-value]
        Layout(r, (TileAxis(f"{r}y", y), TileAxis(f"{r}x", x))) for r in ("m", "n")
    )


def _layouts(where: str) -> tuple[Layout | None, Layout]:
    declared = "input doc[b, n]: int" if "doc" in where else ""
    made = plan(load_text(SPEC.format(where=where, declared=declared)))
    (stage,) = (s for s in made.stages if isinstance(s, SweepStage))
    return layouts(stage.passes[0].visibility, made.cascade)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("n <= m and doc[b, m] == doc[b, n]", FLAT),
        ("abs(my - ny) <= 2 and abs(mx - nx) <= 3", _plane()),
        ("my - ny <= 2", _plane()),
        ("m % d == n % d", tuple(Layout(r, (TileAxis(r, D),)) for r in "mn")),
        ("n % d == m % d and n <= m", tuple(Layout(r, (TileAxis(r, D),)) for r in "mn")),
        ("(m - n) % d == 0", tuple(Layout(r, (TileAxis(r, D),)) for r in "mn")),
        ("my % d == ny % d and abs(mx - nx) < 3", _plane(y=D)),
        ("mx % 4 == nx % 4 and abs(my - ny) < 3", _plane(x=Number(4))),
        # not known to be at least 1; tied to no key; not on every point
        ("m % k == n % k", FLAT),
        ("m % d == 0 and n % d == 0", FLAT),
        ("m % d == n % d or n < 4", FLAT),
        ("m % d == n % d + 1", FLAT),
    ],
)
def test_a_mask_shapes_its_tiles(where: str, expected: tuple[Layout, Layout]) -> None:
    assert _layouts(where) == expected


def test_equal_coordinates_are_a_class_of_their_own() -> None:
    row, swept = _layouts("my == ny")
    assert row == Layout("m", (TileAxis("my", Extent("my")), TileAxis("mx")))
    assert swept == Layout("n", (TileAxis("ny", Extent("ny")), TileAxis("nx")))
    assert row is not None and row.is_stepped and not row.is_flat


def test_only_the_rank_whose_components_are_read_is_a_grid() -> None:
    row, swept = _layouts("n <= m and ny <= 3")
    assert (row, swept) == (FLAT[0], Layout("n", (TileAxis("ny"), TileAxis("nx"))))


def test_a_difference_without_remainder_is_two_equal_remainders() -> None:
    m, n = Index("m"), Index("n")
    found = same_residues(Apply("eq", (Apply("mod", (Apply("sub", (m, n)), D)), Number(0))))
    assert found == Apply("eq", (Apply("mod", (m, D)), Apply("mod", (n, D))))


@pytest.mark.parametrize(
    ("block", "extents", "shape"),
    [
        (128, (256, 256), (8, 16)),
        (64, (256, 256), (8, 8)),
        (128, (30, 48, 80), (4, 4, 8)),
        (64, (3, 100), (4, 16)),
        (64, (100, 3), (16, 4)),
        (16, (1, 1), (1, 16)),
        (32, (0, 5), (1, 32)),
        (1, (9, 9), (1, 1)),
        (64, (1000,), (64,)),
    ],
)
def test_sides(block: int, extents: tuple[int, ...], shape: tuple[int, ...]) -> None:
    assert tile_shape(block, extents) == shape


@given(st.integers(0, 10), st.lists(st.integers(0, 300), min_size=1, max_size=4))
def test_a_tile_has_all_its_places_and_no_side_is_too_long(log: int, extents: list[int]) -> None:
    shape = tile_shape(1 << log, extents)
    assert prod(shape) == 1 << log
    assert all(s & (s - 1) == 0 for s in shape)
    outer = zip(shape[:-1], extents[:-1], strict=True)
    assert all(s < 2 * max(n, 1) for s, n in outer)
