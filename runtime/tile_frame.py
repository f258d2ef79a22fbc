"""The frame of a tile: where it is, and what is known in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

from torch import Tensor

from attnc.ir.arrays import Array
from attnc.ir.frame import Box, Frame, Scope
from attnc.runtime.hidden import Hidden


@dataclass(frozen=True, slots=True)
class Moving:
    """Tiles taken as one: `count` along an axis of their own, each `step` further on in `ranks`."""

    ranks: frozenset[str]
    axis: int
    count: int
    step: int


@dataclass(slots=True)
class Whole:
    """Tensors in memory as views on the axes of tiles, each made once for all tiles of a call."""

    views: dict[object, Tensor] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def view(self, key: object, make: Callable[[], Tensor]) -> Tensor:
        """The view kept under a key; tiles in several threads wait for the one that makes it."""
        x = self.views.get(key)
        if x is None:
            with self.lock:
                x = self.views.get(key)
                if x is None:
                    x = self.views[key] = make()
        return x


class Tile(Frame):
    """The frame of one tile, with the lets and states known in it.

    `window` restricts a let's axis: a serial loop visits a contracted rank piece by piece.
    `hidden` has the parts of the tile that a mask cuts through, by the mask's name. `operands` are
    those of the operator that is applied next. `whole` is the same for all tiles of a call.
    """

    __slots__ = ("hidden", "moving", "operands", "values", "whole", "window")

    def __init__(
        self,
        scope: Scope,
        box: Box,
        values: Mapping[str, Array],
        whole: Whole | None = None,
        moving: Moving | None = None,
    ) -> None:
        super().__init__(scope, box)
        self.moving = moving
        self.values = dict(values)
        self.window: tuple[int, range] | None = None
        self.hidden: Mapping[str, tuple[Hidden, ...]] = {}
        self.operands: list[Array] = []
        self.whole = whole or Whole()

    def at(self, rank: str, span: range) -> Tile:
        """A tile elsewhere along a rank, which knows what this one knows."""
        return Tile(self.scope, {**self.box, rank: span}, self.values, self.whole, self.moving)

    def _coordinate(self, rank: str) -> Array:
        x = super()._coordinate(rank)
        if self.moving is None or rank not in self.moving.ranks:
            return x
        shape = [1] * len(self.shape)
        shape[self.moving.axis] = self.moving.count
        return x + self.arrays.arange(0, self.moving.count).reshape(shape) * self.moving.step


def cut_out(x: Tensor, cuts: Sequence[tuple[int, str]], tile: Tile) -> Tensor:
    """The part of x that a tile is about, x being laid out on its axes; `cuts` are those to cut."""
    if tile.moving is None:
        for axis, rank in cuts:
            span = tile.box[rank]
            if len(span) != x.shape[axis]:
                x = x.narrow(axis, span.start, len(span))
        return x
    sizes, strides, start, step = list(x.shape), x.stride(), x.storage_offset(), 0
    for axis, rank in cuts:
        span = tile.box[rank]
        start += strides[axis] * span.start
        sizes[axis] = len(span)
        if rank in tile.moving.ranks:
            step += strides[axis] * tile.moving.step
    if any(rank in tile.moving.ranks for _, rank in cuts):
        sizes[tile.moving.axis] = tile.moving.count
    steps = (step if axis == tile.moving.axis else n for axis, n in enumerate(strides))
    return x.as_strided(sizes, tuple(steps), start)
