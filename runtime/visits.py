"""Which spans of the swept rank a row tile visits, and where in them a mask is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from attnc.ir.expr import Expr
from attnc.ir.frame import Box
from attnc.ir.geometry.tile_classes import tile_classes
from attnc.ir.geometry.tile_runs import Runs, expand, make_runs, whole
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.presence import TRUE
from attnc.ir.visibility import Visibility

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring tiles that are computed together, and the parts of them that are partial."""

    points: range
    cut: tuple[range, ...]


@dataclass(frozen=True, slots=True)
class Visits:
    """The tiles that a pass visits.

    extent, tile: of the swept rank
    runs:         rows are the points of the grid ranks that matter, then the row tiles
    labels:       [*grid ranks in the engine's order (1: does not matter), row tiles]: a row of
                  `runs`; the same one for points of the grid that visit the same
    """

    extent: int
    tile: int
    runs: Runs
    labels: Labels

    def count_spans(self) -> int:
        """Of all rows that are told apart, however wide they are."""
        runs = self.runs
        begins = np.ones(len(runs.start), bool)
        begins[1:] = (runs.start[1:] != runs.stop[:-1]) | (runs.row[1:] != runs.row[:-1])
        per_row = np.bincount(runs.row[begins], minlength=runs.rows)
        return int(per_row[np.unique(self.labels)].sum())

    def spans(self, row: int, width: int) -> Iterator[Span]:
        """What a row of `runs` visits, in spans of at most `width` points without a gap."""
        first, last = self.runs.offsets[row], self.runs.offsets[row + 1]
        pieces: list[tuple[int, int, bool]] = []
        for start, stop, full in zip(
            (self.runs.start[first:last] * self.tile).tolist(),
            (self.runs.stop[first:last] * self.tile).tolist(),
            self.runs.full[first:last].tolist(),
            strict=True,
        ):
            low, high = start, min(stop, self.extent)
            while low < high:
                if pieces and (pieces[-1][1] != low or low - pieces[0][0] >= width):
                    yield _span(pieces)
                    pieces = []
                end = min(high, (pieces[0][0] if pieces else low) + width)
                pieces.append((low, end, full))
                low = end
        if pieces:
            yield _span(pieces)


def _span(pieces: list[tuple[int, int, bool]]) -> Span:
    cut = tuple(range(low, high) for low, high, full in pieces if not full)
    return Span(range(pieces[0][0], pieces[-1][1]), cut)


def find_visits(
    visibility: Visibility,
    rows: Axis | None,
    swept: Axis,
    grid: Mapping[str, int],
    parts: tuple[tuple[str, int], ...],
    bound: Bound,
) -> Visits:
    """Classify the tiles of a pass.

    `grid` has the extents of the grid ranks by the names that the visibility uses, `parts` the
    engine's grid: each of its ranks with the rank of `grid` that it is or is a part of, and length.
    """
    around = tuple(Axis(r, grid[r], 1) for r in visibility.grid)
    axes = around if rows is None else (*around, rows)
    if not swept.extent or visibility.some == visibility.every == TRUE:
        runs = whole(prod(a.tiles for a in axes), swept.tiles)
    else:
        runs = _runs(visibility.some, visibility.every, axes, swept, bound)
    shape = [n if rank in visibility.grid else 1 for rank, n in parts]
    labels = np.arange(runs.rows).reshape([*shape, 1 if rows is None else rows.tiles])
    return Visits(swept.extent, swept.tile, runs, _same(runs, labels) if around else labels)


def _runs(some: Expr, every: Expr, rows: tuple[Axis, ...], swept: Axis, bound: Bound) -> Runs:
    """Tiles that are visited where `some` holds anywhere, full where `every` holds everywhere."""
    found = tile_classes(every, rows, (swept,), bound).runs()
    if some == every:
        return found
    visited = tile_classes(some, rows, (swept,), bound).runs()
    row = np.repeat(visited.row, visited.stop - visited.start)
    tile = expand(visited.start, visited.stop)
    offsets, full_tiles = found.lists(full=True)
    full_row = np.repeat(np.arange(found.rows), np.diff(offsets))
    full = np.isin(row * swept.tiles + tile, full_row * swept.tiles + full_tiles)
    return make_runs(visited.rows, visited.keys, row, tile, tile + 1, full)


def _same(runs: Runs, labels: Labels) -> Labels:
    """Labels with the first of the grid's points that visit the same tiles for all of these."""
    flat = labels.reshape(-1, labels.shape[-1])
    found = flat.copy()
    for i in range(flat.shape[1]):
        known: dict[tuple[bytes, ...], int] = {}
        for j, row in enumerate(flat[:, i].tolist()):
            part = slice(int(runs.offsets[row]), int(runs.offsets[row + 1]))
            lists = (runs.start[part], runs.stop[part], runs.full[part])
            found[j, i] = known.setdefault(tuple(x.tobytes() for x in lists), row)
    return found.reshape(labels.shape)


def boxes(labels: Labels, box: Box) -> Iterator[Box]:
    """The grid in as few boxes as visit the same throughout; `labels` has an axis per rank."""
    yield from _boxes(labels, list(box.items()))


def _boxes(labels: Labels, ranks: list[tuple[str, range]]) -> Iterator[Box]:
    if not ranks or (labels == labels.flat[0]).all():
        yield dict(ranks)
        return
    (rank, span), rest = ranks[0], ranks[1:]
    if labels.shape[0] == 1:
        yield from ({rank: span, **box} for box in _boxes(labels[0], rest))
        return
    low = 0
    for high in range(1, len(span) + 1):
        if high == len(span) or (labels[high] != labels[low]).any():
            part = range(span.start + low, span.start + high)
            yield from ({rank: part, **box} for box in _boxes(labels[low], rest))
            low = high
