"""Orders of the tokens of a grid.

A kernel cuts a flat sequence into tiles. In which order the tokens of a plane or a volume make up
that sequence decides what a tile holds: parts of rows, blocks, or a curve's stretches.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from attnc.ir.geometry.tile_runs import IntArray


@dataclass(frozen=True, slots=True)
class TokenOrder:
    """`tile`: blocks of this shape in row-major order, row-major inside; else the Morton curve.

    `steps`: tokens of one dilation group (coordinates of one remainder) come first, group by group.
    """

    tile: tuple[int, ...] | None
    steps: tuple[int, ...]

    @property
    def name(self) -> str:
        if self.tile is None:
            inside = "Morton"
        elif prod(self.tile) == 1:
            inside = "row-major"
        else:
            inside = f"blocks of {' x '.join(map(str, self.tile))}"
        groups = f", in groups of {' x '.join(map(str, self.steps))}"
        return inside + (groups if prod(self.steps) > 1 else "")

    @property
    def plain(self) -> bool:
        """Whether it is the row-major order."""
        return self.tile is not None and prod(self.tile) * prod(self.steps) == 1

    def places(self, extents: tuple[int, ...]) -> IntArray:
        """[tokens]: the place in this order of each token of the row-major grid."""
        points = np.indices(extents).reshape(len(extents), -1)
        groups = [x % d for x, d in zip(points, self.steps, strict=True)]
        inside = [x // d for x, d in zip(points, self.steps, strict=True)]
        if self.tile is None:
            keys = [_interleaved(inside, extents)]
        else:
            keys = [x // t for x, t in zip(inside, self.tile, strict=True)] + inside
        order = np.lexsort([*reversed(groups + keys)])
        found = np.empty(len(order), np.int64)
        found[order] = np.arange(len(order))
        return found


def _interleaved(point: list[IntArray], extents: tuple[int, ...]) -> IntArray:
    """The Morton code: the bits of the coordinates in turn, those of the innermost axis lowest."""
    code = np.zeros_like(point[0])
    for bit in range(max(n.bit_length() for n in extents)):
        for x in point:
            code = code << 1 | (x >> (max(n.bit_length() for n in extents) - 1 - bit) & 1)
    return code


def token_orders(axes: int, tokens: int, steps: tuple[int, ...]) -> tuple[TokenOrder, ...]:
    """Row-major, the Morton curve, and blocks of `tokens` tokens with sides that differ little.

    Sides are powers of two, none more than eight times another. With `steps`, orders by dilation
    group come in addition to the row-major one.
    """
    ones = (1,) * axes
    whole = tuple(TokenOrder(ones, each) for each in dict.fromkeys((ones, steps)))
    sides = [1 << i for i in range(tokens.bit_length())]
    blocks = (
        block
        for block in product(sides, repeat=axes)
        if prod(block) == 1 << (tokens.bit_length() - 1) and max(block) <= 8 * min(block)
    )
    return (*whole, TokenOrder(None, steps), *(TokenOrder(block, steps) for block in blocks))
