"""The points that a mask hides in a part of a tile, put out of the way without a choice per point.

torch's `where` takes a branch per point, ten times as long as an addition. Bits do it exactly: what
is kept is and-ed with ones, what is hidden with zeros and then or-ed with the bits of the filling,
so that neither infinities nor NaN of a hidden point get through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attnc.ir.arrays import Array, is_scalar
from attnc.ir.expr import Expr, Read

_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


def mark(name: str) -> Read:
    """Stands in a plan for a mask that holds throughout full tiles, and is looked at elsewhere."""
    return Read(name, ())


def mark_name(number: int) -> str:
    """The name of a mask of a pass: none that a spec can give to a tensor."""
    return f"mask {number}"


def is_mark(e: Expr) -> bool:
    """Whether an expression is such a mark."""
    return isinstance(e, Read) and e.tensor.startswith("mask ")


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask over a part of a tile, as a boolean array and as bits of the tile's floats.

    `fillings` are the bits to put in, by value: made when first asked for.
    """

    shown: Tensor
    keep: Tensor
    fillings: dict[float, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(shown: Tensor, dtype: torch.dtype) -> Mask:
        """`shown` is true at the points that are visible."""
        return Mask(shown, shown.to(_BITS[dtype]).neg_())

    def filling(self, value: float) -> Tensor:
        """The bits of `value` at the hidden points, zeros at the others."""
        found = self.fillings.get(value)
        if found is None:
            dtype = next(f for f, bits in _BITS.items() if bits == self.keep.dtype)
            pattern = torch.tensor(value, dtype=dtype, device=self.keep.device).view(_BITS[dtype])
            found = self.fillings[value] = self.keep.bitwise_not().bitwise_and_(pattern)
        return found

    @property
    def bytes(self) -> int:
        """Of memory, with one filling."""
        return self.shown.numel() * (1 + 2 * self.keep.element_size())


@dataclass(frozen=True, slots=True)
class Hidden:
    """A mask, and where in a tile it applies: `size` points of an axis from `start` on."""

    mask: Mask
    axis: int
    start: int
    size: int

    def shape(self, tile: Sequence[int]) -> tuple[int, ...]:
        """The shape of what the mask is applied to, as far as the mask decides."""
        shape = list(self.mask.shown.shape)
        shape[self.axis] = tile[self.axis]
        return tuple(shape)

    def hide(self, x: Tensor, fill: Array) -> None:
        """Put `fill` at the hidden points of this part of x, in place."""
        part = x.narrow(self.axis, self.start, self.size)
        if is_scalar(fill) and x.dtype in _BITS:
            bits = part.view(_BITS[x.dtype])
            bits.bitwise_and_(self.mask.keep)
            if fill != 0:
                bits.bitwise_or_(self.mask.filling(fill))
            return
        if not is_scalar(fill) and fill.shape[self.axis] != 1:
            fill = fill.narrow(self.axis, self.start, self.size)
        part.copy_(torch.where(self.mask.shown, part, fill))
