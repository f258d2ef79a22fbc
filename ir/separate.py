"""Split an expression along a rank: what varies along it, and what can leave the reduction.

Everything here follows from `ir.ops`: which operator distributes, which maps turn one operation
into another (`exp`: sums to products), which are homogeneous. `varies` tells a subexpression's
side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce as fold
from typing import TypeAlias

from attnc.ir.expr import Apply, Expr, Number
from attnc.ir.facts import Interval, nonnegative
from attnc.ir.ops import OPS

Varies: TypeAlias = Callable[[Expr], bool]
ONE = Number(1.0)
ZERO = Number(0.0)
_MOST_TERMS = 64  # a product of sums grows exponentially; each term would be a state


@dataclass(frozen=True, slots=True)
class Separation:
    """`product(free) * dependent`: the free factors do not vary along the rank."""

    free: tuple[Expr, ...]
    dependent: Expr


def multiply(factors: tuple[Expr, ...]) -> Expr:
    """The product of the factors, without ones; 1 for none. Inverted factors become divisions."""
    kept = [f for f in factors if f not in (ONE, Number(1))]
    up = [f for f in kept if not _is_inverse(f)]
    down = [f.args[1] for f in kept if isinstance(f, Apply) and _is_inverse(f)]
    product = fold(lambda a, b: Apply("mul", (a, b)), up) if up else ONE
    return fold(lambda a, b: Apply("div", (a, b)), down, product)


def add_up(terms: tuple[Expr, ...]) -> Expr:
    """The sum of the terms; 0 for none."""
    if not terms:
        return ZERO
    return fold(_plus, terms)


def _plus(a: Expr, b: Expr) -> Expr:
    if isinstance(b, Apply) and b.op == "neg":
        return Apply("sub", (a, b.args[0]))
    return Apply("add", (a, b))


def inverse(e: Expr) -> Expr:
    """`1 / e`, kept recognisable so that products print as divisions."""
    return ONE if e == ONE else Apply("div", (ONE, e))


def _is_inverse(e: Expr) -> bool:
    return isinstance(e, Apply) and e.op == "div" and e.args[0] == ONE


def separate(e: Expr, varies: Varies, tensors: Mapping[str, Interval]) -> Separation:
    """Pull every factor that does not vary out of `e`, through all operators that permit it."""
    if not varies(e):
        return Separation((e,), ONE)
    if not isinstance(e, Apply):
        return Separation((), e)
    parts = tuple(separate(a, varies, tensors) for a in e.args)
    match e.op, parts:
        case "mul", (a, b):
            return Separation(a.free + b.free, multiply((a.dependent, b.dependent)))
        case "div", (a, b):
            freed = a.free + tuple(map(inverse, b.free))
            return Separation(freed, multiply((a.dependent, inverse(b.dependent))))
        case "neg", (a,):
            return Separation((Number(-1.0), *a.free), a.dependent)
        case "pow", (a, _) if not varies(e.args[1]):
            return _through_power(e, a, tensors)
        case "add" | "sub", _:
            return _through_common(e, parts)
        case "select", (_, a, b) if varies(e.args[0]):
            inner = _through_common(Apply("add", e.args[1:]), (a, b))
            assert isinstance(inner.dependent, Apply)
            return Separation(inner.free, Apply("select", (e.args[0], *inner.dependent.args)))
        case "float" | "stopgrad", (a,):
            return Separation(a.free, Apply(e.op, (a.dependent,)))
        case _:
            return _through_declared(e, parts, tensors)


def _through_power(e: Apply, base: Separation, tensors: Mapping[str, Interval]) -> Separation:
    """(u v)^k = u^k v^k, for u >= 0 and v >= 0 or a whole k; (f u)^k = f(k u) if f maps + to x."""
    exponent = e.args[1]
    inner = base.dependent
    if isinstance(inner, Apply) and OPS[inner.op].maps == ("add", "mul"):
        inner = Apply(inner.op, (Apply("mul", (exponent, inner.args[0])),))
    else:
        inner = Apply("pow", (inner, exponent))
    whole = isinstance(exponent, Number) and float(exponent.value).is_integer()
    free = multiply(base.free)
    if not base.free:
        return Separation((), inner)
    if whole or (nonnegative(free, tensors) and nonnegative(base.dependent, tensors)):
        return Separation((Apply("pow", (free, exponent)),), inner)
    return Separation((), e)


def _through_common(e: Apply, parts: tuple[Separation, ...]) -> Separation:
    """y u + y v = y (u + v): a factor leaves a sum (or a choice) if every term has it."""
    terms = [(a, p) for a, p in zip(e.args, parts, strict=True) if a not in (ZERO, Number(0))]
    shared = terms[0][1].free if terms else ()
    if not shared or any(p.free != shared or p.dependent == ONE for _, p in terms):
        return Separation((), e)
    inner = tuple(
        a if a in (ZERO, Number(0)) else p.dependent for a, p in zip(e.args, parts, strict=True)
    )
    return Separation(shared, Apply(e.op, inner))


def _through_declared(
    e: Apply, parts: tuple[Separation, ...], tensors: Mapping[str, Interval]
) -> Separation:
    """f(y u) = f(y) f(u) where f maps products to products; = y f(u), y >= 0, if homogeneous."""
    declared = OPS[e.op]
    if declared.maps == ("mul", "mul") and len(parts) == 1 and parts[0].free:
        free = multiply(parts[0].free)
        if nonnegative(free, tensors):
            return Separation((Apply(e.op, (free,)),), Apply(e.op, (parts[0].dependent,)))
    if declared.homogeneous:
        found = _through_common(e, parts)
        if found.free and nonnegative(multiply(found.free), tensors):
            return found
    return Separation((), e)


def factors(e: Expr) -> tuple[Expr, ...]:
    """The factors of a product; divisors come as `1 / x`."""
    match e:
        case Apply("mul", (a, b)):
            return factors(a) + factors(b)
        case Apply("div", (a, b)) if a != ONE:
            return factors(a) + tuple(inverse(f) for f in factors(b))
        case _:
            return () if e == ONE else (e,)


def terms(e: Expr, splits: Varies = lambda _: True) -> tuple[Expr, ...]:
    """The terms of a sum, products distributed over it; subtracted terms come as `neg`.

    A sum for which `splits` is false stays whole, and one of more than `_MOST_TERMS` terms.
    """
    return _terms(e, splits) if _count_terms(e, splits) <= _MOST_TERMS else (e,)


def _terms(e: Expr, splits: Varies) -> tuple[Expr, ...]:
    if not splits(e):
        return (e,)
    match e:
        case Apply("add", (a, b)):
            return _terms(a, splits) + _terms(b, splits)
        case Apply("sub", (a, b)):
            return _terms(a, splits) + tuple(negate(t) for t in _terms(b, splits))
        case Apply("neg", (a,)):
            return tuple(negate(t) for t in _terms(a, splits))
        case Apply("mul", (a, b)):
            left, right = _terms(a, splits), _terms(b, splits)
            return tuple(_signed_product(x, y) for x in left for y in right)
        case Apply("div", (a, b)):
            over = _terms(a, splits)
            return (e,) if len(over) == 1 else tuple(Apply("div", (x, b)) for x in over)
        case _:
            return (e,)


def _count_terms(e: Expr, splits: Varies) -> int:
    if not splits(e):
        return 1
    match e:
        case Apply("add" | "sub", (a, b)):
            return _count_terms(a, splits) + _count_terms(b, splits)
        case Apply("mul", (a, b)):
            return _count_terms(a, splits) * _count_terms(b, splits)
        case Apply("neg", (a,)) | Apply("div", (a, _)):
            return _count_terms(a, splits)
        case _:
            return 1


def _signed_product(x: Expr, y: Expr) -> Expr:
    """x y with the signs in front, so that x y and x (-y) are seen to cancel."""
    match x, y:
        case Apply("neg", (a,)), Apply("neg", (b,)):
            return multiply((a, b))
        case (Apply("neg", (a,)), _):
            return negate(multiply((a, y)))
        case (_, Apply("neg", (b,))):
            return negate(multiply((x, b)))
        case _:
            return multiply((x, y))


def summands(e: Expr) -> tuple[Expr, ...]:
    """The terms of a sum as it is written; subtracted terms come as `neg`."""
    match e:
        case Apply("add", (a, b)):
            return summands(a) + summands(b)
        case Apply("sub", (a, b)):
            return summands(a) + tuple(negate(t) for t in summands(b))
        case Apply("neg", (a,)):
            return tuple(negate(t) for t in summands(a))
        case _:
            return (e,)


def cancel(whole: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The terms of a sum without zeros and without the pairs x, -x."""
    left = [t for t in whole if t not in (ZERO, Number(0), Number(-0.0))]
    for t in tuple(left):
        opposite = negate(t)
        if t in left and opposite in left:
            left.remove(t)
            left.remove(opposite)
    return tuple(left)


def negate(e: Expr) -> Expr:
    """`-e`, with double negations removed."""
    match e:
        case Apply("neg", (a,)):
            return a
        case Number(value) if not isinstance(value, bool):
            return Number(-value)
        case _:
            return Apply("neg", (e,))
