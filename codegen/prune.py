"""What the lets of a stage are used for; those that nothing needs are dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from attnc.ir.expr import Expr, Read
from attnc.ir.plan import (
    Dot,
    Let,
    Load,
    Pass,
    Plan,
    Stage,
    SweepStage,
    TorchStage,
    value_exprs,
)
from attnc.ir.walk import reads, statement_reads, subexprs


def used_names(let: Let) -> frozenset[str]:
    """The lets (and, in a serial loop, tensors) that a let reads."""
    return frozenset(r.tensor for e in value_exprs(let.value) for r in reads(e))


def all_lets(stage: SweepStage) -> tuple[Let, ...]:
    """Every let of a kernel, in order; those of the caller aside, and those of full tiles.

    The lets of full tiles have the names of lets of any tile.
    """
    return (*stage.resident, *(x for p in stage.passes for x in (*p.body, *p.after)))


def count_uses(stage: SweepStage) -> Counter[str]:
    """How many lets, stores and states read each let."""
    uses: Counter[str] = Counter()
    for let in all_lets(stage):
        for e in value_exprs(let.value):
            uses.update(_occurrences(e))
    for store in stage.stores:
        uses.update(_occurrences(store.value))
    uses.update(c.update for p in stage.passes for c in p.carries)
    return uses


def _occurrences(e: Expr) -> list[str]:
    return [x.tensor for x in subexprs(e) if isinstance(x, Read)]


def needed_stages(plan: Plan) -> tuple[Stage, ...]:
    """The stages that the outputs depend on."""
    live = set(plan.cascade.outputs)
    kept: list[Stage] = []
    for stage in reversed(plan.stages):
        if live.isdisjoint(stage.outputs):
            continue
        kept.append(stage)
        if isinstance(stage, TorchStage):
            live |= {r.tensor for r in statement_reads(stage.statement)}
        else:
            lets = all_lets(prune(stage))
            live |= {x.value.read.tensor for x in lets if isinstance(x.value, Load)}
            live |= {t for x in lets for t in used_names(x)}
    return tuple(reversed(kept))


def prune(stage: SweepStage) -> SweepStage:
    """The stage without lets that nothing needs."""
    live = {r.tensor for s in stage.stores for r in reads(s.value)}
    passes: list[Pass] = []
    for p in reversed(stage.passes):
        after = _keep(p.after, live)
        live |= {c.update for c in p.carries}
        body = _keep(p.body, live)
        names = {x.name for x in body}
        full = tuple(x for x in p.full if x.name in names)
        passes.append(replace(p, body=body, full=full, after=after))
    resident = _keep(stage.resident, live)
    host = _keep(stage.host, live)
    return replace(stage, passes=tuple(reversed(passes)), resident=resident, host=host)


def _keep(lets: Iterable[Let], live: set[str]) -> tuple[Let, ...]:
    kept = []
    for let in reversed(tuple(lets)):
        if let.name in live:
            kept.append(let)
            live |= used_names(let)
    return tuple(reversed(kept))


def operands(lets: Sequence[Let]) -> dict[str, tuple[str, ...]]:
    """The loads that enter matrix products as they are, and the order of axes they want."""
    loads = {x.name: x for x in lets if isinstance(x.value, Load) and x.dtype == "float"}
    wanted: dict[str, tuple[str, ...]] = {}
    for let in lets:
        if not isinstance(let.value, Dot) or len(let.ranks) != 2:
            continue
        dot = let.value
        for side, first in ((dot.left, False), (dot.right, True)):
            if not isinstance(side, Read) or side.tensor not in loads:
                continue
            ranks = loads[side.tensor].ranks
            other = [r for r in ranks if r != dot.over]
            if len(ranks) == 2 and len(other) == 1:
                order = (dot.over, *other) if first else (*other, dot.over)
                wanted.setdefault(side.tensor, order)
    return wanted
