"""Settle tiles that intervals leave open: by points that witness, by smaller boxes, by every point.

A tile is settled as soon as a visible and a hidden point are known, so work grows with the tiles
that are almost empty or almost full, and not with their area.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from attnc.ir.arrays import NUMPY
from attnc.ir.evaluate import compile_expr
from attnc.ir.expr import Expr
from attnc.ir.frame import Frame, Scope, Value
from attnc.ir.geometry.intervals import Code
from attnc.ir.geometry.tile_boxes import Boxes, Spans, Tables
from attnc.ir.geometry.tile_runs import BoolArray, IntArray, expand
from attnc.ir.presence import TRUE

# Boxes of at most so many points are evaluated point by point.
_POINTS = 32
# So many boxes at a time, which bounds the memory.
_CHUNK = 1 << 14


@dataclass(frozen=True, slots=True)
class Points:
    """Exact evaluation at single points."""

    visible: Expr
    exists: Expr
    tensors: dict[str, Any]

    def at(self, coordinates: dict[str, IntArray], count: int) -> tuple[BoolArray, BoolArray]:
        """Which of `count` points are visible, and which exist and are not."""
        visible = self._holds(self.visible, coordinates, count)
        if self.exists == TRUE:
            return visible, ~visible
        return visible, self._holds(self.exists, coordinates, count) & ~visible

    def _holds(self, e: Expr, coordinates: dict[str, IntArray], count: int) -> BoolArray:
        tensors = {n: Value(x, ("",) * x.ndim) for n, x in self.tensors.items()}
        frame = Frame(Scope(tensors=tensors), {"": range(count)})
        frame.coordinates.update(coordinates)
        with NUMPY.quiet():
            # A normal predicate is never absent: a branch that divides by 0 is not taken.
            found, _ = compile_expr(e)(frame)
        return np.broadcast_to(np.asarray(found), (count,))


@dataclass(frozen=True, slots=True)
class Open:
    """Boxes of tiles that are not settled: the tile of each, and its span per coordinate."""

    tile: IntArray
    spans: Spans

    def __getitem__(self, kept: Any) -> Open:
        return Open(self.tile[kept], {n: (a[kept], b[kept]) for n, (a, b) in self.spans.items()})

    def __len__(self) -> int:
        return len(self.tile)


def refine_tiles(
    boxes: Open,
    seen: BoolArray,
    gap: BoolArray,
    codes: tuple[Code, Code | None],
    points: Points,
    tables: Tables,
) -> None:
    """Complete `seen` and `gap`, per tile: whether a point is visible, whether one is hidden.

    The boxes of a tile hold all of its points that are not accounted for yet.
    """
    if len(boxes):
        _witness(boxes, _CORNERS, seen, gap, points)
    waiting = [boxes]
    while waiting:
        boxes = waiting.pop()
        if len(boxes) > _CHUNK:
            waiting += [boxes[i : i + _CHUNK] for i in range(0, len(boxes), _CHUNK)]
            continue
        boxes = boxes[~(seen[boxes.tile] & gap[boxes.tile])]
        sizes = _sizes(boxes)
        _every_point(boxes[sizes <= _POINTS], seen, gap, points)
        boxes = boxes[sizes > _POINTS]
        boxes = _undecided(boxes, seen, gap, codes, tables)
        if len(boxes):
            _witness(boxes, _CENTRE, seen, gap, points)
            waiting.append(_halves(boxes[~(seen[boxes.tile] & gap[boxes.tile])]))


# Places of witnesses along rows and keys, in halves: a box's first, middle and last coordinate.
_CORNERS = tuple((i, j) for i in (0, 2, 1) for j in (0, 2, 1))
_CENTRE = ((1, 1),)


def _witness(
    boxes: Open,
    places: tuple[tuple[int, int], ...],
    seen: BoolArray,
    gap: BoolArray,
    points: Points,
) -> None:
    """Evaluate some points of each box."""
    for place in places:
        boxes = boxes[~(seen[boxes.tile] & gap[boxes.tile])]
        if not len(boxes):
            return
        at = {
            n: a + (b - a) * place[i % 2] // 2 for i, (n, (a, b)) in enumerate(boxes.spans.items())
        }
        visible, hidden = points.at(at, len(boxes))
        seen[boxes.tile[visible]] = True
        gap[boxes.tile[hidden]] = True


def _every_point(boxes: Open, seen: BoolArray, gap: BoolArray, points: Points) -> None:
    if not len(boxes):
        return
    sizes = _sizes(boxes)
    box = np.repeat(np.arange(len(boxes)), sizes)
    place = expand(np.zeros_like(sizes), sizes)
    at = {}
    for name, (low, high) in boxes.spans.items():
        length = (high - low + 1)[box]
        at[name] = low[box] + place % length
        place = place // length
    visible, hidden = points.at(at, len(box))
    seen[boxes.tile[box[visible]]] = True
    gap[boxes.tile[box[hidden]]] = True


def _undecided(
    boxes: Open,
    seen: BoolArray,
    gap: BoolArray,
    codes: tuple[Code, Code | None],
    tables: Tables,
) -> Open:
    """The boxes that may still hold a point of a sort that their tile is not known to have."""
    if not len(boxes):
        return boxes
    frame = Boxes(boxes.spans, tables)
    shape = boxes.tile.shape
    visible = [np.broadcast_to(x, shape) for x in frame.truth(codes[0])]
    if codes[1] is None:
        hidden = [~visible[1], ~visible[0], visible[3], visible[2]]
    else:
        hidden = [np.broadcast_to(x, shape) for x in frame.truth(codes[1])]
    seen[boxes.tile[visible[2]]] = True
    gap[boxes.tile[hidden[2]]] = True
    tile = boxes.tile
    return boxes[(visible[0] & ~seen[tile]) | (hidden[0] & ~gap[tile])]


def _halves(boxes: Open) -> Open:
    """Each box cut in two along its longest coordinate."""
    lengths = np.stack([b - a for a, b in boxes.spans.values()])
    longest = lengths.argmax(axis=0)
    lower, upper = {}, {}
    for i, (name, (a, b)) in enumerate(boxes.spans.items()):
        cut = longest == i
        middle = (a + b) >> 1
        lower[name] = (a, np.where(cut, middle, b))
        upper[name] = (np.where(cut, middle + 1, a), b)
    spans = {
        n: (np.concatenate([lower[n][0], upper[n][0]]), np.concatenate([lower[n][1], upper[n][1]]))
        for n in lower
    }
    return Open(np.concatenate([boxes.tile, boxes.tile]), spans)


def _sizes(boxes: Open) -> IntArray:
    found: IntArray = np.ones(len(boxes), np.int64)
    for low, high in boxes.spans.values():
        found = found * (high - low + 1)
    return found
