"""What each statement must wait for along one rank: the edges and levels of the pass analysis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from attnc.errors import AttncError
from attnc.ir.access import Bound, Ranks, affine, bounds, filters
from attnc.ir.cascade import Cascade, Einsum, Select, Statement
from attnc.ir.expr import Expr, Number, Read
from attnc.ir.graph import used_positions
from attnc.ir.walk import index_ranks, reads, statement_reads

# barrier: all of the rank first; carried: earlier coordinates first; pointwise: fuses at will
Kind: TypeAlias = Literal["barrier", "carried", "pointwise"]


@dataclass(frozen=True, slots=True)
class Edge:
    """Statement `consumer` reads a tensor of statement `producer` (both are positions).

    `why` names the result that a barrier waits for; `distance` is how far back a carried read goes.
    """

    producer: int
    consumer: int
    kind: Kind
    why: str = ""
    distance: int = 0


@dataclass(frozen=True, slots=True)
class Flow:
    """The data flow of the used statements, seen along one rank.

    leaves: of the rank, outermost first; `outer`, the first, decides what is a barrier: a reduction
            over inner ones alone completes within a tile
    levels: position -> how many barriers are on the longest way to it
    ancestors, forced: position -> all that it depends on; of these, all that must first be over
            with the whole rank, in every mapping
    """

    leaves: tuple[str, ...]
    edges: tuple[Edge, ...]
    levels: Mapping[int, int]
    ancestors: Mapping[int, frozenset[int]]
    forced: Mapping[int, frozenset[int]]

    @property
    def outer(self) -> str:
        return self.leaves[0]


def find_flow(cascade: Cascade, ranks: Ranks, rank: str, way: Bound = "upper") -> Flow:
    """Classify every read between used statements along `rank`, and find their levels.

    `way` is the direction of traversal: scans bounded from above ("upper": `k <= i`) run along with
    it, scans the other way wait for its end. Raises AttncError on a tensor that needs itself.
    """
    live = used_positions(cascade)
    along = _Along(ranks, rank, way)
    by_tensor: dict[str, list[int]] = {}
    for i in live:
        by_tensor.setdefault(cascade.statements[i].tensor, []).append(i)
    completes = {i: along.completes(cascade.statements[i]) for i in live}
    edges: list[Edge] = []
    for consumer in live:
        for read in statement_reads(cascade.statements[consumer]):
            for producer in by_tensor.get(read.tensor, ()):
                written = cascade.statements[producer].indices
                kind, why, distance = along.read(written, read)
                if kind == "pointwise" and completes[producer]:
                    kind, why = "barrier", completes[producer]
                if kind != "none":
                    edges.append(Edge(producer, consumer, kind, why, distance))
    _refuse_cycles(cascade, live, edges)
    ancestors, forced = _order(live, edges)
    return Flow(ranks.leaves[rank], tuple(edges), _levels(live, edges), ancestors, forced)


def scans(ranks: Ranks, s: Statement, rank: str) -> Iterator[tuple[Read, frozenset[Bound] | None]]:
    """Reads that run over the whole rank under another name: `C[i] = sum(k) A[k] where k <= i`.

    With each the side on which the statement's own coordinate bounds it; None: it has none.
    """
    outer, family = ranks.leaves[rank][0], frozenset(ranks.families[ranks.leaves[rank][0]])
    own = [r for i in s.indices for r in index_ranks(i) if outer in ranks.leaves[r]]
    for read in statement_reads(s):
        for label, index in zip(ranks.labels[read.tensor], read.indices, strict=True):
            names = index_ranks(index)
            moving = ranks.split(names)
            if not label or outer not in ranks.leaves[label] or not moving or moving & family:
                continue
            if moving <= ranks.reduced(s):
                sides = [bounds(filters(s), k, r) for k in names for r in own]
                yield read, frozenset[Bound]().union(*sides) or None


@dataclass(frozen=True, slots=True)
class _Along:
    """One rank, and the direction in which it is traversed."""

    ranks: Ranks
    rank: str
    way: Bound

    @property
    def outer(self) -> str:
        return self.ranks.leaves[self.rank][0]

    def read(
        self, written: tuple[Expr, ...], read: Read
    ) -> tuple[Kind | Literal["none"], str, int]:
        """The kind of a read of what was written at some indices, why, and how far it goes back.

        "none": it orders nothing within one traversal of the rank.
        """
        last = ""
        for ahead, index in zip(written, read.indices, strict=True):
            match self._generation(ahead, index):
                case "before":
                    return "none", "", 0
                case ("last", leaf) if leaf == self.outer:
                    last = f"the last `{read.tensor}` along `{self.rank}`"
                case ("carried", leaf, int(distance)):
                    # Each step along another rank traverses this one anew.
                    inside = leaf in self.ranks.leaves[self.rank]
                    return ("carried", "", distance) if inside else ("none", "", 0)
                case _:
                    pass
        why = last or self._gathers(read)
        return ("barrier" if why else "pointwise", why, 0)

    def _generation(
        self, written: Expr, index: Expr
    ) -> Literal["before"] | tuple[str, str] | tuple[str, str, int] | None:
        """How a read stands to a generated axis (`written` is `t + 1`); None if it is ordinary."""
        ahead = affine(written)
        if ahead is None or len(ahead[0]) != 1 or not ahead[1]:
            return None
        (rank,) = ahead[0]
        leaf = self.ranks.leaves[rank][0]
        if isinstance(index, Number):
            return "before" if index.value < ahead[1] else None
        match affine(index):
            case (coefficients, constant) if [
                (self.ranks.leaves[r][0], c) for r, c in coefficients.items()
            ] == [(leaf, 1)]:
                # A shift known only when called must look back: it is an error if it does not.
                back = ahead[1] - constant if constant is not None else ahead[1]
                return ("carried", leaf, back) if back > 0 else None
            case _:
                return ("last", leaf)

    def completes(self, p: Statement) -> str:
        """What is known only after the whole rank, if `p` is such a result."""
        if self.outer in self.ranks.reduced(p):
            match p:
                case Select():
                    return f"the {p.op} of `{p.tensor}` along `{self.rank}`"
                case Einsum(reduce=reduce) if reduce is not None:
                    return f"`{p.tensor}`, the {reduce.op} over all of `{self.rank}`"
        for read, sides in scans(self.ranks, p, self.rank):
            if sides is None:
                return f"`{p.tensor}`, which reads `{read.tensor}` along all of `{self.rank}`"
            if len(sides) == 1 and self.way not in sides:
                return f"`{p.tensor}`, which runs over `{self.rank}` the other way"
        return ""

    def _gathers(self, read: Read) -> str:
        for label, index in zip(self.ranks.labels[read.tensor], read.indices, strict=True):
            if self.outer in self.ranks.split((label,)) and reads(index):
                return f"`{read.tensor}` at any place along `{self.rank}`"
        return ""


def _levels(live: tuple[int, ...], edges: list[Edge]) -> dict[int, int]:
    levels = dict.fromkeys(live, 0)
    changed = True
    while changed:  # ends: no cycle has a barrier
        changed = False
        for e in edges:
            least = levels[e.producer] + (e.kind == "barrier")
            if levels[e.consumer] < least:
                levels[e.consumer] = least
                changed = True
    return levels


def _order(
    live: tuple[int, ...], edges: list[Edge]
) -> tuple[dict[int, frozenset[int]], dict[int, frozenset[int]]]:
    """The ancestors of each statement, and those of them behind a barrier."""
    ancestors = dict.fromkeys(live, frozenset[int]())
    forced = dict.fromkeys(live, frozenset[int]())
    changed = True
    while changed:
        changed = False
        for e in edges:
            seen = ancestors[e.producer] | {e.producer}
            passed = forced[e.producer] | (seen if e.kind == "barrier" else frozenset())
            if not (seen <= ancestors[e.consumer] and passed <= forced[e.consumer]):
                ancestors[e.consumer] |= seen
                forced[e.consumer] |= passed
                changed = True
    return ancestors, forced


def _refuse_cycles(cascade: Cascade, live: tuple[int, ...], edges: list[Edge]) -> None:
    """A recurrence goes through an earlier coordinate, and never waits for its own end."""
    at_once, _ = _order(live, [e for e in edges if e.kind != "carried"])
    ancestors, _ = _order(live, edges)
    cycle = {i for i in live if i in at_once[i]} | {
        e.consumer for e in edges if e.kind == "barrier" and e.consumer in ancestors[e.producer]
    }
    if not cycle:
        return
    statements = [cascade.statements[i] for i in sorted(cycle)]
    names = ", ".join(dict.fromkeys(f"`{s.tensor}`" for s in statements))
    raise AttncError(
        "E603",
        f"{names} needs its own value before it is known",
        span=statements[0].span,
        source=cascade.source,
        hint="read an earlier coordinate: `X[t + 1] = .. X[t] ..`",
    )
