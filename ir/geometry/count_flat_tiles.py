"""Count the flat tiles that a mask of grids visits, for tokens in any order, exactly.

A tile of a sequence is no box of the grid. What its queries see along each axis is a small matrix,
and the number of queries that see a key is a sum over the queries of products of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce as fold
from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from attnc.ir.expr import Expr
from attnc.ir.geometry.tile_classes import axis_groups, conditions_on, tile_classes
from attnc.ir.geometry.tile_runs import IntArray
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.geometry.token_order import TokenOrder
from attnc.ir.presence import conjunction, conjuncts

FloatArray: TypeAlias = npt.NDArray[np.float32]
# Pairs of points of axes that a condition ties together, which are all held at once.
MOST_PAIRS = 1 << 26


@dataclass(frozen=True, slots=True)
class FlatCounts:
    """Flat tiles of tokens.

    visited:    of each query tile (at each point of the grid), the key tiles that it visits
    full:       of these, those that are full
    key_tiles:  key tiles on the fixed grid
    """

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

    some:   what some state sees, as a product of parts
    every:  what all states see
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
    some: Expr,
    every: Expr,
    grid: tuple[Axis, ...],
    rows: tuple[Axis, ...],
    keys: tuple[Axis, ...],
    bound: Bound,
) -> SeenTokens | None:
    """What each query sees; None where conditions tie axes together that are too large."""
    parts = [
        _parts(e, (*grid, *rows), keys, bound)
        for e in ((some,) if every == some else (some, every))
    ]
    if parts[0] is None or parts[-1] is None:
        return None
    return SeenTokens(grid, rows, keys, parts[0], parts[-1])


def _parts(
    predicate: Expr, rows: tuple[Axis, ...], keys: tuple[Axis, ...], bound: Bound
) -> tuple[_Part, ...] | None:
    found: list[_Part] = []
    for names in axis_groups(conjuncts(predicate), (*rows, *keys), bound):
        queries, swept = (
            tuple(Axis(a.name, a.extent, 1) for a in axes if a.name in names)
            for axes in (rows, keys)
        )
        if prod(a.extent for a in (*queries, *swept)) > MOST_PAIRS:
            return None
        here = conjunction(conditions_on(conjuncts(predicate), names, bound))
        classes = tile_classes(here, queries, swept, bound).runs().classes()
        found.append(_Part(queries, swept, (classes > 0).astype(np.float32)))
    return tuple(found)


def count_flat_tiles(
    seen: SeenTokens,
    tile: tuple[int, int],
    order: TokenOrder | None = None,
    *,
    shifted: bool = False,
) -> FlatCounts:
    """Tiles of `tile` queries and keys; the last of each holds what is left.

    `order`: of the tokens of both grids, else row-major. `shifted`: key tiles start at the first
    key that the query tile sees.
    """
    extents = [tuple(a.extent for a in axes) for axes in (seen.rows, seen.keys)]
    rows, keys = (np.arange(prod(e)) if order is None else order.places(e) for e in extents)
    token = np.argsort(rows)
    some, every = (_Sight(p, seen.keys, keys.reshape(extents[1])) for p in (seen.some, seen.every))
    visited, full = [], []
    for point in product(*(range(a.extent) for a in seen.grid)):
        at: dict[str, Any] = {a.name: x for a, x in zip(seen.grid, point, strict=True)}
        for low in range(0, len(token), tile[0]):
            mine = token[low : low + tile[0]]
            where = np.unravel_index(mine, extents[0])
            at |= {a.name: x for a, x in zip(seen.rows, where, strict=True)}
            place, counts = some.queries_that_see(at, len(mine))
            first = int(place[counts > 0].min(initial=len(keys))) if shifted else 0
            tiles = -(-(len(keys) - first) // tile[1])
            held = np.minimum(tile[1], len(keys) - first - tile[1] * np.arange(tiles))
            pairs = _by_tile(place, counts, first, tile[1], tiles)
            visited.append(int((pairs > 0).sum()))
            if seen.every is not seen.some:
                pairs = _by_tile(*every.queries_that_see(at, len(mine)), first, tile[1], tiles)
            full.append(int((pairs == held * len(mine)).sum()))
    return FlatCounts(np.array(visited, int), np.array(full, int), -(-len(keys) // tile[1]))


def _by_tile(
    place: IntArray, counts: FloatArray, first: int, tile: int, tiles: int
) -> npt.NDArray[np.float64]:
    """[key tiles]: pairs of a query and a key of the tile that it sees."""
    after = place >= first
    found = np.bincount((place[after] - first) // tile, counts[after], tiles)
    return np.asarray(found, np.float64)


class _Sight:
    """Which keys some queries see: `place` is that of each key of the grid."""

    def __init__(self, parts: tuple[_Part, ...], keys: tuple[Axis, ...], place: IntArray) -> None:
        self.parts = parts
        axis = {a.name: i for i, a in enumerate(keys)}
        order = [axis[a.name] for p in parts for a in p.keys]
        # One axis per part.
        self.place = place.transpose(order).reshape([p.seen.shape[1] for p in parts])

    def queries_that_see(self, at: dict[str, Any], queries: int) -> tuple[IntArray, FloatArray]:
        """(places of keys, how many of the queries at these coordinates see each)."""
        seen, boxes = [], []
        for p in self.parts:
            row = np.zeros(queries, np.int64)
            for a in p.rows:
                row = row * a.extent + at[a.name]
            # Only keys that one of them sees, axis by axis.
            box = np.flatnonzero(p.seen[np.unique(row)].any(axis=0))
            seen.append(p.seen[row][:, box])
            boxes.append(box)
        return self.place[np.ix_(*boxes)].ravel(), _summed_products(seen).ravel()


def _summed_products(seen: list[FloatArray]) -> FloatArray:
    """Over the queries, the sum of the outer products of what they see along each part."""
    first, *others = seen
    if not others:
        return np.asarray(first.sum(axis=0))
    rest = fold(lambda a, b: (a[:, :, None] * b[:, None]).reshape(len(a), -1), others)
    return np.asarray(first.T @ rest)
