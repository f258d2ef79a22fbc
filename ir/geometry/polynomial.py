"""Integer expressions as polynomials with integer coefficients: equal sums look equal.

A monomial is a product of atoms: coordinates, extents, params, reads, and what no sum or product
enters (`m // W`, `min(a, b)`). Laws of the integers only, floor division included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce as fold
from typing import TypeAlias

from attnc.ir.expr import Apply, Expr, Number, call
from attnc.ir.walk import index_ranks

# Atoms in a fixed order, repeated for powers; () is the constant 1.
Monomial: TypeAlias = tuple[Expr, ...]

_MOST_TERMS = 64


class TooManyTerms(Exception):
    """A product has more terms than are worth looking at."""


@dataclass(frozen=True, slots=True)
class Polynomial:
    """A sum of monomials, none with coefficient 0, in the order in which they came up."""

    terms: Mapping[Monomial, int] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial) and dict(self.terms) == dict(other.terms)

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __add__(self, other: Polynomial | int) -> Polynomial:
        terms = dict(self.terms)
        for monomial, k in _polynomial(other).terms.items():
            terms[monomial] = terms.get(monomial, 0) + k
        return Polynomial({monomial: k for monomial, k in terms.items() if k})

    def __neg__(self) -> Polynomial:
        return Polynomial({monomial: -k for monomial, k in self.terms.items()})

    def __sub__(self, other: Polynomial | int) -> Polynomial:
        return self + -_polynomial(other)

    def __mul__(self, other: Polynomial | int) -> Polynomial:
        """Raises TooManyTerms."""
        right = _polynomial(other)
        if len(self.terms) * len(right.terms) > _MOST_TERMS:
            raise TooManyTerms
        products = (
            Polynomial({tuple(sorted((*a, *b), key=_place)): j * k})
            for a, j in self.terms.items()
            for b, k in right.terms.items()
        )
        return fold(Polynomial.__add__, products, ZERO)

    @property
    def number(self) -> int | None:
        """Its value, if it is a constant."""
        if any(self.terms):
            return None
        return self.terms.get((), 0)

    @property
    def atoms(self) -> tuple[Expr, ...]:
        return tuple(dict.fromkeys(a for monomial in self.terms for a in monomial))

    def substitute(self, atom: Expr, by: Polynomial) -> Polynomial:
        """`by` put in for an atom."""
        total = ZERO
        for monomial, k in self.terms.items():
            factors = (by if a == atom else Polynomial({(a,): 1}) for a in monomial)
            total += fold(Polynomial.__mul__, factors, constant(k))
        return total

    def divide(self, divisor: Polynomial) -> tuple[Polynomial, Polynomial]:
        """`(quotient, rest)` with self = quotient * divisor + rest: all terms that it divides.

        The constant is divided only where nothing else is left over: `(m + 5) // 4` stays.
        """
        if len(divisor.terms) != 1:
            return ZERO, self
        ((by, k),) = divisor.terms.items()
        quotient: dict[Monomial, int] = {}
        rest: dict[Monomial, int] = {}
        for monomial, c in self.terms.items():
            left = _without(monomial, by)
            if left is not None and c % k == 0 and monomial:
                quotient[left] = c // k
            else:
                rest[monomial] = c
        if not by and not any(rest):
            whole, remainder = divmod(rest.pop((), 0), k)
            return Polynomial(quotient) + whole, constant(remainder)
        return Polynomial(quotient), Polynomial(rest)

    def expr(self) -> Expr:
        """As a person writes it: `m - window + 1`, and `8 - m` where nothing else is added."""
        order = sorted((t for t in self.terms.items() if t[0]), key=lambda term: _rank(*term))
        one = self.terms.get((), 0)
        leads = not order or (one > 0 and order[0][1] < 0)
        order = [((), one), *order] if leads else [*order, ((), one)]
        (first, k), *others = order
        total = _term(first, k) if k >= 0 or not first else call("neg", _term(first, -k))
        for monomial, c in others:
            if c:
                total = call("add" if c > 0 else "sub", total, _term(monomial, abs(c)))
        return total


def constant(value: int) -> Polynomial:
    return Polynomial({(): value} if value else {})


def atom(e: Expr) -> Polynomial:
    return Polynomial({(e,): 1})


ZERO = Polynomial()


def _polynomial(x: Polynomial | int) -> Polynomial:
    return constant(x) if isinstance(x, int) else x


def _place(e: Expr) -> tuple[bool, str]:
    """Quotients before the extents and params that multiply them: `m // W * W`."""
    return not isinstance(e, Apply), repr(e)


def _rank(monomial: Monomial, k: int) -> tuple[bool, bool]:
    return k < 0, not any(index_ranks(a) for a in monomial)


def _term(monomial: Monomial, k: int) -> Expr:
    factors: tuple[Expr, ...] = monomial if k == 1 and monomial else (Number(k), *monomial)
    return fold(lambda a, b: Apply("mul", (a, b)), factors)


def _without(monomial: Monomial, by: Monomial) -> Monomial | None:
    """The monomial divided by another; None if that is none."""
    left = list(monomial)
    for a in by:
        if a not in left:
            return None
        left.remove(a)
    return tuple(left)
