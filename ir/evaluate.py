"""Evaluate an expression at every point of a box of coordinates, over any array library.

A value is an array with one axis per rank of the box, of length 1 where the value does not depend on
the rank, so operands broadcast without being aligned; what depends on no rank stays a Python number.
Beside it goes a presence mask, or None where every point is present. Expressions are compiled to
closures once and cached: evaluating one costs little more than its array operations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import inf, prod
from typing import TypeAlias

from attnc.errors import AttncError
from attnc.ir.arrays import NUMPY, Array, Arrays, is_scalar
from attnc.ir.cascade import Rank
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.walk import subexprs

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


def evaluate(expr: Expr, scope: Scope, where: Expr | None = None) -> Value:
    """The value at every point of `scope.box`, one axis per rank of it, in its order.

    Points where the predicate `where` is false or absent are absent.
    Raises AttncError E601 (an index leaves its tensor) and E602 (`/` of integers leaves a remainder).
    """
    frame = Frame(scope, scope.box)
    with scope.arrays.quiet():
        admit(frame, where)
        data, present = compile_expr(expr)(frame)
        data = scope.arrays.broadcast(frame.lift(data), frame.shape)
        return Value(
            data,
            tuple(scope.box),
            meet(present, frame.guard),
            tuple(span.start for span in scope.box.values()),
        )


def admit(frame: Frame, where: Expr | None) -> None:
    """Restrict a frame to the points where a predicate holds: true and present."""
    if where is not None:
        holds, known = compile_expr(where)(frame)
        frame.narrow(known)
        frame.narrow(holds)


@lru_cache(maxsize=4096)
def compile_expr(expr: Expr) -> Code:
    """The closure that evaluates an expression in a frame; what occurs twice is computed once."""
    from attnc.ir.operators import RULES

    times = Counter(e for e in subexprs(expr) if isinstance(e, Apply | Read))
    built: dict[Expr, Code] = {}

    def build(e: Expr) -> Code:
        code = built.get(e)
        if code is None:
            code = node(e)
            if times[e] > 1:
                code = _memoised(len(built), code)
            built[e] = code
        return code

    def node(e: Expr) -> Code:
        match e:
            case Number(value):
                return lambda frame: (value, None)
            case Index(rank):
                return lambda frame: (frame.coordinate(rank), None)
            case Extent(rank):
                return lambda frame: (frame.scope.extents[rank], None)
            case Param(name, item):
                return _param(name, item)
            case Read():
                return _read(e, build)
            case Apply(op, args):
                return RULES[op](e, tuple(map(build, args)))

    return build(expr)


def _memoised(slot: int, code: Code) -> Code:
    def run(frame: Frame) -> Pair:
        known = frame.memo.get(slot)
        # A value computed under another guard was checked, and made safe, at other points.
        if known is None or known[0] is not frame.guard:
            known = frame.memo[slot] = (frame.guard, code(frame))
        return known[1]

    return run


def _param(name: str, item: int | None) -> Code:
    def run(frame: Frame) -> Pair:
        value = frame.scope.params[name]
        if item is not None:
            assert isinstance(value, tuple)
            return value[item], None
        return value, None

    return run


def _shifted(index: Expr) -> tuple[str, Expr, int] | None:
    """(r, c, sign) for an index that is a rank's coordinate plus or minus a constant."""
    match index:
        case Index(rank):
            return rank, Number(0), 1
        case Apply("add", (Index(rank), c)) | Apply("add", (c, Index(rank))) if _constant(c):
            return rank, c, 1
        case Apply("sub", (Index(rank), c)) if _constant(c):
            return rank, c, -1
        case _:
            return None


def _constant(e: Expr) -> bool:
    return not any(isinstance(s, Index | Read) for s in subexprs(e))


def _read(e: Read, build: Callable[[Expr], Code]) -> Code:
    """Slices where the index is a rank's coordinate, shifted perhaps; else a gather."""
    shifts = []
    for index in e.indices:
        shift = _shifted(index)
        shifts.append(None if shift is None else (shift[0], build(shift[1]), shift[2]))
    codes = tuple(map(build, e.indices))
    name = e.tensor

    def run(frame: Frame) -> Pair:
        tensor = frame.scope.tensors[name]
        picks: list[slice | Array] = []
        ranks: list[str] = []
        present: Array | None = None
        for i, (shift, size) in enumerate(zip(shifts, tensor.data.shape, strict=True)):
            origin = tensor.start(i)
            if shift is not None and shift[0] in frame.axis and shift[0] not in ranks:
                span = frame.box[shift[0]]
                low = span.start + shift[2] * shift[1](frame)[0] - origin
                if 0 <= low and low + len(span) <= size:
                    picks.append(slice(low, low + len(span)))
                    ranks.append(shift[0])
                    continue
            index, known = codes[i](frame)
            picks.append(_inside(frame, name, tensor, i, index, known))
            ranks.append("")
            present = meet(present, known)
        data = _pick(frame, tensor.data, picks, ranks)
        if tensor.present is not None:
            mask = tensor.present
            if any(not isinstance(p, slice) for p in picks):
                mask = frame.arrays.broadcast(mask, tensor.data.shape)
            picks = [
                slice(0, 1) if isinstance(p, slice) and n == 1 else p
                for p, n in zip(picks, mask.shape, strict=True)
            ]
            present = meet(present, _pick(frame, mask, picks, ranks))
        return data, present

    return run


def _inside(
    frame: Frame, name: str, tensor: Value, axis: int, index: Array, known: Array | None
) -> Array:
    """The index relative to the tensor's origin, clamped where the point does not count.

    Raises AttncError E601 if it leaves the tensor at a point that counts.
    """
    size, origin = tensor.data.shape[axis], tensor.start(axis)
    local = index - origin
    if is_scalar(local):
        outside = not 0 <= local < size
    else:
        outside = 0 not in local.shape and not (0 <= local.min() and local.max() < size)
    if not outside:
        return local
    mask = (frame.lift(local) < 0) | (frame.lift(local) >= size)
    wrong = meet(meet(mask, known), frame.guard)
    assert wrong is not None
    if 0 not in frame.shape and bool(wrong.any()):
        places = frame.arrays.broadcast(frame.lift(index), wrong.shape)
        rank = tensor.axes[axis]
        raise AttncError(
            "E601",
            f"`{name}` is read at {rank or 'an index'} = {int(places[wrong].reshape(-1)[0])}, "
            f"but holds {rank or 'the axis'} = {origin} .. {origin + size - 1}"
            if size
            else f"`{name}` is read along {rank or 'an axis'}, which has length 0",
            hint="restrict the statement with `where`, or the index with `clamp`",
        )
    clamped = frame.arrays.minimum(frame.arrays.maximum(frame.lift(local), 0), max(size - 1, 0))
    return int(clamped.reshape(-1)[0]) if is_scalar(local) else clamped


def _pick(frame: Frame, x: Array, picks: list[slice | Array], ranks: list[str]) -> Array:
    """x at slices along ranks, at integers, and at index arrays, laid out on the frame's axes."""
    if 0 in x.shape and any(n == 0 and not isinstance(p, slice) for n, p in zip(x.shape, picks)):
        # Every point reads outside an empty axis, and none of them counts.
        return frame.arrays.full((1,) * len(frame.shape), 0, "bool") * frame.arrays.full(
            (1,) * len(frame.shape), 0, frame.dtype
        )
    if any(not isinstance(p, slice | int) for p in picks):
        x, ranks = _gather(frame, x, picks, ranks)
    else:
        if any(isinstance(p, int) or p != slice(0, n) for p, n in zip(picks, x.shape)):
            x = x[tuple(picks)]
        ranks = [r for p, r in zip(picks, ranks) if isinstance(p, slice)]
    places = [frame.axis[r] for r in ranks]
    if places != sorted(places):
        order = sorted(range(len(places)), key=places.__getitem__)
        x = frame.arrays.permute(x, order)
        places.sort()
    if len(places) == len(frame.shape):
        return x
    shape = [1] * len(frame.shape)
    for place, size in zip(places, x.shape):
        shape[place] = size
    return x.reshape(shape)
