"""Count the passes that a cascade needs over a rank, whatever the mapping (FuseMax, MICRO 2024).

A tensor is passed over once more each time its elements must be visited again after all of them
were visited. Within a pass statements fuse at will; across passes they cannot. The count is a lower
bound for the cascade as it is written: a derived cascade may need fewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from attnc.ir.access import Bound, Ranks, find_ranks
from attnc.ir.cascade import Cascade, Statement
from attnc.ir.expr import Index
from attnc.ir.flow import Flow, find_flow, scans
from attnc.ir.footprint import Footprint, find_footprints
from attnc.ir.graph import used_positions
from attnc.ir.show import show_statement
from attnc.ir.walk import index_ranks, iteration_ranks, statement_reads


@dataclass(frozen=True, slots=True)
class Forced:
    """One more pass, and the spec line that asks for it (line 0: not from a spec)."""

    line: int
    text: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}" if self.line else self.why


@dataclass(frozen=True, slots=True)
class TensorPasses:
    """What the rank's traversals ask of one tensor.

    leaves:    the rank's components (or the rank) that the tensor has, outermost first
    passes:    how often its elements are visited, by reads of it or of what is recomputed from it;
               0 where it lacks a component or nothing reads it
    footprint: how much of it is live in a schedule that attains the count
    state:     how many coordinates back it is read while it is generated; 0: it is not generated
    """

    tensor: str
    leaves: tuple[str, ...]
    passes: int
    footprint: Footprint
    state: int = 0


@dataclass(frozen=True, slots=True)
class PassCount:
    """The passes over one rank.

    passes:    the maximum over the tensors
    loops:     traversals that must follow each other; more than `passes` where a later one visits
               other tensors, or summaries only
    tensors:   in order of first use
    levels:    per statement of the cascade, the traversal it belongs to at the earliest; -1 if dead
    forced_by: one entry for each pass after the first
    """

    rank: str
    passes: int
    loops: int
    tensors: tuple[TensorPasses, ...]
    levels: tuple[int, ...]
    forced_by: tuple[Forced, ...]

    def tensor(self, name: str) -> TensorPasses:
        """The entry of one tensor that has the rank."""
        return next(t for t in self.tensors if t.tensor == name)

    def to_dict(self) -> dict[str, object]:
        """JSON-ready; `attnc explain` shows `passes` and `forced_by`."""
        return {
            "rank": self.rank,
            "passes": self.passes,
            "loops": self.loops,
            "tensors": {
                t.tensor: {
                    "passes": t.passes,
                    "footprint": t.footprint,
                    "leaves": list(t.leaves),
                    "state": t.state,
                }
                for t in self.tensors
            },
            "forced_by": [{"line": f.line, "text": f.text, "why": f.why} for f in self.forced_by],
        }

    def __str__(self) -> str:
        noun = "pass" if self.passes == 1 else "passes"
        loops = f", {self.loops} loops" if self.loops != self.passes else ""
        return "\n".join(
            [f"{self.rank}: {self.passes} {noun}{loops}", *(f"  {f}" for f in self.forced_by)]
        )


def count_passes(cascade: Cascade, rank: str) -> PassCount:
    """Count the passes over `rank`; of a rank with components, over all of them together.

    Raises AttncError if a tensor needs itself other than through an earlier coordinate.
    """
    return _count(cascade, find_ranks(cascade), rank)


def count_all_passes(cascade: Cascade) -> dict[str, PassCount]:
    """The count for each rank that some used statement reduces, selects along or iterates over."""
    ranks = find_ranks(cascade)
    used = [cascade.statements[i] for i in used_positions(cascade)]
    traversed = _generated(ranks, used).union(*(ranks.reduced(s) for s in used))
    named = {r for s in used for r in iteration_ranks(s)}
    named |= {r.parent for r in cascade.ranks if r.parent and r.name in named}
    names = dict.fromkeys([*(r.name for r in cascade.ranks if r.name in named), *sorted(named)])
    return {n: _count(cascade, ranks, n) for n in names if traversed & ranks.split((n,))}


def _generated(ranks: Ranks, statements: list[Statement]) -> frozenset[str]:
    """The leaves along which some tensor is written ahead: `m1` of `RM[m1 + 1] = .. RM[m1] ..`."""
    written = (i for s in statements for i in s.indices if not isinstance(i, Index))
    return ranks.split(frozenset(r for i in written for r in index_ranks(i)))


def _count(cascade: Cascade, ranks: Ranks, rank: str) -> PassCount:
    used = [cascade.statements[i] for i in used_positions(cascade)]
    ascending = _count_one_way(cascade, ranks, rank, "upper")
    # An iteration ascends, and so may all else. Only scans can ask for the other direction.
    sides = [side for s in used for _, side in scans(ranks, s, rank) if side]
    iterates = ranks.leaves[rank][0] in _generated(ranks, used)
    if iterates or all("upper" in side for side in sides):
        return ascending
    descending = _count_one_way(cascade, ranks, rank, "lower")
    return min(ascending, descending, key=lambda c: (c.passes, c.loops))


def _count_one_way(cascade: Cascade, ranks: Ranks, rank: str, way: Bound) -> PassCount:
    flow = find_flow(cascade, ranks, rank, way)
    visits = _visits(cascade, ranks, rank, flow)
    chains = {tensor: _chain(flow, readers) for tensor, readers in visits.items()}
    footprints = find_footprints(cascade, ranks, rank, flow)
    tensors = tuple(
        TensorPasses(name, live.leaves, len(chains.get(name, ())), live.footprint, live.state)
        for name, live in footprints.items()
    )
    # Of equals, an intermediate that must be kept: a reader of the spec sees it read again.
    worst = max(
        (t for t in tensors if t.tensor in chains),
        key=lambda t: (t.passes, t.tensor not in cascade.input_names, t.footprint == "full"),
        default=None,
    )
    spaces = {i: ranks.space(cascade.statements[i]) for i in flow.levels}
    loops = [level for i, level in flow.levels.items() if flow.outer in spaces[i]]
    return PassCount(
        rank,
        worst.passes if worst else 1,
        1 + max(loops, default=0),
        tensors,
        tuple(flow.levels.get(i, -1) for i in range(len(cascade.statements))),
        _reasons(cascade, ranks, flow, worst.tensor, chains[worst.tensor]) if worst else (),
    )


def _visits(cascade: Cascade, ranks: Ranks, rank: str, flow: Flow) -> dict[str, list[int]]:
    """Tensor -> the statements that visit each of its elements along the whole rank."""
    leaves = frozenset(flow.leaves)
    images: dict[str, frozenset[str]] = {}

    def lineage(tensor: str) -> frozenset[str]:
        """The tensor and all that it is computed from, coordinate by coordinate."""
        if tensor not in images:
            images[tensor] = frozenset((tensor,))
            sources = {
                r.tensor
                for i in flow.levels
                if (s := cascade.statements[i]).tensor == tensor and _keeps(ranks, s, flow)
                for r in statement_reads(s)
                if leaves <= ranks.followed(r)
            }
            images[tensor] = images[tensor].union(*map(lineage, sources))
        return images[tensor]

    visits: dict[str, list[int]] = {}
    for i in flow.levels:
        s = cascade.statements[i]
        visited = {r.tensor for r in statement_reads(s) if leaves <= ranks.followed(r)}
        visited |= {r.tensor for r, _ in scans(ranks, s, rank)}
        for tensor in frozenset[str]().union(*map(lineage, visited)):
            visits.setdefault(tensor, []).append(i)
    return visits


def _keeps(ranks: Ranks, s: Statement, flow: Flow) -> bool:
    """Whether a result is an image of its operands, not a summary of several coordinates."""
    family = frozenset(ranks.families[flow.outer])
    whole = frozenset(flow.leaves) <= ranks.written(s) and not ranks.reduced(s) & family
    return whole and not _generated(ranks, [s]) & family


def _chain(flow: Flow, readers: list[int]) -> tuple[int, ...]:
    """The longest sequence of visits, each of which must wait for the one before to finish."""
    best: dict[int, tuple[int, ...]] = {}
    # What comes before e in every mapping has fewer predecessors than e.
    for i in sorted(readers, key=lambda i: (len(flow.forced[i]), i)):
        earlier = (best[j] for j in best if j in flow.forced[i])
        best[i] = (*max(earlier, key=len, default=()), i)
    return max(best.values(), key=len, default=())


def _reasons(
    cascade: Cascade, ranks: Ranks, flow: Flow, tensor: str, chain: tuple[int, ...]
) -> tuple[Forced, ...]:
    return tuple(
        _reason(cascade, ranks, flow, tensor, before, again) for before, again in pairwise(chain)
    )


def _reason(
    cascade: Cascade, ranks: Ranks, flow: Flow, tensor: str, before: int, again: int
) -> Forced:
    """Why the visit of `again` comes after the whole visit of `before`: a barrier between them."""
    edge = max(
        (
            e
            for e in flow.edges
            if e.kind == "barrier"
            and before in (e.producer, *flow.ancestors[e.producer])
            and e.consumer in (again, *flow.ancestors[again])
        ),
        key=lambda e: (e.consumer == again, e.producer),
    )
    s, needed = cascade.statements[again], cascade.statements[edge.producer]
    # Named by what the statement itself reads, if that was read before the barrier too.
    earlier = (needed, *(cascade.statements[i] for i in flow.ancestors[edge.producer]))
    seen = {r.tensor for x in earlier for r in statement_reads(x)}
    leaves = frozenset(flow.leaves)
    own = [r.tensor for r in statement_reads(s) if leaves <= ranks.followed(r)]
    visited = next((t for t in own if t in seen), tensor)
    line, source = (x.span.line if x.span else 0 for x in (s, needed))
    where = f" (line {source})" if source not in (0, line) else ""
    text = cascade.line(s) or show_statement(s)
    return Forced(line, text, f"`{s.tensor}` visits `{visited}` again and needs {edge.why}{where}")
