"""Integer expressions as linear combinations, in which equal terms cancel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce as fold

from attnc.ir.expr import Apply, Expr, Number


@dataclass(frozen=True, slots=True)
class Linear:
    """`const` plus the sum of `factor * term`; terms differ and no factor is 0."""

    const: int
    terms: tuple[tuple[Expr, int], ...] = ()

    def __add__(self, other: Linear) -> Linear:
        found = dict(self.terms)
        for term, factor in other.terms:
            found[term] = found.get(term, 0) + factor
        return Linear(self.const + other.const, tuple((t, c) for t, c in found.items() if c))

    def __neg__(self) -> Linear:
        return self * -1

    def __sub__(self, other: Linear) -> Linear:
        return self + -other

    def __mul__(self, factor: int) -> Linear:
        if not factor:
            return Linear(0)
        return Linear(self.const * factor, tuple((t, c * factor) for t, c in self.terms))

    def shifted(self, by: int) -> Linear:
        """The same plus a constant."""
        return Linear(self.const + by, self.terms)

    def only(self, terms: Iterable[tuple[Expr, int]]) -> Linear:
        """Some of the terms, without the constant."""
        return Linear(0, tuple(terms))

    @property
    def expr(self) -> Expr:
        """The sum as an expression."""
        parts = [t if c == 1 else Apply("mul", (Number(c), t)) for t, c in self.terms]
        if self.const or not parts:
            parts.append(Number(self.const))
        return fold(lambda a, b: Apply("add", (a, b)), parts)
