"""What a masked attention is compared with: dense attention, or the causal one where it is causal.

Nobody says which: a mask is causal if it shows no query a later key, which is decided exactly.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Apply, Expr, Extent, Index, Number
from attnc.ir.frame import Scope
from attnc.ir.geometry.tile_classes import tile_classes
from attnc.ir.geometry.tiling import Axis
from attnc.ir.plan import SweepStage
from attnc.ir.presence import TRUE, conjunction
from attnc.ir.visibility import Visibility, joint_visibility
from attnc.ir.walk import index_ranks, substitute_indices
from attnc.runtime.cost.call import Call

Baseline: TypeAlias = Literal["causal", "none"]

BASELINE_NAMES: dict[Baseline, str] = {"causal": "dense causal", "none": "dense"}
# Of an axis: classes of tiles are exact, whatever their size.
_TILES = 32
# Queries and keys along an axis that are tried first.
_FIRST = 3
# How much later a key is than the one after its query, along one axis.
_LATER = "later"


def baseline(call: Call) -> Baseline:
    """`causal` if no kernel of the call shows a query a key after it, else `none`.

    Kernels have as many keys as queries then; of grids, tokens are in row-major order. A mask that
    reads captured data which the call lacks shows what the data may hide.
    """
    key = "baseline"
    if key not in call.known:
        call.known[key] = bool(call.sweeps) and all(_is_causal(call, s) for s in call.sweeps)
    return "causal" if call.known[key] else "none"


def _is_causal(call: Call, stage: SweepStage) -> bool:
    v = joint_visibility((p.visibility for p in stage.passes), call.plan.cascade)
    if v.row is None or call.extent(v.row) != call.extent(v.swept) or call.unknown(v):
        return False
    rows, keys = (call.bound.components.get(r, (r,)) for r in (v.row, v.swept))
    if [call.extent(c) for c in rows] != [call.extent(c) for c in keys]:
        rows, keys = (v.row,), (v.swept,)
    if v.tensors or not {v.row, v.swept}.isdisjoint(index_ranks(v.some)):
        # A sequence, or one that is read as if it were: compared as such.
        rows, keys = (v.row,), (v.swept,)
    if not v.tensors and _near_start(call, v, rows, keys):
        return False
    return not any(_sees_later(call, v, rows, keys, i) for i in range(len(rows)))


def _near_start(call: Call, v: Visibility, rows: tuple[str, ...], keys: tuple[str, ...]) -> bool:
    """Whether one of the first queries sees one of the first keys after it: mostly one does."""
    cascade, bound = call.plan.cascade, call.bound
    grid = [c for r in v.grid for c in bound.components.get(r, (r,))]
    box = {c: range(min(call.extent(c), _FIRST)) for c in (*grid, *rows, *keys)}
    later: Expr = Number(False)
    same: Expr = TRUE
    for row, key in zip(rows, keys, strict=True):
        pair = (Index(key), Index(row))
        later = Apply("or", (later, conjunction((same, Apply("gt", pair)))))
        same = conjunction((same, Apply("eq", pair)))
    ranks = {r.name: r for r in cascade.ranks}
    scope = Scope(extents=bound.extents, params=call.params, ranks=ranks, box=box)
    return bool(np.any(evaluate(conjunction((v.some, later)), scope).data))


def _sees_later(
    call: Call, v: Visibility, rows: tuple[str, ...], keys: tuple[str, ...], axis: int
) -> bool:
    """Whether a query sees a key of which `axis` is the first on which it is later."""
    grid = [c for r in v.grid for c in call.bound.components.get(r, (r,))]
    queries = tuple(_axis(call, c) for c in (*grid, *rows))
    if v.tensors:
        later = Apply("gt", (Index(keys[0]), Index(rows[0])))
        swept = tuple(_axis(call, c) for c in keys)
        return tile_classes(conjunction((v.some, later)), queries, swept, call.bound).visited > 0
    # In terms of the distance from the query, that nothing is visible shows without counting.
    after = Apply("add", (Index(rows[axis]), Apply("add", (Number(1), Index(_LATER)))))
    same = {k: Index(r) for k, r in zip(keys[:axis], rows[:axis], strict=True)}
    seen = substitute_indices(v.some, {**same, keys[axis]: after})
    longest = call.extent(keys[axis]) - 1
    swept = (
        Axis(_LATER, longest, max(1, -(-longest // _TILES))),
        *(_axis(call, c) for c in keys[axis + 1 :]),
    )

    def visible(exists: Expr) -> bool:
        return tile_classes(seen, queries, swept, call.bound, exists).visited > 0

    # Keys past the end included there are no borders to follow, which takes no time.
    return visible(TRUE) and visible(Apply("lt", (after, Extent(keys[axis]))))


def _axis(call: Call, coordinate: str) -> Axis:
    return call.axis(coordinate, max(1, -(-call.extent(coordinate) // _TILES)))
