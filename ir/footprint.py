"""How much of each tensor is live along a rank, in a schedule with the fewest traversals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from attnc.ir.access import Ranks
from attnc.ir.cascade import Cascade
from attnc.ir.flow import Flow, scans
from attnc.ir.walk import statement_reads

# tile: a piece of any size at a time; prefix: all up to the current coordinate; full: everything
Footprint: TypeAlias = Literal["tile", "prefix", "full"]


@dataclass(frozen=True, slots=True)
class Live:
    """One tensor along one rank.

    leaves:    the leaves of the rank that it has or is read along, outermost first
    footprint: what must be kept of it, or read again if it is an input
    state:     how many coordinates back it is read while it is generated; 0: it is not generated
    """

    leaves: tuple[str, ...]
    footprint: Footprint
    state: int


def find_footprints(cascade: Cascade, ranks: Ranks, rank: str, flow: Flow) -> dict[str, Live]:
    """What is live of each tensor that has the outermost leaf of the rank, in order of first use.

    A statement runs in the earliest traversal it can, or in that of what reads it where this visits
    none of its operands more often: the greedy form of the minimum cut that the footprint is.
    """
    touched = _touched(cascade, ranks, rank, flow)
    levels = _delayed(cascade, flow, touched)
    halves = {
        read.tensor
        for i in flow.levels
        for read, sides in scans(ranks, cascade.statements[i], rank)
        if sides is not None and len(sides) == 1
    }
    state: dict[str, int] = {}
    for e in flow.edges:
        name = cascade.statements[e.producer].tensor
        state[name] = max(state.get(name, 0), e.distance)
    found: dict[str, Live] = {}
    for tensor, visitors in touched.items():
        again = len({levels[i] for i in visitors}) > 1
        footprint: Footprint = "full" if again else "prefix" if tensor in halves else "tile"
        leaves = _leaves(cascade, ranks, flow, tensor)
        found[tensor] = Live(leaves, footprint, state.get(tensor, 0))
    return found


def _touched(cascade: Cascade, ranks: Ranks, rank: str, flow: Flow) -> dict[str, set[int]]:
    """Tensor -> the statements that read or write it all along the outermost leaf."""
    touched: dict[str, set[int]] = {}
    for i in flow.levels:
        s = cascade.statements[i]
        for read in statement_reads(s):
            if flow.outer in ranks.followed(read):
                touched.setdefault(read.tensor, set()).add(i)
        for read, _ in scans(ranks, s, rank):
            touched.setdefault(read.tensor, set()).add(i)
        if flow.outer in ranks.written(s):
            touched.setdefault(s.tensor, set()).add(i)
    return touched


def _leaves(cascade: Cascade, ranks: Ranks, flow: Flow, tensor: str) -> tuple[str, ...]:
    along = ranks.split(ranks.labels[tensor])
    if flow.outer not in along:
        every = (r for i in flow.levels for r in statement_reads(cascade.statements[i]))
        along = along.union(*(ranks.followed(r) for r in every if r.tensor == tensor))
    return tuple(leaf for leaf in flow.leaves if leaf in along)


def _delayed(cascade: Cascade, flow: Flow, touched: dict[str, set[int]]) -> dict[int, int]:
    """The levels after moving statements to their readers' traversal, where that is free."""
    levels = dict(flow.levels)

    def visits(tensor: str, at: dict[int, int]) -> int:
        return len({at[i] for i in touched.get(tensor, ())})

    # A statement has more ancestors than what it reads, so readers come first.
    for i in sorted(levels, key=lambda i: -len(flow.ancestors[i])):
        latest = _latest(flow, levels, i)
        if latest is None or latest <= levels[i] or i in flow.ancestors[i]:
            continue
        group = _feeding(flow, i)
        moved = levels | {j: max(levels[j], latest) for j in group}
        inside = {cascade.statements[j].tensor for j in group}
        operands = {r.tensor for j in group for r in statement_reads(cascade.statements[j])}
        if all(visits(t, moved) <= visits(t, levels) for t in operands - inside):
            levels = moved
    return levels


def _latest(flow: Flow, levels: dict[int, int], i: int) -> int | None:
    """The latest level at which the readers of a statement still get it in time."""
    return min(
        (
            levels[e.consumer] - (e.kind == "barrier")
            for e in flow.edges
            if e.producer == i != e.consumer
        ),
        default=None,
    )


def _feeding(flow: Flow, i: int) -> set[int]:
    """A statement and all that is computed, coordinate by coordinate, for it alone."""
    group = {i}
    while joining := {
        e.producer
        for e in flow.edges
        if e.consumer in group
        and e.producer not in group | flow.ancestors[e.producer]
        and all(
            o.consumer in group and o.kind == "pointwise"
            for o in flow.edges
            if o.producer == e.producer
        )
    }:
        group |= joining
    return group
