"""Tile classes of independent groups of axes, put together into those of all axes."""

from __future__ import annotations

from math import prod
from typing import TypeAlias

import numpy as np

from attnc.ir.geometry.tile_runs import BoolArray, IntArray, Runs, expand, make_runs
from attnc.ir.geometry.tiling import Axis

# The axes of rows and of keys of a factor, and the runs over their tiles.
Part: TypeAlias = tuple[tuple[Axis, ...], tuple[Axis, ...], Runs]


def product_runs(rows: tuple[Axis, ...], keys: tuple[Axis, ...], parts: tuple[Part, ...]) -> Runs:
    """Runs over all row axes and all key axes, each row-major in the order given."""
    if len(parts) == 1 and parts[0][:2] == (rows, keys):
        return parts[0][2]
    last = next((p for p in parts if p[1] and p[1] == keys[-len(p[1]) :]), None)
    total, width = (prod(a.tiles for a in axes) for axes in (rows, keys))
    row = np.arange(total)
    base, full = np.zeros_like(row), np.ones(len(row), bool)
    for part in parts:
        if part is last:
            continue
        offsets, tiles, filled = _tiles(part[2])
        moved = _renumber(tiles, part[1], keys)
        piece, entry = _entries(offsets, _renumber(row, rows, part[0]))
        row, base, full = row[piece], base[piece] + moved[entry], full[piece] & filled[entry]
    if last is None:
        return make_runs(total, width, row, base, base + 1, full)
    runs = last[2]
    piece, entry = _entries(runs.offsets, _renumber(row, rows, last[0]))
    start, stop = base[piece] + runs.start[entry], base[piece] + runs.stop[entry]
    return make_runs(total, width, row[piece], start, stop, full[piece] & runs.full[entry])


def _tiles(runs: Runs) -> tuple[IntArray, IntArray, BoolArray]:
    """(offsets [rows + 1], key tile, whether full) of each visited tile."""
    offsets, tiles = runs.lists()
    return offsets, tiles, np.repeat(runs.full, runs.stop - runs.start)


def _entries(offsets: IntArray, row: IntArray) -> tuple[IntArray, IntArray]:
    """Every pair of a piece, which is in `row[piece]`, and an entry of that row."""
    start, stop = offsets[row], offsets[row + 1]
    return np.repeat(np.arange(len(row)), stop - start), expand(start, stop)


def _renumber(tile: IntArray, source: tuple[Axis, ...], target: tuple[Axis, ...]) -> IntArray:
    """Tiles numbered row-major over `source`, as numbered over `target`.

    An axis that only the target has is at 0, one that only the source has is dropped.
    """
    found = np.zeros_like(tile)
    strides = {a.name: prod(b.tiles for b in target[i + 1 :]) for i, a in enumerate(target)}
    for axis in reversed(source):
        tiles = max(1, axis.tiles)
        found += tile % tiles * strides.get(axis.name, 0)
        tile = tile // tiles
    return found
