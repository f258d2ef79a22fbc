"""Orders of tokens, and the tiles visited in each, against tokens that are really reordered."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.ir.expr import Expr, Index, Number, Read, call
from attnc.ir.geometry.count_flat_tiles import MOST_PAIRS, SeenTokens, count_flat_tiles, seen_tokens
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.geometry.token_order import TokenOrder, token_orders
from attnc.ir.presence import TRUE


def _order(order: TokenOrder, extents: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The tokens in this order."""
    places = order.places(extents)
    assert sorted(places) == list(range(prod(extents)))
    at = np.argsort(places)
    return [tuple(map(int, p)) for p in zip(*np.unravel_index(at, extents), strict=True)]


def test_blocks_are_row_major_outside_and_inside() -> None:
    assert _order(TokenOrder((2, 2), (1, 1)), (3, 3)) == [
        *((0, 0), (0, 1), (1, 0), (1, 1)),
        *((0, 2), (1, 2)),
        *((2, 0), (2, 1)),
        (2, 2),
    ]


def test_the_morton_curve_leaves_out_what_is_not_there() -> None:
    curve = TokenOrder(None, (1, 1))
    assert _order(curve, (2, 2)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    whole = _order(curve, (8, 8))
    assert _order(curve, (5, 3)) == [(y, x) for y, x in whole if y < 5 and x < 3]
    assert whole[16:20] == [(0, 4), (0, 5), (1, 4), (1, 5)]


def test_dilation_groups_come_one_after_another() -> None:
    order = _order(TokenOrder((1, 1), (2, 1)), (3, 2))
    assert order == [(0, 0), (0, 1), (2, 0), (2, 1), (1, 0), (1, 1)]


def test_the_orders_that_are_compared() -> None:
    names = [o.name for o in token_orders(2, 128, (1, 1))]
    assert names[:2] == ["row-major", "Morton"]
    assert "blocks of 8 x 16" in names and "blocks of 16 x 8" in names
    assert not any("2 x 64" in name for name in names)
    grouped = token_orders(2, 64, (3, 1))
    assert [o.name for o in grouped[:2]] == ["row-major", "row-major, in groups of 3 x 1"]
    assert [o.plain for o in grouped[:2]] == [True, False]


Y, X, U, V = (Index(r) for r in ("my", "mx", "ny", "nx"))


def _near(a: Expr, b: Expr, width: int) -> Expr:
    apart = call("abs", call("sub", a, b))
    return call("lt", apart, Number(width))


def _masks(wide: int, high: int) -> dict[str, tuple[Expr, Any]]:
    """Predicates over (my, mx), (ny, nx), and the same in Python."""
    box = call("and", _near(Y, U, high), _near(X, V, wide))
    sums = call("le", call("add", U, V), call("add", Y, X))
    return {
        "all": (TRUE, lambda y, x, u, v: True),
        "box": (box, lambda y, x, u, v: abs(y - u) < high and abs(x - v) < wide),
        "tied": (
            call("and", box, sums),
            lambda y, x, u, v: abs(y - u) < high and abs(x - v) < wide and u + v <= y + x,
        ),
        "rows": (call("lt", Y, Number(high)), lambda y, x, u, v: y < high),
    }


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_counts_equal_those_of_reordered_tokens(data: st.DataObject) -> None:
    size = st.integers(0, 9)
    queries, keys = data.draw(st.tuples(st.tuples(size, size), st.tuples(size, size)))
    chosen = data.draw(st.sampled_from(["all", "box", "tied", "rows"]))
    predicate, sees = _masks(data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5)))[chosen]
    block = data.draw(st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)))
    order = TokenOrder(block, data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))))
    tile = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    rows, columns = (
        tuple(Axis(n, size, 1) for n, size in zip(names, extents, strict=True))
        for names, extents in ((("my", "mx"), queries), (("ny", "nx"), keys))
    )
    seen = seen_tokens(predicate, predicate, (), rows, columns, Bound())
    assert isinstance(seen, SeenTokens)
    found = count_flat_tiles(seen, tile, order)
    matrix = np.array(
        [[sees(*q, *k) for k in _order(order, keys)] for q in _order(order, queries)], bool
    ).reshape(prod(queries), prod(keys))
    cuts = [[matrix[i : i + tile[0]] for i in range(0, len(matrix), tile[0])]]
    tiles = [
        [part[:, j : j + tile[1]] for j in range(0, matrix.shape[1], tile[1])] for part in cuts[0]
    ]
    assert list(found.visited) == [sum(bool(t.any()) for t in row) for row in tiles]
    assert list(found.full) == [sum(bool(t.all()) for t in row) for row in tiles]
    assert found.key_tiles == -(-matrix.shape[1] // tile[1])
    assert seen.visible == matrix.sum()


def test_masks_per_head_and_states_with_masks_of_their_own() -> None:
    width = np.array([1, 2])
    near = call("lt", call("abs", call("sub", X, V)), Read("w", (Index("h"),)))
    past = call("and", near, call("le", U, Y))
    bound = Bound({"h": 2}, {}, {"w": width})
    rows, keys = (tuple(Axis(f"{r}{c}", 4, 1) for c in "yx") for r in "mn")
    grid = (Axis("h", 2, 1),)
    seen = seen_tokens(near, past, grid, rows, keys, bound)
    assert isinstance(seen, SeenTokens)
    # In columns of 4 tokens: head 0 sees its own column, head 1 its neighbours, too.
    found = count_flat_tiles(seen, (4, 4), TokenOrder((4, 1), (1, 1)))
    assert list(found.visited) == [1, 1, 1, 1, 2, 3, 3, 2]
    assert not found.full.any()
    assert seen.visible == 16 * 4 + 4 * (4 * (2 + 3 + 3 + 2))


def test_axes_that_are_tied_together_must_fit_into_memory() -> None:
    side = int(MOST_PAIRS**0.25) + 1
    tied = call("le", call("add", U, V), call("add", Y, X))
    rows, keys = (tuple(Axis(f"{r}{c}", side, 1) for c in "yx") for r in "mn")
    assert seen_tokens(tied, tied, (), rows, keys, Bound()) is None


@pytest.mark.parametrize("tokens", [1, 2, 100, 128])
def test_blocks_hold_as_many_tokens_as_a_tile_has_room_for(tokens: int) -> None:
    for order in token_orders(3, tokens, (1, 1, 1)):
        if order.tile is not None and not order.plain:
            assert tokens / 2 < prod(order.tile) <= tokens
