"""The census of every library mask equals that of its points, each evaluated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attnc.ir.cascade import Cascade
from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Expr
from attnc.ir.frame import Scope, Value
from attnc.ir.geometry.census import Census
from attnc.masks import Mask, masks
from attnc.tiles import tiles
from tests.library.small_calls import MASKED, small_call

Array = np.ndarray[Any, Any]


def _points(e: Expr, mask: Mask, cascade: Cascade, axes: list[str]) -> Array:
    """The predicate at every point of these axes."""
    extents = mask.bound.extents
    scope = Scope(
        tensors={n: Value(x, cascade.input(n).ranks) for n, x in mask.bound.tensors.items()},
        extents=extents,
        params=mask.bound.params,
        ranks={r.name: r for r in cascade.ranks},
        box={a: range(extents[a]) for a in axes},
    )
    found = evaluate(e, scope)
    holds = found.data if found.present is None else found.data & found.present
    return np.broadcast_to(holds, [extents[a] for a in axes])


def _reduced(points: Array, tile: list[int], op: np.ufunc) -> Array:
    for axis, size in enumerate(tile):
        points = op.reduceat(points, np.arange(0, points.shape[axis], size), axis=axis)
    return points


def _check(found: Census, mask: Mask, cascade: Cascade) -> None:
    cut = [*found.grid, *found.rows, *found.keys]
    names_, sizes = [a.name for a in cut], [a.tile for a in cut]
    some = _points(mask.visibility.some, mask, cascade, names_)
    every = _points(mask.visibility.every, mask, cascade, names_)
    assert (found.visible, found.points) == (int(some.sum()), some.size)
    if any(p.dilations for p in found.parts):
        return  # tiles of groups: `tests/ir/test_census.py`
    seen = _reduced(some, sizes, np.logical_or)
    full = _reduced(every, sizes, np.logical_and)
    per_query = seen.sum(axis=tuple(range(len(found.grid) + len(found.rows), seen.ndim)))
    assert (found.visited, found.full) == (int(seen.sum()), int(full.sum()))
    assert (found.most, found.fewest) == (int(per_query.max()), int(per_query.min()))
    assert (found.query_tiles, found.empty) == (per_query.size, int((~seen).sum()))


@pytest.mark.parametrize("name", MASKED)
def test_every_library_mask(name: str) -> None:
    attention, shape, captured = small_call(name)
    found = masks(attention.plan, attention.run_time_params, shape, captured)
    for mask in found:
        seen = mask.visibility
        for flat in (False, True):
            ranks = [(r, t) for r, t in ((seen.row, 5), (seen.swept, 3)) if r is not None]
            parts = {r: (r,) if flat else mask.coordinates(r) for r, _ in ranks}
            tile = {r: (t,) * len(parts[r]) for r, t in ranks}
            counted = tiles(attention.cascade, (mask,), tile=tile, flat=flat)
            _check(counted.main.census, mask, attention.plan.cascade)
            moved = tiles(attention.cascade, (mask,), tile=tile, flat=flat, keys="dynamic")
            assert moved.main.census.visible == counted.main.census.visible
            assert str(moved) and moved.to_dict()
