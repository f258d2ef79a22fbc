"""A mask at the resolution of a page: what is too fine for it is averaged exactly.

No array of M x N points or tiles is formed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Expr
from attnc.ir.frame import Scope
from attnc.ir.geometry.tile_runs import Runs
from attnc.ir.geometry.tiling import Axis

Shares: TypeAlias = NDArray[np.float32]

# What a point can be; PARTIAL where the points of partial tiles are too many to look at.
KINDS = EMPTY, HIDDEN, VISIBLE, FULL, PARTIAL = range(5)
# Cells of an image along an axis: fewer than pixels, so that no viewer has to leave any out.
CELLS = 900
# Points of partial tiles that are looked at one by one.
_POINTS = 1 << 25


Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """An image with axes. Lengths are in its units: tokens, or tiles.

    shares:   [rows, columns, kinds], of each cell's points the share of each kind
    size:     (height, width); cell, step: of a cell and of a tile
    outlines: visited key tiles, (y, x, height, width); `box` is the query's tile, `point` the query
    marked:   the row, in these units, that is the query's
    ruled:    whether tiles lie on the fixed grid, whose lines are drawn
    """

    shares: Shares
    size: tuple[int, int]
    cell: tuple[int, int]
    step: tuple[int, int]
    labels: tuple[str, str]
    title: str = ""
    square: bool = True
    outlines: tuple[Box, ...] = ()
    box: Box | None = None
    point: tuple[int, int] | None = None
    marked: int | None = None
    ruled: bool = True


@dataclass(frozen=True, slots=True)
class Points:
    """A predicate that can be looked at point by point. `scope` has all but the box."""

    predicate: Expr
    scope: Scope

    def visible(self, box: Mapping[str, range]) -> NDArray[np.bool_]:
        """At every point of a box, one axis per coordinate, in its order."""
        found = evaluate(self.predicate, self.scope.at(box))
        data: NDArray[np.bool_] = found.data
        return data if found.present is None else data & found.present


def matrix_of_points(points: Points, row: Axis, key: Axis, runs: Runs) -> tuple[Panel, bool]:
    """Queries by keys in tokens, and whether the points of partial tiles are shown."""
    cell = cell_size(row.extent, row.tile), cell_size(key.extent, key.tile)
    many = _partial(runs) * row.tile * key.tile
    resolved = cell[0] <= row.tile and cell[1] <= key.tile and many <= _POINTS
    if resolved:
        shares = _point_shares(points, row, key, runs, cell)
    else:
        group = tuple(ceil(x.tiles / CELLS) for x in (row, key))
        cell = group[0] * row.tile, group[1] * key.tile
        shares = tile_shares(runs, (group[0], group[1]))
    size = row.extent, key.extent
    alike = max(size) <= 4 * min(size)
    labels = f"queries {row.name}", f"keys {key.name}"
    panel = Panel(shares, size, cell, (row.tile, key.tile), labels, square=alike)
    return panel, resolved


def matrix_of_tiles(runs: Runs, labels: tuple[str, str], marked: int | None) -> Panel:
    """Query tiles by key tiles, each in row-major order."""
    group = ceil(runs.rows / CELLS) or 1, ceil(runs.keys / CELLS) or 1
    return Panel(
        tile_shares(runs, group),
        (runs.rows, runs.keys),
        group,
        (1, 1),
        labels,
        "all tiles on their fixed grid, row-major",
        square=False,
        marked=marked,
    )


def cell_size(extent: int, tile: int) -> int:
    """Tokens of a cell: a divisor of the tile that makes few enough of them, or whole tiles."""
    least = ceil(extent / CELLS)
    divisors = (n for n in range(max(1, least), tile + 1) if tile % n == 0)
    return next(divisors, tile * ceil(extent / tile / CELLS))


def _partial(runs: Runs) -> int:
    return int((runs.stop - runs.start)[~runs.full].sum())


def tile_shares(runs: Runs, group: tuple[int, int]) -> Shares:
    """Of each cell of `group` tiles the share of each class: exact, in memory of runs and cells."""
    high, wide = group
    rows, columns = ceil(runs.rows / high), ceil(runs.keys / wide)
    shares = np.zeros((rows, columns, len(KINDS)), np.float32)
    cell = np.repeat(np.arange(runs.rows), np.diff(runs.offsets)) // high
    inside = np.outer(_lengths(runs.rows, high), _lengths(runs.keys, wide))
    for kind, chosen in ((FULL, runs.full), (PARTIAL, ~runs.full)):
        covered = np.zeros(rows * (columns + 1))
        edges = np.zeros(rows * (columns + 1))
        # A run up to x covers the columns before x's own, and of that one what lies before x.
        for bound, sign in ((runs.stop[chosen], 1), (runs.start[chosen], -1)):
            column = bound // wide
            place = cell[chosen] * (columns + 1) + column
            weight = np.full(len(place), -sign * wide)
            covered += np.bincount(place, weight, minlength=covered.size)
            edges += np.bincount(place, sign * (bound - column * wide), minlength=edges.size)
        shape = rows, columns + 1
        both = np.cumsum(covered.reshape(shape), 1) + edges.reshape(shape)
        shares[..., kind] = both[:, :columns] / inside
    shares[..., EMPTY] = 1 - shares[..., FULL] - shares[..., PARTIAL]
    return shares


def _lengths(n: int, step: int) -> NDArray[np.int64]:
    """Of 0 .. n - 1 in pieces of `step`: how many are in each piece."""
    return np.diff(np.append(np.arange(0, n, step), n))


def _point_shares(
    points: Points, row: Axis, key: Axis, runs: Runs, cell: tuple[int, int]
) -> Shares:
    high, wide = cell
    columns = ceil(key.extent / wide)
    shares = np.zeros((ceil(row.extent / high), columns, len(KINDS)), np.float32)
    shares[..., EMPTY] = 1
    for tile in range(runs.rows):
        span = range(tile * row.tile, min((tile + 1) * row.tile, row.extent))
        strip = shares[span.start // high : ceil(span.stop / high)]
        for i in range(runs.offsets[tile], runs.offsets[tile + 1]):
            start, stop = int(runs.start[i]) * key.tile, int(runs.stop[i]) * key.tile
            across = range(start, min(stop, key.extent))
            part = strip[:, across.start // wide : ceil(across.stop / wide)]
            part[..., EMPTY] = 0
            if runs.full[i]:
                part[..., FULL] = 1
                continue
            seen = mean_shares(points.visible({row.name: span, key.name: across}), cell)
            part[..., VISIBLE], part[..., HIDDEN] = seen, 1 - seen
    return shares


def mean_shares(x: NDArray[np.bool_], cell: tuple[int, int]) -> Shares:
    """The share of true points in each cell of the last two axes; the last cells may be smaller."""
    total = x.astype(np.float32)
    for axis, step in ((-2, cell[0]), (-1, cell[1])):
        if step > 1:
            total = np.add.reduceat(total, np.arange(0, x.shape[axis], step), axis)
    high, wide = (_lengths(n, step) for n, step in zip(x.shape[-2:], cell, strict=True))
    return (total / np.outer(high, wide)).astype(np.float32)
