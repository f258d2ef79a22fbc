"""Row tiles that see the same, each a tile further on: computed together, as one more batch axis.

Near-diagonal masks leave little work per row tile, and calls into torch cost more than the work.
Row tiles that visit a single span, each shifted by the length of a tile, have the same masks there
and read windows of the same tensors: views that overlap, without a copy.
"""

from __future__ import annotations

from attnc.ir.frame import Scope
from attnc.runtime.layout import Layout, Steps
from attnc.runtime.program import Program
from attnc.runtime.tile_frame import Tile


def row_group(layout: Layout, program: Program, scope: Scope, first: int, most: int) -> int:
    """How many row tiles from `first` on can be computed together: at least 1, at most `most`."""
    rank = program.stage.row
    if rank is None or not program.movable or most < 2:
        return 1
    known = layout.groups.get(first)
    if known is None or known[0] != most:
        last = min(first + most, program.extents[rank] // layout.rows)
        found = 1
        while first + found < last and _alike(layout, program, scope, first, found):
            found += 1
        known = layout.groups[first] = (most, found)
    return known[1]


def _alike(layout: Layout, program: Program, scope: Scope, first: int, further: int) -> bool:
    """Whether a row tile sees what another does, further on by so many tiles."""
    steps, others = (layout.steps(program, i) for i in (first, first + further))
    if not (_single(steps) and _single(others)):
        return False
    shift = further * layout.rows
    for (one,), (other,) in zip(steps[0][1], others[0][1], strict=True):
        parts = ((one.points, other.points), *zip(one.cut, other.cut, strict=False))
        if len(one.cut) != len(other.cut):
            return False
        if any((a.start + shift, a.stop + shift) != (b.start, b.stop) for a, b in parts):
            return False
    masks = (_masks(layout, program, scope, i) for i in (first, first + further))
    one_masks, other_masks = masks
    return len(one_masks) == len(other_masks) and all(
        a is b for a, b in zip(one_masks, other_masks, strict=True)
    )


def _single(steps: Steps) -> bool:
    """Whether all of the grid visits one span in each pass."""
    return len(steps) == 1 and all(len(spans) == 1 for spans in steps[0][1])


def _masks(layout: Layout, program: Program, scope: Scope, row_tile: int) -> list[object]:
    stage, ((box, visited),) = program.stage, layout.steps(program, row_tile)
    assert stage.row is not None
    rows = range(row_tile * layout.rows, (row_tile + 1) * layout.rows)
    whole = {r: range(program.extents[r]) for r in program.order}
    found: list[object] = []
    for number, (span,) in enumerate(visited):
        place = {**whole, **box, stage.row: rows, stage.swept: span.points}
        hidden = layout.masks.hidden(program, number, Tile(scope, place, {}), span.cut)
        found += [part.mask for parts in hidden.values() for part in parts]
    return found
