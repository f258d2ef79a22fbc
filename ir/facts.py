"""What is known of a value before it is computed: its sign, whether it can be 0 or -inf.

Interval arithmetic over the declared ranges of operators. The answers are used to prove laws legal
(`y >= 0` may leave a max) and guards needless (`1 + sum(..)` is never 0); "don't know" is always
safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, nextafter
from typing import TypeAlias

from attnc.ir.cascade import ParamDecl
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.ops import OPS, REDUCTIONS

Interval: TypeAlias = tuple[float, float]
ANY: Interval = (-inf, inf)


def bounds(e: Expr, tensors: Mapping[str, Interval]) -> Interval:
    """Closed bounds of an expression's values; `tensors` bounds what it reads.

    A param's range stands there, too, by `param_key`.
    """
    match e:
        case Number(value):
            return (float(value), float(value))
        case Index():
            return (0.0, inf)
        case Extent():
            # A rank without points has no values to bound.
            return (1.0, inf)
        case Read(tensor, _):
            return tensors.get(tensor, ANY)
        case Apply(op, args):
            return _apply(op, tuple(bounds(a, tensors) for a in args), args)
        case Param(name, _):
            return tensors.get(param_key(name), ANY)


def param_key(name: str) -> str:
    """Where the bounds of a param are found among those of tensors: no tensor is called so."""
    return f"param {name}"


def param_bounds(p: ParamDecl) -> Interval:
    """The declared range; what is excluded lies outside."""
    low = -inf if p.low is None else float(p.low)
    high = inf if p.high is None else float(p.high)
    return (
        nextafter(low, inf) if p.low_open else low,
        nextafter(high, -inf) if p.high_open else high,
    )


def reduced_bounds(op: str, interval: Interval) -> Interval:
    """Bounds of a reduction of values within `interval`, its identity over nothing included."""
    low, high = interval
    if REDUCTIONS[op].combine == "add":
        return (0.0 if low >= 0 else -inf, 0.0 if high <= 0 else inf)
    if REDUCTIONS[op].combine == "mul":
        return (0.0, inf) if low >= 0 else ANY
    empty = float(REDUCTIONS[op].identity)
    return (min(low, empty), max(high, empty))


def nonnegative(e: Expr, tensors: Mapping[str, Interval]) -> bool:
    """Provably >= 0 wherever it is present (NaN aside)."""
    return bounds(e, tensors)[0] >= 0


def positive(e: Expr, tensors: Mapping[str, Interval]) -> bool:
    """Provably > 0. Unlike an interval's closed bound, 1 / x of a finite x > 0 counts."""
    match e:
        case Extent():
            return True
        case Apply("mul" | "div" | "min", (a, b)):
            return positive(a, tensors) and positive(b, tensors)
        case Apply("sqrt" | "rsqrt" | "float" | "stopgrad", (a,)):
            return positive(a, tensors)
        case _:
            return bounds(e, tensors)[0] > 0


def nonzero(e: Expr, tensors: Mapping[str, Interval]) -> bool:
    """Provably different from 0."""
    low, high = bounds(e, tensors)
    return low > 0 or high < 0


def may_be_minus_inf(e: Expr, finite: frozenset[str]) -> bool:
    """Whether -inf is a value to expect; `finite` names tensors that hold none (dot products)."""
    match e:
        case Number(value):
            return value == -inf
        case Read(tensor, _):
            return tensor not in finite
        case Apply("log" | "log2" | "log1p", _):
            return True
        case Apply(op, args):
            if OPS[op].range[0] > -inf or OPS[op].kind in ("compare", "logic"):
                return False
            kept = args[1:] if op == "select" else args
            return any(may_be_minus_inf(a, finite) for a in kept)
        case _:
            return False


def _apply(op: str, xs: tuple[Interval, ...], args: tuple[Expr, ...]) -> Interval:
    declared = OPS[op].range
    match op:
        case "add":
            return (_plus(xs[0][0], xs[1][0], -inf), _plus(xs[0][1], xs[1][1], inf))
        case "sub":
            return (_plus(xs[0][0], -xs[1][1], -inf), _plus(xs[0][1], -xs[1][0], inf))
        case "neg":
            return (-xs[0][1], -xs[0][0])
        case "mul":
            # x * x is a square whatever x is.
            if args[0] == args[1]:
                return (0.0, inf)
            return _product(xs[0], xs[1])
        case "div" | "floordiv" | "exactdiv":
            low, high = xs[1]
            if op == "exactdiv" and low > 0 and xs[0][0] > 0:
                return (1.0, inf)
            if low > 0:
                return _product(xs[0], (1 / high, 1 / low)) if op == "div" else _quotient(xs)
            return (0.0, inf) if xs[0][0] >= 0 and low >= 0 else ANY
        case "mod":
            return (0.0, inf) if xs[1][0] > 0 else ANY
        case "min":
            return (min(xs[0][0], xs[1][0]), min(xs[0][1], xs[1][1]))
        case "max":
            return (max(xs[0][0], xs[1][0]), max(xs[0][1], xs[1][1]))
        case "clamp":
            low, high = (min(max(x, least), most) for x, least, most in zip(*xs, strict=True))
            return (low, high)
        case "pow":
            return (0.0, inf) if xs[0][0] >= 0 else ANY
        case "select":
            return (min(xs[1][0], xs[2][0]), max(xs[1][1], xs[2][1]))
        case "or_else":
            return (min(xs[0][0], xs[1][0]), max(xs[0][1], xs[1][1]))
        case "float" | "stopgrad" | "given":
            return xs[0]
        case "sqrt":
            return (max(0.0, xs[0][0]) ** 0.5, inf)
        case _:
            return declared


def _plus(a: float, b: float, undefined: float) -> float:
    return undefined if a == -b and abs(a) == inf else a + b


def _product(x: Interval, y: Interval) -> Interval:
    # 0 * inf at a corner stands for "any finite multiple of 0".
    corners = [0.0 if 0 in (a, b) else a * b for a in x for b in y]
    return (min(corners), max(corners))


def _quotient(xs: tuple[Interval, ...]) -> Interval:
    return (0.0, inf) if xs[0][0] >= 0 else ANY
