"""Key tiles that start at the window: at the first key that some query of the query tile sees.

Tile j along an axis holds the keys from `first + j T` to `first + (j + 1) T`, cut at the end of the
axis; visited are those that hold a visible point.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from attnc.ir.geometry.tile_runs import IntArray, Runs, expand
from attnc.ir.geometry.tiling import Axis

# Keys that are listed one by one at a time.
_CHUNK = 1 << 21


def shifted_tiles(some: Runs, every: Runs, keys: tuple[Axis, ...]) -> tuple[IntArray, IntArray]:
    """(visited, full) key tiles of each query tile.

    `some` and `every` are runs of single keys, row-major over `keys`: those that some query of the
    tile sees, and (`full`) those that all of them see; `keys` have the tiles to count.
    """
    if len(keys) == 1:
        return _along_axis(some, every, keys[0])
    blocks = [_over_axes(some, every, keys, rows) for rows in _blocks(some)]
    visited, full = (np.concatenate([np.zeros(0, np.int64), *x]) for x in zip(*blocks, strict=True))
    return visited, full


def _along_axis(some: Runs, every: Runs, key: Axis) -> tuple[IntArray, IntArray]:
    first = np.zeros(some.rows, np.int64)
    seen = np.diff(some.offsets) > 0
    first[seen] = some.start[some.offsets[:-1][seen]]
    row, begin = some.row, first[some.row]
    low, high = (some.start - begin) // key.tile, (some.stop - 1 - begin) // key.tile
    # Two runs of a row may end and begin in the same tile.
    again = np.zeros(len(row), bool)
    again[1:] = (row[1:] == row[:-1]) & (high[:-1] == low[1:])
    visited = _sums(row, high - low + 1 - again, some.rows)
    begin = first[every.row]
    low = -((begin - every.start) // key.tile)
    ends = every.stop - begin + np.where(every.stop == key.extent, key.tile - 1, 0)
    tiles = np.where(every.full, np.maximum(ends // key.tile - low, 0), 0)
    return visited, _sums(every.row, tiles, some.rows)


def _sums(row: IntArray, values: IntArray, rows: int) -> IntArray:
    total = np.zeros(rows, np.int64)
    np.add.at(total, row, values)
    return total


def _blocks(runs: Runs) -> Iterator[range]:
    """Rows in blocks of bounded size."""
    points = np.cumsum(runs.visited())
    low = 0
    while low < runs.rows:
        before = points[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(points, before + _CHUNK, "right")))
        yield range(low, high)
        low = high


def _over_axes(
    some: Runs, every: Runs, keys: tuple[Axis, ...], rows: range
) -> tuple[IntArray, IntArray]:
    """The same for tiles over several axes, key by key."""
    row, place = _keys_of(some, rows, whole=False)
    first = np.zeros((len(keys), len(rows)), np.int64)
    for i, x in enumerate(_coordinates(place, keys)):
        least = np.full(len(rows), keys[i].extent)
        np.minimum.at(least, row, x)
        first[i] = least
    shape = tuple(a.tiles for a in keys)
    visited = np.unique(_tiles(row, place, keys, first, shape))
    row, place = _keys_of(every, rows, whole=True)
    tiles, held = np.unique(_tiles(row, place, keys, first, shape), return_counts=True)
    of_row, *at = np.unravel_index(tiles, (len(rows), *shape))
    there = np.ones(len(tiles), np.int64)
    for i, (a, j) in enumerate(zip(keys, at, strict=True)):
        there *= np.minimum(a.tile, a.extent - first[i][of_row] - j * a.tile)
    n = len(rows)
    return (
        np.bincount(visited // prod(shape), minlength=n),
        np.bincount(of_row[held == there], minlength=n),
    )


def _keys_of(runs: Runs, rows: range, *, whole: bool) -> tuple[IntArray, IntArray]:
    """(row in the block, key) of every key of the block; `whole`: that all queries see."""
    part = slice(runs.offsets[rows.start], runs.offsets[rows.stop])
    row, start, stop = runs.row[part] - rows.start, runs.start[part], runs.stop[part]
    if whole:
        kept = runs.full[part]
        row, start, stop = row[kept], start[kept], stop[kept]
    return np.repeat(row, stop - start), expand(start, stop)


def _coordinates(place: IntArray, keys: tuple[Axis, ...]) -> tuple[IntArray, ...]:
    return np.unravel_index(place, tuple(a.extent for a in keys)) if keys else ()


def _tiles(
    row: IntArray,
    place: IntArray,
    keys: tuple[Axis, ...],
    first: IntArray,
    shape: tuple[int, ...],
) -> IntArray:
    """The number of (row, tile) that each key is in."""
    found = row
    for i, (x, a) in enumerate(zip(_coordinates(place, keys), keys, strict=True)):
        found = found * shape[i] + (x - first[i][row]) // a.tile
    return found
