"""What is known of integer expressions before they are computed: canonical forms, bounds, signs.

Everything said here holds for any coordinate >= 0, past its extent too, so it also holds for the
padding of a tile. "Don't know" is always safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import ceil, floor, inf, isfinite
from typing import TypeAlias

from attnc.ir.cascade import Cascade, ParamDecl
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.facts import ANY, Interval
from attnc.ir.geometry.polynomial import Monomial, Polynomial, TooManyTerms, atom, constant
from attnc.ir.ops import OPS
from attnc.ir.types import dtype_of

Enough: TypeAlias = Callable[[Iterable[bool]], bool]

# Each choice between two operands doubles a proof.
_MOST_CHOICES = 6


@dataclass(frozen=True, slots=True)
class Integers:
    """Bounds of a cascade's params and extents.

    Extents are >= 1: a point of their rank exists wherever a predicate is asked for. Those of
    `swept` and of the ranks in `empty` may be 0.
    """

    cascade: Cascade
    swept: str
    empty: frozenset[str] = frozenset()
    known: dict[Expr, Polynomial] = field(default_factory=dict, compare=False, repr=False)

    def polynomial(self, e: Expr) -> Polynomial:
        """An integer expression in canonical form, simplified by what is known.

        Equal to `e` wherever its divisors are not 0. Raises TooManyTerms.
        """
        found = self.known.get(e)
        if found is None:
            found = self.known[e] = self._make(e)
        return found

    def _make(self, e: Expr) -> Polynomial:
        match e:
            case Number(value):
                return constant(int(value))
            case Apply("add", (a, b)):
                return self.polynomial(a) + self.polynomial(b)
            case Apply("sub", (a, b)):
                return self.polynomial(a) - self.polynomial(b)
            case Apply("mul", (a, b)):
                return self.polynomial(a) * self.polynomial(b)
            case Apply("neg", (a,)):
                return -self.polynomial(a)
            case Apply("floordiv" | "mod" | "exactdiv", (a, b)):
                return self.divided(e.op, self.polynomial(a), self.polynomial(b))
            case Apply("min" | "max", (a, b)):
                return self.extreme(e.op, self.polynomial(a), self.polynomial(b))
            case Apply("clamp", (x, low, high)):
                least, most = self.polynomial(low), self.polynomial(high)
                return self._clamp(self.polynomial(x), least, most)
            case Apply("abs", (a,)):
                return self._abs(self.polynomial(a))
            case Apply("select", (test, a, b)):
                return self.chosen(self.condition(test), self.polynomial(a), self.polynomial(b))
            case _:
                return atom(e)

    def condition(self, e: Expr) -> Expr:
        """A boolean expression, as it was written, or its value where that is known."""
        match e:
            case Apply("lt" | "le" | "gt" | "ge" | "eq" | "ne", (a, b)):
                return self._compared(e, a, b)
            case Apply("and" | "or", (a, b)):
                p, q = self.condition(a), self.condition(b)
                stops = e.op == "or"
                if Number(stops) in (p, q):
                    return Number(stops)
                return q if p == Number(not stops) else p if q == Number(not stops) else e
            case Apply("not", (a,)):
                p = self.condition(a)
                return Number(not p.value) if isinstance(p, Number) else e
            case Apply("select", (test, a, b)):
                t = self.condition(test)
                return e if not isinstance(t, Number) else self.condition(a if t.value else b)
            case _:
                return e

    def _compared(self, e: Apply, a: Expr, b: Expr) -> Expr:
        if not (self.is_int(a) and self.is_int(b)):
            return e
        x, y = self.polynomial(a), self.polynomial(b)
        more, less = {
            "lt": (y - x - 1, x - y),
            "le": (y - x, x - y - 1),
            "gt": (x - y - 1, y - x),
            "ge": (x - y, y - x - 1),
        }.get(e.op, (None, None))
        if more is None or less is None:
            known = (x - y).number
            return e if known is None else Number((known == 0) == (e.op == "eq"))
        return (
            Number(True)
            if self.nonnegative(more)
            else (Number(False) if self.nonnegative(less) else e)
        )

    def is_int(self, e: Expr) -> bool:
        return dtype_of(e, self.cascade) == "int"

    def divided(self, op: str, x: Polynomial, by: Polynomial) -> Polynomial:
        """`floordiv`, `mod` or `exactdiv` of two, with what the divisor divides taken out."""
        quotient, rest = x.divide(by)
        n, k = rest.number, by.number
        if n is not None and k:
            whole, left = divmod(n, k)
            return constant(left) if op == "mod" else quotient + whole
        if n == 0 or (op == "floordiv" and self._within(rest, by)):
            return constant(0) if op == "mod" else quotient
        if op == "mod":
            return atom(Apply("mod", (rest.expr(), by.expr())))
        return quotient + atom(Apply(op, (rest.expr(), by.expr())))

    def _within(self, x: Polynomial, by: Polynomial) -> bool:
        return self.nonnegative(x) and self.nonnegative(by - x - 1)

    def extreme(self, op: str, a: Polynomial, b: Polynomial) -> Polynomial:
        """`min` or `max` of two, or the one of them that it is known to be."""
        larger = a if op == "max" else b
        smaller = b if op == "max" else a
        if self.nonnegative(a - b):
            return larger
        if self.nonnegative(b - a):
            return smaller
        return atom(Apply(op, (a.expr(), b.expr())))

    def _clamp(self, x: Polynomial, low: Polynomial, high: Polynomial) -> Polynomial:
        floored = self.extreme("max", x, low)
        if floored in (x, low):
            return self.extreme("min", floored, high)
        if self.nonnegative(high - x) and self.nonnegative(high - low):
            return floored
        if self.nonnegative(x - high) or self.nonnegative(low - high):
            return high
        return atom(Apply("clamp", (x.expr(), low.expr(), high.expr())))

    def _abs(self, x: Polynomial) -> Polynomial:
        if self.nonnegative(x):
            return x
        return -x if self.nonnegative(-x) else atom(Apply("abs", (x.expr(),)))

    def chosen(self, test: Expr, a: Polynomial, b: Polynomial) -> Polynomial:
        """`a` where the test holds, else `b`."""
        if isinstance(test, Number):
            return a if test.value else b
        return a if a == b else atom(Apply("select", (test, a.expr(), b.expr())))

    def bounds(self, e: Expr) -> Interval:
        """Closed bounds of an integer expression."""
        match e:
            case Number(value):
                return (value, value)
            case Index():
                return (0, inf)
            case Extent(rank):
                return (0 if rank == self.swept or rank in self.empty else 1, inf)
            case Param(name):
                return _declared(next((p for p in self.cascade.params if p.name == name), None))
            case Read():
                return ANY
            case Apply("min" | "max" as op, (a, b)):
                pick = min if op == "min" else max
                x, y = self.bounds(a), self.bounds(b)
                return (pick(x[0], y[0]), pick(x[1], y[1]))
            case Apply("clamp", (x, low, high)):
                return self.bounds(Apply("min", (Apply("max", (x, low)), high)))
            case Apply("select", (_, a, b)):
                x, y = self.bounds(a), self.bounds(b)
                return (min(x[0], y[0]), max(x[1], y[1]))
            case Apply("floordiv" | "exactdiv" as op, (a, by)) if self.bounds(by)[0] > 0:
                least, most = _quotient(self.bounds(a), self.bounds(by))
                # Without a remainder, only 0 / x is 0.
                whole = op == "exactdiv" and self.bounds(a)[0] > 0
                return (max(least, 1) if whole else least, most)
            case Apply("mod", (_, b)) if self.bounds(b)[0] > 0:
                return (0, self.bounds(b)[1] - 1)
            case Apply("abs", _):
                return (0, inf)
            case Apply("sign", _):
                return OPS["sign"].range
            case Apply("add" | "sub" | "mul" | "neg", _):
                return self._sum_bounds(self.polynomial(e))
            case _:
                return ANY

    def _sum_bounds(self, p: Polynomial) -> Interval:
        terms = [_times((k, k), self.product_bounds(m)) for m, k in p.terms.items()]
        return (_sum(low for low, _ in terms), _sum(high for _, high in terms))

    def product_bounds(self, monomial: Monomial) -> Interval:
        """Closed bounds of a product of atoms."""
        found: Interval = (1, 1)
        for a in dict.fromkeys(monomial):
            x, times = self.bounds(a), monomial.count(a)
            if times > 1:
                low = 1 if x[0] >= 1 else 0 if x[0] >= 0 or times % 2 == 0 else -inf
                x = (low, inf)
            found = _times(found, x)
        return found

    def nonnegative(self, p: Polynomial) -> bool:
        """Proved >= 0."""
        try:
            return self._nonnegative(p, _MOST_CHOICES)
        except TooManyTerms:
            return False

    def positive(self, p: Polynomial) -> bool:
        """Proved >= 1 wherever a point of the swept rank exists: its extents are >= 1 there."""
        try:
            for rank in family(self.cascade, self.swept):
                p = p.substitute(Extent(rank), atom(Extent(rank)) + 1)
            return self.nonnegative(p - 1)
        except TooManyTerms:
            return False

    def _nonnegative(self, p: Polynomial, choices: int) -> bool:
        if self._sum_bounds(p)[0] >= 0:
            return True
        if choices == 0:
            return False
        for a in p.atoms:
            sign = self._sign(p, a)
            found = _options(a, sign) if sign else None
            if found is not None:
                enough, operands = found
                return enough(
                    self._nonnegative(p.substitute(a, self.polynomial(x)), choices - 1)
                    for x in operands
                )
        return False

    def _sign(self, p: Polynomial, e: Expr) -> int:
        """1 if the sum grows with an atom whatever the others are, -1 if it falls, 0: unknown."""
        signs = set()
        for monomial, k in p.terms.items():
            if e in monomial:
                rest = list(monomial)
                rest.remove(e)
                low, high = self.product_bounds(tuple(rest))
                known = e not in rest and (low >= 0 or high <= 0)
                signs.add(0 if not known else 1 if (k > 0) == (low >= 0) else -1)
        return signs.pop() if len(signs) == 1 else 0


def family(cascade: Cascade, rank: str) -> frozenset[str]:
    """A rank, its components, what it is a component of: where one has a point, all have."""
    parent = cascade.rank(rank).parent
    whole = cascade.rank(parent or rank)
    return frozenset((rank, whole.name, *whole.components))


# Bounds are ints or infinite: a float would round an int above 2^53.


def _declared(p: ParamDecl | None) -> Interval:
    """The integers that a param's declared range leaves."""
    if p is None or p.dtype != "int":
        return ANY
    low = -inf if p.low is None else p.low
    high = inf if p.high is None else p.high
    if isfinite(low):
        low = floor(low) + 1 if p.low_open else ceil(low)
    if isfinite(high):
        high = ceil(high) - 1 if p.high_open else floor(high)
    return (low, high)


def _sum(values: Iterable[float]) -> float:
    """Of bounds of one side: at most one of the two infinities is among them."""
    found = tuple(values)
    return next((x for x in found if abs(x) == inf), None) or sum(found)


def _times(x: Interval, y: Interval) -> Interval:
    corners = [_product(a, b) for a in x for b in y]
    return (min(corners), max(corners))


def _product(a: float, b: float) -> float:
    # 0 * inf at a corner stands for "any finite multiple of 0".
    if 0 in (a, b):
        return 0
    if inf in (abs(a), abs(b)):
        return inf if (a > 0) == (b > 0) else -inf
    return a * b


def _quotient(x: Interval, by: Interval) -> Interval:
    """Of a floor division by something >= 1."""
    low = _divided(x[0], by[1] if x[0] >= 0 else by[0])
    high = _divided(x[1], by[0] if x[1] >= 0 else by[1])
    return (low, high)


def _divided(a: float, by: float) -> float:
    if abs(a) == inf:
        return 0 if by == inf else a
    return a // by if by != inf else -1 if a < 0 else 0


def _options(e: Expr, sign: int) -> tuple[Enough, tuple[Expr, ...]] | None:
    """What may stand for a choice in a sum that grows (1) or falls (-1) with it, and how many must.

    `any`: the sum is at least as large as with either operand; `all`: as with the worse of them.
    """
    match e:
        case Apply("min", operands):
            return (all if sign > 0 else any), operands
        case Apply("max", operands):
            return (any if sign > 0 else all), operands
        case Apply("clamp", (x, low, high)):
            return (all if sign > 0 else any), (Apply("max", (x, low)), high)
        case Apply("select", (_, a, b)):
            return all, (a, b)
        case Apply("abs", (x,)):
            return (any if sign > 0 else all), (x, Apply("neg", (x,)))
        case _:
            return None
