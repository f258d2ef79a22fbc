"""Run one statement over a box of coordinates: map, reduce, select, concatenate.

A reduction skips absent points and gives its identity over nothing. Sums of products run as matrix
products; whatever else would need temporaries beyond the scope's memory is run in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from functools import reduce as fold
from math import inf, isfinite, prod

from attnc.errors import AttncError
from attnc.ir.arrays import Array, Arrays, is_scalar
from attnc.ir.cascade import Concat, Einsum, Rank, Reduction, Select, Statement
from attnc.ir.contract import contract
from attnc.ir.evaluate import admit, compile_expr
from attnc.ir.expr import Apply, Expr, Index, Number
from attnc.ir.frame import Box, Frame, Pair, Scope, Value, meet
from attnc.ir.ops import REDUCTIONS
from attnc.ir.walk import index_ranks, iteration_ranks, output_ranks, subexprs

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
    match s:
        case Einsum():
            return run_einsum(s, scope)
        case Select():
            return _run_select(s, scope)
        case Concat():
            return _run_concat(s, scope)


def run_einsum(e: Einsum, scope: Scope) -> Value:
    """The tensor of an Einsum: axes as its indices, ranks not in `scope.box` over their extent.

    With an iterative index (`t + 1`) the result's origin is shifted accordingly. Raises AttncError
    E601 and E602 as `evaluate` does.
    """
    with scope.arrays.quiet():
        return _einsum(e, scope, _box(iteration_ranks(e), scope))


def _box(ranks: Sequence[str], scope: Scope) -> dict[str, range]:
    return {r: scope.box[r] if r in scope.box else range(scope.extents[r]) for r in ranks}


def _einsum(e: Einsum, scope: Scope, box: Box) -> Value:
    if e.reduce is not None and e.reduce.op == "sum" and _is_product(e.expr, scope, box, e.reduce):
        value = _run_product(e, scope, box)
        if value is not None:
            return value
    names = frozenset().union(*(_ranks_of(x, scope) for x in (e.expr, e.where) if x is not None))
    points = prod(len(span) for r, span in box.items() if r in names)
    pieces = -(-points * BYTES_PER_POINT // max(1, scope.memory_bytes))
    if pieces > 1:
        kept = [r for r in output_ranks(e) if r in names and len(box[r]) > 1]
        inner = [r for r in (e.reduce.ranks if e.reduce else ()) if len(box[r]) > 1]
        if kept or inner:
            rank = max(kept or inner, key=lambda r: len(box[r]))
            return _in_pieces(e, scope, box, rank, pieces)
    frame = Frame(scope, box)
    admit(frame, e.where)
    pair = compile_expr(e.expr)(frame)
    if e.reduce is None:
        data, present = pair
        return _shaped(e.indices, frame, data, meet(present, frame.guard))
    return _shaped(e.indices, frame, _reduce(e, frame, pair), None)


def _in_pieces(e: Einsum, scope: Scope, box: Box, rank: str, pieces: int) -> Value:
    """Split the box along one rank, join or merge the parts' results."""
    parts = [_einsum(e, scope, {**box, rank: part}) for part in split(box[rank], pieces)]
    if e.reduce is None or rank not in e.reduce.ranks:
        return join(scope.arrays, parts, output_ranks(e).index(rank))
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


def _shaped(indices: tuple[Expr, ...], frame: Frame, data: Array, present: Array | None) -> Value:
    """A result laid out on the frame's axes as a tensor with the statement's indices as axes."""
    ranks = tuple(next(iter(index_ranks(i)), "") for i in indices)
    places = [frame.axis[r] for r in ranks if r]
    shape = tuple(len(frame.box[r]) if r else 1 for r in ranks)
    rest = [i for i in range(len(frame.shape)) if i not in places]

    def lay(x: Array) -> Array:
        x = frame.lift(x)
        if places + rest != list(range(len(frame.shape))):
            x = frame.arrays.permute(x, places + rest)
        sizes = iter(x.shape[: len(places)])
        return x.reshape([next(sizes) if r else 1 for r in ranks])

    origin = tuple(origin_of(i, frame) for i in indices)
    data = frame.arrays.broadcast(lay(data), shape)
    return Value(data, ranks, None if present is None else lay(present), origin)


def origin_of(index: Expr, frame: Frame) -> int:
    """The first coordinate that an output index reaches in the frame's box."""
    starts = {r: range(frame.box[r].start, frame.box[r].start + 1) for r in index_ranks(index)}
    return int(compile_expr(index)(Frame(frame.scope, starts))[0])


def _reduce(e: Einsum, frame: Frame, pair: Pair) -> Array:
    """The reduction of a value over the einsum's reduced ranks, absent points skipped."""
    assert e.reduce is not None
    data, present = frame.lift(pair[0]), meet(pair[1], frame.guard)
    identity = _identity(e)
    axes = tuple(frame.axis[r] for r in e.reduce.ranks)
    if any(frame.shape[a] == 0 for a in axes):
        return frame.lift(identity)
    if present is not None:
        data = frame.arrays.where(present, data, identity)
    full = tuple(n if a in axes else data.shape[a] for a, n in enumerate(frame.shape))
    return frame.arrays.reductions[e.reduce.op](frame.arrays.broadcast(data, full), axes)


def _identity(e: Einsum) -> bool | int | float:
    assert e.reduce is not None
    identity = REDUCTIONS[e.reduce.op].identity
    if e.dtype != "int" or isinstance(identity, bool):
        return identity
    # Integers have no infinity: the extremes of int64 stand for it.
    return {inf: 2**63 - 1, -inf: -(2**63)}.get(identity) or int(identity)


@lru_cache(maxsize=4096)
def _ranks_in(e: Expr) -> frozenset[str]:
    return frozenset(s.rank for s in subexprs(e) if isinstance(s, Index))


def _ranks_of(e: Expr, scope: Scope) -> frozenset[str]:
    """The ranks that an expression depends on; with a rank its parent and its components."""
    found = set(_ranks_in(e))
    for r in tuple(found):
        decl: Rank | None = scope.ranks.get(r)
        if decl is not None:
            found.update(decl.components, () if decl.parent is None else (decl.parent,))
    return frozenset(found)


@lru_cache(maxsize=4096)
def _factors(e: Expr, reduced: tuple[str, ...]) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
    """(factors, divisors) with e = product of factors / product of divisors.

    A divisor depends on no reduced rank, so it can be applied to the sum.
    """
    match e:
        case Apply("mul", (a, b)):
            left, right = _factors(a, reduced), _factors(b, reduced)
            return left[0] + right[0], left[1] + right[1]
        case Apply("neg", (a,)):
            factors, divisors = _factors(a, reduced)
            return (*factors, Number(-1.0)), divisors
        case Apply("div", (a, b)) if len(_factors(a, reduced)[0]) > 1:
            factors, divisors = _factors(a, reduced)
            if _ranks_in(b).isdisjoint(reduced):
                return factors, (*divisors, b)
            return (*factors, Apply("div", (Number(1.0), b))), divisors
        case _:
            return (e,), ()


def _is_product(e: Expr, scope: Scope, box: Box, reduction: Reduction) -> bool:
    """Whether a matrix product computes the sum without visiting the whole iteration space."""
    factors, _ = _factors(e, reduction.ranks)
    spaces = [_ranks_of(f, scope) & box.keys() for f in factors]
    whole = frozenset().union(*spaces)
    return len(factors) > 1 and all(space != whole for space in spaces)


def _run_product(e: Einsum, scope: Scope, box: Box) -> Value | None:
    """A sum of products; None where 0 for an absent factor would not do (inf or NaN beside it)."""
    assert e.reduce is not None
    frame = Frame(scope, box)
    axes = frozenset(frame.axis[r] for r in e.reduce.ranks)
    if any(frame.shape[a] == 0 for a in axes):
        return _shaped(e.indices, frame, _identity(e), None)
    admit(frame, e.where)
    factors, divisors = _factors(e.expr, e.reduce.ranks)
    pairs = [compile_expr(f)(frame) for f in factors]
    if any(not is_scalar(x) and not scope.arrays.is_float(x) for x, _ in pairs):
        return None
    masked = _masked(frame, pairs)
    if masked is None:
        return None
    scale = prod(x for x in masked if is_scalar(x))
    data = contract(scope.arrays, [x for x in masked if not is_scalar(x)], axes, frame.shape)
    if scale != 1:
        data = data * scale
    for divisor in divisors:
        d, present = compile_expr(divisor)(frame)
        if not (isfinite(d) if is_scalar(d) else scope.arrays.all_finite(d)):
            return None
        data = _divide(frame, data, d, present)
    return _shaped(e.indices, frame, data, None)


def _masked(frame: Frame, pairs: list[Pair]) -> list[Array] | None:
    """The factors with 0 at absent points; None if another factor could turn such a 0 into NaN."""
    where, lift = frame.arrays.where, frame.lift
    data = [x for x, _ in pairs]
    holders = set()
    for i, (x, present) in enumerate(pairs):
        if present is not None:
            data[i] = where(present, lift(x), 0.0)
            holders.add(i)
    if frame.guard is not None:
        widest = max(range(len(data)), key=lambda i: _covered(frame.guard, lift(data[i])))
        data[widest] = where(frame.guard, lift(data[widest]), 0.0)
        holders.add(widest)
    if not holders:
        return data if any(not is_scalar(x) for x in data) else [lift(data[0]), *data[1:]]
    for i, x in enumerate(data):
        if holders != {i} and not (isfinite(x) if is_scalar(x) else frame.arrays.all_finite(x)):
            return None
    return data


def _covered(mask: Array, x: Array) -> int:
    """How many points of a mask's axes an array has along itself already."""
    return prod(n for m, n in zip(mask.shape, x.shape, strict=True) if m != 1)


def _divide(frame: Frame, total: Array, divisor: Array, present: Array | None) -> Array:
    """A sum divided afterwards; where the divisor is 0 or absent every term was, so the sum is 0."""
    wrong = divisor == 0
    if is_scalar(wrong):
        if wrong:
            return total * 0
    elif wrong.any():
        divisor = frame.arrays.where(wrong, 1.0, divisor)
        present = ~wrong if present is None else present & ~wrong
    quotient = total / divisor
    return quotient if present is None else frame.arrays.where(present, quotient, 0.0)


def _run_select(s: Select, scope: Scope) -> Value:
    """True where a point is among the chosen along a rank; ties go to the lowest coordinate.

    `topk`: the largest `amount`. `topp`: the fewest, largest first, whose sum reaches `amount`.
    Absent points are never chosen.
    """
    arrays = scope.arrays
    with arrays.quiet():
        frame = Frame(scope, _box(iteration_ranks(s), scope))
        admit(frame, s.where)
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
        return _shaped(s.indices, frame, chosen, None)


def _run_concat(s: Concat, scope: Scope) -> Value:
    """The parts one after another; `where` is over the coordinates of the whole."""
    arrays = scope.arrays
    axis = output_ranks(s).index(s.rank)
    box = _box(tuple(r for r in output_ranks(s) if r), scope)
    parts: list[Value] = []
    start = 0
    for expr, rank in zip(s.parts, s.ranks, strict=True):
        size = scope.extents[rank]
        low = max(box[s.rank].start, start) - start
        high = min(box[s.rank].stop, start + size) - start
        inner = {(rank if r == s.rank else r): span for r, span in box.items()}
        inner[rank] = range(low, max(low, high))
        with arrays.quiet():
            frame = Frame(scope, inner)
            indices = tuple(Index(rank) if i == axis else x for i, x in enumerate(s.indices))
            parts.append(_shaped(indices, frame, *compile_expr(expr)(frame)))
        start += size
    if box[s.rank].stop > start:
        raise AttncError(
            "E505",
            f"`concat` gives {start} coordinates of `{s.rank}`, {box[s.rank].stop} are asked",
        )
    value = join(arrays, parts, axis)
    frame = Frame(scope, box)
    with arrays.quiet():
        admit(frame, s.where)
    mask = None if frame.guard is None else _shaped(s.indices, frame, frame.guard, None).data
    origin = tuple(origin_of(i, frame) for i in s.indices)
    return Value(value.data, output_ranks(s), meet(value.present, mask), origin)
