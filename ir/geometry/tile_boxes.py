"""Tiles and blocks of tiles as boxes of coordinates, and predicates evaluated over them.

A tile of a grid rank that is cut as a line (its tiles are flat) is no box of its components, but a
union of few: the rest of a first row, whole rows, the beginning of a last row, and so on inwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

from attnc.ir.geometry.extrema import Extrema, extrema_of
from attnc.ir.geometry.interval_arithmetic import Array, Span
from attnc.ir.geometry.intervals import Code, Truth
from attnc.ir.geometry.tile_runs import BoolArray, IntArray
from attnc.ir.geometry.tiling import Axis

Spans: TypeAlias = dict[str, tuple[Array, Array]]


@dataclass(frozen=True, slots=True)
class Cut:
    """An axis, and the components into which its coordinate is taken apart; none: it is not."""

    axis: Axis
    parts: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The coordinates that predicates know it by."""
        return self.parts or (self.axis.name,)


class Tables:
    """Captured tensors with their tables of extrema, made once."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self.tensors = dict(tensors)
        self.known: dict[tuple[str, tuple[int, ...]], Extrema] = {}

    def extrema(self, tensor: str, ranged: tuple[int, ...]) -> Extrema:
        """Tables for boxes of some axes of a tensor."""
        found = self.known.get((tensor, ranged))
        if found is None:
            found = self.known[tensor, ranged] = extrema_of(self.tensors[tensor], ranged)
        return found


class Boxes:
    """Boxes given by the first and the last value of each coordinate."""

    def __init__(self, spans: Spans, tables: Tables, witness: bool = True) -> None:
        self.spans = spans
        self.tables = tables
        self.witness = witness
        self.memo: dict[Code, Any] = {}

    def coordinate(self, name: str) -> Span:
        """First and last coordinate of each box."""
        return self.spans[name]

    def span(self, code: Code) -> Span:
        """Interval of a number in each box."""
        found: Span = self._value(code)
        return found

    def truth(self, code: Code) -> Truth:
        """Whether a predicate holds somewhere and everywhere in each box."""
        found: Truth = self._value(code)
        return found

    def equal(self, a: Code, b: Code) -> Array | None:
        """Whether two sides have a value in common: intervals alone do not know."""
        return None

    def data(self, tensor: str) -> Array:
        """A captured tensor."""
        return self.tables.tensors[tensor]

    def extrema(self, tensor: str, ranged: tuple[int, ...]) -> Extrema:
        """Tables for boxes of some of its axes."""
        return self.tables.extrema(tensor, ranged)

    def _value(self, code: Code) -> Any:
        found = self.memo.get(code)
        if found is None:
            found = self.memo[code] = code.run(self)
        return found


class Pairs(Boxes):
    """Products of a box of rows and a box of keys: what only one side sets is gathered from it."""

    def __init__(
        self,
        sides: tuple[Boxes, Boxes],
        at: tuple[IntArray, IntArray],
        witness: bool,
        equal: Callable[[Code, Code], Array | None],
    ) -> None:
        super().__init__({}, sides[0].tables, witness)
        self.rows, self.keys = sides
        self.row, self.key = at
        self.find_equal = equal

    def coordinate(self, name: str) -> Span:
        """First and last coordinate of each box."""
        side, at = (self.rows, self.row) if name in self.rows.spans else (self.keys, self.key)
        low, high = side.spans[name]
        return low[at], high[at]

    def equal(self, a: Code, b: Code) -> Array | None:
        """Whether two sides have a value in common."""
        return self.find_equal(a, b)

    def _value(self, code: Code) -> Any:
        found = self.memo.get(code)
        if found is None:
            match code.side:
                case "row":
                    found = self._gathered(self.rows._value(code), self.row)
                case "key":
                    found = self._gathered(self.keys._value(code), self.key)
                case _:
                    found = code.run(self)
            self.memo[code] = found
        return found

    def _gathered(self, values: Any, at: IntArray) -> Any:
        is_truth = isinstance(values, Truth)
        if is_truth and not self.witness:
            values = (*values[:2], None, None)
        picked = [x if x is None or not np.ndim(x) else x[at] for x in values]
        return Truth(*picked) if is_truth else tuple(picked)


@dataclass(frozen=True, slots=True)
class Blocks:
    """All blocks of a side, row-major: each is a union of boxes.

    counts:  blocks per axis
    spans:   first and last value of each coordinate, [blocks] or [blocks, boxes]
    valid:   [blocks, boxes]: which boxes there are; None: one box per block
    """

    counts: tuple[int, ...]
    spans: Spans
    valid: BoolArray | None

    def laid_out(self, axis: int) -> Spans:
        """The boxes of a block along one of two more axes, where either side has several."""
        if self.valid is None:
            return {n: (a[:, None, None], b[:, None, None]) for n, (a, b) in self.spans.items()}
        return {
            n: (np.expand_dims(a, 2 - axis), np.expand_dims(b, 2 - axis))
            for n, (a, b) in self.spans.items()
        }


def blocks_of(cuts: tuple[Cut, ...], sizes: tuple[int, ...]) -> Blocks:
    """Blocks of `sizes` tiles along each axis."""
    counts = tuple(-(-c.axis.tiles // size) for c, size in zip(cuts, sizes, strict=True))
    total = prod(counts)
    spans: Spans = {}
    valid: BoolArray | None = None
    inner = total
    for cut, size, count in zip(cuts, sizes, counts, strict=True):
        inner //= max(1, count)
        first = np.arange(count) * (size * cut.axis.tile)
        last = np.minimum(first + size * cut.axis.tile, cut.axis.extent) - 1
        at = np.arange(total) // max(1, inner) % max(1, count) if len(cuts) > 1 else slice(None)
        if not cut.parts:
            mine: Spans = {cut.axis.name: (first[at], last[at])}
            there = None
        else:
            boxes, held = grid_boxes(first, last, cut.sizes)
            mine = {n: (a[at], b[at]) for n, (a, b) in zip(cut.parts, boxes, strict=True)}
            there = held[at]
        spans, valid = _crossed(spans, valid, mine, there)
    return Blocks(counts, spans, valid)


def _crossed(
    a: Spans, valid_a: BoolArray | None, b: Spans, valid_b: BoolArray | None
) -> tuple[Spans, BoolArray | None]:
    """Every box of one axis with every box of the other."""
    if valid_b is None:
        if valid_a is not None:
            shape = valid_a.shape
            b = {n: tuple(np.broadcast_to(x[:, None], shape) for x in s) for n, s in b.items()}  # type: ignore[misc]
        return a | b, valid_a
    if valid_a is None:
        valid_a = np.ones((len(valid_b), 1), bool)
        a = {n: (x[:, None], y[:, None]) for n, (x, y) in a.items()}
    shape = (len(valid_b), valid_a.shape[1], valid_b.shape[1])

    def flat(x: Array, axis: int) -> Array:
        return np.broadcast_to(np.expand_dims(x, axis), shape).reshape(len(x), -1)

    spans = {n: (flat(x, 2), flat(y, 2)) for n, (x, y) in a.items()}
    spans |= {n: (flat(x, 1), flat(y, 1)) for n, (x, y) in b.items()}
    return spans, flat(valid_a, 2) & flat(valid_b, 1)


def grid_boxes(
    first: IntArray, last: IntArray, sizes: tuple[int, ...]
) -> tuple[list[tuple[IntArray, IntArray]], BoolArray]:
    """The boxes of components that make up flat ranges `first .. last` of a row-major grid.

    Per component (first, last), each [ranges, boxes]; and which boxes there are, those first. Of k
    components at most 2k - 1 boxes are needed: one where the ends part, and on each side of it one
    per component that is not run through whole.
    """
    a, b = digits_of(first, sizes), digits_of(last, sizes)
    k = len(sizes)
    # Whether anything below digit i is missing at the beginning, or at the end.
    late = [_any([a[j] > 0 for j in range(i + 1, k)], first) for i in range(k)]
    early = [_any([b[j] < sizes[j] - 1 for j in range(i + 1, k)], last) for i in range(k)]
    parting = np.full(first.shape, k - 1)
    for i in reversed(range(k - 1)):
        parting = np.where(a[i] != b[i], i, parting)
    boxes, valid = [], []
    for level in range(k):
        at = parting == level
        valid.append(at & (a[level] + late[level] <= b[level] - early[level]))
        boxes.append(_box(a, level, a[level] + late[level], b[level] - early[level], sizes))
    for level in range(1, k):
        beyond = (parting < level) & late[level - 1]
        begin = a[level] + late[level]
        valid.append(beyond & (begin <= sizes[level] - 1))
        boxes.append(_box(a, level, begin, np.full_like(begin, sizes[level] - 1), sizes))
        beyond = (parting < level) & early[level - 1]
        end = b[level] - early[level]
        valid.append(beyond & (end >= 0))
        boxes.append(_box(b, level, np.zeros_like(end), end, sizes))
    there = np.stack(valid, axis=-1)
    most = max(1, int(there.sum(axis=-1).max(initial=1)))
    order = np.argsort(~there, axis=-1, kind="stable")[:, :most]
    there = np.take_along_axis(there, order, -1)
    spans = []
    for i in range(k):
        low, high = (np.stack([x[i][end] for x in boxes], axis=-1) for end in (0, 1))
        low, high = (np.take_along_axis(x, order, -1) for x in (low, high))
        # What is no box is somewhere inside the grid, so that reads at it stay inside, too.
        spans.append((np.where(there, low, 0), np.where(there, high, 0)))
    return spans, there


def digits_of(x: IntArray, sizes: tuple[int, ...]) -> list[IntArray]:
    """The coordinates of row-major positions.

    `numpy.unravel_index` gives wrong ones for arrays of more than one axis (numpy 2.4, [n, 1]).
    """
    found = []
    for size in reversed(sizes):
        found.append(x % max(1, size))
        x = x // max(1, size)
    return found[::-1]


def _any(conditions: list[BoolArray], like: IntArray) -> BoolArray:
    found: BoolArray = np.zeros(like.shape, bool)
    for c in conditions:
        found = found | c
    return found


def _box(
    digits: list[IntArray], level: int, low: IntArray, high: IntArray, sizes: tuple[int, ...]
) -> list[tuple[IntArray, IntArray]]:
    """Fixed digits above a level, a range at it, everything below."""
    return [
        (digits[i], digits[i])
        if i < level
        else (low, high)
        if i == level
        else (np.zeros_like(low), np.full_like(low, sizes[i] - 1))
        for i in range(len(sizes))
    ]
