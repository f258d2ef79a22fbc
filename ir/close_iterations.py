"""Find the closed form of iterative tensors: a running sum read at its end is a sum.

    X[0] = identity;  X[t+1] = X[t] * f(y[t] - y[t+1]) + u[t]
    X[T] = sum(t) u[t] * f(y[t+1] - y[T])

for any reduction over which the product distributes and any f that turns sums into products: the
factors telescope. It is the law *iterate* of `ir.derive`, read backwards. Without a factor any
reduction will do. Papers write online algorithms as such iterations; the closed form is what they
compute, and from it the planner derives its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import reduce as fold
from math import inf

from attnc.ir.cascade import Cascade, Einsum, Reduction, Statement
from attnc.ir.derived import Certificate
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.facts import bounds, may_be_minus_inf
from attnc.ir.inline import inline
from attnc.ir.ops import OPS, REDUCTIONS, ReduceOp
from attnc.ir.presence import split_presence
from attnc.ir.schedule import groups
from attnc.ir.separate import add_up, factors, multiply, negate
from attnc.ir.show import show_expr
from attnc.ir.unnest import Known, dependents, find_known, summands, unnest
from attnc.ir.walk import index_ranks, map_statement, reads, rewrite, statement_reads, substitute


def close_iterations(cascade: Cascade) -> tuple[Cascade, tuple[Certificate, ...]]:
    """The cascade without the iterations that have a closed form, and the laws used.

    A rank keeps all its iterations if one of them has none, or if a value on the way (a prefix) is
    needed. The closed form is the written one's value wherever that is defined: what a step reads
    must provably be present, and y finite after the first step, since where -inf is subtracted from
    -inf the iteration is absent from then on and the closed form is not.
    """
    certificates: tuple[Certificate, ...] = ()
    steps = [i for s in cascade.statements for i in s.indices if not isinstance(i, Index)]
    for rank in dict.fromkeys(r for i in steps for r in sorted(index_ranks(i))):
        closing = _find(cascade, rank)
        closed = closing.close() if closing is not None else None
        if closed is not None:
            cascade, more = closed
            certificates += more
    return cascade, certificates


@dataclass(frozen=True, slots=True)
class _Iteration:
    """X[.., 0, ..] = start and X[.., t+1, ..] = step; `axis` is the place of t."""

    axis: int
    start: Expr
    step: Einsum


@dataclass(frozen=True, slots=True)
class _Closed:
    """X[T] = op(t) update * factor."""

    op: str
    update: Expr
    factor: Expr | None = None


@dataclass(frozen=True, slots=True)
class _Telescope:
    """The factor map(y[t] - y[t+1]), with `after` the terms of y[t+1], `end` those of y[T]."""

    map: str
    after: tuple[Expr, ...]
    end: tuple[Expr, ...]


def _find(cascade: Cascade, rank: str) -> _Closing | None:
    """The iterations along a rank; None if one is of another form."""
    after = Apply("add", (Index(rank), Number(1)))
    found: dict[str, _Iteration] = {}
    for s in cascade.statements:
        if all(isinstance(i, Index) for i in s.indices) or s.tensor in found:
            continue
        producers = cascade.producers(s.tensor)
        starts = [p for p in producers if after not in p.indices]
        steps = [p for p in producers if after in p.indices]
        if not steps and all(rank not in index_ranks(i) for i in s.indices):
            continue
        if len(steps) != 1 or len(starts) != 1 or not all(map(_is_plain, producers)):
            return None
        start, step = starts[0], steps[0]
        assert isinstance(start, Einsum) and isinstance(step, Einsum)
        axis = step.indices.index(after)
        others = step.indices[:axis] + step.indices[axis + 1 :]
        if start.indices[axis] != Number(0) or not all(isinstance(i, Index) for i in others):
            return None
        found[s.tensor] = _Iteration(axis, start.expr, step)
    if not found or found.keys() & set(cascade.outputs):
        return None
    return _Closing(cascade, rank, found, find_known(cascade))


def _is_plain(s: Statement) -> bool:
    return isinstance(s, Einsum) and s.reduce is None and s.where is None


@dataclass(slots=True)
class _Closing:
    cascade: Cascade
    rank: str
    iterations: dict[str, _Iteration]
    known: Known
    closed: dict[str, _Closed] = field(default_factory=dict)
    settled: frozenset[str] = frozenset()

    def close(self) -> tuple[Cascade, tuple[Certificate, ...]] | None:
        """All iterations closed, or None."""
        self.settled = self.known.finite
        moving = dependents(self.known, lambda r: r.tensor in self.iterations)
        definitions = {t: d for t, d in self.known.scope.definitions.items() if t in moving}
        waiting = dict(self.iterations)
        while waiting:
            for name, x in waiting.items():
                found = self._closed_form(name, x, inline(x.step.expr, definitions))
                if found is not None:
                    break
            else:
                return None
            del waiting[name]
            self.closed[name] = found
        return self._rebuilt()

    # one iteration ---------------------------------------------------------------------------

    def _closed_form(self, name: str, x: _Iteration, step: Expr) -> _Closed | None:
        here = self._at(name, Index(self.rank))
        for op, reduction in REDUCTIONS.items():
            parts = _operands(reduction, step)
            own = [p for p in parts if any(r.tensor == name for r in reads(p))]
            rest = tuple(p for p in parts if p not in own)
            if len(own) != 1 or len(rest) != len(parts) - 1 or not rest:
                continue
            if not _is_identity(x.start, reduction) or not all(map(self._is_present, rest)):
                continue
            if own[0] == here:
                update = _combined(reduction, rest)
                if not may_be_minus_inf(update, self.settled):
                    self.settled |= {name}
                return _Closed(op, update)
            telescope = self._telescope(own[0], here)
            if telescope is not None and "mul" in reduction.distributed:
                difference = add_up((*telescope.after, *map(negate, telescope.end)))
                factor = Apply(telescope.map, (difference,))
                return _Closed(op, _combined(reduction, rest), factor)
        return None

    def _telescope(self, part: Expr, here: Read) -> _Telescope | None:
        """The factors of X[t] if they are one map of y[t] - y[t+1], y finite from y[1] on."""
        others = list(factors(part))
        if here not in others:
            return None
        others.remove(here)
        maps = [f for f in others if isinstance(f, Apply) and OPS[f.op].maps == ("add", "mul")]
        if len(maps) < len(others) or len({f.op for f in maps}) != 1:
            return None
        exponent = [t for f in maps for t in summands(f.args[0])]
        after = Apply("add", (Index(self.rank), Number(1)))
        before = tuple(t for t in exponent if after not in self._places(t))
        moved = tuple(substitute(t, {Index(self.rank): after}) for t in before)
        gone = [t for t in exponent if t not in before]
        if not before or sorted(map(repr, gone)) != sorted(repr(negate(t)) for t in moved):
            return None
        # f(y[0] - y[1]) meets the identity: finite unless y starts at inf.
        if not all(map(self._is_finite, moved)) or bounds(self._first(before), {})[1] == inf:
            return None
        end = tuple(substitute(t, {Index(self.rank): Extent(self.rank)}) for t in before)
        return _Telescope(maps[0].op, moved, end)

    def _places(self, e: Expr) -> set[Expr]:
        """Where along the rank `e` reads iterations."""
        found = [r for r in reads(e) if r.tensor in self.iterations]
        return {r.indices[self.iterations[r.tensor].axis] for r in found}

    def _is_finite(self, e: Expr) -> bool:
        tensors = {r.tensor for r in reads(e)}
        return tensors <= self.settled and not may_be_minus_inf(e, self.settled)

    def _first(self, base: tuple[Expr, ...]) -> Expr:
        """y[0]."""
        starts: dict[Expr, Expr] = {
            r: self.iterations[r.tensor].start
            for t in base
            for r in reads(t)
            if r.tensor in self.iterations
        }
        return substitute(add_up(base), starts)

    def _is_present(self, e: Expr) -> bool:
        """Whether every point of a step's update exists: reductions and inputs always do."""
        scope, cascade = self.known.scope, self.cascade
        full = inline(e, scope.definitions)
        whole = cascade.input_names | scope.reductions.keys() | self.iterations.keys()
        _, conditions = split_presence(full, self.known.bounds, self.known.finite)
        return not conditions and all(r.tensor in whole for r in reads(full))

    # the cascade in terms of closed forms ----------------------------------------------------

    def _rebuilt(self) -> tuple[Cascade, tuple[Certificate, ...]] | None:
        statements = [s for s in map(self._statement, self.cascade.statements) if s is not None]
        ranks = tuple(
            replace(r, iterative=False) if r.name == self.rank else r for r in self.cascade.ranks
        )
        cascade = replace(self.cascade, ranks=ranks, statements=tuple(statements))
        known = find_known(cascade)
        passing = dependents(known, self._is_prefix)
        free = [
            unnest(s, passing, known, self._is_settled).statement
            if isinstance(s, Einsum) and s.reduce is not None and s.tensor in passing
            else s
            for s in statements
        ]
        live = [s for g in groups(replace(cascade, statements=tuple(free))) for s in g.statements]
        if any(self._is_prefix(r) for s in live for r in statement_reads(s)):
            return None
        final = tuple(map_statement(s, lambda e: rewrite(e, self._at_end)) for s in live)
        made = {s.tensor: s for s in final if isinstance(s, Einsum) and s.tensor in self.closed}
        return replace(cascade, statements=final), tuple(map(self._certificate, made.values()))

    def _statement(self, s: Statement) -> Statement | None:
        """The step becomes the closed form, the start goes."""
        x = self.iterations.get(s.tensor)
        if x is None:
            return s
        if s is not x.step:
            return None
        form = self.closed[s.tensor]
        indices = s.indices[: x.axis] + s.indices[x.axis + 1 :]
        value = form.update if form.factor is None else multiply((form.update, form.factor))
        return replace(x.step, indices=indices, expr=value, reduce=Reduction(form.op, (self.rank,)))

    def _certificate(self, made: Einsum) -> Certificate:
        step, form = self.iterations[made.tensor].step, self.closed[made.tensor]
        reason = f"stepping along {self.rank} from the identity to the end is a {form.op}"
        if form.factor is not None:
            reason += f", and the factors telescope to {show_expr(form.factor)}"
        return Certificate("close", made.tensor, reason, step.expr, made.expr, made.span)

    def _is_prefix(self, r: Read) -> bool:
        x = self.iterations.get(r.tensor)
        return x is not None and r.indices[x.axis] != Extent(self.rank)

    def _is_settled(self, r: Read) -> bool:
        """Finite from the first step on."""
        x = self.iterations.get(r.tensor)
        later = (Apply("add", (Index(self.rank), Number(1))), Extent(self.rank))
        return x is not None and r.tensor in self.settled and r.indices[x.axis] in later

    def _at_end(self, e: Expr) -> Expr | None:
        if not isinstance(e, Read) or e.tensor not in self.iterations:
            return None
        axis = self.iterations[e.tensor].axis
        return Read(e.tensor, e.indices[:axis] + e.indices[axis + 1 :])

    def _at(self, name: str, place: Expr) -> Read:
        x = self.iterations[name]
        indices = (*x.step.indices[: x.axis], place, *x.step.indices[x.axis + 1 :])
        return Read(name, indices)


def _is_identity(start: Expr, reduction: ReduceOp) -> bool:
    return isinstance(start, Number) and float(start.value) == float(reduction.identity)


def _operands(reduction: ReduceOp, e: Expr) -> tuple[Expr, ...]:
    """What the reduction's own operator combines in `e`."""
    if reduction.combine == "add":
        return summands(e)
    if isinstance(e, Apply) and e.op == reduction.combine:
        return tuple(p for a in e.args for p in _operands(reduction, a))
    return (e,)


def _combined(reduction: ReduceOp, parts: tuple[Expr, ...]) -> Expr:
    if reduction.combine == "add":
        return add_up(parts)
    return fold(lambda a, b: Apply(reduction.combine, (a, b)), parts)
