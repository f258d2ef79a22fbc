"""How a sweep stage is cut into tiles for one call: tile lengths, the tiles visited, their masks.

What is found is kept for the next call with equal extents, parameters and captured data: contents
are compared, so that data changed in place, by whatever means, is never taken for the old.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from attnc.ir.frame import Box, Scope
from attnc.ir.geometry.places import check_places
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.presence import TRUE
from attnc.runtime.hidden import Hidden, Mask
from attnc.runtime.program import Program
from attnc.runtime.tile_code import TILE_POINTS, Code
from attnc.runtime.tile_frame import Tile
from attnc.runtime.visits import Labels, Span, Visits, boxes, find_visits
from attnc.runtime.workers import BOOKS

# Rows of a tile to choose from where a mask decides, and where none does.
ROW_TILES = (64, 128, 256)
DENSE_ROW_TILE = 128
# Swept points of a tile that is classified, and scores of a span per grid point.
SWEPT_TILE = 64
SPAN_POINTS = 1 << 16
# Measured on an x86 core: a span's calls into torch, a score without and per feature multiplied.
_SPAN_NS, _SCORE_NS, _FEATURE_NS = 60_000, 1.3, 0.027
# Bytes of evaluated masks kept per layout, and of captured data over all layouts kept.
MASK_BYTES = 1 << 23
DATA_BYTES = 1 << 25
# Spans kept per layout.
SPANS_KEPT = 1 << 15


# Steps: a part of the grid, and the spans that a row tile visits there in each pass.
Steps: TypeAlias = tuple[tuple[Box, tuple[tuple[Span, ...], ...]], ...]


_Hidden: TypeAlias = Mapping[str, tuple[Hidden, ...]]


@dataclass(slots=True)
class Layout:
    """`rows` per row tile, `width` swept points per span, and per pass the tiles visited.

    `points` are all that are visited, in all passes. `known` are steps found before, `groups` how
    many of at most so many row tiles run together.
    """

    rows: int
    width: int
    visits: tuple[Visits, ...]
    masks: Masks
    points: int
    known: dict[int, Steps] = field(default_factory=dict)
    groups: dict[int, tuple[int, int]] = field(default_factory=dict)
    kept: int = 0

    def steps(self, program: Program, row_tile: int) -> Steps:
        """What a row tile visits: the grid in boxes that visit the same in all passes."""
        found = self.known.get(row_tile)
        if found is None:
            grid = {r: range(program.extents[r]) for r in program.stage.grid}
            labels = self._labels(row_tile)
            found = tuple((box, self._visited(box, row_tile)) for box in boxes(labels, grid))
            self.kept += sum(1 + len(spans) for _, visited in found for spans in visited)
            if self.kept < SPANS_KEPT:
                self.known[row_tile] = found
        return found

    def _visited(self, box: Box, row_tile: int) -> tuple[tuple[Span, ...], ...]:
        point = [span.start for span in box.values()]
        found = []
        for v in self.visits:
            place = (min(i, n - 1) for i, n in zip(point, v.labels.shape, strict=False))
            found.append(tuple(v.spans(int(v.labels[(*place, row_tile)]), self.width)))
        return tuple(found)

    def _labels(self, row_tile: int) -> Labels:
        """[*grid ranks (1: does not matter)]: equal where all passes visit the same tiles."""
        total = self.visits[0].labels[..., row_tile]
        for v in self.visits[1:]:
            total = total * (v.runs.rows + 1) + v.labels[..., row_tile]
        return total


@dataclass(slots=True)
class Masks:
    """Masks of partial tiles, as many as MASK_BYTES hold, equal ones only once."""

    known: dict[tuple[object, ...], _Hidden] = field(default_factory=dict)
    contents: dict[tuple[object, ...], Mask] = field(default_factory=dict)
    bytes: int = 0
    full: bool = False

    def hidden(self, program: Program, number: int, step: Tile, cut: tuple[range, ...]) -> _Hidden:
        """The masks of a pass in parts of a tile, by name."""
        stage, sweep = program.stage, program.passes[number]
        held = () if stage.row is None else (stage.row,)
        place = (number, step.box[stage.swept], *(step.box[r] for r in (*sweep.deciding, *held)))
        found = self.known.get(place)
        if found is None:
            found = {
                name: tuple(self._part(code, program, step, part) for part in cut)
                for name, code in sweep.masks.items()
            }
            if not self.full:
                self.known[place] = found
        return found

    def _part(self, code: Code, program: Program, step: Tile, part: range) -> Hidden:
        swept = program.stage.swept
        tile = Tile(step.scope, {**step.box, swept: part}, program.host)
        mask = self._mask(tile.lift(code(tile)), step.dtype)
        return Hidden(mask, step.axis[swept], part.start - step.box[swept].start, len(part))

    def _mask(self, shown: Tensor, dtype: str) -> Mask:
        content = (shown.shape, shown.cpu().numpy().tobytes())
        mask = self.contents.get(content)
        if mask is None:
            mask = Mask.of(shown, torch.float64 if dtype == "float64" else torch.float32)
            with BOOKS:
                self.full = self.full or self.bytes + mask.bytes > MASK_BYTES
                if content in self.contents or self.full:
                    return self.contents.get(content, mask)
                self.bytes += mask.bytes
                self.contents[content] = mask
        return mask


def find_layout(program: Program, scope: Scope) -> Layout:
    """The tiles of a stage for what its masks read: `scope` is the caller's, with whole tensors.

    Raises AttncError E601 for a mask that reads outside of a tensor.
    """
    names = dict.fromkeys(t for p in program.passes for t in p.visibility.tensors)
    data = tuple(scope.tensors[t].data for t in names)
    for known in tuple(_KNOWN):
        if known.program is program and all(map(_equal, known.data, data)):
            _remember(known)
            return known.layout
    row = program.stage.row
    if scope.extents[program.stage.swept] and (row is None or scope.extents[row]):
        masks = (m for p in program.passes for m in (p.visibility.some, p.visibility.every))
        check_places(masks, scope)
    layout = _choose(program, scope, _bound(scope, names))
    _remember(_Known(program, tuple(x.detach().clone() for x in data), layout))
    return layout


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    program: Program
    data: tuple[Tensor, ...]
    layout: Layout

    @property
    def bytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in self.data)


# The layouts found last, the latest one at the end.
_KNOWN: list[_Known] = []
_KEPT = 32


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def _remember(found: _Known) -> None:
    with BOOKS:
        if found in _KNOWN:
            _KNOWN.remove(found)
        _KNOWN.append(found)
        while len(_KNOWN) > _KEPT or sum(x.bytes for x in _KNOWN) > DATA_BYTES:
            _KNOWN.pop(0)


def _bound(scope: Scope, names: Mapping[str, None]) -> Bound:
    components = {r.name: r.components for r in scope.ranks.values() if r.components}
    tensors = {t: scope.tensors[t].data.detach().cpu().numpy() for t in names}
    return Bound(scope.extents, scope.params, tensors, components)


def _choose(program: Program, scope: Scope, bound: Bound) -> Layout:
    """The row tile with which the whole stage takes the least time, roughly."""
    stage = program.stage
    length = 1 if stage.row is None else scope.extents[stage.row]
    dense = all(p.visibility.some == p.visibility.every == TRUE for p in program.passes)
    sizes = sorted({min(n, length) for n in ((DENSE_ROW_TILE,) if dense else ROW_TILES)})
    layouts = [_layout(program, scope, bound, rows) for rows in sizes]
    if len(layouts) == 1:
        return layouts[0]
    return min(layouts, key=lambda layout: _nanoseconds(program, layout))


def _layout(program: Program, scope: Scope, bound: Bound, rows: int) -> Layout:
    stage, extents = program.stage, scope.extents
    row = None if stage.row is None else Axis(stage.row, extents[stage.row], rows)
    swept = Axis(stage.swept, extents[stage.swept], SWEPT_TILE)
    visits = tuple(
        find_visits(p.visibility, row, swept, extents, program.parts, bound) for p in program.passes
    )
    grid = prod(n for _, n in program.parts)
    points = sum(_points(v, rows, grid) for v in visits)
    return Layout(rows, max(1, SPAN_POINTS // rows), visits, Masks(), points)


def _points(visits: Visits, rows: int, grid: int) -> int:
    labels = visits.labels
    points = int(visits.runs.visited().sum()) * visits.tile * rows
    return points * grid * int(labels.shape[-1]) // labels.size


def _nanoseconds(program: Program, layout: Layout) -> float:
    """What a layout costs: scores computed, and calls for the spans that they are computed in.

    On one thread, so that results do not depend on how many there are.
    """
    total = 0.0
    grid = prod(n for _, n in program.parts)
    for p, v in zip(program.passes, layout.visits, strict=True):
        points = _points(v, layout.rows, grid)
        spans = v.count_spans() + points // TILE_POINTS
        total += points * (_SCORE_NS + _FEATURE_NS * p.features) + spans * _SPAN_NS
    return total
