"""Tiles as boxes of a tensor, which a tensor descriptor loads and stores.

A descriptor tells a tensor's address, extents and strides, and the sides of a box. From Hopper on,
the hardware (TMA) copies such a box by itself: no thread computes addresses or masks; what lies
outside the tensor reads as zero and is not written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from attnc.codegen.address import Addressing, stays_inside
from attnc.codegen.scope import Scope
from attnc.ir.expr import Apply, Expr, Index, Read
from attnc.ir.walk import subexprs

# The hardware's limit.
MAX_AXES = 5


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A parameter of a kernel: a tensor seen in boxes.

    `sides` has, for each axis of the tensor, the coordinates along which the box extends, outermost
    first: the rank or its components; none where the box has one place.
    """

    name: str
    tensor: str
    sides: tuple[tuple[str, ...], ...]

    @property
    def merged(self) -> bool:
        """Whether the first two axes are taken for one: without that there are too many."""
        return _axes(self.sides) > MAX_AXES


@dataclass(frozen=True, slots=True)
class Box:
    """One box: where it starts along each axis of what its descriptor sees; its tile's ranks."""

    descriptor: Descriptor
    starts: tuple[str, ...]
    ranks: tuple[str, ...]


@dataclass(slots=True)
class Boxes:
    """Finds the boxes of one kernel, and keeps their descriptors.

    narrow: whether the start of the swept tile surely has 32 bits, as coordinates of a box need
    """

    scope: Scope
    addressing: Addressing
    descriptors: dict[tuple[str, tuple[tuple[str, ...], ...]], Descriptor] = field(
        default_factory=dict
    )
    narrow: bool = True

    def of(self, read: Read, axes: tuple[str, ...], stored: bool = False) -> Box | None:
        """The tile over `axes` that `read` says as a box; None where it is none.

        It is one where every index is a tile's own coordinate or a scalar that stays inside; and,
        for a tile that is stored, no mask is needed but for the end of the tensor.
        """
        sides = self._sides(read)
        if not sides or len(sides[-1]) != 1 or (stored and self._overlaps(read.tensor)):
            return None
        axes_of = self.scope.axes_of(read.tensor)
        ranks = tuple(r for r, s in zip(axes_of, sides, strict=True) if s)
        if len(ranks) < 2 or sorted(ranks) != sorted(axes):
            return None
        if _axes(sides) > MAX_AXES + (sides[:2] == ((), ())):
            return None
        starts = [x for i in range(len(sides)) for x in self._starts(read, i, sides[i])]
        if len(starts) > MAX_AXES:
            starts[:2] = [f"{starts[0]} * {self.scope.extent(axes_of[1])} + {starts[1]}"]
        return Box(self._descriptor(read.tensor, sides), tuple(starts), ranks)

    def load(self, box: Box, axes: tuple[str, ...]) -> str:
        """The tile with its axes in the order of `axes`."""
        text = f"{box.descriptor.name}.load([{', '.join(box.starts)}])"
        if len(box.starts) > len(box.ranks):
            text += f".reshape({', '.join(map(self.scope.block, box.ranks))})"
        return text + _turned(box.ranks, axes)

    def store(self, box: Box, value: str, axes: tuple[str, ...]) -> str:
        """The line that stores a tile over `axes`; `value` stands before a dot."""
        name = box.descriptor.name
        value += f"{_turned(axes, box.ranks)}.to({name}.dtype)"
        if len(box.starts) > len(box.ranks):
            value += f".reshape({name}.block_shape)"
        return f"{name}.store([{', '.join(box.starts)}], {value})"

    def type_of(self, tensor: str) -> str:
        """The type of a tensor's elements."""
        named = (d for d in self.descriptors.values() if d.tensor == tensor)
        first = next(named, None)
        if first is not None:
            return f"{first.name}.dtype"
        return f"{self.scope.pointer(tensor)}.dtype.element_ty"

    def _descriptor(self, tensor: str, sides: tuple[tuple[str, ...], ...]) -> Descriptor:
        key = (tensor, sides)
        if key not in self.descriptors:
            name = self.scope.namer.name(("descriptor", *key), f"{tensor}_tiles")
            self.descriptors[key] = Descriptor(name, tensor, sides)
        return self.descriptors[key]

    def _sides(self, read: Read) -> tuple[tuple[str, ...], ...] | None:
        found = []
        if self.scope.tensor_dtype(read.tensor) != "float":
            return None
        ranks = self.scope.axes_of(read.tensor)
        for axis, (index, rank) in enumerate(zip(read.indices, ranks, strict=True)):
            if index == Index(rank) and rank in self.scope.tile_ranks:
                layout = self.scope.layouts.get(rank)
                flat = layout is None or (read.tensor, axis) in self.scope.permuted
                found.append((rank,) if flat or layout is None else layout.coordinates)
            elif self._is_place(index, rank):
                found.append(())
            else:
                return None
        return tuple(found)

    def _overlaps(self, tensor: str) -> bool:
        """Whether the box of a tile that has no tokens may be where others have theirs."""
        permuted = (self.scope.axes_of(t)[axis] for t, axis in self.scope.permuted if t == tensor)
        layouts = (self.scope.layouts.get(rank) for rank in permuted)
        return any(x is not None and x.is_ragged for x in layouts)

    def _is_place(self, index: Expr, rank: str) -> bool:
        """A scalar, inside the extent, that 32 bits hold on the way."""
        large = any(isinstance(x, Apply) and x.op in ("mod", "neg") for x in subexprs(index))
        scope, host = self.scope, self.addressing.host
        return (
            not large
            and self.addressing.is_fixed(index)
            and stays_inside(index, rank, scope.cascade, host)
        )

    def _starts(self, read: Read, axis: int, sides: tuple[str, ...]) -> Iterator[str]:
        """Where a box starts along an axis of the tensor."""
        scope = self.scope
        rank = scope.axes_of(read.tensor)[axis]
        if not sides:
            yield self._place(read.indices[axis], rank)
        elif (read.tensor, axis) in scope.permuted:
            yield f"{scope.outer_place(rank)}.to(tl.int32)"
        elif rank in scope.feature_ranks:
            yield scope.start(rank) if rank == scope.split else "0"
        elif rank == scope.stage.swept and not self.narrow:
            yield f"tl.cast({scope.start(rank)}, tl.int32)"
        else:
            yield from map(scope.start, sides)

    def _place(self, index: Expr, rank: str) -> str:
        """A scalar coordinate in 32 bits; a computed one gets a name."""
        self.scope.narrow = True
        text = self.addressing.tiles.write(index, ()).text
        self.scope.narrow = False
        if isinstance(index, Index):
            return text
        name = self.scope.namer.name(("index", text), rank, f"at_{rank}")
        if (name, text) not in self.addressing.indices:
            self.addressing.indices.append((name, text))
        return name


def _axes(sides: tuple[tuple[str, ...], ...]) -> int:
    return sum(max(1, len(s)) for s in sides)


def _turned(have: Sequence[str], wanted: Sequence[str]) -> str:
    """The call that puts axes in another order, if it is another one."""
    if tuple(have) == tuple(wanted):
        return ""
    if len(have) == 2:
        return ".T"
    return f".permute({', '.join(str([*have].index(r)) for r in wanted)})"
