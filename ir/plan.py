"""The Plan: how a cascade runs, in stages. Both the Triton emitter and the CPU engine read it.

A sweep stage holds a tile of one rank (`row`), walks another (`swept`) tile by tile in one or more
passes, and keeps a state per row. All arithmetic is in `Let`s: named tiles, in the order in which
they are computed. An expression reads a let as `Read(name, (Index(r), ..))` over the let's own
ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from attnc.errors import Span
from attnc.ir.cascade import Cascade, DType, Einsum
from attnc.ir.derived import Derived
from attnc.ir.expr import Expr, Read
from attnc.ir.visibility import Visibility
from attnc.ir.walk import reads


@dataclass(frozen=True, slots=True)
class Load:
    """A tile of a tensor in memory: an input, or what an earlier stage stored."""

    read: Read


@dataclass(frozen=True, slots=True)
class Dot:
    """A matrix product of two tiles: `left` over (rows, over), `right` over (over, columns).

    `plus` is added to it (the accumulator, already rescaled).
    """

    left: Expr
    right: Expr
    over: str
    plus: Expr | None = None


@dataclass(frozen=True, slots=True)
class Serial:
    """`op` over rank `over` of an expression that is no product of a left and a right side.

    Evaluated one coordinate of `over` at a time; `body` may read inputs directly.
    """

    op: str
    body: Expr
    over: str


@dataclass(frozen=True, slots=True)
class Fold:
    """A tile reduced with `op` along its rank `over`."""

    op: str
    body: Expr
    over: str


Value: TypeAlias = Expr | Load | Dot | Serial | Fold


@dataclass(frozen=True, slots=True)
class Let:
    """A named tile over `ranks` (its axes in order; none: a scalar per program).

    A value that depends on fewer ranks than these is repeated along the others.
    `span` cites the spec line.
    """

    name: str
    ranks: tuple[str, ...]
    value: Value
    dtype: DType = "float"
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Carry:
    """A state: starts at `init`, becomes the let `update` after each tile. `ranks` are its axes."""

    name: str
    ranks: tuple[str, ...]
    init: float | bool
    update: str
    note: str = ""
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Pass:
    """One sweep: `body` is computed for each tile of the swept rank, then the carries move on.

    `visibility` says in which tiles no point counts: they need not be visited. Where all points of
    a whole tile count, `full` does the same as `body` without its masks. The order of the tiles is
    free: every state is gathered by an associative and commutative operation.
    """

    carries: tuple[Carry, ...]
    body: tuple[Let, ...]
    full: tuple[Let, ...]
    after: tuple[Let, ...]
    visibility: Visibility


@dataclass(frozen=True, slots=True)
class Store:
    """An output tensor of a stage: `value` (a let over `ranks`) goes to `tensor` at these axes."""

    tensor: str
    axes: tuple[str, ...]
    value: Expr
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SweepStage:
    """One kernel. Programs: one per point of `grid`, per tile of `row` and per tile of `columns`.

    Scalars that need only extents and params (`host`) are computed once by the caller. `resident`
    lets are computed before the sweeps. `inner` are ranks contracted inside a tile (head
    dimension). `part`, a rank of the grid, splits the sweep: of the tiles that a program would
    visit, the one at coordinate i of all P takes every P-th, from the i-th on.
    """

    name: str
    grid: tuple[str, ...]
    row: str | None
    swept: str
    columns: tuple[str, ...]
    inner: tuple[str, ...]
    host: tuple[Let, ...]
    resident: tuple[Let, ...]
    passes: tuple[Pass, ...]
    stores: tuple[Store, ...]
    derived: Derived | None = field(default=None, compare=False, repr=False)
    part: str | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s.tensor for s in self.stores))


def map_value(value: Value, f: Callable[[Expr], Expr]) -> Value:
    """Apply `f` to every expression that a let's value evaluates."""
    match value:
        case Load(read):
            changed = f(read)
            assert isinstance(changed, Read)
            return Load(changed)
        case Dot(left, right, over, plus):
            return Dot(f(left), f(right), over, None if plus is None else f(plus))
        case Serial(op, body, over):
            return Serial(op, f(body), over)
        case Fold(op, body, over):
            return Fold(op, f(body), over)
        case _:
            return f(value)


def value_exprs(value: Value) -> tuple[Expr, ...]:
    """The expressions inside a let's value."""
    match value:
        case Load(read):
            return read.indices
        case Dot(left, right, _, plus):
            return (left, right) if plus is None else (left, right, plus)
        case Fold() | Serial():
            return (value.body,)
        case _:
            return (value,)


def let_reads(let: Let) -> frozenset[str]:
    """The names that a let's value reads: lets, and tensors in memory."""
    return frozenset(r.tensor for e in value_exprs(let.value) for r in reads(e))


def needed(lets: Iterable[Let], names: Iterable[str]) -> tuple[Let, ...]:
    """The lets that these names depend on."""
    wanted = set(names)
    kept: list[Let] = []
    for let in reversed(tuple(lets)):
        if let.name in wanted:
            kept.append(let)
            wanted |= let_reads(let)
    return tuple(reversed(kept))


def drop_unread(stage: SweepStage) -> SweepStage:
    """The stage without lets that nothing reads (a statistic that only served inside a pass)."""
    wanted = {r.tensor for s in stage.stores for r in reads(s.value)}
    wanted |= {c.update for p in stage.passes for c in p.carries}

    def keep(lets: tuple[Let, ...]) -> tuple[Let, ...]:
        kept = needed(lets, wanted)
        wanted.update(*map(let_reads, kept))
        return kept

    passes = []
    for p in reversed(stage.passes):
        after = keep(p.after)
        # What a full tile reads, any tile does.
        passes.append(replace(p, body=keep(p.body), after=after))
    resident = keep(stage.resident)
    host = keep(stage.host)
    return replace(stage, passes=tuple(reversed(passes)), resident=resident, host=host)


@dataclass(frozen=True, slots=True)
class TorchStage:
    """Statements that run as torch calls: plain products, small reductions, pools.

    `statement` reads inputs and earlier stages' tensors; pointwise statements are inlined.
    """

    name: str
    statement: Einsum

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.name,)


Stage: TypeAlias = SweepStage | TorchStage


@dataclass(frozen=True, slots=True)
class Plan:
    """All stages in order. Tensors between stages are named like the spec's.

    `cascade` is what was planned, after the rewrites of `ir.pipeline`; `written` is what the spec
    says, with its const params put in: what results are compared with.
    """

    cascade: Cascade
    stages: tuple[Stage, ...]
    rewritten_from: Cascade | None = None

    @property
    def written(self) -> Cascade:
        return self.rewritten_from or self.cascade
