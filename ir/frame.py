"""What an expression is evaluated in: tensors, extents and parameters, laid out on a box's axes.

A value is an array with one axis per rank of the box, of length 1 where the value does not depend
on the rank, so operands broadcast without being aligned; what depends on no rank stays a Python
number. Beside it goes a presence mask, or None where every point is present.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import TypeAlias

from attnc.ir.arrays import NUMPY, Array, Arrays, is_scalar
from attnc.ir.cascade import Rank

# The coordinates to evaluate: rank -> range(low, high). The order of the ranks is that of the axes.
Box: TypeAlias = Mapping[str, range]
ParamValue: TypeAlias = bool | int | float | tuple[bool | int | float, ...]
# A value and its presence (None: present everywhere), both with one axis per rank of the box.
Pair: TypeAlias = tuple[Array, Array | None]
Code: TypeAlias = Callable[["Frame"], Pair]


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor, or a part of one: axis i holds the coordinates from `origin[i]` on of `axes[i]`.

    `present` broadcasts against `data`; None means everywhere. An axis written at a constant
    coordinate has no rank (""). `origin` None means 0 on every axis.
    """

    data: Array
    axes: tuple[str, ...]
    present: Array | None = None
    origin: tuple[int, ...] | None = None

    def start(self, axis: int) -> int:
        """The first coordinate held along an axis."""
        return 0 if self.origin is None else self.origin[axis]


@dataclass(frozen=True, slots=True)
class Scope:
    """All that an expression's meaning depends on.

    arrays, dtype:  the library, and the floating-point type that values are computed in
    tensors:        what `Read` reads
    extents:        of every rank and component named
    params:         scalars, or tuples of them
    ranks:          declarations by name, for components; may be left out where there are none
    box:            coordinates; a statement runs over the whole extent of a rank that is not in it
    memory_bytes:   what the temporaries of one statement may take, roughly
    """

    arrays: Arrays = NUMPY
    dtype: str = "float64"
    tensors: Mapping[str, Value] = field(default_factory=dict)
    extents: Mapping[str, int] = field(default_factory=dict)
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    ranks: Mapping[str, Rank] = field(default_factory=dict)
    box: Box = field(default_factory=dict)
    memory_bytes: int = 256 << 20

    def param(self, name: str, item: int | None) -> bool | int | float:
        """A parameter, or one item of a tuple."""
        value = self.params[name]
        if isinstance(value, tuple):
            return value[item or 0]
        return value

    def at(self, box: Box) -> Scope:
        """The same scope over other coordinates."""
        return replace(self, box=box)

    def having(self, tensors: Mapping[str, Value]) -> Scope:
        """The same scope with more tensors, or others."""
        return replace(self, tensors={**self.tensors, **tensors})


class Frame:
    """One evaluation: the scope laid out on axes, and what has been computed so far.

    `guard` masks the points that count: outside them an index may leave its tensor.
    """

    __slots__ = ("arrays", "axis", "box", "coordinates", "dtype", "guard", "memo", "scope", "shape")

    def __init__(self, scope: Scope, box: Box) -> None:
        self.scope = scope
        self.arrays = scope.arrays
        self.dtype = scope.dtype
        self.box = box
        self.axis = {r: i for i, r in enumerate(box)}
        self.shape = tuple(len(span) for span in box.values())
        self.guard: Array | None = None
        self.coordinates: dict[str, Array] = {}
        self.memo: dict[int, tuple[Array | None, Pair]] = {}

    def coordinate(self, rank: str) -> Array:
        """The coordinate of a rank, component or parent: an int if the box has only one."""
        found = self.coordinates.get(rank)
        if found is None:
            found = self.coordinates[rank] = self._coordinate(rank)
        return found

    def _coordinate(self, rank: str) -> Array:
        span = self.box.get(rank)
        if span is not None:
            if len(span) == 1:
                return span.start
            shape = [1] * len(self.shape)
            shape[self.axis[rank]] = len(span)
            return self.arrays.arange(span.start, span.stop).reshape(shape)
        extents, ranks = self.scope.extents, self.scope.ranks
        decl = ranks.get(rank)
        if decl is not None and decl.components and all(c in self.box for c in decl.components):
            total: Array = 0
            for c in decl.components:
                total = total * extents[c] + self.coordinate(c)
            return total
        assert decl is not None and decl.parent is not None, f"rank {rank} is not iterated"
        siblings = ranks[decl.parent].components
        place = siblings.index(rank)
        x = self.coordinate(decl.parent) // max(1, prod(extents[c] for c in siblings[place + 1 :]))
        return x if place == 0 else x % max(1, extents[rank])

    def lift(self, x: Array) -> Array:
        """A Python number as an array; an array as it is."""
        if not is_scalar(x):
            return x
        dtype = {bool: "bool", int: "int64"}.get(type(x), self.dtype)
        return self.arrays.full((1,) * len(self.shape), x, dtype)

    def narrow(self, condition: Array) -> None:
        """Count only points where the condition holds, too."""
        if condition is not None and condition is not True:
            self.guard = meet(self.guard, self.lift(condition))

    def admit(self, predicate: Pair) -> None:
        """Count only points where a predicate is present and true."""
        self.narrow(predicate[1])
        self.narrow(predicate[0])

    def safe(self, x: Array, present: Array | None) -> Array:
        """x with 1 at points that do not count, so that no gradient of theirs is 0 * inf."""
        mask = meet(self.guard, present)
        if mask is None or is_scalar(x) or not self.arrays.tracked(x):
            return x
        return self.arrays.where(mask, x, 1.0)


def meet(a: Array | None, b: Array | None) -> Array | None:
    """Present in both."""
    if a is None:
        return b
    return a if b is None else a & b
