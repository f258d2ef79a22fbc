"""The tile classes of one group of axes."""

from __future__ import annotations

from math import prod

import numpy as np

from attnc.ir.cascade import Rank
from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Expr
from attnc.ir.frame import Scope, Value
from attnc.ir.tile_runs import Runs, make_runs
from attnc.ir.tiling import Axis, Bound


def factor_runs(
    predicate: Expr, rows: tuple[Axis, ...], keys: tuple[Axis, ...], bound: Bound, exists: Expr
) -> Runs:
    """Runs over the tiles of `rows` and `keys`, row-major; every point is evaluated."""
    axes = rows + keys
    shape = tuple(a.tiles for a in axes)
    n_rows, n_keys = (prod(a.tiles for a in side) for side in (rows, keys))
    if 0 in shape:
        return make_runs(n_rows, n_keys, *(np.zeros(0, int),) * 3, np.zeros(0, bool))
    visible, there = (_everywhere(e, axes, bound) for e in (predicate, exists))
    some, missing = visible & there, there & ~visible
    for i, axis in enumerate(axes):
        cuts = np.arange(0, axis.extent, axis.tile)
        some, missing = (np.logical_or.reduceat(x, cuts, axis=i) for x in (some, missing))
    seen, gap = (x.reshape(n_rows, n_keys) for x in (some, missing))
    row, key = np.nonzero(seen)
    return make_runs(n_rows, n_keys, row, key, key + 1, ~gap[row, key])


def _everywhere(e: Expr, axes: tuple[Axis, ...], bound: Bound) -> np.ndarray:
    ranks = {r: Rank(r, parts) for r, parts in bound.components.items()}
    ranks |= {c: Rank(c, (), r) for r, parts in bound.components.items() for c in parts}
    scope = Scope(
        tensors={
            name: Value(np.asarray(x), ("",) * np.ndim(x)) for name, x in bound.tensors.items()
        },
        extents=bound.extents,
        params=bound.params,
        ranks=ranks,
        box={a.name: range(a.extent) for a in axes},
    )
    found = evaluate(e, scope)
    present = True if found.present is None else found.present
    return np.broadcast_to(found.data & present, [a.extent for a in axes])
