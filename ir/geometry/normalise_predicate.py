"""Rewrite an index predicate so that interval arithmetic over it is as exact as it can be.

Constants are folded, comparisons become one linear combination compared with 0 (so that equal terms
cancel), remainders become congruences, and a `min` or `max` that repeats a coordinate is split into
comparisons. What is known of the values' bounds decides the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import gcd
from typing import Literal, TypeAlias

from attnc.errors import AttncError
from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Apply, Expr, Index, Number, Read, call
from attnc.ir.frame import Scope
from attnc.ir.geometry.linear import Linear
from attnc.ir.geometry.value_bounds import ValueBounds
from attnc.ir.ops import OPS
from attnc.ir.walk import subexprs

Kind: TypeAlias = Literal["bool", "int", "float"]
TRUE, FALSE = Number(True), Number(False)
_FLIPPED = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}
# How often a `min` or `max` is split before the comparison is left as it is.
_SPLITS = 6


def normalise_predicate(
    predicate: Expr, bounds: ValueBounds, rows: frozenset[str], fixed: frozenset[str]
) -> Expr:
    """An equal predicate of `and or not le eq ne`, reads and comparisons of floats.

    Extents and params are numbers already and nothing is absent. `rows` are the coordinates to
    gather on the left of a comparison; `fixed` those that have one value in every box, so that to
    repeat them costs no exactness. Raises AttncError E518 where a value may leave 64 bits, E602
    where `/` of constants leaves a remainder.
    """
    return _Normaliser(bounds, rows, fixed).truth(predicate)


def both(a: Expr, b: Expr) -> Expr:
    """Conjunction, folded."""
    if FALSE in (a, b):
        return FALSE
    return b if a == TRUE else a if b in (TRUE, a) else call("and", a, b)


def either(a: Expr, b: Expr) -> Expr:
    """Disjunction, folded."""
    if TRUE in (a, b):
        return TRUE
    return b if a == FALSE else a if b in (FALSE, a) else call("or", a, b)


def all_of(conditions: Iterable[Expr]) -> Expr:
    """Conjunction of any number, folded."""
    found: Expr = TRUE
    for c in conditions:
        found = both(found, c)
    return found


@dataclass(frozen=True, slots=True)
class _Normaliser:
    bounds: ValueBounds
    rows: frozenset[str]
    fixed: frozenset[str]
    sums: dict[Expr, Linear] = field(default_factory=dict)

    def truth(self, e: Expr, holds: bool = True) -> Expr:
        """`e`, or its negation."""
        match e:
            case Number(value):
                return Number(bool(value) == holds)
            case Apply("not", (a,)):
                return self.truth(a, not holds)
            case Apply("and" | "or", (a, b)):
                meets = (e.op == "and") == holds
                left = self.truth(a, holds)
                if left == (FALSE if meets else TRUE):
                    return left
                return (both if meets else either)(left, self.truth(b, holds))
            case Apply("select", (c, a, b)):
                chosen = both(self.truth(c), self.truth(a, holds))
                if self.truth(c) == TRUE:
                    return chosen
                return either(chosen, both(self.truth(c, False), self.truth(b, holds)))
            case Apply(op, (a, b)) if op in _FLIPPED:
                return self._compare(op, a, b, holds)
            case Read():
                kept = self._read(e)
                known = self.bounds.of(kept)
                if known[0] == known[1]:
                    return Number(bool(known[0]) == holds)
                return kept if holds else call("not", kept)
            case _:
                raise AssertionError(f"no truth value: {e}")

    def _compare(self, op: str, a: Expr, b: Expr, holds: bool) -> Expr:
        kinds = {self.kind(a), self.kind(b)}
        if "float" in kinds:
            left, right = self.real(a), self.real(b)
            found = fold_number(Apply(op, (left, right)))
            if isinstance(found, Number):
                return Number(bool(found.value) == holds)
            return found if holds else call("not", found)
        if not holds:
            op = _FLIPPED[op]
        if kinds == {"bool"}:
            return self._compare_truths(op, a, b)
        if op in ("gt", "ge"):
            op, a, b = {"gt": "lt", "ge": "le"}[op], b, a
        difference = self.integer(a) - self.integer(b)
        if op == "eq" or op == "ne":
            return self._zero(difference, op == "eq")
        return self._below(difference.shifted(1 if op == "lt" else 0))

    def _compare_truths(self, op: str, a: Expr, b: Expr) -> Expr:
        def meet(x: bool, y: bool) -> Expr:
            return both(self.truth(a, x), self.truth(b, y))

        match op:
            case "eq":
                return either(meet(True, True), meet(False, False))
            case "ne":
                return either(meet(True, False), meet(False, True))
            case "lt":
                return meet(False, True)
            case "gt":
                return meet(True, False)
            case "le":
                return either(self.truth(a, False), self.truth(b))
            case _:
                return either(self.truth(a), self.truth(b, False))

    def _below(self, x: Linear, splits: int = _SPLITS) -> Expr:
        """`x <= 0`."""
        common = gcd(*(c for _, c in x.terms))
        if common > 1:
            x = Linear(-(-x.const // common), tuple((t, c // common) for t, c in x.terms))
        low, high = self.bounds.of_sum(x)
        if high <= 0 or low > 0:
            return Number(high <= 0)
        if len(x.terms) == 1:
            match x.terms[0]:
                case Apply("floordiv", (inner, Number(int() as d))), 1 if d > 0:
                    # y // d <= q: y <= q * d + d - 1
                    return self._below(self.integer(inner).shifted(x.const * d - d + 1))
                case Apply("floordiv", (inner, Number(int() as d))), -1 if d > 0:
                    return self._below((-self.integer(inner)).shifted(x.const * d))
                case _:
                    pass
        x = self._cancelled(x)
        if splits and self._repeats(x):
            for term, factor in x.terms:
                rest = x - x.only([(term, factor)])
                if self._shares(term, rest) and (parts := self._split(term)) is not None:
                    first, second, larger = parts
                    join = both if larger == (factor > 0) else either
                    return join(
                        self._below(rest + self.integer(first) * factor, splits - 1),
                        self._below(rest + self.integer(second) * factor, splits - 1),
                    )
        left, right = self._sides(x)
        return call("le", left, right)

    def _split(self, term: Expr) -> tuple[Expr, Expr, bool] | None:
        """(a, b, whether the larger is meant) for a `min`, `max` or `abs`."""
        match term:
            case Apply("min" | "max", (a, b)):
                return a, b, term.op == "max"
            case Apply("abs", (a,)):
                return a, call("neg", a), True
            case _:
                return None

    def _zero(self, x: Linear, holds: bool) -> Expr:
        """`x == 0`, or its negation."""
        common = gcd(*(c for _, c in x.terms))
        if common > 1:
            if x.const % common:
                return Number(not holds)
            x = Linear(x.const // common, tuple((t, c // common) for t, c in x.terms))
        low, high = self.bounds.of_sum(x)
        if low > 0 or high < 0 or low == high:
            return Number((low == high == 0) == holds)
        congruent = self._congruent(x)
        if congruent is not None:
            x = congruent
            if not x.terms or self.bounds.of_sum(x)[0] > 0:
                return Number((x.const == 0 and not x.terms) == holds)
        else:
            x = self._cancelled(x)
        left, right = self._sides(x)
        return call("eq" if holds else "ne", left, right)

    def _congruent(self, x: Linear) -> Linear | None:
        """`(y + rest) % d` for `y % d + rest` where -rest is a remainder of d; else None."""
        for term, factor in x.terms:
            match term:
                case Apply("mod", (inner, Number(int() as d))) if abs(factor) == 1 and d > 0:
                    rest = (x - x.only([(term, factor)])) * factor
                    low, high = self.bounds.of_sum(rest)
                    if -d < low and high <= 0:
                        return self._mod(self.integer(inner) + rest, d)
                case _:
                    pass
        return None

    def integer(self, e: Expr) -> Linear:
        """An integer expression as a sum of terms that cannot be taken apart."""
        found = self.sums.get(e)
        if found is None:
            found = self._integer(e)
            low, high = self.bounds.of_sum(found)
            if low == high:
                found = Linear(low)
            self.sums[e] = found
        return found

    def _integer(self, e: Expr) -> Linear:
        match e:
            case Number(value):
                return Linear(int(value))
            case Index():
                return Linear(0, ((e, 1),))
            case Read():
                return Linear(0, ((self._read(e), 1),))
            case Apply("add", (a, b)):
                return self.integer(a) + self.integer(b)
            case Apply("sub", (a, b)):
                return self.integer(a) - self.integer(b)
            case Apply("neg", (a,)):
                return -self.integer(a)
            case Apply("mul", (a, b)):
                return self._product(self.integer(a), self.integer(b))
            case Apply("pow", (a, Number(power))):
                found = Linear(1)
                for _ in range(int(power)):
                    found = self._product(found, self.integer(a))
                return found
            case Apply("floordiv" | "mod" | "exactdiv", (a, b)):
                return self._divided(e.op, self.integer(a), self.integer(b))
            case Apply("min" | "max", (a, b)):
                return self._extremum(e.op, self.integer(a), self.integer(b))
            case Apply("clamp", (x, low, high)):
                floor = self._extremum("max", self.integer(x), self.integer(low))
                return self._extremum("min", floor, self.integer(high))
            case Apply("abs", (a,)):
                return self._absolute(self.integer(a))
            case Apply("sign", (a,)):
                zero, x = Linear(0), self.integer(a).expr
                positive = self._choice(call("gt", x, Number(0)), Linear(1), zero)
                return self._choice(call("lt", x, Number(0)), Linear(-1), positive)
            case Apply("select", (c, a, b)):
                holds = self.truth(c)
                if isinstance(holds, Number):
                    return self.integer(a if holds.value else b)
                return self._choice(c, self.integer(a), self.integer(b))
            case Apply("stopgrad", (a,)):
                return self.integer(a)
            case _:
                # A truth value as a number.
                return self._choice(e, Linear(1), Linear(0))

    def _choice(self, condition: Expr, a: Linear, b: Linear) -> Linear:
        holds = self.truth(condition)
        if isinstance(holds, Number):
            return a if holds.value else b
        return a if a == b else _term(call("select", holds, a.expr, b.expr))

    def _product(self, a: Linear, b: Linear) -> Linear:
        if not a.terms or not b.terms:
            return b * a.const if not a.terms else a * b.const
        return _term(call("mul", a.expr, b.expr))

    def _absolute(self, a: Linear) -> Linear:
        low, high = self.bounds.of_sum(a)
        if low >= 0 or high <= 0:
            return a if low >= 0 else -a
        return _term(call("abs", a.expr))

    def _extremum(self, op: str, a: Linear, b: Linear) -> Linear:
        low, high = self.bounds.of_sum(a - b)
        if high <= 0 or low >= 0:
            return a if (high <= 0) == (op == "min") else b
        return _term(call(op, a.expr, b.expr))

    def _divided(self, op: str, a: Linear, b: Linear) -> Linear:
        if b.terms:
            return _term(call("mod" if op == "mod" else "floordiv", a.expr, b.expr))
        # Where a divisor is 0 the predicate is false already.
        d = b.const or 1
        if op == "exactdiv" and not a.terms and (not b.const or a.const % d):
            text = "divides by zero" if not b.const else "leaves a remainder"
            raise AttncError("E602", f"`{a.const} / {b.const}` {text}", hint="`//` rounds down")
        if op == "mod":
            return self._mod(a, d) if d > 0 else -self._mod(-a, -d)
        return self._floordiv(a, d) if d > 0 else self._floordiv(-a, -d)

    def _floordiv(self, a: Linear, d: int) -> Linear:
        whole = Linear(a.const // d, tuple((t, c // d) for t, c in a.terms if c % d == 0))
        rest = Linear(a.const % d, tuple((t, c) for t, c in a.terms if c % d))
        low, high = self.bounds.of_sum(rest)
        if low // d == high // d:
            return whole.shifted(low // d)
        match rest.terms:
            case ((Apply("floordiv", (inner, Number(int() as first))), 1),) if first > 0:
                # (y // a + r) // d = (y + r * a) // (a * d)
                nested = self.integer(inner).shifted(rest.const * first)
                return whole + self._floordiv(nested, first * d)
            case _:
                return whole + _term(call("floordiv", rest.expr, Number(d)))

    def _mod(self, a: Linear, d: int) -> Linear:
        terms = tuple((t, c) for t, c in a.terms if c % d)
        for term, factor in terms:
            match term:
                case Apply("mod", (inner, Number(int() as e))) if e % d == 0:
                    # Inside a remainder of d, another is as good as the value itself.
                    rest = Linear(a.const, tuple(p for p in terms if p[0] != term))
                    return self._mod(rest + self.integer(inner) * factor, d)
                case _:
                    pass
        rest = Linear(a.const, terms)
        low, high = self.bounds.of_sum(rest)
        if low // d == high // d:
            return rest.shifted(-(low // d) * d)
        return _term(call("mod", Linear(a.const % d, terms).expr, Number(d)))

    def _read(self, e: Read) -> Expr:
        """A read whose indices stay inside: what lies outside cannot matter."""
        shape = self.bounds.shapes[e.tensor]
        if 0 in shape:
            return Number(False) if self.kind(e) == "bool" else Number(0)
        indices = []
        for index, size in zip(e.indices, shape, strict=True):
            inside = self._extremum("max", self.integer(index), Linear(0))
            indices.append(self._extremum("min", inside, Linear(size - 1)).expr)
        return Read(e.tensor, tuple(indices))

    def _cancelled(self, x: Linear) -> Linear:
        """The same sum with fewer repeated coordinates: x - x % s = s * (x // s), and back."""
        changed = True
        while changed and (now := self._repeats(x)):
            changed = False
            for term, factor in x.terms:
                other = self._other_form(term, factor)
                if other is None:
                    continue
                candidate = x - x.only([(term, factor)]) + other
                if self._repeats(candidate) < now:
                    x, changed = candidate, True
                    break
        return x

    def _other_form(self, term: Expr, factor: int) -> Linear | None:
        match term:
            case Apply("mod", (inner, Number(int() as d))):
                y = self.integer(inner)
                return (y - self._floordiv(y, d) * d) * factor
            case Apply("floordiv", (inner, Number(int() as d))) if factor % d == 0:
                y = self.integer(inner)
                return (y - self._mod(y, d)) * (factor // d)
            case _:
                return None

    def _repeats(self, x: Linear) -> int:
        """How many more times coordinates occur than there are coordinates."""
        found = [r for t, _ in x.terms for r in _coordinates(t) if r not in self.fixed]
        return len(found) - len(set(found))

    def _shares(self, term: Expr, rest: Linear) -> bool:
        others = {r for t, _ in rest.terms for r in _coordinates(t)}
        mine = _coordinates(term)
        varying = {r for r in mine if r not in self.fixed}
        return bool(varying & others) or len(varying) < sum(r in varying for r in mine)

    def _sides(self, x: Linear) -> tuple[Expr, Expr]:
        """The terms of rows alone on the left, all others on the right."""
        left = [p for p in x.terms if self.rows.issuperset(_coordinates(p[0]))]
        mine = x.only(left).shifted(x.const) if left else Linear(0)
        return mine.expr, (mine - x).expr

    def kind(self, e: Expr) -> Kind:
        """The type of a value."""
        match e:
            case Number(value):
                names: dict[type, Kind] = {bool: "bool", int: "int"}
                return names.get(type(value), "float")
            case Index():
                return "int"
            case Read(tensor, _):
                return self.bounds.kinds[tensor]
            case Apply("pow", (a, Number(int() as power))) if self._is_exact_power(a, power):
                return "int"
            case Apply(op, args):
                declared = OPS[op].result
                if declared != "same":
                    return declared
                kinds = {self.kind(a) for a in (args[1:] if op == "select" else args)}
                return "float" if "float" in kinds else "int" if "int" in kinds else "bool"
            case _:
                raise AssertionError(f"no constant: {e}")

    def _is_exact_power(self, base: Expr, power: int) -> bool:
        """Whether an integer power is the same in float64."""
        if power < 0 or power > 8 or self.kind(base) == "float":
            return False
        low, high = self.bounds.of_sum(self.integer(base))
        return bool(max(abs(low), abs(high)) ** power < 1 << 53)

    def real(self, e: Expr) -> Expr:
        """A float expression; the integers and truth values inside it are normal."""
        if isinstance(e, Number):
            return e
        if self.kind(e) != "float":
            return self.truth(e) if self.kind(e) == "bool" else self.integer(e).expr
        assert isinstance(e, Apply)
        return fold_number(Apply(e.op, tuple(map(self.real, e.args))))


def fold_number(e: Apply) -> Expr:
    """An operator of numbers as a number, in float64."""
    if not all(isinstance(a, Number) for a in e.args):
        return e
    found = evaluate(e, Scope())
    return Number(found.data.item())


def _term(e: Expr) -> Linear:
    return Linear(0, ((e, 1),))


def _coordinates(e: Expr) -> list[str]:
    """Every occurrence of a coordinate."""
    return [s.rank for s in subexprs(e) if isinstance(s, Index)]
