"""How many tiles each program of a kernel visits: full ones, and those at a border."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attnc.codegen.config import MAX_COLUMNS, Config, tile_sides
from attnc.codegen.visits import VisitKind, visit_kinds
from attnc.ir.expr import Apply, Expr, Index, Number
from attnc.ir.geometry.layout import Layout, TileAxis, layouts
from attnc.ir.geometry.put_in_numbers import put_in_numbers
from attnc.ir.geometry.tiling import Axis
from attnc.ir.plan import SweepStage
from attnc.ir.presence import TRUE
from attnc.ir.visibility import Visibility, joint_visibility
from attnc.runtime.cost.call import Call, column_splits

IntArray: TypeAlias = NDArray[np.int64]
# What is taken to be visible: what the spec says, keys up to the query, or everything.
Mask: TypeAlias = Literal["own", "causal", "none"]


@dataclass(frozen=True, slots=True)
class PassVisits:
    """Of one sweep: [programs of the pattern], in the order in which they are launched."""

    full: IntArray
    partial: IntArray


@dataclass(frozen=True, slots=True)
class Visits:
    """What the programs of a kernel visit.

    The programs are `repeats` times a pattern: the mask is the same at grid points that it does not
    depend on.

    """

    passes: tuple[PassVisits, ...]
    repeats: int

    @property
    def pattern(self) -> int:
        return len(self.passes[0].full)

    @property
    def programs(self) -> int:
        return self.pattern * self.repeats

    def total(self, of: Literal["full", "partial"]) -> int:
        """Tiles of one class that all programs and passes visit."""
        return self.repeats * sum(int(getattr(p, of).sum()) for p in self.passes)


def tile_visits(call: Call, stage: SweepStage, config: Config, mask: Mask = "own") -> Visits:
    """The tiles that the programs of a stage visit, as its kernel walks them with these tiles.

    A mask that reads captured data which the call lacks hides nothing. Counted once per call and
    size of tiles.
    """
    shapes = config.shape_m, config.shape_n
    key = (stage.name, config.block_m, config.block_n, *shapes, mask)
    if key not in call.known:
        call.known[key] = _visits(call, stage, config, mask)
    found: Visits = call.known[key]
    return found if stage.part is None else _in_turns(found, call.extent(stage.part))


def visible_points(call: Call, stage: SweepStage, mask: Mask = "own") -> int:
    """The pairs of a query and a key of which some pass needs the score, over the whole grid."""
    key = (stage.name, "points", mask)
    if key not in call.known:
        walk = _walk(call, stage, mask)
        seen = joint_visibility((p.seen for p in walk.passes), call.plan.cascade)
        whole = Config(64, 64, 4, 2)
        rows, keys = layouts(seen, call.plan.cascade)
        cut = _axes(call, rows, whole, True), _axes(call, keys, whole, False)
        counted = call.census(seen, _grid(call, seen), *cut, grouped=False, points=True)
        call.known[key] = counted.visible * _others(call, stage, seen.grid)
    found: int = call.known[key]
    return found


@dataclass(frozen=True, slots=True)
class _WalkedPass:
    """How a pass walks: what it sees, numbers put in, and how its ranks are cut into tiles."""

    kind: VisitKind
    seen: Visibility
    rows: Layout | None
    keys: Layout


@dataclass(frozen=True, slots=True)
class _Walk:
    """What does not depend on the size of tiles; `grid`: other ranks on which some mask depends."""

    passes: tuple[_WalkedPass, ...]
    grid: tuple[str, ...]


def _walk(call: Call, stage: SweepStage, mask: Mask) -> _Walk:
    key = (stage.name, "walk", mask)
    if key not in call.known:
        cascade = call.plan.cascade
        kinds = visit_kinds(stage, cascade)
        seen = [p.visibility for p in stage.passes]
        if "lists" in kinds:
            seen = [joint_visibility(seen, cascade)] * len(seen)
        passes = tuple(
            _walked(call, kind, _masked(call, v, mask)) for kind, v in zip(kinds, seen, strict=True)
        )
        grid = dict.fromkeys(r for p in passes for r in p.seen.grid)
        call.known[key] = _Walk(passes, tuple(grid))
    found: _Walk = call.known[key]
    return found


def _walked(call: Call, kind: VisitKind, v: Visibility) -> _WalkedPass:
    rows, keys = layouts(v, call.plan.cascade)
    if kind != "lists":
        rows, keys = None if rows is None else _flat(rows), _flat(keys)
    some, every = (put_in_numbers(e, call.bound) for e in (v.some, v.every))
    return _WalkedPass(kind, replace(v, some=some, every=every), rows, keys)


def _masked(call: Call, v: Visibility, mask: Mask) -> Visibility:
    """What is visible under `mask`; data that the call lacks hides nothing."""
    if mask == "causal" and v.row is not None:
        seen: Expr = Apply("le", (Index(v.swept), Index(v.row)))
        return Visibility(v.row, v.swept, (), seen, seen)
    if mask == "none" or call.unknown(v):
        return Visibility(v.row, v.swept, (), TRUE, TRUE)
    return v


def _visits(call: Call, stage: SweepStage, config: Config, mask: Mask) -> Visits:
    walk = _walk(call, stage, mask)
    passes = tuple(_pass_visits(call, p, walk.grid, config) for p in walk.passes)
    splits = column_splits(call, stage, MAX_COLUMNS)
    repeats = _others(call, stage, walk.grid) * splits
    return Visits(_in_order(passes, prod(map(call.extent, walk.grid))), repeats)


def _pass_visits(call: Call, p: _WalkedPass, grid: tuple[str, ...], config: Config) -> PassVisits:
    v, spread = p.seen, prod(call.extent(r) for r in grid if r not in p.seen.grid)
    rows, keys = _axes(call, p.rows, config, True), _axes(call, p.keys, config, False)
    if p.kind == "all":
        count = prod(a.tiles for a in rows) * prod(map(call.extent, grid))
        visited = np.full(count, prod(a.tiles for a in keys))
        return PassVisits(0 * visited, visited)
    stepped = _stepped(call, p.rows, config.block_m) and _stepped(call, p.keys, config.block_n)
    points = _grid(call, v)
    found = call.census(v, points, rows, keys, grouped=stepped, points=False)
    visited = full = np.ones(1, np.int64)
    for part in found.parts:
        visited = np.outer(visited, part.visited).ravel()
        full = np.outer(full, part.full).ravel()
    if p.kind == "range" and v.some == TRUE and call.extent(v.swept) % config.block_n:
        # The last tile of the keys is cut short: the kernel takes it for one at a border.
        full = np.minimum(full, np.maximum(visited - 1, 0))
    return PassVisits(np.tile(full, spread), np.tile(visited - full, spread))


def _flat(layout: Layout) -> Layout:
    return Layout(layout.rank, (TileAxis(layout.rank),))


def _grid(call: Call, v: Visibility) -> tuple[Axis, ...]:
    """The other ranks on which a mask depends, by components where they are grids."""
    components = call.bound.components
    return tuple(call.axis(c) for r in v.grid for c in components.get(r, (r,)))


def _others(call: Call, stage: SweepStage, grid: tuple[str, ...]) -> int:
    """The points of the grid at which a mask is the same, as it depends on `grid` alone."""
    return prod(call.extent(r) for r in stage.grid if r not in grid and r != stage.part)


def _in_turns(whole: Visits, parts: int) -> Visits:
    """What each of so many programs visits that take turns at what one would visit.

    The first part begins at the full tiles, the last one at those at a border.
    """
    turns = np.arange(parts)[:, None]
    passes = (
        PassVisits(
            ((p.full + parts - 1 - turns) // parts).ravel(), ((p.partial + turns) // parts).ravel()
        )
        for p in whole.passes
    )
    return Visits(tuple(passes), whole.repeats)


def _axes(call: Call, layout: Layout | None, c: Config, of_rows: bool) -> tuple[Axis, ...]:
    """A rank's tiles, over its components where its tiles have several axes."""
    if layout is None:
        return ()
    names = layout.coordinates
    sides: tuple[int, ...] = (c.block_m if of_rows else c.block_n,)
    if len(names) > 1:
        sides = tile_sides(c, of_rows, tuple(map(call.extent, names)))
    return tuple(call.axis(name, side) for name, side in zip(names, sides, strict=True))


def _stepped(call: Call, layout: Layout | None, block: int) -> bool:
    """Whether the launcher lets tiles have gaps: unless that leaves them too empty."""
    if layout is None or not layout.is_stepped:
        return True
    places = 1
    for a in layout.axes:
        extent = call.extent(a.coordinate)
        step = 1 if a.step is None else _number(call, a.step)
        places *= -(-extent // max(1, min(step, extent)))
    return 4 * places >= block


def _number(call: Call, e: Expr) -> int:
    value = put_in_numbers(e, call.bound)
    assert isinstance(value, Number), value
    return int(value.value)


def _in_order(passes: tuple[PassVisits, ...], grid: int) -> tuple[PassVisits, ...]:
    """As launched: at each point of the grid the longest first, where lengths grow or vary."""
    total = np.sum([p.full + p.partial for p in passes], axis=0).reshape(grid, -1)
    order = np.argsort(-total, axis=1, kind="stable")
    flat = (order + np.arange(grid)[:, None] * total.shape[1]).ravel()
    return tuple(PassVisits(p.full[flat], p.partial[flat]) for p in passes)
