"""Smallest and largest element of any box of a captured tensor, without looking at each element.

Tables are built when first needed, and only as deep as needed: ranges of whole blocks never touch a
table of single elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Indices: TypeAlias = npt.NDArray[np.int64]
Values: TypeAlias = npt.NDArray[Any]
# Elements per block: as short as the tiles that masks are cut into usually are.
_LOG_BLOCK = 6
_BLOCK = 1 << _LOG_BLOCK


class Extrema(Protocol):
    """`query`: (smallest, largest) element over closed ranges of the ranged axes."""

    def query(
        self, at: Sequence[Indices], low: Sequence[Indices], high: Sequence[Indices]
    ) -> tuple[Values, Values]: ...


def extrema_of(data: Values, ranged: tuple[int, ...]) -> Extrema:
    """Tables for queries over boxes of the axes `ranged`, at single indices of the others.

    Exact for one ranged axis, and for two of a bool tensor; elsewhere the box is enlarged.
    """
    single = tuple(i for i in range(data.ndim) if i not in ranged)
    moved = np.ascontiguousarray(data.transpose(single + ranged))
    if len(ranged) == 1:
        return RangeExtrema(moved)
    if len(ranged) == 2 and data.dtype == np.bool_:
        return BoxSums(moved)
    return Pyramid(moved, len(ranged))


class RangeExtrema:
    """Over a range of the last axis: exact, from windows of elements and of blocks."""

    def __init__(self, data: Values) -> None:
        self.lead = data.shape[:-1]
        self.length = data.shape[-1]
        self.stride = -(-self.length // _BLOCK) * _BLOCK
        rows = data.reshape(-1, self.length)
        if self.stride != self.length:
            # The last element again: a range that ends there may as well go on.
            rows = np.pad(rows, ((0, 0), (0, self.stride - self.length)), mode="edge")
        flat = rows.reshape(-1)
        blocks = flat.reshape(-1, _BLOCK)
        # Level j holds the extrema of the 2^j elements (blocks) from each on.
        self.elements = [(flat, flat)]
        self.blocks = [(blocks.min(axis=1), blocks.max(axis=1))]

    def query(
        self, at: Sequence[Indices], low: Sequence[Indices], high: Sequence[Indices]
    ) -> tuple[Values, Values]:
        """Smallest and largest element of `low[0] .. high[0]`, both included."""
        first, last = low[0], high[0]
        end = np.where(last == self.length - 1, self.stride - 1, last)
        if self.lead:
            base = _flat(at, self.lead) * self.stride
            first, end = first + base, end + base
        first, end = np.broadcast_arrays(first, end)
        shape = first.shape
        smallest, largest = self._ranges(first.reshape(-1), end.reshape(-1))
        return smallest.reshape(shape), largest.reshape(shape)

    def _ranges(self, first: Indices, end: Indices) -> tuple[Values, Values]:
        if not ((first | (end + 1)) & (_BLOCK - 1)).any():
            return _windows(self.blocks, first >> _LOG_BLOCK, end >> _LOG_BLOCK)
        length = end - first + 1
        if (length < _BLOCK).all():
            return _windows(self.elements, first, end)
        ends = np.minimum(length, _BLOCK) - 1
        head = _windows(self.elements, first, first + ends)
        tail = _windows(self.elements, end - ends, end)
        found = [np.minimum(head[0], tail[0]), np.maximum(head[1], tail[1])]
        left, right = -(-first >> _LOG_BLOCK), (end + 1 >> _LOG_BLOCK) - 1
        inner = np.flatnonzero(left <= right)
        middle = _windows(self.blocks, left[inner], right[inner])
        found[0][inner] = np.minimum(found[0][inner], middle[0])
        found[1][inner] = np.maximum(found[1][inner], middle[1])
        return found[0], found[1]


class BoxSums:
    """Over a box of the last two axes of a bool tensor: exact, from sums of all corners."""

    def __init__(self, data: Values) -> None:
        self.data = data
        self.lead, (self.rows, self.columns) = data.shape[:-2], data.shape[-2:]
        self.sums: Values | None = None

    def query(
        self, at: Sequence[Indices], low: Sequence[Indices], high: Sequence[Indices]
    ) -> tuple[Values, Values]:
        """Whether all, and whether any, of the box's elements are true."""
        (top, left), (bottom, right) = low, high
        lead = _flat(at, self.lead)
        if (top == bottom).all() and (left == right).all():
            found = self.data.reshape(-1)[(lead * self.rows + top) * self.columns + left]
            return found, found
        if self.sums is None:
            self.sums = self._sums().reshape(-1)
        width = self.columns + 1
        above = (lead * (self.rows + 1) + top) * width
        below = above + (bottom - top + 1) * width
        after = right + 1
        sums = self.sums
        count = sums[below + after] - sums[above + after] - sums[below + left] + sums[above + left]
        return count == (bottom - top + 1) * (after - left), count > 0

    def _sums(self) -> Values:
        """Of all elements above and to the left of each corner."""
        dtype = np.int32 if self.rows * self.columns < 1 << 31 else np.int64
        sums = np.zeros((*self.lead, self.rows + 1, self.columns + 1), dtype)
        np.cumsum(self.data, axis=-1, dtype=dtype, out=sums[..., 1:, 1:])
        np.cumsum(sums, axis=-2, out=sums)
        return sums


class Pyramid:
    """Over a box of the last axes, enlarged to at most two aligned cubes along each of them."""

    def __init__(self, data: Values, ranged: int) -> None:
        self.ranged = ranged
        self.levels = [(data, data)]

    def query(
        self, at: Sequence[Indices], low: Sequence[Indices], high: Sequence[Indices]
    ) -> tuple[Values, Values]:
        """Bounds of the box's elements: those of the cubes that cover it."""
        arrays = np.broadcast_arrays(*at, *low, *high)
        shape = arrays[0].shape
        flat = [a.reshape(-1) for a in arrays]
        at, low = flat[: len(at)], flat[len(at) : -self.ranged]
        high = flat[-self.ranged :]
        sides = np.stack(high) - np.stack(low)
        level = _log2(np.maximum(sides.max(axis=0) * 2 - 1, 1))
        dtype = self.levels[0][0].dtype
        found = np.empty(len(level), dtype), np.empty(len(level), dtype)
        for j in np.unique(level):
            mine = np.flatnonzero(level == j)
            covered = self._covered(
                int(j),
                [a[mine] for a in at],
                [a[mine] >> j for a in low],
                [a[mine] >> j for a in high],
            )
            for whole, part in zip(found, covered, strict=True):
                whole[mine] = part
        return found[0].reshape(shape), found[1].reshape(shape)

    def _covered(
        self, level: int, at: list[Indices], low: list[Indices], high: list[Indices]
    ) -> tuple[Values, Values]:
        while len(self.levels) <= level:
            self.levels.append(
                (
                    self._halved(np.minimum, self.levels[-1][0]),
                    self._halved(np.maximum, self.levels[-1][1]),
                )
            )
        smallest, largest = self.levels[level]
        places = [
            (
                *at,
                *(
                    b if corner >> i & 1 else a
                    for i, (a, b) in enumerate(zip(low, high, strict=True))
                ),
            )
            for corner in range(1 << self.ranged)
        ]
        return (
            np.minimum.reduce([smallest[p] for p in places]),
            np.maximum.reduce([largest[p] for p in places]),
        )

    def _halved(self, of: np.ufunc, data: Values) -> Values:
        for axis in range(data.ndim - self.ranged, data.ndim):
            data = of.reduceat(data, np.arange(0, data.shape[axis], 2), axis=axis)
        return data


def _windows(
    levels: list[tuple[Values, Values]], first: Indices, last: Indices
) -> tuple[Values, Values]:
    """Extrema of the ranges, each as two windows of a power of two that may overlap."""
    level = _log2(last - first + 1)
    deepest = int(level.max()) if len(level) else 0
    while len(levels) <= deepest:
        step = 1 << len(levels) - 1
        levels.append(
            tuple(  # type: ignore[arg-type]
                np.concatenate([of(x[:-step], x[step:]), x[-step:]])
                for of, x in zip((np.minimum, np.maximum), levels[-1], strict=True)
            )
        )
    if not deepest:
        return levels[0][0][first], levels[0][1][first]
    dtype = levels[0][0].dtype
    smallest, largest = np.empty(len(first), dtype), np.empty(len(first), dtype)
    for j in range(deepest + 1):
        mine = np.flatnonzero(level == j)
        if len(mine):
            a, b = first[mine], last[mine] - (1 << j) + 1
            low, high = levels[j]
            smallest[mine] = np.minimum(low[a], low[b])
            largest[mine] = np.maximum(high[a], high[b])
    return smallest, largest


def _log2(x: Indices) -> Indices:
    """floor(log2(x)) of positive integers."""
    return np.frexp(x)[1].astype(np.int64) - 1


def _flat(at: Sequence[Indices], shape: tuple[int, ...]) -> Any:
    """The row-major position of a multi-dimensional index."""
    place: Any = 0
    for index, size in zip(at, shape, strict=True):
        place = place * size + index
    return place
