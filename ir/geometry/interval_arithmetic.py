"""Interval arithmetic on arrays of closed intervals, (low, high) each.

Integers are exact; floats are rounded outwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Apply, Index, Read
from attnc.ir.frame import Scope, Value
from attnc.ir.ops import OPS

# Arrays over boxes, or Python numbers where nothing varies.
Array: TypeAlias = Any
Span: TypeAlias = tuple[Array, Array]


def added(x: Span, y: Span) -> Span:
    """The sum."""
    return x[0] + y[0], x[1] + y[1]


def monotone(of: Callable[[Array, Array], Array]) -> Callable[[Span, Span], Span]:
    """An operator that rises with both operands."""
    return lambda x, y: (of(x[0], y[0]), of(x[1], y[1]))


def scaled(factor: int) -> Callable[[Array, Array], Span]:
    """The product with a constant."""
    if factor == -1:
        return lambda low, high: (-high, -low)
    if factor < 0:
        return lambda low, high: (factor * high, factor * low)
    return lambda low, high: (factor * low, factor * high)


def squared(low: Array, high: Array) -> Span:
    """The product of a value with itself."""
    low, high = absolute(low, high)
    return low * low, high * high


def absolute(low: Array, high: Array) -> Span:
    """The absolute value."""
    return np.maximum(np.maximum(low, -high), 0), np.maximum(high, -low)


def multiplied(x: Span, y: Span) -> Span:
    """The product."""
    corners = [a * b for a in x for b in y]
    return _least(corners), _most(corners)


def _least(arrays: list[Array]) -> Array:
    found = arrays[0]
    for x in arrays[1:]:
        found = np.minimum(found, x)
    return found


def _most(arrays: list[Array]) -> Array:
    found = arrays[0]
    for x in arrays[1:]:
        found = np.maximum(found, x)
    return found


def _divided(d: int) -> Callable[[Array], Array]:
    """Floor division by a positive number: a shift where it can be, which is much faster."""
    if d & (d - 1):
        return lambda x: x // d
    shift = d.bit_length() - 1
    return lambda x: x >> shift


def quotient(d: int) -> Callable[[Array, Array], Span]:
    """Floor division by a positive constant."""
    divide = _divided(d)
    return lambda low, high: (divide(low), divide(high))


def remainder(d: int) -> Callable[[Array, Array], Span]:
    """What floor division by a positive constant leaves."""
    divide = _divided(d)

    def run(low: Array, high: Array) -> Span:
        first = divide(low)
        same = first == divide(high)
        return np.where(same, low - first * d, 0), np.where(same, high - first * d, d - 1)

    return run


def any_quotient(x: Span, y: Span) -> Span:
    """By a divisor that varies; by 1 where it is 0, since the predicate is false there."""
    low, high = (np.where((y[0] == 0) & (y[1] == 0), 1, d) for d in y)
    signed = (low > 0) | (high < 0)
    corners = [a // np.where(signed, d, 1) for a in x for d in (low, high)]
    most = np.maximum(np.abs(x[0]), np.abs(x[1]))
    return np.where(signed, _least(corners), -most), np.where(signed, _most(corners), most)


def any_remainder(x: Span, y: Span) -> Span:
    """The remainder of a divisor that varies; of 1 where it is 0."""
    low = np.where(y[0] < 0, y[0] + 1, 0)
    high = np.where(y[1] > 0, y[1] - 1, 0)
    inside = (x[0] >= 0) & (x[1] < y[0])
    single = (x[0] == x[1]) & (y[0] == y[1])
    only = x[0] % np.where(y[0] == 0, 1, y[0])
    return (
        np.where(single, only, np.where(inside, x[0], low)),
        np.where(single, only, np.where(inside, x[1], high)),
    )


def float_operator(op: str, spans: list[Span]) -> Span:
    """Of floats: a monotone operator at the ends, rounded outwards; any other is unbounded."""
    declared = OPS[op]
    rising = declared.rising
    spans = [(np.asarray(low, np.float64), np.asarray(high, np.float64)) for low, high in spans]
    if op in ("mul", "div"):
        found = _corners(op, *spans)
    elif len(rising) == len(spans) and all(rising):
        found = _ends(op, spans, rising)
    else:
        nothing = spans[0][0] * 0.0
        found = nothing + declared.range[0], nothing + declared.range[1]
    return (
        np.nextafter(np.where(np.isnan(found[0]), -np.inf, found[0]), -np.inf),
        np.nextafter(np.where(np.isnan(found[1]), np.inf, found[1]), np.inf),
    )


def _corners(op: str, x: Span, y: Span) -> Span:
    of = np.multiply if op == "mul" else np.divide
    corners = [of(a, b) for a in x for b in y]
    wild = np.logical_or.reduce(np.broadcast_arrays(*map(np.isnan, corners)))
    if op == "div":
        wild = wild | ((y[0] <= 0) & (y[1] >= 0))
    return np.where(wild, -np.inf, _least(corners)), np.where(wild, np.inf, _most(corners))


def _ends(op: str, spans: list[Span], rising: tuple[int, ...]) -> Span:
    """The operator's own value at both ends: what it computes is what points are compared with."""
    found = []
    for end in (0, 1):
        args = np.broadcast_arrays(
            *(s[end if r > 0 else 1 - end] for s, r in zip(spans, rising, strict=True))
        )
        shape = args[0].shape
        tensors = {str(i): Value(a.reshape(-1), ("i",)) for i, a in enumerate(args)}
        expr = Apply(op, tuple(Read(name, (Index("i"),)) for name in tensors))
        box = {"i": range(args[0].size)}
        found.append(evaluate(expr, Scope(tensors=tensors, box=box)).data.reshape(shape))
    slack = 0.0 if OPS[op].kind == "arith" or op in ("float", "abs") else 1e-12
    return found[0] - slack * np.abs(found[0]), found[1] + slack * np.abs(found[1])
