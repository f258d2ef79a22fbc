"""Run one statement over a box of coordinates: map, reduce, select, concatenate.

A reduction skips absent points and gives its identity over nothing. Sums of products run as matrix
products; whatever else would need temporaries beyond the scope's memory is run in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from functools import reduce as fold
from math import inf, prod

from attnc.errors import AttncError
from attnc.ir.arrays import Array, Arrays
from attnc.ir.cascade import Concat, DType, Einsum, Select, Statement
from attnc.ir.evaluate import compile_expr
from attnc.ir.expr import Index
from attnc.ir.frame import Box, Code, Frame, Pair, Scope, Value, meet
from attnc.ir.ops import REDUCTIONS
from attnc.ir.product import Product, as_product, ranks_in, related, run_product
from attnc.ir.walk import iteration_ranks, output_ranks

# Bytes of temporaries per point of an elementwise expression: operands, result, masks.
BYTES_PER_POINT = 32

_MERGE: dict[str, Callable[[Arrays, Array, Array], Array]] = {
    "add": lambda arrays, a, b: a + b,
    "mul": lambda arrays, a, b: a * b,
    "max": lambda arrays, a, b: arrays.maximum(a, b),
    "min": lambda arrays, a, b: arrays.minimum(a, b),
    "or": lambda arrays, a, b: a | b,
    "and": lambda arrays, a, b: a & b,
}


def run_statement(s: Statement, scope: Scope) -> Value:
    """The tensor that a statement defines, at the coordinates of `scope.box`."""
    try:
        match s:
            case Einsum():
                return run_einsum(s, scope)
            case Select():
                return _run_select(s, scope)
            case Concat():
                return _run_concat(s, scope)
    except AttncError as error:
        error.span = error.span or s.span
        raise


def run_einsum(e: Einsum, scope: Scope) -> Value:
    """The tensor of an Einsum: axes as its indices, ranks not in `scope.box` over their extent.

    With an iterative index (`t + 1`) the result's origin is shifted accordingly. Raises AttncError
    E601 and E602 as `evaluate` does.
    """
    with scope.arrays.quiet():
        return _einsum(e, scope, _box(_plan(e).target.space, scope))


def _box(ranks: Sequence[str], scope: Scope) -> dict[str, range]:
    return {r: scope.box[r] if r in scope.box else range(scope.extents[r]) for r in ranks}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a statement writes: the iteration space, output ranks first, and the tensor's axes.

    `moved` are the axes whose index is not just the coordinate of their rank, with that index.
    A tensor of floats may be given by integers (`H[0] = 0`).
    """

    space: tuple[str, ...]
    axes: tuple[str, ...]
    moved: tuple[tuple[int, Code], ...]
    dtype: DType | None = None

    def value(self, frame: Frame, data: Array, present: Array | None = None) -> Value:
        """A result laid out on the frame's axes, any reduced axes of length 1, as the tensor."""
        shape = tuple(len(frame.box[r]) if r else 1 for r in self.axes)
        data = self.lay(frame.lift(data))
        if self.dtype == "float" and not frame.arrays.is_float(data):
            data = frame.arrays.asarray(data, frame.dtype)
        data = frame.arrays.broadcast(data, shape)
        return Value(
            data, self.axes, None if present is None else self.lay(present), self.origin(frame)
        )

    def lay(self, x: Array) -> Array:
        """An array on a frame's axes, on the tensor's."""
        if len(x.shape) == len(self.axes) and "" not in self.axes:
            return x
        sizes = iter(x.shape)
        return x.reshape([next(sizes) if r else 1 for r in self.axes])

    def origin(self, frame: Frame) -> tuple[int, ...]:
        """The first coordinate that is written, on each axis."""
        origin = [frame.box[r].start if r else 0 for r in self.axes]
        for axis, index in self.moved:
            rank = self.axes[axis]
            first = {rank: range(origin[axis], origin[axis] + 1)} if rank else {}
            origin[axis] = int(index(Frame(frame.scope, first))[0])
        return tuple(origin)


@lru_cache(maxsize=1024)
def target(s: Statement) -> Target:
    """The target of a statement."""
    indices = enumerate(s.indices)
    moved = tuple((i, compile_expr(x)) for i, x in indices if not isinstance(x, Index))
    space = iteration_ranks(s) if isinstance(s, Einsum) else tuple(filter(None, output_ranks(s)))
    return Target(space, output_ranks(s), moved, s.dtype if isinstance(s, Einsum) else None)


@dataclass(frozen=True, slots=True)
class _Plan:
    """An Einsum compiled: `ranks` are those that value or predicate depend on."""

    target: Target
    code: Code
    where: Code | None
    ranks: frozenset[str]
    product: Product | None


@lru_cache(maxsize=1024)
def _plan(e: Einsum) -> _Plan:
    product = None
    if e.reduce is not None and e.reduce.op == "sum" and e.dtype == "float":
        product = as_product(e.expr, e.reduce.ranks)
    ranks = ranks_in(e.expr) | (frozenset() if e.where is None else ranks_in(e.where))
    where = None if e.where is None else compile_expr(e.where)
    return _Plan(target(e), compile_expr(e.expr), where, ranks, product)


def _einsum(e: Einsum, scope: Scope, box: Box, matrix: bool = True) -> Value:
    """Run in one piece what fits in memory; `matrix`: sums of products as matrix products."""
    plan = _plan(e)
    whole = related(plan.ranks, scope) & box.keys()
    product = plan.product if matrix else None
    spaces = [whole]
    if product is not None:
        spaces = [related(ranks, scope) & box.keys() for ranks in product.spaces]
        if any(space >= whole for space in spaces):
            product, spaces = None, [whole]
    space = max(spaces, key=lambda names: prod(len(box[r]) for r in names))
    points = prod(len(box[r]) for r in space)
    if points * BYTES_PER_POINT > scope.memory_bytes:
        ranks = [r for r in plan.target.axes if r in space and len(box[r]) > 1]
        ranks = ranks or [r for r in box if r in space and len(box[r]) > 1]
        if ranks:
            longest = max(ranks, key=lambda r: len(box[r]))
            pieces = -(-points * BYTES_PER_POINT // scope.memory_bytes)
            return _in_pieces(e, scope, box, longest, pieces, matrix)
    frame = Frame(scope, box)
    if plan.where is not None:
        frame.admit(plan.where(frame))
    if e.reduce is None:
        data, present = plan.code(frame)
        return plan.target.value(frame, data, meet(present, frame.guard))
    axes = tuple(frame.axis[r] for r in e.reduce.ranks)
    if any(frame.shape[a] == 0 for a in axes):
        return plan.target.value(frame, _identity(e))
    if product is not None:
        total = run_product(product, frame, frozenset(axes))
        if total is None:
            return _einsum(e, scope, box, matrix=False)
        return plan.target.value(frame, total)
    return plan.target.value(frame, _reduce(e, frame, plan.code(frame), axes))


def _in_pieces(e: Einsum, scope: Scope, box: Box, rank: str, pieces: int, matrix: bool) -> Value:
    """Split the box along one rank, join or merge the parts' results."""
    parts = [_einsum(e, scope, {**box, rank: part}, matrix) for part in split(box[rank], pieces)]
    if e.reduce is None or rank not in e.reduce.ranks:
        return join(scope.arrays, parts, parts[0].axes.index(rank))
    merge = _MERGE[REDUCTIONS[e.reduce.op].combine]
    data = fold(lambda a, b: merge(scope.arrays, a, b), [p.data for p in parts])
    return Value(data, parts[0].axes, None, parts[0].origin)


def split(span: range, pieces: int) -> Iterator[range]:
    """At most so many ranges of nearly equal length, one after another; one if it is empty."""
    size = max(1, -(-len(span) // max(1, pieces)))
    for low in range(span.start, span.stop, size) if span else (span.start,):
        yield range(low, min(low + size, span.stop))


def join(arrays: Arrays, parts: Sequence[Value], axis: int) -> Value:
    """Parts of a tensor that follow one another along an axis, as one."""
    if len(parts) == 1:
        return parts[0]
    data = arrays.concat([p.data for p in parts], axis)
    if all(p.present is None for p in parts):
        present = None
    else:
        masks = (
            arrays.full((1,) * len(p.axes), True, "bool") if p.present is None else p.present
            for p in parts
        )
        present = arrays.concat(
            [arrays.broadcast(m, tuple(p.data.shape)) for m, p in zip(masks, parts, strict=True)],
            axis,
        )
    return Value(data, parts[0].axes, present, parts[0].origin)


def _reduce(e: Einsum, frame: Frame, pair: Pair, axes: tuple[int, ...]) -> Array:
    """The reduction of a value along axes, absent points skipped."""
    assert e.reduce is not None
    data, present = frame.lift(pair[0]), meet(pair[1], frame.guard)
    if present is not None:
        data = frame.arrays.where(present, data, _identity(e))
    full = tuple(n if a in axes else data.shape[a] for a, n in enumerate(frame.shape))
    return frame.arrays.reductions[e.reduce.op](frame.arrays.broadcast(data, full), axes)


def _identity(e: Einsum) -> bool | int | float:
    assert e.reduce is not None
    identity = REDUCTIONS[e.reduce.op].identity
    if e.dtype != "int" or isinstance(identity, bool):
        return identity
    # Integers have no infinity: the extremes of int64 stand for it.
    return {inf: 2**63 - 1, -inf: -(2**63)}.get(identity) or int(identity)


def _run_select(s: Select, scope: Scope) -> Value:
    """True where a point is among the chosen along a rank; ties go to the lowest coordinate.

    `topk`: the largest `amount`. `topp`: the fewest, largest first, whose sum reaches `amount`.
    Absent points are never chosen.
    """
    arrays = scope.arrays
    with arrays.quiet():
        to = target(s)
        frame = Frame(scope, _box(to.space, scope))
        if s.where is not None:
            frame.admit(compile_expr(s.where)(frame))
        data, present = compile_expr(s.expr)(frame)
        present = meet(present, frame.guard)
        data = arrays.broadcast(frame.lift(data), frame.shape)
        amount, _ = compile_expr(s.amount)(frame)
        if not arrays.is_float(data):
            data = arrays.asarray(data, scope.dtype)
        axis = frame.axis[s.rank]
        key = -data if present is None else arrays.where(present, -data, float("nan"))
        order = arrays.argsort(key, axis)
        place = arrays.argsort(order, axis)
        if s.op == "topk":
            chosen = place < amount
        else:
            size = data if present is None else arrays.where(present, data, 0.0)
            total = arrays.cumsum(arrays.take_along(size, order, axis), axis)
            reached = arrays.asarray(total >= amount, "int64")
            needed = (arrays.cumsum(reached, axis) - reached == 0) & (amount > 0)
            chosen = arrays.take_along(needed, place, axis)
        if present is not None:
            chosen = chosen & present
        return to.value(frame, chosen)


def _run_concat(s: Concat, scope: Scope) -> Value:
    """The parts one after another; `where` is over the coordinates of the whole."""
    arrays, whole = scope.arrays, target(s)
    box = _box(whole.space, scope)
    span = box[s.rank]
    axis = whole.axes.index(s.rank)
    parts: list[Value] = []
    start = 0
    with arrays.quiet():
        for expr, rank in zip(s.parts, s.ranks, strict=True):
            low = max(span.start - start, 0)
            here = range(low, max(low, min(span.stop - start, scope.extents[rank])))
            start += scope.extents[rank]
            if here or (not parts and rank == s.ranks[-1]):
                named = {r: (rank, here) if r == s.rank else (r, box[r]) for r in whole.space}
                frame = Frame(scope, dict(named.values()))
                axes = tuple(rank if r == s.rank else r for r in whole.axes)
                parts.append(Target((), axes, ()).value(frame, *compile_expr(expr)(frame)))
        frame = Frame(scope, box)
        if s.where is not None:
            frame.admit(compile_expr(s.where)(frame))
    joined = join(arrays, parts, axis)
    mask = None if frame.guard is None else whole.lay(frame.guard)
    return Value(joined.data, whole.axes, meet(joined.present, mask), whole.origin(frame))
