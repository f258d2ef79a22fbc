"""From a cascade to its Plan: what is swept in a kernel, what runs before and after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from attnc.ir.build_sweep import Output, build_sweep
from attnc.ir.cascade import Cascade, Einsum
from attnc.ir.derive import derive
from attnc.ir.derived import Certificate, Derived
from attnc.ir.expr import Apply, Expr, Index, Number, Read
from attnc.ir.facts import Interval
from attnc.ir.inline import pointwise_definitions
from attnc.ir.merge_states import recompute_certificates, split_certificates
from attnc.ir.ops import OPS
from attnc.ir.plan import Plan, Stage, SweepStage, TorchStage
from attnc.ir.presence import conjunction, split_presence
from attnc.ir.region import Region, Scope, find_region, lineage, tensor_facts
from attnc.ir.tiles import not_lowered
from attnc.ir.use_exp2 import use_exp2
from attnc.ir.walk import iteration_ranks, output_ranks, reads, subexprs


def build_plan(cascade: Cascade, rewrites: tuple[Certificate, ...] = ()) -> Plan:
    """Stages that compute all outputs of a cascade that went through the passes of `ir.pipeline`.

    `rewrites` certify what those did; each sweep cites what concerns it. AttncError E901 for what
    is not lowered yet.
    """
    _refuse_unlowered(cascade)
    planner = _Planner(_scope(cascade), rewrites)
    planner.plan(cascade.outputs, outermost=True)
    return Plan(cascade, tuple(_named_apart(planner.stages)))


def _named_apart(stages: Sequence[Stage]) -> Iterator[Stage]:
    """Sweeps are called as the attention is, the second one with a number after it."""
    taken = {s.name for s in stages if isinstance(s, TorchStage)}
    for s in stages:
        if isinstance(s, SweepStage) and s.name in taken:
            numbers = (f"{s.name}_{n}" for n in count(2))
            s = replace(s, name=next(n for n in numbers if n not in taken))
        taken.add(s.name)
        yield s


def _refuse_unlowered(cascade: Cascade) -> None:
    for s in cascade.statements:
        if not isinstance(s, Einsum):
            kind = {"Select": "a selection", "Concat": "concat"}[type(s).__name__]
            raise not_lowered(kind, s.span, cascade.source)
        if not all(isinstance(i, Index) for i in s.indices):
            raise not_lowered("an iterative rank", s.span, cascade.source)
        if s.reduce is None and len(set(s.indices)) < len(s.indices):
            raise not_lowered("a tensor with the same rank on two axes", s.span, cascade.source)


def _scope(cascade: Cascade) -> Scope:
    reductions = {
        s.tensor: s for s in cascade.statements if isinstance(s, Einsum) and s.reduce is not None
    }
    return Scope(cascade, pointwise_definitions(cascade), reductions)


@dataclass(slots=True)
class _Planner:
    scope: Scope
    rewrites: tuple[Certificate, ...] = ()
    stages: list[Stage] = field(default_factory=list)
    stored: set[str] = field(default_factory=set)

    def plan(self, wanted: Iterable[str], outermost: bool = False) -> None:
        """Append the stages that store the tensors in `wanted`."""
        names = [t for t in dict.fromkeys(wanted) if t not in self.stored]
        if not names:
            return
        tensors, finite = tensor_facts(self.scope)
        needed = self._needed(names)
        region = find_region(self.scope, needed, tensors, outermost)
        if region is None:
            self._torch(needed, names)
        else:
            self._sweep(region, needed, names, tensors, finite)

    def _needed(self, names: list[str]) -> tuple[Einsum, ...]:
        """The reductions that the wanted tensors depend on and nothing has stored yet."""
        found: set[str] = set()
        waiting = [self._value(t) for t in names]
        while waiting:
            for s in lineage(self.scope, waiting.pop()):
                found.add(s.tensor)
        kept = found - self.stored
        return tuple(s for t, s in self.scope.reductions.items() if t in kept)

    def _value(self, tensor: str) -> Expr:
        """A tensor in terms of inputs and reductions (a reduction as a read of itself)."""
        if tensor in self.scope.definitions:
            return self.scope.body(self.scope.definitions[tensor])
        made = self.scope.cascade.producers(tensor)[0]
        return Read(tensor, tuple(Index(r) for r in output_ranks(made)))

    # stages without a sweep ---------------------------------------------------------------------

    def _torch(self, reductions: Iterable[Einsum], names: Iterable[str]) -> None:
        for s in reductions:
            self._torch_stage(replace(s, expr=self.scope.body(s), where=None))
        for t in names:
            if t not in self.stored:
                made = self.scope.definitions[t]
                self._torch_stage(replace(made, expr=self._value(t), where=None))

    def _torch_stage(self, s: Einsum) -> None:
        if s.tensor not in self.stored:
            self.stored.add(s.tensor)
            self.stages.append(TorchStage(s.tensor, s))

    # a sweep with what surrounds it ---------------------------------------------------------------

    def _sweep(
        self,
        region: Region,
        needed: tuple[Einsum, ...],
        names: list[str],
        tensors: dict[str, Interval],
        finite: frozenset[str],
    ) -> None:
        self._check(region)
        inside = {s.tensor for s in (*region.reductions, *region.contractions)}
        late = self._downstream(needed, {s.tensor for s in region.reductions})
        early = [s for s in needed if s.tensor not in inside and s.tensor not in late]
        rest = [s for s in needed if s not in early]
        early = self._read_by(rest, names, early)
        prepared = self._prepared(region)
        self.plan((*(s.tensor for s in early), *prepared))
        names = [t for t in names if t not in self.stored]
        scope = self._without(prepared)
        derived = use_exp2(
            derive(
                self.scope.cascade,
                region.rank,
                region.reductions,
                scope.definitions,
                tensors,
                finite,
            )
        )
        gathered = {s.tensor for s in region.reductions}
        lines = {c.span for c in region.contractions}
        earlier = tuple(c for c in self.rewrites if c.tensor in gathered or c.span in lines)
        again = (*recompute_certificates(region, derived), *split_certificates(derived))
        derived = replace(derived, certificates=(*earlier, *derived.certificates, *again))
        outputs = self._outputs(region, derived, late, names, tensors, finite)
        self.stages.append(build_sweep(scope, region, derived, outputs, tensors, finite))
        self.stored |= {o.tensor for o in outputs}
        self._torch([s for s in needed if s.tensor in late], names)

    def _check(self, region: Region) -> None:
        source = self.scope.cascade.source
        gathered = {s.tensor for s in region.reductions}
        for s in region.reductions:
            assert s.reduce is not None
            if len(s.reduce.ranks) != 1:
                raise not_lowered("a swept reduction over several ranks", s.span, source)
        for c in region.contractions:
            upstream = {s.tensor for s in lineage(self.scope, self.scope.body(c))}
            if upstream & gathered:
                raise not_lowered("a sum over heads of normalised maps", c.span, source)
            if upstream & {x.tensor for x in region.contractions}:
                raise not_lowered("a product of products inside the map", c.span, source)

    def _downstream(self, needed: tuple[Einsum, ...], gathered: set[str]) -> set[str]:
        late: set[str] = set()
        for s in needed:
            upstream = {x.tensor for x in lineage(self.scope, self.scope.body(s))}
            if s.tensor not in gathered and upstream & gathered:
                late.add(s.tensor)
        inner = {s.tensor for s in needed if s.tensor in gathered}
        return late - inner

    def _read_by(self, rest: list[Einsum], names: list[str], early: list[Einsum]) -> list[Einsum]:
        """Of what is computed before, that which is read after it: the others are on the way to it.

        names: what is wanted in the end
        """
        values = [*(self.scope.body(s) for s in rest), *map(self._value, names)]
        conditions = (s.where for s in rest if s.where is not None)
        taken = {r.tensor for e in (*values, *conditions) for r in reads(e)}
        return [s for s in early if s.tensor in taken]

    def _prepared(self, region: Region) -> tuple[str, ...]:
        """Costly pointwise tensors of the swept side: made once instead of once per row tile."""
        row = region.row
        found = []
        for t, s in self.scope.definitions.items():
            value = self.scope.body(s)
            ranks = self.scope.ranks(value)
            costly = any(isinstance(x, Apply) and OPS[x.op].cost.is_heavy for x in subexprs(value))
            inside = {r.tensor for r in reads(value)} & {
                x.tensor for x in (*region.contractions, *region.reductions)
            }
            aside = region.rank in ranks and row is not None and row not in ranks
            if costly and aside and not inside and self._is_used_by(t, region):
                found.append(t)
        return tuple(found)

    def _is_used_by(self, tensor: str, region: Region) -> bool:
        """Whether the region's own statements read the tensor, possibly through pointwise ones."""
        waiting = [
            r.tensor for s in (*region.reductions, *region.contractions) for r in _own_reads(s)
        ]
        seen: set[str] = set()
        while waiting:
            t = waiting.pop()
            if t == tensor:
                return True
            if t in self.scope.definitions and t not in seen:
                seen.add(t)
                waiting += [r.tensor for r in _own_reads(self.scope.definitions[t])]
        return False

    def _without(self, prepared: tuple[str, ...]) -> Scope:
        kept = {t: s for t, s in self.scope.definitions.items() if t not in prepared}
        return Scope(self.scope.cascade, kept, self.scope.reductions)

    # what the sweep stores ----------------------------------------------------------------------

    def _outputs(
        self,
        region: Region,
        derived: Derived,
        late: set[str],
        names: list[str],
        tensors: dict[str, Interval],
        finite: frozenset[str],
    ) -> tuple[Output, ...]:
        """Wanted tensors as far as the epilogue can finish them, and what later stages read."""
        gathered = {t.tensor for t in derived.statistics}
        outputs: dict[str, Output] = {}
        pending: list[Expr] = [self.scope.body(self.scope.reductions[t]) for t in late]
        for name in names:
            value = self._value(name)
            upstream = {r.tensor for r in reads(value)}
            made = self.scope.cascade.producers(name)[0]
            if upstream & late or not self._in_epilogue(made, derived, region):
                pending.append(value)
                continue
            stripped, conditions = split_presence(value, tensors, finite)
            present = conjunction(tuple(c.holds for c in conditions))
            if conditions:
                stripped = Apply("select", (present, stripped, Number(0.0)))
            outputs[name] = Output(name, output_ranks(made), stripped, made.span)
        for e in pending:
            for r in reads(e):
                if r.tensor in gathered and r.tensor not in outputs:
                    made = self.scope.reductions[r.tensor]
                    outputs[r.tensor] = Output(
                        r.tensor, output_ranks(made), self._value(r.tensor), made.span
                    )
        return tuple(outputs.values())

    def _in_epilogue(self, made: object, derived: Derived, region: Region) -> bool:
        """Pointwise in the stage's own ranks, and reading statistics at their own point."""
        assert isinstance(made, Einsum)
        ranks = {r for s in derived.states for r in s.ranks}
        if region.row is not None:
            ranks.add(region.row)
        if not set(iteration_ranks(made)) <= ranks and made.reduce is None:
            return False
        statistics = {t.tensor: t.ranks for t in derived.statistics}
        return all(
            r.indices == tuple(Index(x) for x in statistics[r.tensor])
            for r in reads(self._value(made.tensor))
            if r.tensor in statistics
        )


def _own_reads(s: Einsum) -> tuple[Read, ...]:
    return (*reads(s.expr), *(reads(s.where) if s.where is not None else ()))


def sweeps(plan: Plan) -> tuple[SweepStage, ...]:
    """The plan's kernels."""
    return tuple(s for s in plan.stages if isinstance(s, SweepStage))
