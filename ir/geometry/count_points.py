"""Count the pairs of a query and a key that a predicate lets see each other, exactly.

Whole tiles are counted by their size; only the tiles on the boundary are evaluated, point by point.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce as fold
from math import prod

import numpy as np

from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.frame import Scope, Value
from attnc.ir.geometry.row_ranges import row_ranges
from attnc.ir.geometry.tile_classes import tile_classes
from attnc.ir.geometry.tile_runs import IntArray, Runs
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.presence import conjunction
from attnc.ir.walk import index_ranks, subexprs, substitute_indices

# Up to so many pairs, every one is a tile of its own.
_FEW = 1 << 20
# Tokens of a tile on each side, and points that are evaluated at once.
_TOKENS = 16
_CHUNK = 1 << 22


def count_points(
    predicate: Expr, rows: tuple[Axis, ...], keys: tuple[Axis, ...], bound: Bound
) -> int:
    """The number of pairs at which the predicate holds; the tiles of the axes do not matter.

    For axes that conditions tie together: runs are formed over all of them.
    """
    counted = _in_ranges(predicate, rows, keys)
    if counted is not None:
        return counted
    named = index_ranks(predicate) <= {a.name for a in (*rows, *keys)}
    few = prod(a.extent for a in (*rows, *keys)) <= _FEW
    cut = _single if few or not named else _small
    classes = tile_classes(predicate, cut(rows), cut(keys), bound)
    if cut is _single:
        return classes.visited
    runs = classes.runs()
    whole = _in_full(runs, classes.row_axes, classes.key_axes)
    return whole + _in_partial(predicate, runs, classes.row_axes, classes.key_axes, bound)


def _in_ranges(predicate: Expr, rows: tuple[Axis, ...], keys: tuple[Axis, ...]) -> int | None:
    """The number of pairs where each row is known to see one range of keys; else None."""
    if len(rows) != 1 or len(keys) != 1 or rows[0].extent > _CHUNK:
        return None
    (row,), (key,) = rows, keys
    put_in = not any(isinstance(e, (Param, Extent)) for e in subexprs(predicate))
    if not put_in or not index_ranks(predicate) <= {row.name, key.name}:
        return None
    ranges = row_ranges(predicate, (row.name, row.extent), (key.name, key.extent))
    if ranges is None:
        return None
    low, high = ranges.at(np.arange(row.extent))
    return int(np.maximum(np.minimum(high, key.extent) - np.maximum(low, 0), 0).sum())


def _single(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    return tuple(replace(a, tile=1) for a in axes)


def _small(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """About 16 tokens, over all axes alike; what is not cut into tiles (a head) stays apart."""
    cut = sum(a.tile > 1 for a in axes)
    side = max(1, round(_TOKENS ** (1 / max(1, cut))))
    return tuple(replace(a, tile=side) if a.tile > 1 else a for a in axes)


def _sizes(axes: tuple[Axis, ...]) -> IntArray:
    """[tiles]: points of each tile that exist."""
    cuts = (np.minimum(a.tile, a.extent - np.arange(0, a.extent, a.tile)) for a in axes)
    return fold(lambda a, b: np.outer(a, b).ravel(), cuts, np.ones(1, np.int64))


def _in_full(runs: Runs, rows: tuple[Axis, ...], keys: tuple[Axis, ...]) -> int:
    before = np.concatenate([[0], np.cumsum(_sizes(keys))])
    full = runs.full
    points = _sizes(rows)[runs.row[full]] * (before[runs.stop[full]] - before[runs.start[full]])
    return int(points.sum())


def _in_partial(
    predicate: Expr, runs: Runs, rows: tuple[Axis, ...], keys: tuple[Axis, ...], bound: Bound
) -> int:
    offsets, key = runs.lists(full=False)
    row = np.repeat(np.arange(runs.rows), np.diff(offsets))
    axes = (*rows, *keys)
    origin = {**_origins(rows, row), **_origins(keys, key)}
    step = max(1, _CHUNK // prod(a.tile for a in axes))
    point = {a.name: _place(a) for a in axes}
    inside = conjunction(
        tuple(Apply("lt", (point[a.name], Number(a.extent))) for a in axes if a.extent % a.tile)
    )
    local = substitute_indices(predicate, point)
    box = {f"{a.name} in tile": range(a.tile) for a in axes}
    held = {n: Value(np.asarray(x), ("",) * np.ndim(x)) for n, x in bound.tensors.items()}
    total = 0
    for low in range(0, len(row), step):
        tiles = {f"start of {n}": Value(x[low : low + step], ("",)) for n, x in origin.items()}
        scope = Scope(
            tensors={**held, **tiles},
            extents=bound.extents,
            params=bound.params,
            box={"tile": range(min(step, len(row) - low)), **box},
        )
        found = evaluate(local, scope, inside)
        holds = found.data if found.present is None else found.data & found.present
        total += int(np.count_nonzero(np.broadcast_to(holds, _shape(scope))))
    return total


def _shape(scope: Scope) -> tuple[int, ...]:
    return tuple(len(span) for span in scope.box.values())


def _place(a: Axis) -> Expr:
    """The coordinate of a point of the tile: where the tile starts, and how far into it."""
    start = Read(f"start of {a.name}", (Index("tile"),))
    return Apply("add", (start, Index(f"{a.name} in tile")))


def _origins(axes: tuple[Axis, ...], tile: IntArray) -> dict[str, IntArray]:
    """Per axis, the first coordinate of each of these tiles."""
    if not axes:
        return {}
    places = (
        np.unravel_index(tile, tuple(a.tiles for a in axes)) if len(tile) else [tile] * len(axes)
    )
    return {a.name: x * a.tile for a, x in zip(axes, places, strict=True)}
