"""Undo a partition that a cascade writes out: over tiles, then inside a tile, is over the rank.

With `rank n = (n1, n0)`, `n1 * N0 + n0` is n and `max(n1) max(n0) x` is `max(n) x`. Summaries of a
tile cancel where they only move a base (`exp(x - LM) * exp(LM - GM)`). A tile size in the maths
would fix what is the planner's to choose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from attnc.ir.cascade import Cascade, Einsum, Reduction, Statement
from attnc.ir.derived import Certificate
from attnc.ir.expr import Apply, Expr, Extent, Index, Read
from attnc.ir.inline import body
from attnc.ir.schedule import groups
from attnc.ir.show import show_expr
from attnc.ir.unnest import Unnested, dependents, find_known, unnest
from attnc.ir.walk import iteration_ranks, map_statement, output_ranks, rewrite


def merge_tiles(cascade: Cascade) -> tuple[Cascade, tuple[Certificate, ...]]:
    """The cascade over whole ranks where nothing depends on the tile, and the laws used.

    Ranks of two components are merged, each on its own. Components stay declared: their extents can
    still be given, their coordinates be used in masks.
    """
    certificates: tuple[Certificate, ...] = ()
    for rank in cascade.ranks:
        if len(rank.components) == 2:
            merged = _Grid(cascade, rank.name, *rank.components).merge()
            if merged is not None:
                cascade, more = merged
                certificates += more
    return cascade, certificates


@dataclass(frozen=True, slots=True)
class _Grid:
    """A rank and its components: `outer` counts the tiles, `inner` the points of a tile."""

    cascade: Cascade
    rank: str
    outer: str
    inner: str

    def merge(self) -> tuple[Cascade, tuple[Certificate, ...]] | None:
        """The cascade over `rank`, or None if it does not iterate over tiles, or must."""
        if not any(self._tiled(s) for s in self.cascade.statements):
            return None
        known = find_known(self.cascade)
        partial = frozenset(s.tensor for s in self.cascade.statements if self._is_partial(s))
        # Tensors with one value per tile, and what is computed from them.
        dissolved = partial | dependents(known, lambda r: r.tensor in partial)
        flat = {
            s.tensor: unnest(s, dissolved, known)
            for s in self.cascade.statements
            if isinstance(s, Einsum) and self._reduced(s) and s.tensor in dissolved
        }
        statements = tuple(
            flat[s.tensor].statement if s.tensor in flat else s for s in self.cascade.statements
        )
        order = groups(replace(self.cascade, statements=statements))
        live = [s for g in order for s in g.statements]
        if not all(map(self._is_whole, live)) or not any(map(self._tiled, live)):
            return None
        axes = {s.tensor: output_ranks(s) for s in live if self._tiled_axes(s)}
        if axes.keys() & set(self.cascade.outputs):
            return None
        merged = tuple(self._statement(s, axes) for s in live)
        certificates = tuple(
            self._certificate(m, flat.get(m.tensor))
            for s, m in zip(live, merged, strict=True)
            if isinstance(s, Einsum) and isinstance(m, Einsum) and self._reduced(s)
        )
        return replace(self.cascade, statements=merged), certificates

    # what a statement has of the components ----------------------------------------------------

    def _tiled(self, s: Statement) -> frozenset[str]:
        """The components in the iteration space."""
        return frozenset({self.outer, self.inner} & set(iteration_ranks(s)))

    def _tiled_axes(self, s: Statement) -> frozenset[str]:
        return frozenset({self.outer, self.inner} & set(output_ranks(s)))

    def _reduced(self, s: Einsum) -> frozenset[str]:
        return self._tiled(s) - self._tiled_axes(s)

    def _is_partial(self, s: Statement) -> bool:
        """One value per tile, or per place in a tile."""
        return len(self._tiled_axes(s)) == 1

    def _is_whole(self, s: Statement) -> bool:
        """Both components or none, in the space and among the axes: a statement over the rank."""
        both = (0, 2)
        if not isinstance(s, Einsum) or not all(isinstance(i, Index) for i in s.indices):
            return not self._tiled(s)
        mixed = self._tiled(s) and self.rank in iteration_ranks(s)
        return not mixed and len(self._tiled(s)) in both and len(self._tiled_axes(s)) in both

    # over the rank -------------------------------------------------------------------------------

    def _statement(self, s: Statement, axes: dict[str, tuple[str, ...]]) -> Statement:
        def whole(e: Expr) -> Expr | None:
            if isinstance(e, Read) and e.tensor in axes:
                return Read(e.tensor, self._joined(axes[e.tensor], e.indices))
            return Index(self.rank) if self._is_point(e) else None

        merged = map_statement(s, lambda e: rewrite(e, whole))
        if not isinstance(merged, Einsum):
            return merged
        if s.tensor in axes:
            merged = replace(merged, indices=self._joined(axes[s.tensor], s.indices))
        if merged.reduce is not None and self.outer in merged.reduce.ranks:
            ranks = [r for r in merged.reduce.ranks if r != self.inner]
            ranks[ranks.index(self.outer)] = self.rank
            merged = replace(merged, reduce=Reduction(merged.reduce.op, tuple(ranks)))
        return merged

    def _joined(self, axes: tuple[str, ...], indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """One index for the rank where the first of its components had its own."""
        outer, inner = axes.index(self.outer), axes.index(self.inner)
        start = Apply("mul", (indices[outer], Extent(self.inner)))
        point: Expr = Apply("add", (start, indices[inner]))
        if self._is_point(point):
            point = Index(self.rank)
        kept = list(indices)
        kept[min(outer, inner)] = point
        del kept[max(outer, inner)]
        return tuple(kept)

    def _is_point(self, e: Expr) -> bool:
        """`n1 * N0 + n0`, in any order."""
        match e:
            case Apply(
                "add", (Apply("mul", start), Index(inner)) | (Index(inner), Apply("mul", start))
            ):
                return inner == self.inner and set(start) == {Index(self.outer), Extent(inner)}
            case _:
                return False

    def _certificate(self, merged: Einsum, how: Unnested | None) -> Certificate:
        (written,) = self.cascade.producers(merged.tensor)
        assert isinstance(written, Einsum)
        reason = f"over {self.outer} and then over {self.inner} is over {self.rank}"
        if how is not None and how.cancelled:
            reason += f", and {', '.join(map(show_expr, how.cancelled))} cancels"
        return Certificate("merge", merged.tensor, reason, body(written), body(merged), merged.span)
