"""Sums of products: found in expressions, run as matrix products, absent factors as zeros."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, prod

from attnc.ir.arrays import Array, is_scalar
from attnc.ir.cascade import Rank
from attnc.ir.contract import contract
from attnc.ir.evaluate import compile_expr
from attnc.ir.expr import Apply, Expr, Number
from attnc.ir.frame import Code, Frame, Pair, Scope
from attnc.ir.walk import index_ranks


@dataclass(frozen=True, slots=True)
class Product:
    """factors[0] * .. / divisors[0] / ..; divisors depend on no reduced rank.

    `spaces` are the ranks that each factor depends on.
    """

    factors: tuple[Code, ...]
    divisors: tuple[Code, ...]
    spaces: tuple[frozenset[str], ...]


@lru_cache(maxsize=4096)
def ranks_in(e: Expr) -> frozenset[str]:
    """The ranks whose coordinate an expression uses."""
    return index_ranks(e)


def related(ranks: frozenset[str], scope: Scope) -> frozenset[str]:
    """The ranks themselves, their components and their parents."""
    found = set(ranks)
    for r in ranks:
        decl: Rank | None = scope.ranks.get(r)
        if decl is not None:
            found.update(decl.components)
            if decl.parent is not None:
                found.add(decl.parent)
    return frozenset(found)


def as_product(e: Expr, reduced: tuple[str, ...]) -> Product | None:
    """The expression as a product of two factors or more; None if it is none."""
    factors, divisors = _factors(e, frozenset(reduced))
    if len(factors) < 2:
        return None
    return Product(
        tuple(map(compile_expr, factors)),
        tuple(map(compile_expr, divisors)),
        tuple(map(ranks_in, factors)),
    )


def _factors(e: Expr, reduced: frozenset[str]) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
    match e:
        case Apply("mul", (a, b)):
            left, right = _factors(a, reduced), _factors(b, reduced)
            return left[0] + right[0], left[1] + right[1]
        case Apply("neg", (a,)):
            factors, divisors = _factors(a, reduced)
            return (*factors, Number(-1.0)), divisors
        case Apply("div", (a, b)):
            factors, divisors = _factors(a, reduced)
            if len(factors) == 1:
                return (e,), ()
            if ranks_in(b).isdisjoint(reduced):
                return factors, (*divisors, b)
            return (*factors, Apply("div", (Number(1.0), b))), divisors
        case _:
            return (e,), ()


def run_product(product: Product, frame: Frame, axes: frozenset[int]) -> Array | None:
    """The sum over axes; None where inf or NaN would make a difference to the sum of the terms."""
    arrays = frame.arrays
    pairs = [code(frame) for code in product.factors]
    if not all(is_scalar(x) or arrays.is_float(x) for x, _ in pairs):
        return None
    factors = _masked(frame, pairs)
    if factors is None or not all(_summable(frame, x, axes) for x in factors):
        return None
    scale = prod(x for x in factors if is_scalar(x))
    total = contract(arrays, [x for x in factors if not is_scalar(x)], axes, frame.shape)
    if scale != 1:
        total = total * scale
    for code in product.divisors:
        divisor, present = code(frame)
        if not _finite(frame, divisor):
            return None
        total = _divide(frame, total, divisor, present)
    return total


def _summable(frame: Frame, x: Array, axes: frozenset[int]) -> bool:
    """Whether a factor may be multiplied after a sum: inf times a sum is not the sum of infs."""
    whole = not is_scalar(x) and all(x.shape[a] == frame.shape[a] for a in axes)
    return whole or _finite(frame, x)


def _finite(frame: Frame, x: Array) -> bool:
    return isfinite(x) if is_scalar(x) else frame.arrays.all_finite(x)


def _masked(frame: Frame, pairs: list[Pair]) -> list[Array] | None:
    """The factors with 0 at absent points; None if another factor could turn such a 0 into NaN."""
    factors = [x for x, _ in pairs]
    holders = set()
    for i, (x, present) in enumerate(pairs):
        if present is not None:
            factors[i] = frame.arrays.where(present, frame.lift(x), 0.0)
            holders.add(i)
    if all(map(is_scalar, factors)):
        factors[0] = frame.lift(factors[0])
    if frame.guard is not None:
        covered = [_covered(frame.guard, frame.lift(x)) for x in factors]
        widest = covered.index(max(covered))
        factors[widest] = frame.arrays.where(frame.guard, frame.lift(factors[widest]), 0.0)
        holders.add(widest)
    for i, x in enumerate(factors):
        if holders - {i} and not _finite(frame, x):
            return None
    return factors


def _covered(mask: Array, x: Array) -> int:
    """How many points of a mask's axes an array has along itself already."""
    return prod(n for m, n in zip(mask.shape, x.shape, strict=True) if m != 1)


def _divide(frame: Frame, total: Array, divisor: Array, present: Array | None) -> Array:
    """A sum divided afterwards; where the divisor is 0 or absent every term is, so the sum is 0."""
    zero = divisor == 0
    if is_scalar(zero):
        return frame.arrays.zeros_like(total, tuple(total.shape)) if zero else total / divisor
    if zero.any():
        divisor = frame.arrays.where(zero, 1.0, divisor)
        present = ~zero if present is None else present & ~zero
    quotient = total / divisor
    return quotient if present is None else frame.arrays.where(present, quotient, 0.0)
