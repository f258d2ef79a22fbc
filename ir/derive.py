"""Derive the fewest-pass form of all reductions over one rank.

A reduction that needs another one's result is a barrier. It falls where a law of `ir.ops` applies:

- *defer*: a factor that does not vary along the rank leaves the sum (it distributes);
- *distribute*: a sum inside the sum becomes two states;
- *monotone*: max of f is f of max for a rising f;
- *iterate*: in f(a - y), f mapping sums to products (exp), y may be the value so far: going from y
to
  y' multiplies everything gathered by f(y - y').

What obeys none of them waits for one more pass, and the barrier is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite

from attnc.errors import Span
from attnc.ir.cascade import Cascade, Einsum
from attnc.ir.derived import Barrier, Certificate, Derived, Law, State, Statistic
from attnc.ir.expr import Apply, Expr, Index, Number, Read
from attnc.ir.facts import Interval, bounds, may_be_minus_inf, nonzero
from attnc.ir.inline import body, inline
from attnc.ir.nonfinite import nonfinite
from attnc.ir.ops import OPS, REDUCTIONS
from attnc.ir.presence import Condition, conjunction, conjuncts, split_presence
from attnc.ir.separate import (
    ZERO,
    add_up,
    cancel,
    factors,
    multiply,
    negate,
    separate,
    summands,
    terms,
)
from attnc.ir.walk import output_ranks, reads, subexprs, substitute


@dataclass(frozen=True, slots=True)
class _Blocked(Exception):
    """No law moves `statistic` out of `operator`, which stands at the top of `where`."""

    operator: str
    statistic: str
    where: Expr


def derive(
    cascade: Cascade,
    rank: str,
    reductions: Iterable[Einsum],
    definitions: Mapping[str, Einsum],
    tensors: Mapping[str, Interval],
    finite: frozenset[str],
) -> Derived:
    """Bring `reductions` (over `rank`, in order of definition) into the fewest sweeps.

    `definitions` are the pointwise statements to see through, `tensors` what is known of each
    tensor's values, `finite` the tensors that hold no infinities (dot products of finite inputs).
    """
    work = _Derivation(cascade, rank, definitions, dict(tensors), finite)
    for statement in reductions:
        work.place(statement)
    return Derived(
        cascade,
        rank,
        tuple(work.states.values()),
        tuple(work.statistics.values()),
        tuple(work.certificates),
        tuple(work.barriers),
    )


@dataclass(slots=True)
class _Derivation:
    cascade: Cascade
    rank: str
    definitions: Mapping[str, Einsum]
    tensors: dict[str, Interval]
    finite: frozenset[str]
    states: dict[tuple[object, ...], State] = field(default_factory=dict)
    statistics: dict[str, Statistic] = field(default_factory=dict)
    certificates: list[Certificate] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)

    def place(self, s: Einsum) -> None:
        """Find the first pass in which `s` can be gathered, and how."""
        full = inline(body(s), self.definitions)
        value, conditions = split_presence(full, self.tensors, self.finite)
        kept = self._tests(s, value, conditions)
        value = self._see_through(value, kept)
        first = max((self.sweep_of(r.tensor) for e in (value, *kept) for r in reads(e)), default=0)
        first = max(first, 0)
        mark = len(self.certificates)
        for sweep in (first, first + 1):
            placing = _Placing(self, s, sweep, kept)
            try:
                placing.run(value)
            except _Blocked as blocked:
                assert sweep == first, "statistics of an earlier pass never block"
                del self.certificates[mark:]
                self._report(s, blocked, sweep)
            else:
                return

    def _see_through(self, e: Expr, tests: tuple[Expr, ...]) -> Expr:
        """Replace maxima by what they were pushed out to (c + max x), so that terms can cancel.

        Only where the conditions for being more than the identity are tested anyway.
        """
        held = frozenset(tests)
        mapping: dict[Expr, Expr] = {}
        for r in reads(e):
            known = self.statistics.get(r.tensor)
            if known is None or abs(float(known.identity)) < inf or isinstance(known.value, Read):
                continue
            own = tuple(Index(x) for x in known.ranks)
            if r.indices == own and frozenset(conjuncts(known.present)) <= held:
                mapping[r] = known.value
        return substitute(e, mapping)

    def _tests(self, s: Einsum, value: Expr, conditions: tuple[Condition, ...]) -> tuple[Expr, ...]:
        """The conditions that need testing.

        Where -inf is subtracted from -inf inside exp, a sum gets exp(-inf) = 0 without any test if
        exp is a factor of the whole body. Elsewhere, the subtrahend being the row's maximum, the
        whole row is absent: a test on the row.
        """
        assert s.reduce is not None
        dependent = separate(value, self.varies, self.tensors).dependent
        is_sum = REDUCTIONS[s.reduce.op].combine == "add"
        direct = factors(dependent) if is_sum else ()
        tests: list[Expr] = []
        for c in conditions:
            if c.vanishing is None:
                tests.append(c.holds)
            elif c.vanishing not in direct:
                assert isinstance(c.vanishing, Apply) and isinstance(c.vanishing.args[0], Apply)
                row = c.vanishing.args[0].args[1]
                tests.append(c.holds if self.varies(row) else Apply("ne", (row, Number(-inf))))
        return tuple(tests)

    def sweep_of(self, tensor: str) -> int:
        """The sweep that completes a statistic or a state; -1 for what no sweep makes."""
        if tensor in self.statistics:
            return self.statistics[tensor].sweep
        return next((s.sweep for s in self.states.values() if s.name == tensor), -1)

    def empty(self) -> dict[str, float]:
        """What each statistic and state is before any point was seen."""
        states = {s.name: float(REDUCTIONS[s.op].identity) for s in self.states.values()}
        return states | {t.tensor: float(t.identity) for t in self.statistics.values()}

    def varies(self, e: Expr) -> bool:
        """Whether `e` depends on the coordinate along the rank (or on a component of it)."""
        names = {self.rank, *self.cascade.rank(self.rank).components}
        return any(isinstance(x, Index) and x.rank in names for x in subexprs(e))

    def _report(self, s: Einsum, blocked: _Blocked, sweep: int) -> None:
        gathered: list[Statistic | State] = [*self.statistics.values(), *self.states.values()]
        source = next(x for x in gathered if blocked.statistic == _name_of(x))
        # A rewritten expression is in no statement; the operator to blame may be, inside it.
        blamed = (x for x in subexprs(blocked.where) if _name(x) == blocked.operator)
        places = (self._written_at(x) for x in (blocked.where, *blamed))
        place = next((x for x in places if x is not None), s.span)
        self.barriers.append(
            Barrier(s.tensor, blocked.statistic, blocked.operator, sweep + 1, place, source.span)
        )

    def _written_at(self, e: Expr) -> Span | None:
        """The statement that wrote `e`: the smallest pointwise one that contains it."""
        found: tuple[int, Span | None] = (1 << 62, None)
        for made in self.definitions.values():
            full = inline(body(made), self.definitions)
            value, _ = split_presence(full, self.tensors, self.finite)
            inside = list(subexprs(value))
            if e in inside and len(inside) < found[0]:
                found = (len(inside), made.span)
        return found[1]


@dataclass(slots=True)
class _Placing:
    """One attempt to gather one reduction during one sweep."""

    work: _Derivation
    statement: Einsum
    sweep: int
    conditions: tuple[Expr, ...]
    made: dict[tuple[object, ...], State] = field(default_factory=dict)
    used: int = 0

    @property
    def op(self) -> str:
        assert self.statement.reduce is not None
        return self.statement.reduce.op

    @property
    def present(self) -> Expr:
        return conjunction(tuple(c for c in self.conditions if self.work.varies(c)))

    def run(self, value: Expr) -> None:
        for c in self.conditions:
            if self.work.varies(c):
                self._need_final(c, "where")
        if REDUCTIONS[self.op].combine == "add":
            gathered = self._sum(value)
        elif self.op in ("max", "min"):
            gathered = self._extreme(value, self.op)
        else:
            self._need_final(value, self.op)
            gathered = self._state(self.op, value)
        self._conclude(gathered)

    def _conclude(self, gathered: Expr) -> None:
        work, s = self.work, self.statement
        outside = tuple(c for c in self.conditions if not work.varies(c))
        identity = REDUCTIONS[self.op].identity
        ranks = output_ranks(s)
        work.states.update(self.made)
        work.statistics[s.tensor] = Statistic(
            s.tensor, ranks, gathered, conjunction(outside), identity, self.sweep, s.span
        )

    # sums ------------------------------------------------------------------------------------

    def _sum(self, value: Expr) -> Expr:
        """The sum of `value` over the rank as an expression of states."""
        split = separate(value, self.work.varies, self.work.tensors)
        inner = self._gather(split.dependent)
        if split.free and any(self._waits(f) for f in split.free):
            outer = multiply(split.free)
            self._certify(
                "defer",
                "a factor that does not vary along the rank leaves the sum",
                value,
                multiply((*split.free, split.dependent)),
            )
            return self._scaled(inner, outer)
        return self._scaled(inner, multiply(split.free))

    def _scaled(self, inner: Expr, outer: Expr) -> Expr:
        """`inner * outer`; a sum over nothing stays 0 where the factor is infinite."""
        if _is_one(outer):
            return inner
        product = multiply((inner, outer))
        if not nonfinite(outer, self.work.empty(), self.work.tensors):
            return product
        return Apply("select", (Apply("eq", (inner, ZERO)), ZERO, product))

    def _gather(self, dependent: Expr) -> Expr:
        blocked = self._blocking(dependent)
        if blocked is None:
            return self._state("sum", dependent)
        fs = factors(dependent)
        shifted = [f for f in fs if self._blocking(f) and _maps_sums(f)]
        rest = tuple(f for f in fs if f not in shifted)
        if all(self._blocking(f) is None for f in rest):
            return self._iterate(shifted, rest, dependent)
        parts = terms(dependent, self.work.varies)
        if len(parts) == 1:
            operator = next(f for f in rest if self._blocking(f))
            raise _Blocked(_name(operator), blocked, operator)
        self._certify(
            "distribute", "a sum of sums: each term keeps its own state", dependent, add_up(parts)
        )
        return add_up(tuple(self._sum(p) for p in parts))

    def _iterate(self, shifted: list[Expr], rest: tuple[Expr, ...], whole: Expr) -> Expr:
        """f(a - y) * rest, with y the value so far; f maps sums to products."""
        names = {f.op for f in shifted if isinstance(f, Apply)}
        exponents = tuple(f.args[0] for f in shifted if isinstance(f, Apply))
        parts = cancel(tuple(t for x in exponents for t in self._summands(x)))
        moving = tuple(t for t in parts if not self.work.varies(t) and self._waits(t))
        staying = tuple(t for t in parts if t not in moving)
        stuck = next((t for t in staying if self._blocking(t)), None)
        if stuck is not None or len(names) > 1:
            culprit = self._blocking(stuck if stuck is not None else whole)
            assert culprit is not None
            place = stuck if stuck is not None else shifted[0]
            raise _Blocked(_name(place), culprit, place)
        (name,) = names
        if not moving:
            return self._state("sum", multiply((Apply(name, (add_up(staying),)), *rest)))
        base = add_up(tuple(negate(t) for t in moving))
        self._need_defined(base, add_up(staying))
        body = multiply((Apply(name, (Apply("sub", (add_up(staying), base)),)), *rest))
        self._certify(
            "iterate",
            f"{name} maps sums to products: moving the base from y to y' multiplies by "
            f"{name}(y - y')",
            whole,
            body,
        )
        return self._state("sum", body, base, name)

    # extremes --------------------------------------------------------------------------------

    def _extreme(self, value: Expr, op: str) -> Expr:
        """max (or min) of `value`: a monotone operator of one varying argument lets it through."""
        blocked = self._blocking(value)
        if blocked is None:
            return self._state(op, value)
        direction, position = self._rising(value)
        if direction == 0:
            raise _Blocked(_name(value), blocked, value)
        assert isinstance(value, Apply)
        flipped = {"max": "min", "min": "max"}[op] if direction < 0 else op
        inner = self._extreme(value.args[position], flipped)
        outer = Apply(value.op, (*value.args[:position], inner, *value.args[position + 1 :]))
        reason = f"{value.op} is monotone in the argument that varies: {op} passes through it"
        self._certify("monotone", reason, value, value.args[position])
        return self._over_nothing(outer, inner, flipped, op)

    def _rising(self, e: Expr) -> tuple[int, int]:
        """(+1 rising, -1 falling, 0 unknown; position) in the only argument that varies."""
        if not isinstance(e, Apply):
            return 0, 0
        varying = [i for i, a in enumerate(e.args) if self.work.varies(a)]
        if len(varying) != 1:
            return 0, 0
        (i,) = varying
        if e.op in ("mul", "div") and (e.op == "mul" or i == 0):
            low, high = bounds(e.args[1 - i], self.work.tensors)
            return (1 if low >= 0 else -1 if high <= 0 else 0), i
        declared = OPS[e.op].rising
        return (declared[i] if declared else 0), i

    def _over_nothing(self, outer: Expr, inner: Expr, inner_op: str, op: str) -> Expr:
        """f(-inf) need not be -inf: over nothing the result is still the identity."""
        empty = REDUCTIONS[inner_op].identity
        if isinstance(outer, Apply) and outer.op in ("add", "sub") and inner_op == op:
            return outer
        nothing = Apply("eq", (inner, Number(float(empty))))
        return Apply("select", (nothing, Number(float(REDUCTIONS[op].identity)), outer))

    # states ----------------------------------------------------------------------------------

    def _state(self, op: str, body: Expr, base: Expr | None = None, name: str = "exp") -> Expr:
        key = (op, body, self.present, base, name, self.sweep, self._state_ranks())
        known = self.work.states.get(key) or self.made.get(key)
        if known is None:
            known = State(
                self._fresh(),
                self._state_ranks(),
                op,
                body,
                self.present,
                self.sweep,
                base,
                name,
                span=self.statement.span,
            )
            self.made[key] = known
        return Read(known.name, tuple(Index(r) for r in known.ranks))

    def _state_ranks(self) -> tuple[str, ...]:
        return output_ranks(self.statement)

    def _fresh(self) -> str:
        self.used += 1
        suffix = self.op if self.used == 1 else f"{self.op}{self.used}"
        return f"{self.statement.tensor}_{suffix}"

    # questions -------------------------------------------------------------------------------

    def _waits(self, e: Expr) -> bool:
        """Reads a statistic that is only complete when this sweep ends."""
        return self._blocking(e) is not None

    def _blocking(self, e: Expr) -> str | None:
        """The first statistic in `e` that this sweep is still gathering."""
        for r in reads(e):
            if self.work.sweep_of(r.tensor) == self.sweep:
                return r.tensor
        return None

    def _need_defined(self, base: Expr, exponent: Expr) -> None:
        """A base must be finite from the first point on that adds anything to the sum.

        No division by what is still 0, no log of what may still be negative, no maximum of points
        that are seen later than those of the sum, no -inf - -inf, and no sum or minimum that one
        -inf makes -inf. `exponent` is a in f(a - base).
        """
        tensors, empty = self.work.tensors, self.work.empty()
        for x in subexprs(base):
            if not isinstance(x, Apply):
                continue
            starting = [nonfinite(a, empty, tensors) for a in x.args]
            if x.op == "sub" and all("-inf" in kinds for kinds in starting):
                self._need_final(x, "sub")
            if any(nonfinite(a, {}, tensors) for a in x.args):
                continue
            if x.op == "div" and not nonzero(x.args[1], tensors):
                self._need_final(x.args[1], "div")
            edge = nonfinite(x, {}, tensors)
            if "nan" in edge or (edge and not self._vanishes(x.args[0], exponent)):
                self._need_final(x, x.op)
        for r in reads(base):
            falls = (s for s in self._states_of(r) if s.op != "max")
            if any(may_be_minus_inf(s.body, self.work.finite) for s in falls):
                self._need_final(r, _name(base))
        starts = (r for r in reads(base) if not isfinite(empty.get(r.tensor, 0.0)))
        for r in starts if nonfinite(base, empty, tensors) else ():
            if not self._seen_before(r, exponent):
                self._need_final(r, _name(base))

    def _summands(self, e: Expr) -> tuple[Expr, ...]:
        """The terms of a sum; a product is distributed only where that frees a statistic."""
        return tuple(
            t
            for s in summands(e)
            for t in (terms(s) if self.work.varies(s) and self._waits(s) else (s,))
        )

    def _vanishes(self, total: Expr, exponent: Expr) -> bool:
        """`total` is a sum of the very f(exponent - base): where it is 0 nothing was added."""
        states = self._states_of(total)
        return bool(states) and all(
            s.op == "sum"
            and self._covers(s)
            and isinstance(s.body, Apply)
            and _maps_sums(s.body)
            and exponent in (s.body.args[0], *_minuend(s.body.args[0]))
            for s in states
        )

    def _seen_before(self, r: Read, exponent: Expr) -> bool:
        """Every point of the sum is one of the extreme's; where that is infinite, f is 0."""
        known = self.work.statistics.get(r.tensor)
        if known is not None and known.sweep < self.sweep:
            return True
        finite = self.work.finite
        return all(
            self._covers(s)
            and (s.body in set(subexprs(exponent)) or not may_be_minus_inf(s.body, finite))
            for s in self._states_of(r)
        )

    def _covers(self, s: State) -> bool:
        """Whether a state gathers every point that is present here."""
        return frozenset(conjuncts(s.present)) <= frozenset(self.conditions)

    def _states_of(self, e: Expr) -> tuple[State, ...]:
        """The states on which `e` depends."""
        by_name = {s.name: s for s in self.work.states.values()}
        found: list[State] = []
        waiting = [e]
        while waiting:
            for r in reads(waiting.pop()):
                if r.tensor in by_name:
                    found.append(by_name[r.tensor])
                elif r.tensor in self.work.statistics:
                    waiting.append(self.work.statistics[r.tensor].value)
        return tuple(found)

    def _need_final(self, e: Expr, operator: str) -> None:
        blocked = self._blocking(e)
        if blocked is not None:
            raise _Blocked(operator, blocked, e)

    def _certify(self, law: Law, reason: str, before: Expr, after: Expr) -> None:
        s = self.statement
        self.work.certificates.append(Certificate(law, s.tensor, reason, before, after, s.span))


def _name_of(x: Statistic | State) -> str:
    return x.tensor if isinstance(x, Statistic) else x.name


def _maps_sums(e: Expr) -> bool:
    return isinstance(e, Apply) and OPS[e.op].maps == ("add", "mul")


def _minuend(e: Expr) -> tuple[Expr, ...]:
    return e.args[:1] if isinstance(e, Apply) and e.op == "sub" else ()


def _is_one(e: Expr) -> bool:
    return e == Number(1.0)


def _name(e: Expr) -> str:
    """The operator to blame: of a choice, the comparison that it waits for."""
    if isinstance(e, Apply) and e.op == "select":
        return _name(e.args[0])
    return e.op if isinstance(e, Apply) else type(e).__name__.lower()
