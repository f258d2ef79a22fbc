"""The tile classes of one group of axes: in closed form, or by subdivision of the keys of all query
tiles at once.

Blocks of key tiles that intervals decide become runs, the others are cut into smaller ones; single
tiles that are still open go to `ir.refine_tiles`. Time grows with the boundary of the mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from attnc.ir.cascade import Rank
from attnc.ir.evaluate import evaluate
from attnc.ir.frame import Scope, Value
from attnc.ir.geometry.equal_values import EqualTiles, equal_tiles
from attnc.ir.geometry.intervals import Code, Truth
from attnc.ir.geometry.mask_program import FactorProgram, Table, is_blocked
from attnc.ir.geometry.refine_tiles import Open, Points, refine_tiles
from attnc.ir.geometry.row_ranges import range_runs
from attnc.ir.geometry.tile_boxes import (
    Blocks,
    Boxes,
    Cut,
    Pairs,
    Spans,
    Tables,
    blocks_of,
    digits_of,
)
from attnc.ir.geometry.tile_runs import BoolArray, IntArray, Runs, expand, make_runs, no_runs

# A block is cut into 8 smaller ones; so many pairs are looked at together, which bounds the memory.
_LOG_RATIO = 3
_LAST_RATIO = 16
_CHUNK = 1 << 17


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Runs found so far, in parallel lists."""

    row: list[IntArray] = field(default_factory=list)
    start: list[IntArray] = field(default_factory=list)
    stop: list[IntArray] = field(default_factory=list)
    full: list[BoolArray] = field(default_factory=list)

    def add(self, row: IntArray, start: IntArray, stop: IntArray, full: BoolArray) -> None:
        """More runs; where one goes on from the one before it, they are one."""
        if len(row):
            row, start, stop, full = _merged(row, start, stop, full)
            self.row.append(row)
            self.start.append(start)
            self.stop.append(stop)
            self.full.append(full)

    def runs(self, rows: int, keys: int) -> Runs:
        if not self.row:
            return no_runs(rows, keys)
        row, start, stop = (np.concatenate(x) for x in (self.row, self.start, self.stop))
        return make_runs(rows, keys, row, start, stop, np.concatenate(self.full))


def factor_runs(program: FactorProgram, tensors: Mapping[str, Any]) -> Runs:
    """Runs over the tiles of the program's rows and keys, each row-major."""
    if program.ranges is not None:
        runs = range_runs(program.ranges, program.rows[0].axis, program.keys[0].axis)
        if runs is not None:
            return runs
    return search_runs(program, tensors)


def search_runs(program: FactorProgram, tensors: Mapping[str, Any]) -> Runs:
    """The same for any program, by subdivision."""
    found = Tables({**tensors, **{t.name: _table(t, tensors) for t in program.tables}})
    return _Search(program, found).runs()


def _table(table: Table, tensors: Mapping[str, Any]) -> Any:
    box = {c: range(n) for c, n in zip(table.coordinates, table.extents, strict=True)}
    held = {n: Value(x, ("",) * x.ndim) for n, x in tensors.items()}
    ranks = {c: Rank(c) for c in table.coordinates}
    found = evaluate(table.expr, Scope(tensors=held, ranks=ranks, box=box))
    return np.ascontiguousarray(np.broadcast_to(found.data, table.extents))


def _merged(
    row: IntArray, start: IntArray, stop: IntArray, full: BoolArray
) -> tuple[IntArray, IntArray, IntArray, BoolArray]:
    new = (start[1:] != stop[:-1]) | (row[1:] != row[:-1]) | (full[1:] != full[:-1])
    first, last = np.append(True, new), np.append(new, True)
    return row[first], start[first], stop[last], full[first]


@dataclass(frozen=True, slots=True)
class _Side:
    """The blocks of rows or of keys, level by level; `sizes` in tiles per axis.

    A search starts from each block of rows, and from all keys `together`.
    """

    together: bool
    cuts: tuple[Cut, ...]
    sizes: tuple[tuple[int, ...], ...]
    blocks: tuple[Blocks, ...]

    @property
    def tiles(self) -> tuple[int, ...]:
        return self.blocks[-1].counts

    def ratio(self, level: int) -> tuple[int, ...]:
        """Blocks of a level, per axis, in one of the level above."""
        if not level:
            return self.blocks[0].counts if self.together else (1,) * len(self.cuts)
        return tuple(a // b for a, b in zip(self.sizes[level - 1], self.sizes[level], strict=True))

    def children(self, level: int, parent: IntArray) -> tuple[IntArray, BoolArray | None]:
        """[parents, children]: the blocks inside each parent, and which of them there are."""
        counts, ratio = self.blocks[level].counts, self.ratio(level)
        above = self.blocks[level - 1].counts if level else counts
        if not level and self.together:
            above = (1,) * len(counts)
        offset = np.arange(prod(ratio))
        block: IntArray = np.zeros((len(parent), 1), np.int64)
        inside: BoolArray | None = None
        stride = 1
        for i in reversed(range(len(counts))):
            if i:
                at = (parent % above[i] * ratio[i])[:, None] + offset % ratio[i]
                parent, offset = parent // above[i], offset // ratio[i]
            else:
                at = (parent * ratio[i])[:, None] + offset
            if counts[i] != above[i] * ratio[i]:
                there = at < counts[i]
                inside = there if inside is None else inside & there
                at = np.minimum(at, counts[i] - 1)
            block = at if stride == 1 else block + at * stride
            stride *= counts[i]
        return block, inside

    def lines(self, level: int, block: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """(which block, start, stop) of the lines of tiles along the last axis in each block."""
        which = np.arange(len(block))
        if not self.cuts:
            return which, 0 * which, 0 * which + 1
        axes = list(zip(self.sizes[level], self.tiles, self.blocks[level].counts, strict=True))
        size, stride, count = axes.pop()
        start = block % count * size if axes else block * size
        stop = np.minimum(start + size, stride)
        block = block // count
        for size, n, count in reversed(axes):
            first = block % count * size
            end = np.minimum(first + size, n)
            block = block // count
            piece = np.repeat(np.arange(len(which)), end - first)
            moved = expand(first, end) * stride
            which, block = which[piece], block[piece]
            start, stop = start[piece] + moved, stop[piece] + moved
            stride *= n
        return which, start, stop


class _Search:
    """One classification: boxes of rows and of keys per level, and what was found."""

    def __init__(self, program: FactorProgram, tables: Tables) -> None:
        self.program, self.tables = program, tables
        key_sizes = _key_levels(tuple(c.axis.tiles for c in program.keys))
        row_sizes = _row_levels(program.rows, len(key_sizes))
        self.sides = _side(False, program.rows, row_sizes), _side(True, program.keys, key_sizes)
        rows, keys = self.sides
        self.parted = [
            r.valid is not None or k.valid is not None
            for r, k in zip(rows.blocks, keys.blocks, strict=True)
        ]
        self.boxes = self._boxes(0), self._boxes(1)
        self.equal: dict[tuple[Code, Code], EqualTiles | None] = {}
        self.pieces = _Pieces()
        # Single tiles that are open: row, key, whether a point is known to be seen, hidden.
        self.open: list[tuple[IntArray, IntArray, BoolArray, BoolArray]] = []
        self.opened = 0

    def _boxes(self, axis: int) -> list[Boxes]:
        """The boxes of one side on each level; levels of equal blocks share what is known."""
        found: dict[tuple[bool, tuple[int, ...]], Boxes] = {}
        side, boxes = self.sides[axis], []
        for parted, sizes, blocks in zip(self.parted, side.sizes, side.blocks, strict=True):
            if (parted, sizes) not in found:
                spans = blocks.laid_out(axis) if parted else blocks.spans
                found[parted, sizes] = Boxes(spans, self.tables)
            boxes.append(found[parted, sizes])
        return boxes

    def runs(self) -> Runs:
        rows, keys = self.sides
        blocks = np.arange(prod(rows.blocks[0].counts))
        waiting = [(0, blocks, 0 * blocks)]
        while waiting:
            level, row, key = waiting.pop()
            room = max(1, _CHUNK // prod(rows.ratio(level) + keys.ratio(level)))
            if len(row) > room:
                waiting += [
                    (level, row[i : i + room], key[i : i + room])
                    for i in reversed(range(0, len(row), room))
                ]
                continue
            deeper = self._step(level, row, key)
            if len(deeper[0]):
                waiting.append((level + 1, *deeper))
        self._settle()
        return self.pieces.runs(prod(rows.tiles), prod(keys.tiles))

    def _step(self, level: int, row: IntArray, key: IntArray) -> tuple[IntArray, IntArray]:
        """Look at the pairs of blocks inside pairs of blocks; those that are left to look into."""
        (row, in_row), (key, in_key) = (
            side.children(level, at) for side, at in zip(self.sides, (row, key), strict=True)
        )
        last = level == len(self.parted) - 1
        visible: list[Any]
        visible, hidden = self._truths(level, row[:, :, None], key[:, None, :], last)
        if in_row is not None:
            visible = [x if x is None else x & in_row[:, :, None] for x in visible]
        if in_key is not None:
            visible = [x if x is None else x & in_key[:, None, :] for x in visible]
        maybe, must = visible[0], visible[1]
        if not last:
            self._full(level, *_where(must, row, key)[:2])
            return _where(maybe & ~must, row, key)[:2]
        full = must if hidden is None else must | (visible[2] & ~hidden[0])
        self._full(level, *_where(full, row, key)[:2])
        seen, gap = visible[2], visible[3] if hidden is None else hidden[2]
        rows, keys, _ = _where(seen & gap, row, key)
        self.pieces.add(rows, keys, keys + 1, np.zeros(len(rows), bool))
        rows, keys, place = _where(maybe & ~full & ~(seen & gap), row, key)
        if len(place):
            self._keep_open(rows, keys, seen.reshape(-1)[place], gap.reshape(-1)[place])
        return place[:0], place[:0]

    def _truths(
        self, level: int, row: IntArray, key: IntArray, last: bool
    ) -> tuple[list[Any], list[Any] | None]:
        program = self.program
        sides = self.boxes[0][level], self.boxes[1][level]
        frame = Pairs(sides, (row, key), last, lambda a, b: self._equal(level, row, key, a, b))
        visible = self._united(level, row, key, frame.truth(program.seen))
        if program.hidden is None or not last:
            return visible, None
        return visible, self._united(level, row, key, frame.truth(program.hidden))

    def _equal(
        self, level: int, row: IntArray, key: IntArray, a: Code, b: Code
    ) -> BoolArray | None:
        """Whether the values of `a` in the rows and of `b` in the keys have one in common."""
        if self.parted[level]:
            return None
        program = self.program
        if (a, b) not in self.equal:
            found = equal_tiles(a, b, program.rows, program.keys, self.tables)
            self.equal[a, b] = found
        pairs = self.equal[a, b]
        if pairs is None:
            return None
        sizes: dict[str, int] = {}
        at: dict[str, IntArray] = {}
        for side, place in zip(self.sides, (row, key), strict=True):
            names = [c.axis.name for c in side.cuts]
            sizes |= zip(names, side.sizes[level], strict=True)
            at |= zip(names, digits_of(place, side.blocks[level].counts), strict=True)
        return pairs.holds(at, sizes)

    def _united(self, level: int, row: IntArray, key: IntArray, found: Truth) -> list[Any]:
        """The truth of unions of boxes."""
        shape = np.broadcast_shapes(row.shape, key.shape)
        if not self.parted[level]:
            return [x if x is None else np.broadcast_to(x, shape) for x in found]
        valid = np.ones((1, 1, 1, 1, 1), bool)
        rows, keys = (side.blocks[level].valid for side in self.sides)
        if rows is not None:
            valid = valid & rows[row][..., :, None]
        if keys is not None:
            valid = valid & keys[key][..., None, :]
        united: list[Any] = []
        for i, x in enumerate(found):
            if x is None:
                united.append(None)
                continue
            all_of = i == 1
            x = (x | ~valid).all((-2, -1)) if all_of else (x & valid).any((-2, -1))
            united.append(np.broadcast_to(x, shape))
        return united

    def _full(self, level: int, row: IntArray, key: IntArray) -> None:
        """Pairs of blocks that are full become runs, one in each row of tiles."""
        rows, keys = self.sides
        if not len(row):
            return
        which, start, stop = keys.lines(level, key)
        row, start, stop, full = _merged(row[which], start, stop, np.ones(len(which), bool))
        if prod(rows.sizes[level]) > 1:
            which, first, end = rows.lines(level, row)
            piece = np.repeat(which, end - first)
            row, start, stop, full = expand(first, end), start[piece], stop[piece], full[piece]
        self.pieces.add(row, start, stop, full)

    def _keep_open(self, row: IntArray, key: IntArray, seen: BoolArray, gap: BoolArray) -> None:
        self.open.append((row, key, seen, gap))
        self.opened += len(row)
        if self.opened >= _CHUNK:
            self._settle()

    def _settle(self) -> None:
        """Decide the tiles that are open."""
        if not self.open:
            return
        row, key, seen, gap = (np.concatenate(x) for x in zip(*self.open, strict=True))
        self.open, self.opened = [], 0
        codes = self.program.seen, self.program.hidden
        points = Points(self.program.visible, self.program.exists, self.tables.tensors)
        refine_tiles(self._boxes_of(row, key), seen, gap, codes, points, self.tables)
        self.pieces.add(row[seen], key[seen], key[seen] + 1, ~gap[seen])

    def _boxes_of(self, row: IntArray, key: IntArray) -> Open:
        rows, keys = (side.blocks[-1] for side in self.sides)
        tile = np.arange(len(row))
        part: list[Any] = [None, None]
        if self.parted[-1]:
            valid = [
                np.ones((len(row), 1), bool) if b.valid is None else b.valid[at]
                for b, at in ((rows, row), (keys, key))
            ]
            tile, *part = np.nonzero(valid[0][:, :, None] & valid[1][:, None, :])
        spans: Spans = {}
        for blocks, at, p in ((rows, row[tile], part[0]), (keys, key[tile], part[1])):
            place = at if blocks.valid is None else (at, p)
            spans |= {n: (a[place], b[place]) for n, (a, b) in blocks.spans.items()}
        return Open(tile, spans)


def _where(which: BoolArray, row: IntArray, key: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """(row, key, position) of the pairs of [parents, rows, keys] that are meant."""
    place = np.flatnonzero(which)
    width = key.shape[1]
    parent = place // (row.shape[1] * width)
    return row.reshape(-1)[place // width], key.reshape(-1)[parent * width + place % width], place


def _side(together: bool, cuts: tuple[Cut, ...], sizes: tuple[tuple[int, ...], ...]) -> _Side:
    made = {s: blocks_of(cuts, s) for s in dict.fromkeys(sizes)}
    return _Side(together, cuts, sizes, tuple(made[s] for s in sizes))


def _key_levels(tiles: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Sizes of the blocks of keys, in tiles per axis, from coarse blocks to single tiles."""
    found = [(1,) * len(tiles)]
    while prod(_counts(tiles, found[-1])) > _LAST_RATIO:
        sizes = list(found[-1])
        for _ in range(_LOG_RATIO):
            counts = _counts(tiles, tuple(sizes))
            sizes[counts.index(max(counts))] *= 2
        found.append(tuple(sizes))
    return tuple(reversed(found))


def _row_levels(rows: tuple[Cut, ...], levels: int) -> tuple[tuple[int, ...], ...]:
    """Sizes of the blocks of rows: along the last axis if it has many tiles, else single tiles."""
    if not rows or not is_blocked(rows[-1].axis):
        return ((1,) * len(rows),) * levels
    found = [1]
    while len(found) < levels:
        larger = found[-1] << _LOG_RATIO
        found.append(larger if rows[-1].axis.tiles > larger else found[-1])
    return tuple((*(1,) * (len(rows) - 1), size) for size in reversed(found))


def _counts(tiles: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // s) for n, s in zip(tiles, sizes, strict=True))
