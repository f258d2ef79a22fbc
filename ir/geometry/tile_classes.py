"""The exact class of every tile of a predicate: empty, partial or full.

A conjunction over different axes is a product: its factors are classified apart, counts multiply,
and nothing is enumerated over the product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce as fold
from math import prod
from typing import Any

import numpy as np

from attnc.ir.expr import Expr
from attnc.ir.geometry.factor_runs import factor_runs
from attnc.ir.geometry.mask_program import Context, TensorFacts, mask_program
from attnc.ir.geometry.tile_product import product_runs
from attnc.ir.geometry.tile_runs import IntArray, Runs, no_runs
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.presence import TRUE
from attnc.ir.walk import index_ranks, reads

__all__ = ["Axis", "Bound", "Factor", "TileClasses", "tile_classes"]


@dataclass(frozen=True, slots=True)
class Factor:
    """Axes that no condition ties to the others, and the classes of their tiles.

    Rows and keys of `runs` are the tiles of `rows` and `keys`, row-major; no axis is one tile.
    """

    rows: tuple[Axis, ...]
    keys: tuple[Axis, ...]
    runs: Runs


@dataclass(frozen=True, slots=True)
class TileClasses:
    """Classes of all pairs of query and key tiles, as a product over independent groups of axes.

    A tile of the product is visited where its tiles are visited in every factor, and full where
    they are full in every factor. `row_axes` and `key_axes` are in the order given.
    """

    row_axes: tuple[Axis, ...]
    key_axes: tuple[Axis, ...]
    factors: tuple[Factor, ...]

    @property
    def rows(self) -> int:
        """Number of query tiles."""
        return prod(a.tiles for a in self.row_axes)

    @property
    def keys(self) -> int:
        """Number of key tiles."""
        return prod(a.tiles for a in self.key_axes)

    @property
    def visited(self) -> int:
        """Pairs of tiles that are visited."""
        return self._total(Runs.visited)

    @property
    def full(self) -> int:
        """Pairs of tiles that are full."""
        return self._total(Runs.full_tiles)

    @property
    def partial(self) -> int:
        """Pairs of tiles that are visited and not full."""
        return self.visited - self.full

    @property
    def most(self) -> int:
        """The most key tiles that a query tile visits; 0 without query tiles."""
        return self._extreme(np.max)

    @property
    def fewest(self) -> int:
        """The fewest key tiles that a query tile visits; 0 without query tiles."""
        return self._extreme(np.min)

    @property
    def mean(self) -> float:
        """Key tiles visited per query tile, on average; 0 without query tiles."""
        return self.visited / self.rows if self.rows else 0.0

    def runs(self) -> Runs:
        """All axes together: tiles of the rows and of the keys in row-major order.

        This forms the product: memory grows with the number of runs, not of tiles.
        """
        parts = ((f.rows, f.keys, f.runs) for f in self.factors)
        return product_runs(self.row_axes, self.key_axes, tuple(parts))

    def _total(self, per_row: Callable[[Runs], IntArray]) -> int:
        return prod(int(per_row(f.runs).sum()) for f in self.factors)

    def _extreme(self, of: Callable[[IntArray], np.int64]) -> int:
        return prod(int(of(f.runs.visited())) for f in self.factors) if self.rows else 0


def tile_classes(
    predicate: Expr,
    rows: tuple[Axis, ...],
    keys: tuple[Axis, ...],
    bound: Bound,
    exists: Expr = TRUE,
) -> TileClasses:
    """The class of every pair of a tile of `rows` and a tile of `keys`, exactly.

    Only points inside the extents at which `exists` holds count. Empty: no point is visible; full:
    there are points and all are visible; partial: else. An axis that is a grid may be given whole
    or by its components, whichever of them the predicate reads.
    """
    if 0 in (a.extent for a in rows + keys):
        nothing = no_runs(prod(a.tiles for a in rows), prod(a.tiles for a in keys))
        return TileClasses(rows, keys, (Factor(rows, keys, nothing),))
    tensors = {name: _plain(bound.tensors[name]) for name in _tensors(predicate, exists)}
    context = Context(
        tuple(bound.extents.items()),
        tuple(bound.params.items()),
        tuple(bound.components.items()),
        tuple(_facts(name, x) for name, x in tensors.items()),
    )
    with np.errstate(all="ignore"):
        return TileClasses(
            rows,
            keys,
            tuple(
                Factor(
                    tuple(c.axis for c in program.rows),
                    tuple(c.axis for c in program.keys),
                    factor_runs(program, tensors),
                )
                for program in mask_program(predicate, exists, rows, keys, context)
            ),
        )


def _tensors(*predicates: Expr) -> tuple[str, ...]:
    return tuple(dict.fromkeys(r.tensor for e in predicates for r in reads(e)))


def _plain(x: Any) -> Any:
    """A captured tensor as a numpy array of truth values or of 64-bit integers."""
    array = np.asarray(x)
    return array if array.dtype == np.bool_ else array.astype(np.int64, copy=False)


def _facts(name: str, x: Any) -> TensorFacts:
    values = (int(x.min()), int(x.max())) if x.size else (0, 0)
    return TensorFacts(name, "bool" if x.dtype == np.bool_ else "int", x.shape, values)


def axis_groups(
    conditions: tuple[Expr, ...], axes: tuple[Axis, ...], bound: Bound
) -> tuple[frozenset[str], ...]:
    """Axes by name, in groups that no condition connects; empty: conditions on no axis at all."""
    groups = [frozenset({a.name}) for a in axes]
    for condition in conditions:
        tied = _axes(condition, frozenset(a.name for a in axes), bound)
        met = [g for g in groups if g & tied]
        merged: frozenset[str] = fold(frozenset.union, met, frozenset())
        groups = [*(g for g in groups if g not in met), merged]
    return tuple(sorted(set(groups), key=lambda g: [a.name in g for a in axes], reverse=True))


def conditions_on(
    conditions: tuple[Expr, ...], group: frozenset[str], bound: Bound
) -> tuple[Expr, ...]:
    """The conditions on a group of axes."""
    return tuple(c for c in conditions if _ties(c, group, bound))


def _ties(condition: Expr, group: frozenset[str], bound: Bound) -> bool:
    read = index_ranks(condition)
    return bool(_axes(condition, group, bound)) if read else not group


def _axes(condition: Expr, names: frozenset[str], bound: Bound) -> frozenset[str]:
    """The axes that a condition reads: by name, by a component, or as a component."""
    read = index_ranks(condition)
    whole = {r for r, parts in bound.components.items() if not read.isdisjoint(parts)}
    parts = {c for r in read for c in bound.components.get(r, ())}
    return names & (read | whole | parts)
