"""How large the integers of a kernel may become: where 32 bits may not hold them, 64 are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from attnc.codegen.prune import all_lets
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param
from attnc.ir.geometry.key_range import KeyRange
from attnc.ir.geometry.polynomial import Polynomial, TooManyTerms, atom, constant
from attnc.ir.plan import SweepStage, value_exprs
from attnc.ir.types import dtype_of
from attnc.ir.walk import index_ranks, reads, subexprs

# No rank is longer; a scalar argument of a kernel has 64 bits where its value needs them.
_EXTENT, _ARGUMENT, _LARGEST = 2**28, 2**31 - 2**22, 2**31 - 2**21
# Bounds of one computation that are told apart.
_MOST = 8


@dataclass(frozen=True, slots=True)
class Overflow:
    """Where the integers of a kernel may need more than 32 bits.

    nodes:  computations of coordinates that 32 bits do not hold for every extent and param
    terms:  products of extents and params, absolute values
    limits: while no term is above them, 32 and 64 bits hold all; -1 where they never do
    """

    nodes: frozenset[Expr]
    terms: tuple[Expr, ...]
    limits: tuple[int, int]


def overflow(stage: SweepStage, ranges: Iterable[KeyRange | None], cascade: Cascade) -> Overflow:
    """The integers of a stage's lets and of the ranges that it sweeps.

    What uses a grid coordinate or a tensor's value is left out: it is computed in 64 bits.
    """
    bounds = [e for keys in ranges if keys is not None for e in (keys.low, keys.high)]
    lets = (x for let in all_lets(stage) for x in value_exprs(let.value))
    found: dict[Expr, _Bound] = {}
    for x in _integers((*lets, *bounds), cascade):
        if not index_ranks(x) & set(stage.grid) and not reads(x):
            large = tuple(p for p in _bound(x, cascade) if _most_of(p) > _LARGEST)
            if large:
                found[x] = large
    sums = [p for large in found.values() for p in large]
    monomials = dict.fromkeys(m for p in sums for m in p.terms)
    terms = (Polynomial({m: 1}).expr() for m in monomials if m and not _is_extent(m))
    limits = (_limit(sums, 2**28, _LARGEST), _limit(sums, 2**60, 2**63 - 1))
    return Overflow(frozenset(found), tuple(terms), limits)


def _limit(sums: list[Polynomial], limit: int, largest: int) -> int:
    """The power of two from `limit` down that keeps all sums within `largest`."""
    while limit and any(_sum(p, limit) > largest for p in sums):
        limit //= 2
    return limit or -1


def _integers(found: Iterable[Expr], cascade: Cascade) -> Iterator[Expr]:
    """Computations of integers, and literals."""
    for e in found:
        for x in subexprs(e):
            if isinstance(x, Apply | Number) and dtype_of(x, cascade) == "int":
                yield x


def _sum(p: Polynomial, term: int) -> int:
    """The largest sum while no term is above `term`; those of extents alone: their own most."""
    return sum(k * (_EXTENT if _is_extent(m) else term if m else 1) for m, k in p.terms.items())


def _most_of(p: Polynomial) -> int:
    """The largest sum, whatever the extents and the arguments that 32 bits hold."""
    return sum(
        k * prod(_EXTENT if isinstance(a, Extent) else _ARGUMENT for a in m)
        for m, k in p.terms.items()
    )


def _is_extent(monomial: tuple[Expr, ...]) -> bool:
    return len(monomial) == 1 and isinstance(monomial[0], Extent)


# An absolute value is at most the largest of these sums of products of extents and params.
_Bound: TypeAlias = tuple[Polynomial, ...]


def _bound(e: Expr, cascade: Cascade) -> _Bound:
    def of(x: Expr) -> _Bound:
        return _bound(x, cascade)

    match e:
        case Number(value):
            return (constant(abs(int(value))),)
        case Index(rank):
            return (atom(Extent(rank)),)
        case Extent():
            return (atom(e),)
        case Param():
            return (atom(e if _nonnegative(e, cascade) else Apply("abs", (e,))),)
        case Apply("mul", (Apply("floordiv", (a, b)), c)) if b == c and _nonnegative(a, cascade):
            return of(a)
        case Apply("mul", (a, b)):
            return _each(_product, of(a), of(b))
        case Apply("sub", (a, b)) if _nonnegative(a, cascade) and _nonnegative(b, cascade):
            return _either(of(a), of(b))
        case Apply("add" | "sub", (a, b)):
            return _each(Polynomial.__add__, of(a), of(b))
        case Apply("mod", (_, b)):
            return of(b)
        case Apply("floordiv" | "exactdiv" | "neg" | "abs", (a, *_)):
            return of(a)
        case Apply("min" | "max", (a, b)) | Apply("select" | "clamp", (_, a, b)):
            return _either(of(a), of(b))
        case _:
            return (constant(1),)


def _each(join: Callable[[Polynomial, Polynomial], Polynomial], a: _Bound, b: _Bound) -> _Bound:
    return _either(tuple(join(x, y) for x in a for y in b), ())


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    try:
        return a * b
    except TooManyTerms:
        return constant(2**63)


def _either(a: _Bound, b: _Bound) -> _Bound:
    found = tuple(dict.fromkeys((*a, *b)))
    if len(found) <= _MOST:
        return found
    keys = dict.fromkeys(m for p in found for m in p.terms)
    return (Polynomial({m: max(p.terms.get(m, 0) for p in found) for m in keys}),)


def _nonnegative(e: Expr, cascade: Cascade) -> bool:
    match e:
        case Number(value):
            return value >= 0
        case Index() | Extent():
            return True
        case Param(name):
            low = next(p.low for p in cascade.params if p.name == name)
            return low is not None and low >= 0
        case Apply("max", args):
            return any(_nonnegative(a, cascade) for a in args)
        case Apply("add" | "mul" | "min" | "floordiv" | "exactdiv" | "mod", args):
            return all(_nonnegative(a, cascade) for a in args)
        case _:
            return False
