"""Orders of the tokens of a grid, and the tiles that a mask visits in each, exactly.

A kernel cuts a flat sequence into tiles. In which order the tokens of a plane or a volume make up
that sequence decides what a tile holds: parts of rows, blocks, or a curve's stretches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce as fold
from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from attnc.errors import AttncError
from attnc.ir.expr import Expr
from attnc.ir.presence import conjunction, conjuncts
from attnc.ir.put_in_numbers import put_in_numbers
from attnc.ir.tile_classes import axis_groups, conditions_on, tile_classes
from attnc.ir.tile_runs import IntArray
from attnc.ir.tiling import Axis, Bound
from attnc.ir.visibility import Visibility

FloatArray: TypeAlias = npt.NDArray[np.float32]
# Pairs of points of axes that a condition ties together, which are all held at once.
MOST_PAIRS = 1 << 26


@dataclass(frozen=True, slots=True)
class TokenOrder:
    """`tile`: blocks of this shape in row-major order, row-major inside; else the Morton curve.

    `steps`: tokens of one dilation group (coordinates of one remainder) come first, group by group.
    """

    tile: tuple[int, ...] | None
    steps: tuple[int, ...]

    @property
    def name(self) -> str:
        if self.tile is None:
            inside = "Morton"
        elif prod(self.tile) == 1:
            inside = "row-major"
        else:
            inside = f"blocks of {' x '.join(map(str, self.tile))}"
        groups = f", in groups of {' x '.join(map(str, self.steps))}"
        return inside + (groups if prod(self.steps) > 1 else "")

    @property
    def plain(self) -> bool:
        """Whether it is the row-major order."""
        return self.tile is not None and prod(self.tile) * prod(self.steps) == 1

    def places(self, extents: tuple[int, ...]) -> IntArray:
        """[tokens]: the place in this order of each token of the row-major grid."""
        points = np.indices(extents).reshape(len(extents), -1)
        groups = [x % d for x, d in zip(points, self.steps, strict=True)]
        inside = [x // d for x, d in zip(points, self.steps, strict=True)]
        if self.tile is None:
            keys = [_interleaved(inside, extents)]
        else:
            keys = [x // t for x, t in zip(inside, self.tile, strict=True)] + inside
        order = np.lexsort([*reversed(groups + keys)])
        found = np.empty(len(order), np.int64)
        found[order] = np.arange(len(order))
        return found


def _interleaved(point: list[IntArray], extents: tuple[int, ...]) -> IntArray:
    """The Morton code: the bits of the coordinates in turn, those of the innermost axis lowest."""
    code = np.zeros_like(point[0])
    for bit in range(max(n.bit_length() for n in extents)):
        for x in point:
            code = code << 1 | (x >> (max(n.bit_length() for n in extents) - 1 - bit) & 1)
    return code


def token_orders(axes: int, tokens: int, steps: tuple[int, ...]) -> tuple[TokenOrder, ...]:
    """Row-major, the Morton curve, and blocks of `tokens` tokens with sides that differ little.

    Sides are powers of two, none more than eight times another. With `steps`, orders by dilation
    group come in addition to the row-major one.
    """
    ones = (1,) * axes
    whole = tuple(TokenOrder(ones, each) for each in dict.fromkeys((ones, steps)))
    sides = [1 << i for i in range(tokens.bit_length())]
    blocks = (
        block
        for block in product(sides, repeat=axes)
        if prod(block) == 1 << (tokens.bit_length() - 1) and max(block) <= 8 * min(block)
    )
    return (*whole, TokenOrder(None, steps), *(TokenOrder(block, steps) for block in blocks))


@dataclass(frozen=True, slots=True)
class OrderCounts:
    """Flat tiles of tokens in an order.

    visited:  of each query tile (at each point of the grid), the key tiles that it visits
    full:     of these, those that are full
    """

    order: TokenOrder
    visited: IntArray
    full: IntArray
    key_tiles: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Axes that a condition ties together, and which of their points sees which: [rows, keys]."""

    rows: tuple[Axis, ...]
    keys: tuple[Axis, ...]
    seen: FloatArray


@dataclass(frozen=True, slots=True)
class SeenTokens:
    """What each token of a grid sees, axis by axis, at each point of `grid`.

    some:   parts of what some state sees, a product
    every:  parts of what all states see
    """

    grid: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    keys: tuple[Axis, ...]
    some: tuple[_Part, ...]
    every: tuple[_Part, ...]

    @property
    def visible(self) -> int:
        """Pairs of a query and a key that it sees."""
        return prod(int(p.seen.sum(dtype=np.float64)) for p in self.some)


def seen_tokens(
    visibility: Visibility,
    grid: tuple[Axis, ...],
    rows: tuple[Axis, ...],
    keys: tuple[Axis, ...],
    bound: Bound,
) -> SeenTokens:
    """What each query sees. Raises AttncError E533 where too many axes are tied together."""
    queries = (*grid, *rows)
    some = every = _parts(put_in_numbers(visibility.some, bound), queries, keys, bound)
    if visibility.every != visibility.some:
        every = _parts(put_in_numbers(visibility.every, bound), queries, keys, bound)
    return SeenTokens(grid, rows, keys, some, every)


def _parts(
    predicate: Expr, rows: tuple[Axis, ...], keys: tuple[Axis, ...], bound: Bound
) -> tuple[_Part, ...]:
    found: list[_Part] = []
    for names in axis_groups(conjuncts(predicate), (*rows, *keys), bound):
        queries, swept = (
            tuple(Axis(a.name, a.extent, 1) for a in axes if a.name in names)
            for axes in (rows, keys)
        )
        pairs = prod(a.extent for a in (*queries, *swept))
        if pairs > MOST_PAIRS:
            tied = ", ".join(f"`{a.name}`" for a in (*queries, *swept))
            raise AttncError(
                "E533",
                f"the mask ties {tied} together: {pairs} points are too many to compare orders",
                hint="compare them for a smaller grid",
            )
        here = conjunction(conditions_on(conjuncts(predicate), names, bound))
        classes = tile_classes(here, queries, swept, bound).runs().classes()
        found.append(_Part(queries, swept, (classes > 0).astype(np.float32)))
    return tuple(found)


def order_counts(seen: SeenTokens, order: TokenOrder, tile: tuple[int, int]) -> OrderCounts:
    """Tiles of `tile` queries and keys in this order; the last of each holds what is left."""
    extents = [tuple(a.extent for a in axes) for axes in (seen.rows, seen.keys)]
    queries, keys = (order.places(e) for e in extents)
    tile_of_key = (keys // tile[1]).reshape(extents[1])
    held = np.bincount(tile_of_key.ravel())
    some, every = (_Counter(p, seen.keys, tile_of_key) for p in (seen.some, seen.every))
    token = np.argsort(queries)
    visited, full = [], []
    for point in product(*(range(a.extent) for a in seen.grid)):
        at: dict[str, Any] = {a.name: x for a, x in zip(seen.grid, point, strict=True)}
        for low in range(0, len(token), tile[0]):
            mine = token[low : low + tile[0]]
            where = np.unravel_index(mine, extents[0])
            at |= {a.name: x for a, x in zip(seen.rows, where, strict=True)}
            pairs = some.pairs(at, len(mine))
            visited.append(int((pairs > 0).sum()))
            if seen.every is not seen.some:
                pairs = every.pairs(at, len(mine))
            full.append(int((pairs == held * len(mine)).sum()))
    return OrderCounts(order, np.array(visited, int), np.array(full, int), len(held))


class _Counter:
    """Counts pairs of queries and keys by the tile of the key."""

    def __init__(
        self, parts: tuple[_Part, ...], keys: tuple[Axis, ...], tile_of_key: IntArray
    ) -> None:
        self.parts = parts
        self.tiles = int(tile_of_key.max(initial=-1)) + 1
        # One axis per part.
        place = {a.name: i for i, a in enumerate(keys)}
        order = [place[a.name] for p in parts for a in p.keys]
        self.tile_of_key = tile_of_key.transpose(order).reshape([p.seen.shape[1] for p in parts])

    def pairs(self, at: dict[str, Any], queries: int) -> npt.NDArray[Any]:
        """[key tiles]: pairs of one of the queries at these coordinates and a key that it sees."""
        seen, boxes = [], []
        for p in self.parts:
            row = np.zeros(queries, np.int64)
            for a in p.rows:
                row = row * a.extent + at[a.name]
            # Only keys that one of them sees, axis by axis.
            box = np.flatnonzero(p.seen[np.unique(row)].any(axis=0))
            seen.append(p.seen[row][:, box])
            boxes.append(box)
        counts = _summed_products(seen)
        return np.bincount(self.tile_of_key[np.ix_(*boxes)].ravel(), counts.ravel(), self.tiles)


def _summed_products(seen: list[FloatArray]) -> FloatArray:
    """Over the queries, the sum of the outer products of what they see along each part."""
    first, *others = seen
    if not others:
        return np.asarray(first.sum(axis=0))
    rest = fold(lambda a, b: (a[:, :, None] * b[:, None]).reshape(len(a), -1), others)
    return np.asarray(first.T @ rest)
