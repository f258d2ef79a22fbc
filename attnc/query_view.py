"""What one query and its tile see, on the canvas of keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from attnc.ir.geometry.tile_runs import FULL as FULL_TILE
from attnc.ir.geometry.tile_runs import PARTIAL as PARTIAL_TILE
from attnc.ir.geometry.tile_runs import Runs
from attnc.ir.geometry.tiling import Axis
from attnc.panels import EMPTY, FULL, HIDDEN, KINDS, VISIBLE, Panel, Points, cell_size, mean_shares


@dataclass(frozen=True, slots=True)
class Query:
    """One query, its tile, and the key tiles that the tile visits.

    rows, keys: axes of the tiles; place: the query's coordinates
    origin:     where the first key tile starts (0 for tiles on a fixed grid)
    classes:    of the key tiles from there on, one axis per key axis
    """

    rows: tuple[Axis, ...]
    keys: tuple[Axis, ...]
    place: tuple[int, ...]
    origin: tuple[int, ...]
    classes: NDArray[np.int8]

    @property
    def row(self) -> int:
        """Its tile among all query tiles, row-major."""
        tiles = [p // x.tile for p, x in zip(self.place, self.rows, strict=True)]
        return int(np.ravel_multi_index(tiles, [x.tiles for x in self.rows]))

    @property
    def tile(self) -> tuple[range, ...]:
        """The coordinates of the query's tile."""
        return tuple(
            range(at // x.tile * x.tile, min((at // x.tile + 1) * x.tile, x.extent))
            for at, x in zip(self.place, self.rows, strict=True)
        )

    @property
    def caption(self) -> str:
        """What its panels are called; a query without a rank is the only one."""
        places = zip(self.rows, self.place, strict=True)
        place = ", ".join(f"{x.name} = {p}" for x, p in places if x.name)
        slices = "".join(f", slices of {x.name}" for x in self.keys[:-2])
        across = f": {self.keys[-2].name} down, {self.keys[-1].name} across" if slices else ""
        return f"keys of query {place}".rstrip() + f" and its tile{slices}{across}"

    @property
    def on_canvas(self) -> bool:
        """Whether queries and keys are the points of one canvas."""
        return [x.extent for x in self.rows] == [x.extent for x in self.keys]

    def spans(self, axis: int) -> list[range]:
        """The coordinates of each key tile along an axis."""
        x, first = self.keys[axis], self.origin[axis]
        starts = range(first, first + self.classes.shape[axis] * x.tile, x.tile)
        return [range(min(s, x.extent), min(s + x.tile, x.extent)) for s in starts]


def query_of(
    points: Points,
    rows: tuple[Axis, ...],
    keys: tuple[Axis, ...],
    runs: Runs,
    place: tuple[int, ...],
    dynamic: bool,
) -> Query:
    """The query at `place`. `dynamic`: key tiles start at the first key that its tile sees."""
    query = Query(rows, keys, place, (0,) * len(keys), np.zeros(0, np.int8))
    flat = np.zeros(runs.keys, np.int8)
    for i in range(runs.offsets[query.row], runs.offsets[query.row + 1]):
        flat[runs.start[i] : runs.stop[i]] = FULL_TILE if runs.full[i] else PARTIAL_TILE
    query = replace(query, classes=flat.reshape([x.tiles for x in keys]))
    return _dynamic(points, query) if dynamic and flat.any() else query


def _dynamic(points: Points, fixed: Query) -> Query:
    """The same with key tiles that start at the window, from the points that the tile visits."""
    spans = []
    for axis, x in enumerate(fixed.keys):
        others = tuple(a for a in range(len(fixed.keys)) if a != axis)
        (visited,) = np.nonzero(fixed.classes.any(others))
        stop = min((int(visited[-1]) + 1) * x.tile, x.extent)
        spans.append(range(int(visited[0]) * x.tile, stop))
    across = dict(zip((x.name for x in fixed.keys), spans, strict=True))
    some = np.zeros([len(s) for s in spans], bool)
    every = np.ones_like(some)
    for place in np.ndindex(*(len(t) for t in fixed.tile)):
        at = {
            x.name: range(t[i], t[i] + 1)
            for x, t, i in zip(fixed.rows, fixed.tile, place, strict=True)
        }
        seen = points.visible({**at, **across}).reshape(some.shape)
        some |= seen
        every &= seen
    first = [
        int(np.nonzero(some.any(tuple(a for a in range(some.ndim) if a != axis)))[0][0])
        for axis in range(some.ndim)
    ]
    origin = tuple(s.start + f for s, f in zip(spans, first, strict=True))
    cut = tuple(slice(f, None) for f in first)
    classes = _tiles(some[cut], fixed.keys, np.logical_or).astype(np.int8)
    classes += _tiles(every[cut], fixed.keys, np.logical_and).astype(np.int8)
    return replace(fixed, origin=origin, classes=classes)


def _tiles(x: NDArray[np.bool_], keys: tuple[Axis, ...], merge: np.ufunc) -> NDArray[np.bool_]:
    for axis, key in enumerate(keys):
        x = merge.reduceat(x, np.arange(0, x.shape[axis], key.tile), axis)
    return x


def query_panels(points: Points, query: Query) -> tuple[Panel, ...]:
    """The canvas of keys as one query and its tile see it; with three axes or more, in slices."""
    keys = query.keys
    at = {x.name: range(p, p + 1) for x, p in zip(query.rows, query.place, strict=True)}
    lead = _slices(query)
    panels = []
    for slice_ in lead:
        box = {x.name: range(p, p + 1) for x, p in zip(keys, slice_, strict=False)}
        box |= {x.name: range(x.extent) for x in keys[-2:]}
        seen = points.visible({**at, **box}).reshape([x.extent for x in keys[-2:]])
        panels.append(_canvas(query, slice_, seen))
    return tuple(panels)


def _slices(query: Query, most: int = 12) -> list[tuple[int, ...]]:
    """Coordinates of the leading axes to show: evenly among those visited, and the query's."""
    lead = query.keys[:-2]
    if not lead:
        return [()]
    extents = [x.extent for x in lead]
    visited = np.zeros(extents, bool)
    for tile in np.argwhere(query.classes.any((-2, -1))):
        visited[
            tuple(slice(s.start, s.stop) for s in (query.spans(a)[i] for a, i in enumerate(tile)))
        ] = True
    flat = np.nonzero(visited.reshape(-1))[0]
    first, last = (int(flat[0]), int(flat[-1])) if flat.size else (0, visited.size - 1)
    step = ceil((last - first + 1) / most)
    own = int(np.ravel_multi_index(query.place[: len(lead)], extents)) if query.on_canvas else first
    chosen = [n for n in range(own % step, visited.size, step) if first <= n <= last or n == own]
    return [tuple(int(i) for i in np.unravel_index(n, extents)) for n in chosen]


def _canvas(query: Query, slice_: tuple[int, ...], seen: NDArray[np.bool_]) -> Panel:
    y, x = query.keys[-2:]
    classes = _at(query, slice_)
    spread = np.zeros(seen.shape, np.int8)
    outlines = []
    spans = query.spans(len(query.keys) - 2), query.spans(len(query.keys) - 1)
    for i, j in np.argwhere(classes):
        v, u = spans[0][i], spans[1][j]
        spread[v.start : v.stop, u.start : u.stop] = classes[i, j]
        outlines.append((v.start, u.start, len(v), len(u)))
    kinds = np.select(
        [spread == FULL_TILE, (spread == PARTIAL_TILE) & seen, spread == PARTIAL_TILE],
        [FULL, VISIBLE, HIDDEN],
        EMPTY,
    )
    cell = cell_size(y.extent, 1), cell_size(x.extent, 1)
    shares = np.stack([mean_shares(kinds == kind, cell) for kind in KINDS], -1)
    inside = query.on_canvas and all(p in t for p, t in zip(slice_, query.tile, strict=False))
    v, u = query.tile[-2:]
    title = ", ".join(f"{a.name} = {p}" for a, p in zip(query.keys, slice_, strict=False))
    return Panel(
        shares,
        (y.extent, x.extent),
        cell,
        (y.tile, x.tile),
        (y.name, x.name),
        title or query.caption,
        outlines=tuple(outlines) if len(outlines) <= 4000 else (),
        box=(v.start, u.start, len(v), len(u)) if inside else None,
        point=(query.place[-2], query.place[-1]) if inside and slice_ == query.place[:-2] else None,
        ruled=not any(query.origin),
    )


def _at(query: Query, slice_: tuple[int, ...]) -> NDArray[np.int8]:
    """Classes of the last two axes' tiles in a slice; zeros where it lies in no tile."""
    classes = query.classes
    for axis, at in enumerate(slice_):
        found = [i for i, span in enumerate(query.spans(axis)) if at in span]
        if not found:
            return np.zeros(query.classes.shape[-2:], np.int8)
        classes = classes[found[0]]
    return classes
