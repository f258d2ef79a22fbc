"""What a cascade asks for at a shape: points, words, and the cycles of its Einsums on an array.

Queries are rank `m`, keys rank `n` (cut into `n1` tiles of `n0`, or whole), `d` and `e` the widths
of keys and values, as in the library; FuseMax calls them P, M, E and F.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod

from attnc.dsl import load_text
from attnc.ir.access import find_ranks
from attnc.ir.cascade import Cascade, Einsum
from attnc.ir.count_passes import PassCount, count_passes
from attnc.ir.expr import Apply, Expr, Number, Read
from attnc.ir.walk import index_ranks, iteration_ranks, reads, statement_reads
from attnc.library import text
from attnc.runtime.spatial.models import Model

ROWS, KEYS = "m", "n"
_BATCH = frozenset(("b", "h", "g"))


@dataclass(frozen=True, slots=True)
class Attention:
    """A cascade, taken apart.

    einsums: those that compute, by the tensor they define, in order; naming the tiles of an input
             and setting a state to its initial value take no time
    ranks:   the ranks of each tensor's axes
    passes:  the passes over the keys
    """

    cascade: Cascade
    einsums: Mapping[str, Einsum]
    ranks: Mapping[str, tuple[str, ...]]
    passes: PassCount

    def level(self, tensor: str) -> int:
        """The traversal of the keys in which an Einsum runs."""
        return self.passes.levels[self.cascade.statements.index(self.einsums[tensor])]

    def operands(self, tensor: str) -> tuple[str, ...]:
        """The tensors that an Einsum reads, in order."""
        return tuple(dict.fromkeys(r.tensor for r in statement_reads(self.einsums[tensor])))

    def is_whole(self, tensor: str) -> bool:
        """Whether it has an element per query and key."""
        return {ROWS, KEYS} <= set(self.ranks[tensor])


@dataclass(frozen=True, slots=True)
class Problem:
    """An attention at a shape; `edge` keys and `edge` queries make a tile."""

    attention: Attention
    extents: Mapping[str, int]
    edge: int

    def size(self, tensor: str) -> int:
        """Elements of a tensor."""
        return self.points(self.attention.ranks[tensor])

    def points(self, ranks: Iterable[str]) -> int:
        """Combinations of coordinates."""
        return prod(self.extents[r] for r in ranks if r)

    def of_a_head(self, tensor: str, rows: int) -> int:
        """Elements of a tensor for one head, or for that many of its rows."""
        inner = tile_ranks(self.attention.ranks[tensor])
        return prod(rows if r == ROWS else self.extents[r] for r in inner)

    def tile_of_row(self, tensor: str) -> int:
        """Elements that belong to one row, or to none, while one tile of keys is processed."""
        held = {KEYS: self.edge, "n1": 1, ROWS: 1}
        inner = tile_ranks(self.attention.ranks[tensor])
        return prod(held.get(r, self.extents[r]) for r in inner)


@cache
def load_attention(spec: str) -> Attention:
    """The cascade of a library spec as it is written, and its passes."""
    cascade = load_text(text(spec), f"{spec}.attn")
    computing = [s for s in cascade.statements if isinstance(s, Einsum) and _computes(s)]
    return Attention(
        cascade,
        {s.tensor: s for s in computing},
        find_ranks(cascade).labels,
        count_passes(cascade, KEYS),
    )


def make_problem(spec: str, model: Model, length: int, edge: int) -> Problem:
    """A library spec at a model's shape: each of `length` queries sees as many keys."""
    extents = {
        "b": model.batch, "h": model.heads, "g": model.heads,
        ROWS: length, KEYS: length, "n1": length // edge, "n0": edge,
        "d": model.head_dim, "e": model.head_dim,
    }  # fmt: skip
    return Problem(load_attention(spec), extents, edge)


@dataclass(frozen=True, slots=True)
class Cycles:
    """The time of an Einsum on an array, and how much of it all elements would need.

    They differ where an operand is narrower than the array.
    """

    taken: float
    busy: float


def cycles_1d(problem: Problem, tensor: str, table: Mapping[str, int]) -> Cycles:
    """The cycles of an Einsum whose points are dealt out to `edge` elements."""
    einsum = problem.attention.einsums[tensor]
    points = problem.points(iteration_ranks(einsum))
    taken = cycles_per_point(einsum, table) * points / problem.edge
    return Cycles(taken, taken)


def cycles_2d(
    problem: Problem, tensor: str, table: Mapping[str, int], spatial: Iterable[str]
) -> Cycles:
    """The cycles of an Einsum on the square array: two ranks side by side, the others in time."""
    einsum = problem.attention.einsums[tensor]
    sides = set(spatial)
    time = problem.points(r for r in iteration_ranks(einsum) if r not in sides)
    tiles = prod(fold(problem, r) for r in sides)
    filled = prod(min(problem.extents[r], problem.edge) / problem.edge for r in sides)
    taken = float(cycles_per_point(einsum, table) * time * tiles)
    return Cycles(taken, taken * filled)


def fold(problem: Problem, rank: str) -> int:
    """How often a rank is laid on a side of the array, one piece after another."""
    return max(1, problem.extents[rank] // problem.edge)


def tile_ranks(ranks: Iterable[str]) -> frozenset[str]:
    """Those along which the points of one head differ."""
    return frozenset(r for r in ranks if r) - _BATCH


def cycles_per_point(einsum: Einsum, table: Mapping[str, int]) -> int:
    """The cycles of one point: one per operator and reduction, other figures by `table`.

    A sum of products is a multiply-add. A factor that is the same for all points, such as
    1/sqrt(D), costs nothing: an operand is multiplied by it beforehand.
    """
    value = _without_scale(einsum.expr)
    operators = sum(table.get(op, 1) for op in _operators(value))
    added = isinstance(value, Apply) and value.op == "mul"
    if einsum.reduce is None or (added and einsum.reduce.op == "sum"):
        return operators
    return operators + 1


def _computes(s: Einsum) -> bool:
    return s.reduce is not None or not isinstance(s.expr, (Read, Number))


def _without_scale(e: Expr) -> Expr:
    match e:
        case Apply("mul" | "div", (x, scale)) if not reads(scale) and not index_ranks(scale):
            return x
        case _:
            return e


def _operators(e: Expr) -> Iterator[str]:
    # What happens inside an index is addressing.
    if isinstance(e, Apply):
        yield e.op
        for x in e.args:
            yield from _operators(x)
