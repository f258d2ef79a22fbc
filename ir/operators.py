"""How each pointwise operator computes value and presence (the laws of absence are here).

A result is absent where an operand is. Besides, division by exactly 0 and -inf - -inf are absent,
`or_else` fills in what is absent, and `given` makes absent.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import inf
from typing import TypeAlias

import numpy as np

from attnc.errors import AttncError
from attnc.ir.arrays import NUMPY, Array, is_scalar
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.frame import Code, Frame, Pair, meet
from attnc.ir.ops import OPS
from attnc.ir.walk import subexprs

Rule: TypeAlias = Callable[[Apply, tuple[Code, ...]], Code]


def _gathers(e: Expr) -> bool:
    """Whether reading it can leave a tensor: some index is computed."""
    return any(
        isinstance(s, Read) and any(isinstance(i, Apply | Read) for i in s.indices)
        for s in subexprs(e)
    )


def _pointwise(apply: Callable[..., Pair]) -> Rule:
    """The rule of an operator that is absent wherever an operand is, and perhaps elsewhere.

    `apply(frame, present, *values)` returns the value and the whole presence.
    """

    def rule(e: Apply, codes: tuple[Code, ...]) -> Code:
        gathers = [_gathers(a) for a in e.args]
        if any(gathers) and len(codes) > 1:
            order = tuple(sorted(range(len(codes)), key=gathers.__getitem__))
            return _one_by_one(apply, codes, order)
        if len(codes) == 1:
            return lambda frame: _unary(frame, codes[0](frame))

        def run(frame: Frame) -> Pair:
            values, present = [], None
            for code in codes:
                x, there = code(frame)
                values.append(x)
                present = meet(present, there)
            return apply(frame, present, *values)

        return run

    def _unary(frame: Frame, pair: Pair) -> Pair:
        return apply(frame, pair[1], pair[0])

    return rule


def _one_by_one(
    apply: Callable[..., Pair], codes: tuple[Code, ...], order: tuple[int, ...]
) -> Code:
    """Operands in the given order: where one is absent, an index in the next need not be valid."""

    def run(frame: Frame) -> Pair:
        outer = frame.guard
        values: list[Array] = [None] * len(codes)
        present = None
        for i in order:
            values[i], there = codes[i](frame)
            frame.narrow(there)
            present = meet(present, there)
        frame.guard = outer
        return apply(frame, present, *values)

    return run


def _total(f: Callable[..., Array]) -> Rule:
    """An operator that is defined everywhere."""
    return _pointwise(lambda frame, present, *values: (f(*values), present))


def _sub(frame: Frame, present: Array | None, a: Array, b: Array) -> Pair:
    both = _both_minus_inf(frame, a, b)
    if both is None:
        return a - b, present
    a, b = (frame.arrays.where(both, 0.0, frame.lift(x)) for x in (a, b))
    return a - b, meet(present, ~both)


def _both_minus_inf(frame: Frame, a: Array, b: Array) -> Array | None:
    """Where both are -inf; None if nowhere. The smaller operand decides most cases cheaply."""
    if is_scalar(a) and is_scalar(b):
        return ~frame.lift(False) if a == b == -inf else None
    small, large = sorted((a, b), key=_points)
    if not (is_scalar(small) or frame.arrays.is_float(small)):
        return None
    some = small == -inf
    if not (some if is_scalar(some) else some.any()):
        return None
    both = (large == -inf) & some
    return both if both.any() else None


def _points(x: Array) -> int:
    size = 1
    for n in () if is_scalar(x) else x.shape:
        size *= n
    return 0 if is_scalar(x) else size


def _div(frame: Frame, present: Array | None, a: Array, b: Array) -> Pair:
    a, b = frame.safe(a, present), frame.safe(b, present)
    b, present = _nonzero(frame, b, present)
    if not is_scalar(a) and not frame.arrays.is_float(a):
        a = frame.arrays.asarray(a, frame.dtype)
    return a / b, present


def _integer(f: Callable[[Array, Array], Array]) -> Rule:
    """Floor division or its remainder: absent where the divisor is 0."""

    def apply(frame: Frame, present: Array | None, a: Array, b: Array) -> Pair:
        b, present = _nonzero(frame, b, present)
        return f(a, b), present

    return _pointwise(apply)


def _nonzero(frame: Frame, b: Array, present: Array | None) -> Pair:
    """A divisor with 1 for 0, and where it was not 0."""
    if is_scalar(b):
        return (b, present) if b != 0 else (1, frame.lift(False))
    zero = b == 0
    if not zero.any():
        return b, present
    return frame.arrays.where(zero, 1, b), meet(present, ~zero)


def _exactdiv(e: Apply, codes: tuple[Code, ...]) -> Code:
    def apply(frame: Frame, present: Array | None, a: Array, b: Array) -> Pair:
        zero = b == 0
        divisor = (b or 1) if is_scalar(b) else frame.arrays.where(zero, 1, b)
        inexact = (a % divisor != 0) | zero
        if is_scalar(inexact):
            if not inexact:
                return a // divisor, present
        elif not inexact.any():
            return a // divisor, present
        wrong = meet(meet(frame.lift(inexact), present), frame.guard)
        if 0 not in frame.shape and wrong is not None and wrong.any():
            raise _inexact(frame, e, a, b, wrong)
        return a // divisor, present

    return _pointwise(apply)(e, codes)


def _inexact(frame: Frame, e: Apply, a: Array, b: Array, wrong: Array) -> AttncError:
    first = [
        int(frame.arrays.broadcast(frame.lift(x), wrong.shape)[wrong].reshape(-1)[0])
        for x in (a, b)
    ]
    names = {
        _text(s): frame.scope.extents[s.rank]
        if isinstance(s, Extent)
        else frame.scope.param(s.name, s.item)
        for s in subexprs(e)
        if isinstance(s, Extent | Param)
    }
    values = ", ".join(f"{name}={value}" for name, value in names.items())
    return AttncError(
        "E602",
        f"`{_text(e)}` = {first[0]} / {first[1]} "
        + ("leaves a remainder" if first[1] else "divides by zero")
        + (f": {values}" if values else ""),
        hint="`//` rounds down",
    )


def _text(e: Expr) -> str:
    """An integer expression as a spec writes it, near enough for a message."""
    match e:
        case Extent(rank):
            return rank.upper()
        case Param(name, item):
            return name if item is None else f"{name}[{item}]"
        case Number(value):
            return str(value)
        case Index(rank):
            return rank
        case Read(tensor, indices):
            return f"{tensor}[{', '.join(map(_text, indices))}]"
        case Apply(op, (a, b)) if op in _INFIX:
            left, right = (f"({_text(x)})" if isinstance(x, Apply) else _text(x) for x in (a, b))
            return f"{left} {_INFIX[op]} {right}"
        case Apply(op, args):
            return f"{op}({', '.join(map(_text, args))})"


_INFIX = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%", "exactdiv": "/"}


def _pow(frame: Frame, present: Array | None, a: Array, b: Array) -> Pair:
    if is_scalar(a) and is_scalar(b):
        return np.power(np.float64(a), np.float64(b)).item(), present
    a, b = (
        x if is_scalar(x) or frame.arrays.is_float(x) else frame.arrays.asarray(x, frame.dtype)
        for x in (a, b)
    )
    return frame.safe(a, present) ** frame.safe(b, present), present


def _extremum(name: str) -> Rule:
    """`min` or `max`; NaN wins, as in the libraries."""
    scalar = {"minimum": np.minimum, "maximum": np.maximum}[name]

    def apply(frame: Frame, present: Array | None, a: Array, b: Array) -> Pair:
        if is_scalar(a):
            if is_scalar(b):
                return scalar(a, b).item(), present
            a, b = b, a
        return getattr(frame.arrays, name)(a, b), present

    return _pointwise(apply)


def _clamp(frame: Frame, present: Array | None, x: Array, low: Array, high: Array) -> Pair:
    if is_scalar(x) and is_scalar(low) and is_scalar(high):
        return min(max(x, low), high), present
    floor = frame.arrays.maximum(frame.lift(x), low)
    return frame.arrays.minimum(floor, high), present


def _function(e: Apply, codes: tuple[Code, ...]) -> Code:
    """A function of one argument, from the library's table."""
    name, folded = e.op, NUMPY.functions[e.op]
    dtype = np.float64 if OPS[e.op].result == "float" else None

    def apply(frame: Frame, present: Array | None, x: Array) -> Pair:
        if is_scalar(x):
            with NUMPY.quiet():
                return folded(np.asarray(x, dtype)).item(), present
        return frame.arrays.functions[name](frame.safe(x, present)), present

    return _pointwise(apply)(e, codes)


def _float(frame: Frame, present: Array | None, x: Array) -> Pair:
    return (float(x) if is_scalar(x) else frame.arrays.asarray(x, frame.dtype)), present


def _not(x: Array) -> Array:
    return not x if is_scalar(x) else ~x


def _connective(e: Apply, codes: tuple[Code, ...]) -> Code:
    """`and`, `or`. The left side guards the right: where it decides, no index needs to be valid."""
    left, right = codes
    conjunction = e.op == "and"
    apply = operator.and_ if conjunction else operator.or_
    reads = any(isinstance(s, Read) for s in subexprs(e.args[1]))

    def run(frame: Frame) -> Pair:
        a, known_a = left(frame)
        outer = frame.guard
        if reads:
            frame.narrow(known_a)
            frame.narrow(a if conjunction else _not(a))
        b, known_b = right(frame)
        frame.guard = outer
        return apply(a, b), meet(known_a, known_b)

    return run


def _select(e: Apply, codes: tuple[Code, ...]) -> Code:
    condition, then, otherwise = codes

    def run(frame: Frame) -> Pair:
        chosen, known = condition(frame)
        if is_scalar(chosen):
            x, present = (then if chosen else otherwise)(frame)
            return x, meet(known, present)
        outer = frame.guard
        frame.narrow(known)
        inner = frame.guard
        frame.narrow(chosen)
        a, in_a = then(frame)
        frame.guard = inner
        frame.narrow(~chosen)
        b, in_b = otherwise(frame)
        frame.guard = outer
        where = frame.arrays.where
        if in_a is not None or in_b is not None:
            in_a, in_b = (frame.lift(True) if p is None else p for p in (in_a, in_b))
            known = meet(known, where(chosen, in_a, in_b))
        return where(chosen, frame.lift(a), frame.lift(b)), known

    return run


def _or_else(e: Apply, codes: tuple[Code, ...]) -> Code:
    value, fallback = codes

    def run(frame: Frame) -> Pair:
        x, present = value(frame)
        if present is None:
            return x, None
        outer = frame.guard
        frame.narrow(~present)
        y, there = fallback(frame)
        frame.guard = outer
        x = frame.arrays.where(present, frame.lift(x), frame.lift(y))
        return x, None if there is None else present | there

    return run


def _given(e: Apply, codes: tuple[Code, ...]) -> Code:
    value, condition = codes

    def run(frame: Frame) -> Pair:
        outer = frame.guard
        holds, known = condition(frame)
        frame.guard = None
        frame.narrow(known)
        frame.narrow(holds)
        mask = frame.guard
        frame.guard = meet(outer, mask)
        x, present = value(frame)
        frame.guard = outer
        return x, meet(present, mask)

    return run


RULES: dict[str, Rule] = {
    "add": _total(operator.add),
    "sub": _pointwise(_sub),
    "mul": _total(operator.mul),
    "div": _pointwise(_div),
    "neg": _total(operator.neg),
    "min": _extremum("minimum"),
    "max": _extremum("maximum"),
    "pow": _pointwise(_pow),
    "floordiv": _integer(operator.floordiv),
    "mod": _integer(operator.mod),
    "exactdiv": _exactdiv,
    "lt": _total(operator.lt),
    "le": _total(operator.le),
    "gt": _total(operator.gt),
    "ge": _total(operator.ge),
    "eq": _total(operator.eq),
    "ne": _total(operator.ne),
    "and": _connective,
    "or": _connective,
    "not": _total(_not),
    "clamp": _pointwise(_clamp),
    "select": _select,
    "float": _pointwise(_float),
    "or_else": _or_else,
    "given": _given,
    **dict.fromkeys(NUMPY.functions, _function),
}
