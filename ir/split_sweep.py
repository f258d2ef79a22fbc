"""Split a sweep over programs: each gathers states over its part, a second sweep merges them.

This is local-then-fix (`ir.merge_states`) as two stages. What moves a running state to the base
after a tile moves the state of a part to the base of the whole, too: the merge reads it off the
pass, with the states of the part in place of those before the tile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from attnc.ir.cascade import Cascade, DType, Einsum, Rank, Reduction
from attnc.ir.derived import State
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.ops import REDUCTIONS
from attnc.ir.plan import (
    Carry,
    Dot,
    Fold,
    Let,
    Load,
    Pass,
    Store,
    SweepStage,
    drop_unread,
    let_reads,
    map_value,
    needed,
)
from attnc.ir.presence import TRUE
from attnc.ir.visibility import Visibility
from attnc.ir.walk import reads, rewrite, substitute


@dataclass(frozen=True, slots=True)
class SplitSweep:
    """A sweep as two stages; `cascade` has the rank of the parts, and the tensors between them.

    partial: a program sweeps one part, and stores its states
    merge:   a program sweeps the parts at one point of the output, and stores what the sweep did
    """

    cascade: Cascade
    partial: SweepStage
    merge: SweepStage

    @property
    def both(self) -> tuple[SweepStage, SweepStage]:
        return self.partial, self.merge


def split_sweep(stage: SweepStage, cascade: Cascade) -> SplitSweep | None:
    """A stage in parts; None if it has several passes: a later one waits for all parts.

    None, too, if it stores something for each swept coordinate, which needs the final state.
    """
    if stage.derived is None or len(stage.passes) != 1:
        return None
    if any(stage.swept in s.axes for s in stage.stores):
        return None
    part = _fresh("part", {r.name for r in cascade.ranks})
    states = _partial_states(stage, cascade)
    partial = replace(
        stage,
        name=f"{stage.name}_parts",
        grid=(part, *stage.grid),
        passes=(replace(stage.passes[0], after=()),),
        stores=tuple(_store(p, part) for p in states),
        part=part,
    )
    extended = replace(
        cascade,
        ranks=(*cascade.ranks, Rank(part)),
        statements=(*cascade.statements, *(_statement(p, part, stage.swept) for p in states)),
    )
    return SplitSweep(extended, drop_unread(partial), _Merge(stage, part, states).stage())


@dataclass(frozen=True, slots=True)
class _Partial:
    """A state, what carries it, the tensor of what parts gather, the let that has that."""

    state: State
    carry: Carry
    tensor: str
    let: str

    @property
    def dtype(self) -> DType:
        return "bool" if isinstance(self.carry.init, bool) else "float"


def _partial_states(stage: SweepStage, cascade: Cascade) -> tuple[_Partial, ...]:
    assert stage.derived is not None
    taken = {*cascade.input_names, *(s.tensor for s in cascade.statements), *_let_names(stage)}
    found = []
    for state, carry in zip(stage.derived.states, stage.passes[0].carries, strict=True):
        tensor, let = (_fresh(f"{carry.name}_{end}", taken) for end in ("parts", "part"))
        taken |= {tensor, let}
        found.append(_Partial(state, carry, tensor, let))
    return tuple(found)


def _let_names(stage: SweepStage) -> Iterator[str]:
    yield from (x.name for x in (*stage.host, *stage.resident))
    for p in stage.passes:
        yield from (c.name for c in p.carries)
        yield from (x.name for x in (*p.body, *p.after))


def _fresh(wish: str, taken: Collection[str]) -> str:
    name, n = wish, 2
    while name in taken:
        name, n = f"{wish}_{n}", n + 1
    return name


def _store(p: _Partial, part: str) -> Store:
    return Store(p.tensor, (part, *p.state.ranks), _read(p.carry.name, p.carry.ranks))


def _statement(p: _Partial, part: str, swept: str) -> Einsum:
    """What the tensor of a state's parts holds: the state, gathered over a part of the points."""
    indices = tuple(map(Index, (part, *p.state.ranks)))
    reduce = Reduction(p.state.op, (swept,))
    return Einsum(p.tensor, indices, p.state.body, reduce, p.state.present, p.dtype)


def _read(name: str, ranks: Iterable[str]) -> Read:
    return Read(name, tuple(map(Index, ranks)))


@dataclass(frozen=True, slots=True)
class _Merge:
    """Builds the stage that merges."""

    whole: SweepStage
    part: str
    states: tuple[_Partial, ...]

    def stage(self) -> SweepStage:
        """Rows are few where a sweep is split: the row becomes a rank of the grid."""
        s, (sweep,) = self.whole, self.whole.passes
        body = self._body(sweep)
        seen = Visibility(None, self.part, (), TRUE, TRUE)
        merged = replace(
            s,
            name=f"{s.name}_merge",
            swept=self.part,
            passes=(replace(sweep, body=body, full=body, visibility=seen),),
            derived=None,
        )
        merged = _row_in_grid(drop_unread(merged))
        lets = (*merged.resident, *(x for p in merged.passes for x in (*p.body, *p.after)))
        used = {r for x in lets for r in x.ranks}
        return replace(merged, inner=tuple(r for r in s.inner if r in used - {*s.columns}))

    def _body(self, sweep: Pass) -> tuple[Let, ...]:
        """The parts' states; then the lets of the pass that move states, for parts as well."""
        carried = {p.carry.update: p for p in self.states}
        before = {x.name: _before(x) for x in sweep.body if x.name in carried}
        movers = self._movers(sweep, before)
        swap: dict[Expr, Expr] = {
            _read(p.carry.name, p.carry.ranks): _read(p.let, (self.part, *p.carry.ranks))
            for p in self.states
        }
        taken = {*_let_names(self.whole), *(p.let for p in self.states)}
        lets = [x for p in self.states for x in self._load(p, taken)]
        for let in sweep.body:
            if let.name in carried:
                op = carried[let.name].state.op
                old = before[let.name]
                of_parts = Fold(op, substitute(old, swap), self.part)
                lets += _combined(let, old, of_parts, taken)
            elif let.name in movers:
                lets.append(let)
                lets += self._for_parts(let, swap, taken)
        return tuple(lets)

    def _movers(self, sweep: Pass, before: Mapping[str, Expr]) -> frozenset[str]:
        """The lets that say how far states move."""
        others = tuple(x for x in sweep.body if x.name not in before)
        found = needed(others, {r.tensor for e in before.values() for r in reads(e)})
        assert all(self.whole.swept not in x.ranks for x in found), "a base varies along the sweep"
        return frozenset(x.name for x in found)

    def _for_parts(self, let: Let, swap: dict[Expr, Expr], taken: set[str]) -> Iterator[Let]:
        """The same for the states of parts, if it depends on states; `swap` is told its name."""
        if let_reads(let).isdisjoint(r.tensor for r in swap if isinstance(r, Read)):
            return
        name = _fresh(f"{let.name}_part", taken)
        taken.add(name)
        ranks = (self.part, *let.ranks)
        swap[_read(let.name, let.ranks)] = _read(name, ranks)
        value = map_value(let.value, lambda e: substitute(e, swap))
        yield replace(let, name=name, ranks=ranks, value=value)

    def _load(self, p: _Partial, taken: set[str]) -> Iterator[Let]:
        """The states of parts. Beyond the last one a load gives 0: there they are the initial."""
        ranks = (self.part, *p.carry.ranks)
        load = Load(_read(p.tensor, (self.part, *p.state.ranks)))
        if not p.carry.init:
            yield Let(p.let, ranks, load, p.dtype, p.state.span)
            return
        loaded = _fresh(f"{p.let}_loaded", taken)
        taken.add(loaded)
        inside = Apply("lt", (Index(self.part), Extent(self.part)))
        known = Apply("select", (inside, _read(loaded, ranks), Number(p.carry.init)))
        yield Let(loaded, ranks, load, p.dtype, p.state.span)
        yield Let(p.let, ranks, known, p.dtype)


def _before(update: Let) -> Expr:
    """The state before a tile, moved to the base after it: what the tile's own is added to."""
    match update.value:
        case Dot(_, _, _, plus) if plus is not None:
            return plus
        case Apply(_, (before, _)):
            return before
    raise AssertionError(update)


def _combined(update: Let, before: Expr, parts: Fold, taken: set[str]) -> Iterator[Let]:
    """The update of a state by the states of parts."""
    name = _fresh(f"{update.name}_parts", taken)
    taken.add(name)
    yield Let(name, update.ranks, parts, update.dtype)
    combine = REDUCTIONS[parts.op].combine
    value = Apply(combine, (before, _read(name, update.ranks)))
    yield replace(update, value=value)


def _row_in_grid(stage: SweepStage) -> SweepStage:
    """The stage with a program for each row."""
    row = stage.row
    if row is None:
        return stage
    lets = {*_let_names(stage)}

    def without(e: Expr) -> Expr | None:
        if isinstance(e, Read) and e.tensor in lets and Index(row) in e.indices:
            return Read(e.tensor, tuple(i for i in e.indices if i != Index(row)))
        return None

    def change(let: Let) -> Let:
        value = map_value(let.value, lambda e: rewrite(e, without))
        return replace(let, ranks=_without(let.ranks, row), value=value)

    def block(found: tuple[Let, ...]) -> tuple[Let, ...]:
        return tuple(map(change, found))

    def swept(p: Pass) -> Pass:
        carries = tuple(replace(c, ranks=_without(c.ranks, row)) for c in p.carries)
        return replace(
            p, carries=carries, body=block(p.body), full=block(p.full), after=block(p.after)
        )

    return replace(
        stage,
        grid=(*stage.grid, row),
        row=None,
        resident=block(stage.resident),
        passes=tuple(map(swept, stage.passes)),
        stores=tuple(replace(s, value=rewrite(s.value, without)) for s in stage.stores),
    )


def _without(ranks: tuple[str, ...], row: str) -> tuple[str, ...]:
    return tuple(r for r in ranks if r != row)
