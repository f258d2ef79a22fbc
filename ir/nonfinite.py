"""Which infinities a value can take although its inputs are finite: where nothing was seen yet.

A running max starts at -inf, a min at inf, a sum at 0, of which a log is -inf. A law that keeps or
multiplies such values must know. Division by 0 is no case: there the point is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import Literal, TypeAlias

from attnc.ir.expr import Apply, Expr, Number, Read
from attnc.ir.facts import Interval, bounds
from attnc.ir.ops import OPS

Kind: TypeAlias = Literal["-inf", "inf", "nan"]
Kinds: TypeAlias = frozenset[Kind]
FINITE: Kinds = frozenset()
_LOW: Kinds = frozenset({"-inf"})
_HIGH: Kinds = frozenset({"inf"})
_NAN: Kinds = frozenset({"nan"})
_ALL: Kinds = _LOW | _HIGH | _NAN


def nonfinite(
    e: Expr, empty: Mapping[str, float], tensors: Mapping[str, Interval]
) -> frozenset[Kind]:
    """What else than a finite number `e` can be; `empty` gives each running tensor's start."""
    match e:
        case Number(value):
            return FINITE if isfinite(value) else _HIGH if value > 0 else _LOW
        case Read(tensor, _):
            start = empty.get(tensor, 0.0)
            return FINITE if isfinite(start) else _HIGH if start > 0 else _LOW
        case Apply(op, args):
            return _apply(op, args, tuple(nonfinite(a, empty, tensors) for a in args), tensors)
        case _:
            return FINITE


def _apply(
    op: str, args: tuple[Expr, ...], xs: tuple[Kinds, ...], tensors: Mapping[str, Interval]
) -> Kinds:
    low, high = OPS[op].range
    whole = FINITE.union(*xs)
    match op:
        case "add":
            return _sum(*xs)
        case "sub":
            return _sum(xs[0], _opposite(xs[1]))
        case "neg":
            return _opposite(xs[0])
        case "mul" | "div":
            return _product(op, args, xs)
        case "max":
            return whole - _LOW | (xs[0] & xs[1])
        case "min":
            return whole - _HIGH | (xs[0] & xs[1])
        case "clamp":
            return FINITE if not xs[1] | xs[2] | (xs[0] & _NAN) else whole
        case "log" | "log2":
            return _from(0.0, args[0], tensors, at=_LOW) | (xs[0] & (_HIGH | _NAN))
        case "log1p":
            return _from(-1.0, args[0], tensors, at=_LOW) | (xs[0] & (_HIGH | _NAN))
        case "sqrt":
            return _from(0.0, args[0], tensors, at=FINITE) | (xs[0] & (_HIGH | _NAN))
        case "rsqrt":
            return _from(0.0, args[0], tensors, at=_HIGH) | (xs[0] & _NAN)
        case "select":
            return xs[1] | xs[2]
        case "abs":
            return _HIGH | (whole & _NAN) if whole else FINITE
        case "float" | "stopgrad" | "given" | "or_else":
            return whole
        case _ if OPS[op].rising == (1,) and low > -inf:
            return whole & (_NAN if high < inf else _HIGH | _NAN)
        case _:
            return _ALL if whole else FINITE


def _sum(a: Kinds, b: Kinds) -> Kinds:
    clash = ("inf" in a and "-inf" in b) or ("-inf" in a and "inf" in b)
    return a | b | (_NAN if clash else FINITE)


def _opposite(a: Kinds) -> Kinds:
    swapped = {"-inf": _HIGH, "inf": _LOW, "nan": _NAN}
    return FINITE.union(*(swapped[k] for k in a))


def _product(op: str, args: tuple[Expr, ...], xs: tuple[Kinds, ...]) -> Kinds:
    if not xs[0] and (op == "div" or not xs[1]):
        return FINITE if "nan" not in xs[1] else _NAN
    for known, other in ((args[1], xs[0]), (args[0], xs[1])):
        if isinstance(known, Number) and isfinite(known.value) and known.value != 0:
            return other if known.value > 0 else _opposite(other)
    return _ALL


def _from(edge: float, x: Expr, tensors: Mapping[str, Interval], at: Kinds) -> Kinds:
    """A function defined above `edge`, which is `at` there."""
    low = bounds(x, tensors)[0]
    return FINITE if low > edge else at if low >= edge else at | _NAN
