"""How the tiles of a rank are shaped, so that a tile sees few others: derived from a mask.

A rank that is a grid of components gets tiles over its components where the mask reads them. Where
a mask asks two coordinates for one residue (`x % d == y % d`), the places of a tile are `d` apart:
a tile then lies within one residue class (a dilation group), and the tiles of other classes are
empty for it. Equal coordinates (`x == y`) are the case of one place per class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from attnc.ir.cascade import Cascade
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.geometry.integers import Integers
from attnc.ir.presence import conjuncts
from attnc.ir.visibility import Visibility
from attnc.ir.walk import index_ranks, rewrite, subexprs


@dataclass(frozen=True, slots=True)
class TileAxis:
    """A coordinate (a rank or a component) that is cut into tiles.

    The places of a tile are `step` apart, an expression of extents and params that is at least 1.
    None: they follow each other.
    """

    coordinate: str
    step: Expr | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The axes of a rank's tiles, outermost first: the rank itself, or all of its components."""

    rank: str
    axes: tuple[TileAxis, ...]

    @property
    def is_flat(self) -> bool:
        """Whether a tile is a run of consecutive coordinates of the rank."""
        return self.axes == (TileAxis(self.rank),)

    @property
    def coordinates(self) -> tuple[str, ...]:
        return tuple(a.coordinate for a in self.axes)

    @property
    def is_stepped(self) -> bool:
        """Whether tiles may have gaps: their places lie in one residue class."""
        return any(a.step is not None for a in self.axes)

    @property
    def is_ragged(self) -> bool:
        """Whether a tile may begin beyond the end of a coordinate, where other tokens are.

        Some residue classes have a place less than others, and perhaps a tile less.
        """
        return self.is_stepped and len(self.axes) > 1


def layouts(visibility: Visibility, cascade: Cascade) -> tuple[Layout | None, Layout]:
    """How the row rank (None if there is none) and the swept rank are cut into tiles."""
    v = visibility
    read = index_ranks(v.some) | index_ranks(v.every)
    steps = _steps(v, cascade)
    swept = _layout(v.swept, read, steps, cascade)
    return (None if v.row is None else _layout(v.row, read, steps, cascade)), swept


def tile_shape(block: int, extents: Sequence[int]) -> tuple[int, ...]:
    """The sides of a tile of `block` places (a power of 2): powers of 2, as equal as they can be.

    No side is longer than its extent needs, as long as another one can grow; of equal sides the
    inner one grows first, so that more of a tile is contiguous.
    """
    shape = [1] * len(extents)
    while prod(shape) < block:
        short = [i for i, n in enumerate(extents) if shape[i] < n] or [len(extents) - 1]
        shape[min(reversed(short), key=shape.__getitem__)] *= 2
    return tuple(shape)


def same_residues(predicate: Expr) -> Expr:
    """`(x - y) % d == 0` as `x % d == y % d`, wherever it occurs: the same for d > 0."""

    def rule(e: Expr) -> Expr | None:
        match e:
            case Apply("eq", (Apply("mod", (Apply("sub", (x, y)), d)), Number(0))):
                return Apply("eq", (Apply("mod", (x, d)), Apply("mod", (y, d))))
            case _:
                return None

    return rewrite(predicate, rule)


def _layout(rank: str, read: frozenset[str], steps: Mapping[str, Expr], c: Cascade) -> Layout:
    parts = c.rank(rank).components
    own = parts if parts and not c.is_joined(rank) and not read.isdisjoint(parts) else (rank,)
    return Layout(rank, tuple(TileAxis(x, steps.get(x)) for x in own))


def _steps(v: Visibility, cascade: Cascade) -> dict[str, Expr]:
    """By coordinate: how far apart those are that can see each other."""
    found: dict[str, Expr] = {}
    for condition in conjuncts(same_residues(v.some)):
        for x, step in _classes(condition, v, cascade):
            found.setdefault(x, step)
    return found


def _classes(e: Expr, v: Visibility, cascade: Cascade) -> tuple[tuple[str, Expr], ...]:
    """A row's and a key's coordinate that a condition ties, each with its step; else nothing."""
    match e:
        case Apply("eq", (Apply("mod", (Index(x), c)), Apply("mod", (Index(y), d)))):
            pairs: tuple[tuple[str, Expr], ...] = ((x, c), (y, d))
        case Apply("eq", (Index(x), Index(y))):
            pairs = ((x, Extent(x)), (y, Extent(y)))
        case _:
            return ()
    ranks = {cascade.rank(r).parent or r for r, _ in pairs}
    known = Integers(cascade, v.swept)
    tied = ranks == {v.row, v.swept} and all(_positive(s, known) for _, s in pairs)
    return pairs if tied else ()


def _positive(e: Expr, known: Integers) -> bool:
    """An integer of extents and params that is at least 1 wherever a point exists."""
    varies = any(isinstance(s, Index | Read) for s in subexprs(e))
    return not varies and known.is_int(e) and known.bounds(e)[0] >= 1
