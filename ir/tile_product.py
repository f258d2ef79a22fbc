"""Tile classes of independent groups of axes, put together into those of all axes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from attnc.ir.tile_runs import BoolArray, IntArray, Runs, expand, make_runs

if TYPE_CHECKING:
    from attnc.ir.tile_classes import TileClasses
    from attnc.ir.tiling import Axis


def product_runs(classes: TileClasses) -> Runs:
    """Runs over all row axes and all key axes, each row-major in the order given."""
    rows, keys = classes.row_axes, classes.key_axes
    if len(classes.factors) == 1 and classes.factors[0].keys == keys:
        return classes.factors[0].runs
    last = next((f for f in classes.factors if f.keys and f.keys == keys[-len(f.keys) :]), None)
    row = np.arange(prod(a.tiles for a in rows))
    base, full = np.zeros_like(row), np.ones(len(row), bool)
    for factor in classes.factors:
        if factor is last:
            continue
        offsets, tiles, filled = _tiles(factor.runs)
        moved = _renumber(tiles, factor.keys, keys)
        piece, entry = _entries(offsets, _renumber(row, rows, factor.rows))
        row, base, full = row[piece], base[piece] + moved[entry], full[piece] & filled[entry]
    if last is None:
        return make_runs(classes.rows, classes.keys, row, base, base + 1, full)
    runs = last.runs
    piece, entry = _entries(runs.offsets, _renumber(row, rows, last.rows))
    base = base[piece]
    start, stop = base + runs.start[entry], base + runs.stop[entry]
    return make_runs(
        classes.rows, classes.keys, row[piece], start, stop, full[piece] & runs.full[entry]
    )


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
