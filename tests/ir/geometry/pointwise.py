"""Predicates evaluated at every point of a space, by numpy alone: the reference of tile classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.geometry.tile_classes import Axis, Bound

TRUE = Number(True)
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "exactdiv": np.floor_divide,
    "div": np.true_divide,
    "pow": lambda a, b: np.power(np.float64(a), np.float64(b)),
}
_UNARY: dict[str, Callable[[Any], Any]] = {
    "not": np.logical_not,
    "neg": np.negative,
    "abs": np.abs,
    "float": np.float64,
}


def value(e: Expr, at: Mapping[str, Any], bound: Bound) -> tuple[Any, Any]:
    """(value, whether it is present); an index that leaves its tensor is moved to the edge."""
    match e:
        case Number(number):
            return number, True
        case Index(rank):
            return at[rank], True
        case Extent(rank):
            return bound.extents[rank], True
        case Param(name, item):
            given = bound.params[name]
            return (given[item or 0] if isinstance(given, tuple) else given), True
        case Read(tensor, indices):
            data = bound.tensors[tensor]
            found = [value(i, at, bound) for i in indices]
            places = [np.clip(x, 0, n - 1) for (x, _), n in zip(found, data.shape, strict=True)]
            present = np.logical_and.reduce(np.broadcast_arrays(True, *(p for _, p in found)))
            return (data[tuple(places)] if data.size else data.dtype.type(0)), present
        case Apply("select", (c, a, b)):
            (chosen, known), (x, in_x), (y, in_y) = (value(s, at, bound) for s in (c, a, b))
            return np.where(chosen, x, y), known & np.where(chosen, in_x, in_y)
        case Apply("clamp", (x, low, high)):
            parts = [value(s, at, bound) for s in (x, low, high)]
            return (
                np.minimum(np.maximum(parts[0][0], parts[1][0]), parts[2][0]),
                parts[0][1] & parts[1][1] & parts[2][1],
            )
        case Apply(op, (a,)):
            x, known = value(a, at, bound)
            return _UNARY[op](x), known
        case Apply(op, (a, b)):
            (x, in_x), (y, in_y) = value(a, at, bound), value(b, at, bound)
            known = in_x & in_y
            if op in ("floordiv", "mod", "div"):
                known, y = known & np.not_equal(y, 0), np.where(np.equal(y, 0), 1, y)
            return _BINARY[op](x, y), known
    raise AssertionError(e)


def holds(e: Expr, axes: tuple[Axis, ...], bound: Bound) -> Any:
    """Whether the predicate holds, at each point of the axes' extents."""
    shape = tuple(a.extent for a in axes)
    grid = dict(zip((a.name for a in axes), np.indices(shape, sparse=True), strict=True))
    _add_parts(grid, bound)
    for whole, parts in bound.components.items():
        if whole not in grid and all(p in grid for p in parts):
            total: Any = 0
            for part in parts:
                total = total * bound.extents[part] + grid[part]
            grid[whole] = total
    found, known = value(e, grid, bound)
    return np.broadcast_to(np.logical_and(found, known), shape)


def _add_parts(grid: dict[str, Any], bound: Bound) -> None:
    for whole, parts in bound.components.items():
        if whole in grid:
            rest = grid[whole]
            for part in reversed(parts):
                grid[part] = rest % max(1, bound.extents[part])
                rest = rest // max(1, bound.extents[part])


def classes(
    predicate: Expr,
    rows: tuple[Axis, ...],
    keys: tuple[Axis, ...],
    bound: Bound,
    exists: Expr = TRUE,
) -> Any:
    """[row tiles, key tiles]: 0 empty, 1 partial, 2 full."""
    axes = rows + keys
    visible, there = (holds(e, axes, bound) for e in (predicate, exists))
    counts = [visible & there, np.array(there)]
    for i, axis in enumerate(axes):
        padding = [(0, 0)] * len(axes)
        padding[i] = (0, axis.tiles * axis.tile - axis.extent)
        for j, x in enumerate(counts):
            x = np.moveaxis(np.pad(x, padding), i, 0)
            x = x.reshape(axis.tiles, axis.tile, *x.shape[1:]).sum(axis=1)
            counts[j] = np.moveaxis(x, 0, i)
    shape = tuple(prod(a.tiles for a in side) for side in (rows, keys))
    seen, points = (x.reshape(shape) for x in counts)
    return np.where(seen == 0, 0, np.where(seen == points, 2, 1))
