"""The tile classes of one group of axes, by subdivision of the keys of all query tiles at once.

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
from attnc.ir.equal_values import EqualTiles, equal_tiles
from attnc.ir.evaluate import evaluate
from attnc.ir.frame import Scope, Value
from attnc.ir.intervals import Code, Truth
from attnc.ir.mask_program import FactorProgram, Table
from attnc.ir.refine_tiles import Open, Points, refine_tiles
from attnc.ir.tile_boxes import Blocks, Boxes, Pairs, Spans, Tables, blocks_of
from attnc.ir.tile_runs import BoolArray, IntArray, Runs, expand, make_runs

# A block is cut into 8 smaller ones; so many pairs are looked at together, which bounds the memory.
_LOG_RATIO = 3
_LAST_RATIO = 16
_CHUNK = 1 << 17


@dataclass(frozen=True, slots=True)
class _Level:
    """Blocks of `sizes` key tiles per axis, `ratio` times smaller than those of the level above."""

    sizes: tuple[int, ...]
    ratio: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Runs found so far, in parallel lists."""

    row: list[IntArray] = field(default_factory=list)
    start: list[IntArray] = field(default_factory=list)
    stop: list[IntArray] = field(default_factory=list)
    full: list[BoolArray] = field(default_factory=list)

    def add(self, row: IntArray, start: IntArray, stop: IntArray, full: Any) -> None:
        self.row.append(row)
        self.start.append(start)
        self.stop.append(stop)
        self.full.append(np.broadcast_to(np.asarray(full, bool), row.shape))


def factor_runs(program: FactorProgram, tensors: Mapping[str, Any]) -> Runs:
    """Runs over the tiles of the program's rows and keys, each row-major."""
    found = Tables({**tensors, **{t.name: _table(t, tensors) for t in program.tables}})
    return _Search(program, found).runs()


def _table(table: Table, tensors: Mapping[str, Any]) -> Any:
    box = {c: range(n) for c, n in zip(table.coordinates, table.extents, strict=True)}
    held = {n: Value(x, ("",) * x.ndim) for n, x in tensors.items()}
    ranks = {c: Rank(c) for c in table.coordinates}
    found = evaluate(table.expr, Scope(tensors=held, ranks=ranks, box=box))
    return np.ascontiguousarray(np.broadcast_to(found.data, table.extents))


class _Search:
    """One classification: boxes of rows, of keys per level, and what was found."""

    def __init__(self, program: FactorProgram, tables: Tables) -> None:
        self.program, self.tables = program, tables
        self.row_blocks = blocks_of(program.rows, (1,) * len(program.rows))
        self.levels = _levels(tuple(c.axis.tiles for c in program.keys))
        self.key_blocks = [blocks_of(program.keys, level.sizes) for level in self.levels]
        self.parted = [
            self.row_blocks.valid is not None or k.valid is not None for k in self.key_blocks
        ]
        self.rows = {p: self._boxes(self.row_blocks, p, 0) for p in set(self.parted)}
        self.keys = [
            self._boxes(k, p, 1) for k, p in zip(self.key_blocks, self.parted, strict=True)
        ]
        self.equal: dict[tuple[Code, Code], EqualTiles | None] = {}
        self.pieces = _Pieces()
        # Single tiles that are open: row, key, whether a point is known to be seen, hidden.
        self.open: list[tuple[IntArray, IntArray, BoolArray, BoolArray]] = []
        self.opened = 0

    def _boxes(self, blocks: Blocks, parted: bool, axis: int) -> Boxes:
        spans = blocks.laid_out(axis) if parted else blocks.spans
        return Boxes(spans, self.tables)

    def runs(self) -> Runs:
        rows, keys = prod(self.row_blocks.counts), prod(self.key_blocks[-1].counts)
        waiting = [(0, np.arange(rows), np.zeros(rows, np.int64))]
        while waiting:
            level, row, block = waiting.pop()
            room = max(1, _CHUNK // prod(self.levels[level].ratio))
            if len(row) > room:
                waiting += [
                    (level, row[i : i + room], block[i : i + room])
                    for i in reversed(range(0, len(row), room))
                ]
                continue
            deeper = self._step(level, row, block)
            if len(deeper[0]):
                waiting.append((level + 1, *deeper))
        self._settle()
        p = self.pieces
        found = [
            np.concatenate(x) if x else np.zeros(0, np.int64) for x in (p.row, p.start, p.stop)
        ]
        full = np.concatenate(p.full) if p.full else np.zeros(0, bool)
        return make_runs(rows, keys, found[0], found[1], found[2], full)

    def _step(self, level: int, row: IntArray, parent: IntArray) -> tuple[IntArray, IntArray]:
        """Look at the blocks inside a parent block for each row; what is left to look into."""
        key, inside = self._children(level, parent)
        last = level == len(self.levels) - 1
        visible: list[Any]
        visible, hidden = self._truths(level, row[:, None], key, last)
        if inside is not None:
            visible = [x if x is None else x & inside for x in visible]
        maybe, must = visible[0], visible[1]
        if not last:
            self._decided(level, row, key, must)
            undecided = np.flatnonzero(maybe & ~must)
            return row[undecided // key.shape[1]], key.reshape(-1)[undecided]
        full = must if hidden is None else must | (visible[2] & ~hidden[0])
        self._decided(level, row, key, full)
        seen, gap = visible[2], visible[3] if hidden is None else hidden[2]
        self._decided(level, row, key, seen & gap, False)
        left = np.flatnonzero(maybe & ~full & ~(seen & gap))
        if len(left):
            at = row[left // key.shape[1]], key.reshape(-1)[left]
            self._keep_open(*at, seen.reshape(-1)[left], gap.reshape(-1)[left])
        return row[:0], row[:0]

    def _children(self, level: int, parent: IntArray) -> tuple[IntArray, BoolArray | None]:
        """[parents, children]: the blocks inside each parent, and which of them there are."""
        counts, ratio = self.key_blocks[level].counts, self.levels[level].ratio
        above = self.key_blocks[level - 1].counts if level else (1,) * len(counts)
        offset = np.arange(prod(ratio))
        key: IntArray = np.zeros((len(parent), 1), np.int64)
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
            key = at if stride == 1 else key + at * stride
            stride *= counts[i]
        return key, inside

    def _truths(
        self, level: int, row: IntArray, key: IntArray, last: bool
    ) -> tuple[list[Any], list[Any] | None]:
        program = self.program
        sides = self.rows[self.parted[level]], self.keys[level]
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
        places = [
            dict(zip((c.axis.name for c in cuts), np.unravel_index(at, counts), strict=True))
            for cuts, at, counts in (
                (program.rows, row, self.row_blocks.counts),
                (program.keys, key, self.key_blocks[level].counts),
            )
        ]
        sizes = self.levels[level].sizes
        names = {c.axis.name: s for c, s in zip(program.keys, sizes, strict=True)}
        return pairs.holds(places[0], places[1], names)

    def _united(self, level: int, row: IntArray, key: IntArray, found: Truth) -> list[Any]:
        """The truth of unions of boxes."""
        if not self.parted[level]:
            return [x if x is None else np.broadcast_to(x, key.shape) for x in found]
        valid = np.ones((1, 1, 1, 1), bool)
        if self.row_blocks.valid is not None:
            valid = valid & self.row_blocks.valid[row][..., :, None]
        if (held := self.key_blocks[level].valid) is not None:
            valid = valid & held[key][..., None, :]
        united: list[Any] = []
        for i, x in enumerate(found):
            if x is None:
                united.append(None)
                continue
            all_of = i == 1
            x = (x | ~valid).all((-2, -1)) if all_of else (x & valid).any((-2, -1))
            united.append(np.broadcast_to(x, key.shape))
        return united

    def _decided(
        self, level: int, row: IntArray, key: IntArray, which: BoolArray, full: bool = True
    ) -> None:
        """Blocks of one class become runs; neighbours among siblings are one run at once."""
        place = np.flatnonzero(which)
        if not len(place):
            return
        sizes, tiles = self.levels[level].sizes, self.key_blocks[-1].counts
        row, key = row[place // key.shape[1]], key.reshape(-1)[place]
        if len(sizes) > 1:
            self.pieces.add(*self._lines(level, row, key), full)
            return
        # A run goes on while the next block of the same row follows.
        new = (key[1:] != key[:-1] + 1) | (row[1:] != row[:-1])
        first, last = np.append(True, new), np.append(new, True)
        size = sizes[0] if sizes else 1
        stop = np.minimum((key[last] + 1) * size, tiles[0] if tiles else 1)
        self.pieces.add(row[first], key[first] * size, stop, full)

    def _lines(
        self, level: int, row: IntArray, block: IntArray
    ) -> tuple[IntArray, IntArray, IntArray]:
        """(row, start, stop) of a block's lines of tiles along the last axis."""
        sizes, tiles = self.levels[level].sizes, self.key_blocks[-1].counts
        counts = self.key_blocks[level].counts
        size, n = sizes[-1], tiles[-1]
        start = block % counts[-1] * size
        stop = np.minimum(start + size, n)
        block, stride = block // counts[-1], n
        for size, n, count in zip(sizes[-2::-1], tiles[-2::-1], counts[-2::-1], strict=True):
            first = block % count * size
            end = np.minimum(first + size, n)
            block = block // count
            piece = np.repeat(np.arange(len(row)), end - first)
            moved = expand(first, end) * stride
            row, block = row[piece], block[piece]
            start, stop = start[piece] + moved, stop[piece] + moved
            stride *= n
        return row, start, stop

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
        rows, keys = self.row_blocks, self.key_blocks[-1]
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


def _levels(tiles: tuple[int, ...]) -> tuple[_Level, ...]:
    """From coarse blocks to single tiles."""
    found = [(1,) * len(tiles)]
    while prod(_counts(tiles, found[-1])) > _LAST_RATIO:
        sizes = list(found[-1])
        for _ in range(_LOG_RATIO):
            counts = _counts(tiles, tuple(sizes))
            sizes[counts.index(max(counts))] *= 2
        found.append(tuple(sizes))
    levels = [_Level(found[-1], _counts(tiles, found[-1]))]
    for above, below in zip(found[::-1], found[-2::-1], strict=False):
        levels.append(_Level(below, tuple(a // b for a, b in zip(above, below, strict=True))))
    return tuple(levels)


def _counts(tiles: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // s) for n, s in zip(tiles, sizes, strict=True))
