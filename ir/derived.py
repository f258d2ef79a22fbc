"""What derivation gives: running states, statistics, and the certificate of each law used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from attnc.errors import Span
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Expr

Law: TypeAlias = Literal[
    "defer",
    "iterate",
    "monotone",
    "distribute",
    "local-then-fix",
    "recompute",
    "close",
    "merge",
    "exchange",
    "join",
]


@dataclass(frozen=True, slots=True)
class State:
    """A value kept while a rank is swept in tiles, one per point of `ranks`.

    After each tile, with `combine` the operator of the reduction `op`:
        state = state * map((base_before - base_after) * unit) combine  op over the tile of body
    `base` is None where nothing needs correcting, `unit` None where it is 1. `body` and `base` read
    statistics of the same pass at their value so far, those of earlier passes at their final value.
    `present` says which points of the tile exist.
    """

    name: str
    ranks: tuple[str, ...]
    op: str
    body: Expr
    present: Expr
    sweep: int
    base: Expr | None = None
    map: str = "exp"
    unit: Expr | None = None
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Statistic:
    """A reduction over the swept rank as a function of states: `value` where `present`.

    Elsewhere it is `identity`, the reduction's value over nothing. Evaluated on states in
    mid-sweep it gives the statistic of the tiles seen so far.
    """

    tensor: str
    ranks: tuple[str, ...]
    value: Expr
    present: Expr
    identity: float | bool
    sweep: int
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Certificate:
    """One use of a law: `before` equals `after`, for the stated reason.

    `nonnegative` lists subexpressions that the law needs to be >= 0 (proved from declared ranges).
    """

    law: Law
    tensor: str
    reason: str
    before: Expr
    after: Expr
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Barrier:
    """Why a reduction had to wait for one more pass: `operator` on `statistic` obeys no law."""

    tensor: str
    statistic: str
    operator: str
    sweep: int
    span: Span | None = field(default=None, compare=False, repr=False)
    statistic_span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Derived:
    """A cascade's reductions over one rank, in the fewest sweeps that the declared laws permit.

    `aliases` pairs an expression that a rewrite made with the equal one that the spec wrote.
    """

    cascade: Cascade
    rank: str
    states: tuple[State, ...]
    statistics: tuple[Statistic, ...]
    certificates: tuple[Certificate, ...]
    barriers: tuple[Barrier, ...]
    aliases: tuple[tuple[Expr, Expr], ...] = ()

    @property
    def sweeps(self) -> int:
        """How many times the rank is swept."""
        return 1 + max((s.sweep for s in self.states), default=0)
