"""Solve an index predicate for one coordinate: `low <= n < high`, exactly, in integers.

Comparisons are brought to `x <= t` with all of the coordinate in x, which is then taken apart:
`n // c <= t` is `n < (t + 1) * c`, `t <= min(x, y)` is two comparisons, `max(x, t) <= s` is one and
a condition. A union of two ranges is one range only where they share a bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce as fold

from attnc.ir.expr import Apply, Expr, Extent, Index, Number
from attnc.ir.geometry.integers import Integers
from attnc.ir.geometry.polynomial import ZERO, Monomial, Polynomial, TooManyTerms, atom
from attnc.ir.presence import TRUE, conjunction
from attnc.ir.show import show_expr
from attnc.ir.walk import index_ranks

_NEGATED = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}
FALSE = Number(False)


class Unsolvable(Exception):
    """The points where a predicate holds are not one range, or not known to be; says why."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Where all of `when` hold: at or above each of `lows`, below each of `highs`; else nowhere."""

    lows: tuple[Polynomial, ...] = ()
    highs: tuple[Polynomial, ...] = ()
    when: tuple[Expr, ...] = ()

    def __and__(self, other: Solution) -> Solution:
        return Solution(
            tuple(dict.fromkeys(self.lows + other.lows)),
            tuple(dict.fromkeys(self.highs + other.highs)),
            tuple(dict.fromkeys(self.when + other.when)),
        )

    @property
    def bounded(self) -> bool:
        return bool(self.lows or self.highs)


ALWAYS = Solution()
ALWAYS_BELOW: tuple[tuple[Polynomial, ...], tuple[Expr, ...]] = ((), ())


def solve_for(predicate: Expr, rank: str, known: Integers) -> tuple[Expr, Expr]:
    """`(low, high)`: the predicate holds at the coordinates low <= n < high of `rank` and nowhere
    else within [0, extent), to which both are clipped.

    Divisors are > 0, and nothing is read at the coordinate. Raises Unsolvable.
    """
    solver = _Solver(rank, known)
    try:
        low, high = solver.bounds(solver.solve(predicate))
    except TooManyTerms:
        raise Unsolvable("the condition multiplies out to too many terms") from None
    return low.expr(), high.expr()


@dataclass(frozen=True, slots=True)
class _Solver:
    rank: str
    known: Integers

    def bounds(self, s: Solution) -> tuple[Polynomial, Polynomial]:
        """Both bounds, clipped; where a condition fails, high is 0."""
        low = self._extreme("max", (ZERO, *s.lows))
        high = self._extreme("min", (atom(Extent(self.rank)), *s.highs))
        return low, self.known.chosen(conjunction(s.when), high, ZERO)

    def solve(self, p: Expr, holds: bool = True) -> Solution:
        """Where a predicate is `holds`."""
        if self.rank not in index_ranks(p):
            return self._condition(p if holds else _negated(p))
        match p:
            case Apply("not", (inner,)):
                return self.solve(inner, not holds)
            case Apply("and" | "or" as op, parts):
                join = Solution.__and__ if (op == "and") == holds else self._union
                return fold(join, (self.solve(part, holds) for part in parts))
            case Apply("select", (test, a, b)):
                return self._choice(test, self.solve(a, holds), self.solve(b, holds))
            case Apply(op, (a, b)) if op in _NEGATED and self.known.is_int(a):
                difference = self.known.polynomial(a) - self.known.polynomial(b)
                try:
                    return self._compared(op if holds else _NEGATED[op], difference)
                except Unsolvable:
                    raise self._no_range(p if holds else _negated(p)) from None
            case _:
                raise self._no_range(p if holds else _negated(p))

    def _condition(self, p: Expr) -> Solution:
        known = self.known.condition(p)
        return ALWAYS if known == TRUE else Solution(when=(known,))

    def _compared(self, op: str, difference: Polynomial) -> Solution:
        """Where the difference compares with 0."""
        match op:
            case "lt":
                return self._at_most(difference + 1)
            case "le":
                return self._at_most(difference)
            case "gt":
                return self._at_most(-difference + 1)
            case "ge":
                return self._at_most(-difference)
            case "eq":
                return self._at_most(difference) & self._at_most(-difference)
            case _:
                raise Unsolvable

    def _at_most(self, p: Polynomial) -> Solution:
        """Where p <= 0."""
        p = self._without_remainders(p)
        moving = tuple(a for a in p.atoms if self.rank in index_ranks(a))
        if not moving:
            return self._condition(_at_most_zero(p))
        x, *others = moving
        if others:
            raise Unsolvable
        factor, rest = _factor(p, x)
        if self.known.positive(factor):
            return self._bounded(x, self.known.divided("floordiv", -rest, factor), above=True)
        if self.known.positive(-factor):
            return self._bounded(x, self._rounded_up(rest, -factor), above=False)
        raise Unsolvable

    def _rounded_up(self, p: Polynomial, by: Polynomial) -> Polynomial:
        quotient, rest = p.divide(by)
        if rest == ZERO:
            return quotient
        return quotient + self.known.divided("floordiv", rest + by - 1, by)

    def _without_remainders(self, p: Polynomial) -> Polynomial:
        """`x % c` as `x - x // c * c`: `n - n % c` is a quotient."""
        for a in p.atoms:
            match a:
                case Apply("mod", (x, c)) if self.rank in index_ranks(a):
                    whole = Apply("mul", (Apply("floordiv", (x, c)), c))
                    p = p.substitute(a, self.known.polynomial(Apply("sub", (x, whole))))
                case _:
                    pass
        return p

    def _bounded(self, x: Expr, t: Polynomial, *, above: bool) -> Solution:
        """Where x <= t (`above`) or x >= t."""

        def side(e: Expr) -> Solution:
            p = self.known.polynomial(e)
            return self._at_most(p - t if above else t - p)

        match x:
            case Index():
                return Solution(highs=(t + 1,)) if above else Solution(lows=(t,))
            case Apply("floordiv", (y, by)) if self.rank not in index_ranks(by):
                inner, c = self.known.polynomial(y), self.known.polynomial(by)
                return self._at_most(inner - t * c - c + 1 if above else t * c - inner)
            case Apply("min" | "max" as op, (a, b)):
                both = (op == "max") == above
                return side(a) & side(b) if both else self._union(side(a), side(b))
            case Apply("clamp", (y, low, high)):
                if above:
                    return self._union(side(high), side(y) & side(low))
                return self._union(side(y), side(low)) & side(high)
            case Apply("abs", (y,)):
                opposite = side(Apply("neg", (y,)))
                return side(y) & opposite if above else self._union(side(y), opposite)
            case Apply("select", (test, a, b)):
                return self._choice(test, side(a), side(b))
            case _:
                raise Unsolvable

    def _choice(self, test: Expr, a: Solution, b: Solution) -> Solution:
        """`a` where the test holds, else `b`."""
        if self.rank in index_ranks(test):
            return self._union(self.solve(test) & a, self.solve(test, False) & b)
        test = self.known.condition(test)
        if isinstance(test, Number):
            return a if test.value else b
        lows, highs, when = a.lows, a.highs, a.when
        if lows != b.lows:
            lows = (self.known.chosen(test, self._low(a), self._low(b)),)
        if when != b.when or highs != b.highs:
            when = when if when == b.when else ()
            ends = (self._high(s if not when else replace(s, when=())) for s in (a, b))
            highs = (self.known.chosen(test, *ends),)
        return Solution(lows, highs, when)

    def _union(self, a: Solution, b: Solution) -> Solution:
        """Where one or the other holds."""
        if FALSE in a.when or FALSE in b.when:
            return b if FALSE in a.when else a
        if not a.bounded and not b.bounded:
            return self._condition(Apply("or", (conjunction(a.when), conjunction(b.when))))
        for one, other in ((a, b), (b, a)):
            if not one.bounded:
                return self._choice(conjunction(one.when), ALWAYS, other)
        if set(a.lows) == set(b.lows):
            if ALWAYS_BELOW in ((a.highs, a.when), (b.highs, b.when)):
                return Solution(a.lows)
            return Solution(a.lows, (self.known.extreme("max", self._high(a), self._high(b)),))
        if set(a.highs) == set(b.highs) and not a.when and not b.when:
            if not a.lows or not b.lows:
                return Solution(highs=a.highs)
            return Solution((self.known.extreme("min", self._low(a), self._low(b)),), a.highs)
        raise Unsolvable(f"there may be a gap between two ranges of `{self.rank}`")

    def _no_range(self, p: Expr) -> Unsolvable:
        return Unsolvable(f"`{show_expr(p)}` is not known to be one range of `{self.rank}`")

    def _low(self, s: Solution) -> Polynomial:
        """The lower bounds in one."""
        return self._extreme("max", s.lows or (ZERO,))

    def _high(self, s: Solution) -> Polynomial:
        """The upper bounds and the conditions in one; every coordinate is at or above 0."""
        end = self._extreme("min", s.highs or (atom(Extent(self.rank)),))
        return self.known.chosen(conjunction(s.when), end, ZERO)

    def _extreme(self, op: str, values: tuple[Polynomial, ...]) -> Polynomial:
        """`min` or `max` of several, without those that another makes needless."""
        kept: list[Polynomial] = []
        for p in values:
            if not any(self.known.extreme(op, q, p) == q for q in kept):
                kept = [q for q in kept if self.known.extreme(op, q, p) != p] + [p]
        return fold(lambda a, b: self.known.extreme(op, a, b), kept)


def _factor(p: Polynomial, x: Expr) -> tuple[Polynomial, Polynomial]:
    """`(f, r)` with p = f * x + r. Raises Unsolvable for a power of x."""
    factor: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, k in p.terms.items():
        match monomial.count(x):
            case 0:
                rest[monomial] = k
            case 1:
                factor[tuple(a for a in monomial if a != x)] = k
            case _:
                raise Unsolvable
    return Polynomial(factor), Polynomial(rest)


def _negated(p: Expr) -> Expr:
    match p:
        case Number(value):
            return Number(not value)
        case Apply("not", (inner,)):
            return inner
        case Apply(op, parts) if op in _NEGATED:
            return Apply(_NEGATED[op], parts)
        case _:
            return Apply("not", (p,))


def _at_most_zero(p: Polynomial) -> Expr:
    """`p <= 0`, with nothing negative on either side: `m < M - N` is `m + N < M`."""
    left = Polynomial({m: k for m, k in p.terms.items() if k > 0 and m})
    right = Polynomial({m: -k for m, k in p.terms.items() if k < 0 and m})
    one = p.terms.get((), 0)
    if one == 1 and left.terms:
        return Apply("lt", (left.expr(), right.expr()))
    left, right = (left + one, right) if one > 0 else (left, right - one)
    return Apply("le", (left.expr(), right.expr()))
