"""In which order a cascade's statements run, and along which ranks they can run in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnc.errors import AttncError
from attnc.ir.cascade import Cascade, Concat, Einsum, Select, Statement
from attnc.ir.expr import Expr, Index
from attnc.ir.walk import index_ranks, iteration_ranks, output_ranks, statement_reads


@dataclass(frozen=True, slots=True)
class Group:
    """Statements that run together: one, or a cycle that steps along an iterative rank.

    `continued` are the tensors of which an earlier group already defines some coordinates.
    """

    statements: tuple[Statement, ...]
    rank: str | None = None
    continued: frozenset[str] = frozenset()

    @property
    def ranks(self) -> frozenset[str]:
        """Every rank that one of the statements iterates over."""
        return frozenset(r for s in self.statements for r in iteration_ranks(s))


def groups(cascade: Cascade) -> tuple[Group, ...]:
    """The statements that the outputs need, dependencies first, in order of definition otherwise.

    Raises AttncError E603 if statements need each other and no rank is stepped along.
    """
    statements = cascade.statements
    writers: dict[str, list[int]] = {}
    for i, s in enumerate(statements):
        writers.setdefault(s.tensor, []).append(i)
    # needs[i]: every statement that i depends on, directly or not
    needs = [{j for r in statement_reads(s) for j in writers.get(r.tensor, ())} for s in statements]
    for k in range(len(statements)):
        for i in range(len(statements)):
            if k in needs[i]:
                needs[i] |= needs[k]
    wanted = {i for name in cascade.outputs for i in writers.get(name, ())}
    wanted |= {j for i in wanted for j in needs[i]}
    result: list[Group] = []
    done: set[int] = set()
    defined: set[str] = set()
    while wanted - done:
        ready = min(i for i in wanted - done if all(j in done or i in needs[j] for j in needs[i]))
        cycle = [
            i for i in sorted(wanted) if i == ready or (i in needs[ready] and ready in needs[i])
        ]
        members = tuple(statements[i] for i in cycle)
        names = {s.tensor for s in members}
        rank = _stepped(cascade, members) if ready in needs[ready] else None
        result.append(Group(members, rank, frozenset(names & defined)))
        done.update(cycle)
        defined |= names
    return tuple(result)


def _stepped(cascade: Cascade, members: tuple[Statement, ...]) -> str:
    """The rank along which a cycle advances: an output index is ahead of a read, or behind."""
    written = [i for s in members for i in s.indices]
    names = {s.tensor for s in members}
    read = [i for s in members for r in statement_reads(s) if r.tensor in names for i in r.indices]
    for index in (*written, *read):
        if not isinstance(index, Index):
            for rank in sorted(index_ranks(index)):
                if all(rank in iteration_ranks(s) for s in members):
                    return rank
    first = members[0]
    raise AttncError(
        "E603",
        f"the definition of {', '.join(f'`{n}`' for n in sorted(names))} is circular",
        span=first.span,
        source=cascade.source,
        hint="step along a rank: `H[t+1] = .. H[t] ..`",
    )


def chunk_ranks(cascade: Cascade, order: Sequence[Group]) -> tuple[str, ...]:
    """The ranks along which the statements are independent, in the order of the outputs' axes.

    No statement reduces, selects, concatenates or steps along such a rank, and a tensor that has it
    is read only at the very coordinate that is written.
    """
    statements = [s for group in order for s in group.statements]
    axes: dict[str, list[tuple[str, Expr]]] = {}
    for s in statements:
        axes.setdefault(s.tensor, []).extend(zip(output_ranks(s), s.indices, strict=True))
    ranks = {s.tensor: output_ranks(s) for s in statements}
    mixed = {g.rank for g in order} | {r for s in statements for r in _mixing(s)}
    mixed |= {r for named in axes.values() for r, i in named if i != Index(r)}
    for s in statements:
        space = iteration_ranks(s)
        for read in statement_reads(s):
            for rank, index in zip(ranks.get(read.tensor, ()), read.indices, strict=False):
                if index != Index(rank) or rank not in space:
                    mixed.add(rank)
    outputs = [r for name in cascade.outputs for r in ranks.get(name, ())]
    return tuple(r for r in dict.fromkeys(outputs) if r and r not in mixed)


def _mixing(s: Statement) -> tuple[str, ...]:
    """The ranks along which a statement combines several points."""
    match s:
        case Einsum(reduce=reduce):
            return () if reduce is None else reduce.ranks
        case Select(rank=rank):
            return (rank,)
        case Concat(rank=rank, ranks=parts):
            return (rank, *parts)
