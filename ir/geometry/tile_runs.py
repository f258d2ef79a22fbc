"""Which tiles are visited, as runs: all that a census, a block list or a kernel needs to know.

A matrix of tiles is never formed: a row holds its visited key tiles as runs of tiles of one class,
so a causal mask over a million tokens takes two runs per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
EMPTY, PARTIAL, FULL = 0, 1, 2
# Runs shorter than this on average are transposed tile by tile.
_SHORT = 4


@dataclass(frozen=True, slots=True)
class Runs:
    """Visited key tiles of each query tile, as runs of tiles of one class, in CSR form.

    keys:     number of key tiles
    offsets:  [rows + 1], where the runs of each row begin
    start:    first key tile of each run; increasing within a row
    stop:     one past its last; the runs of a row do not overlap, and neighbours differ in class
    full:     whether the tiles of the run are full; else they are partial
    """

    keys: int
    offsets: IntArray
    start: IntArray
    stop: IntArray
    full: BoolArray

    @property
    def rows(self) -> int:
        """Number of query tiles."""
        return len(self.offsets) - 1

    @property
    def row(self) -> IntArray:
        """The row of each run."""
        return np.repeat(np.arange(self.rows), np.diff(self.offsets))

    def visited(self) -> IntArray:
        """[rows]: key tiles visited by each query tile."""
        return _row_sums(self.offsets, self.stop - self.start)

    def full_tiles(self) -> IntArray:
        """[rows]: of these, those that are full."""
        return _row_sums(self.offsets, np.where(self.full, self.stop - self.start, 0))

    def transpose(self) -> Runs:
        """The query tiles that visit each key tile."""
        lengths = self.stop - self.start
        if lengths.sum() <= _SHORT * len(lengths):
            key, tile_row, tile_full = _by_key(self, lengths)
            return make_runs(self.keys, self.rows, key, tile_row, tile_row + 1, tile_full)
        parts = [_transposed(self, full) for full in (False, True)]
        key, start, stop, full = (np.concatenate(x) for x in zip(*parts, strict=True))
        return make_runs(self.keys, self.rows, key, start, stop, full)

    def lists(self, full: bool | None = None) -> tuple[IntArray, IntArray]:
        """(offsets [rows + 1], key tiles): single tiles of one class, or of both, ascending."""
        kept = slice(None) if full is None else self.full == full
        start, stop, row = self.start[kept], self.stop[kept], self.row[kept]
        counts = np.bincount(row, weights=stop - start, minlength=self.rows).astype(np.int64)
        return offsets_of(counts), expand(start, stop)

    def classes(self) -> npt.NDArray[np.int8]:
        """[rows, keys]: 0 empty, 1 partial, 2 full. Forms the matrix: for tests and pictures."""
        found = np.zeros((self.rows, self.keys), np.int8)
        lengths = self.stop - self.start
        row, full = np.repeat(self.row, lengths), np.repeat(self.full, lengths)
        found[row, expand(self.start, self.stop)] = np.where(full, FULL, PARTIAL)
        return found


def make_runs(
    rows: int, keys: int, row: IntArray, start: IntArray, stop: IntArray, full: BoolArray
) -> Runs:
    """Runs from pieces in any order that do not overlap; neighbours of one class are merged."""
    if not len(row):
        return no_runs(rows, keys)
    place = row * keys + start
    if (place[1:] < place[:-1]).any():
        order = np.argsort(place, kind="stable")
        row, start, stop, full = row[order], start[order], stop[order], full[order]
    new = (row[1:] != row[:-1]) | (start[1:] != stop[:-1]) | (full[1:] != full[:-1])
    first = np.flatnonzero(np.concatenate([[True], new]))
    last = np.append(first[1:], len(row)) - 1
    offsets = offsets_of(np.bincount(row[first], minlength=rows))
    return Runs(keys, offsets, start[first], stop[last], full[first])


def no_runs(rows: int, keys: int) -> Runs:
    """Every tile empty."""
    nothing = np.zeros(0, np.int64)
    return Runs(keys, np.zeros(rows + 1, np.int64), nothing, nothing, nothing.astype(bool))


def whole(rows: int, keys: int) -> Runs:
    """Every tile full."""
    every = np.arange(rows if keys else 0)
    return make_runs(rows, keys, every, 0 * every, 0 * every + keys, every >= 0)


def expand(start: IntArray, stop: IntArray) -> IntArray:
    """The integers of many ranges, one after another."""
    lengths = stop - start
    before = np.cumsum(lengths) - lengths
    found: IntArray = np.arange(int(lengths.sum())) + np.repeat(start - before, lengths)
    return found


def offsets_of(counts: npt.NDArray[Any]) -> IntArray:
    """Where each of several lists begins and ends when they are laid one after another."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _row_sums(offsets: IntArray, values: IntArray) -> IntArray:
    total = offsets_of(values)
    return total[offsets[1:]] - total[offsets[:-1]]


def _by_key(runs: Runs, lengths: IntArray) -> tuple[IntArray, IntArray, BoolArray]:
    """(key tile, row, class) of each visited tile, by key and then by row."""
    keys = expand(runs.start, runs.stop)
    order = _sorted(keys, runs.keys)
    row = np.repeat(runs.row, lengths)
    return keys[order], row[order], np.repeat(runs.full, lengths)[order]


def _sorted(keys: IntArray, bound: int) -> IntArray:
    """The stable order of keys below a bound."""
    # Short integers are sorted by radix, in a pass or two.
    return np.argsort(keys.astype(np.uint16) if bound <= 1 << 16 else keys, kind="stable")


def _transposed(runs: Runs, full: bool) -> tuple[IntArray, IntArray, IntArray, BoolArray]:
    """(key tile, first row, one past the last row, class) of all runs of one class, transposed.

    A run of rows begins in row r at the keys that r visits and r - 1 does not, and ends before r at
    those that r - 1 visits and r does not: per key, beginnings and ends alternate.
    """
    kept = runs.full == full
    row, start, stop = runs.row[kept], runs.start[kept], runs.stop[kept]
    # Each run opens and closes in its own row (weight 1) and in the next (weight 2, as "before").
    at = np.concatenate([row, row, row + 1, row + 1])
    key = np.concatenate([start, stop, start, stop])
    weight = np.repeat([1, -1, 2, -2], len(row))
    # Four ascending sequences, which a stable sort only has to merge.
    order = np.argsort(at * (runs.keys + 1) + key, kind="stable")
    at, key = at[order], key[order]
    state = np.cumsum(weight[order])
    begins, ends = (
        _points(at, key, np.flatnonzero(state[:-1] == only), runs.keys) for only in (1, 2)
    )
    return begins[0], begins[1], ends[1], np.full(len(begins[0]), full, bool)


def _points(at: IntArray, key: IntArray, place: IntArray, bound: int) -> tuple[IntArray, IntArray]:
    """(key, row) of the segments from event `place` to the next, by key and then by row."""
    start, stop = key[place], key[place + 1]
    keys = expand(start, stop)
    rows = np.repeat(at[place], stop - start)
    order = _sorted(keys, bound)
    return keys[order], rows[order]
