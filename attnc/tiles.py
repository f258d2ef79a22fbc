"""What `attnc tiles` finds out: how many tiles a mask visits, and what that can gain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, prod

from attnc.errors import AttncError
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Param
from attnc.ir.frame import ParamValue
from attnc.ir.geometry.census import Census, KeyTiles, Part, census
from attnc.ir.geometry.dilation import Problem
from attnc.ir.geometry.put_in_numbers import numbers_of
from attnc.ir.geometry.tile_runs import IntArray
from attnc.ir.geometry.tiling import Axis
from attnc.masks import Mask
from attnc.tile_shapes import TileSizes, check_tile_ranks, tile_axes


@dataclass(frozen=True, slots=True)
class StageTiles:
    """The census of one kernel: `row` is the rank of its query tiles (None: it has one query)."""

    stage: str
    row: str | None
    swept: str
    census: Census

    @property
    def tile(self) -> dict[str, tuple[int, ...]]:
        """The sizes of the tiles, by rank."""
        axes = {self.row: self.census.rows, self.swept: self.census.keys}
        return {rank: tuple(a.tile for a in cut) for rank, cut in axes.items() if rank}

    def to_dict(self) -> dict[str, object]:
        """Its part of the command's JSON."""
        c = self.census
        queries, keys = c.padding
        return {
            "stage": self.stage,
            "tile": {rank: list(sizes) for rank, sizes in self.tile.items()},
            "visited": _spread(c.most, c.mean, c.fewest, c.visited),
            "full": c.full,
            "partial": c.partial,
            "empty": c.empty,
            "fully_block_sparse": c.fully_block_sparse,
            "speedup": speedups(c),
            "query_tiles": c.query_tiles,
            "key_tiles": c.key_tiles,
            "padding": {"queries": queries, "keys": keys},
            "visible": c.visible,
            "points": c.points,
            "sparsity": sparsity(c),
            "axes": [_part(p) for p in c.parts],
        }

    def lines(self, start: KeyTiles) -> Iterator[str]:
        """The census for people."""
        c = self.census
        if c.grid:
            yield f"at each of {_points(c.grid)}"
        where = "on a fixed grid" if start == "static" else "from the first key seen"
        yield from _columns(
            [
                ("queries", self.row or "one", _tiling(c.rows, c.query_tiles, c.padding[0])),
                ("keys", self.swept, f"{_tiling(c.keys, c.key_tiles, c.padding[1])}, {where}"),
            ]
        )
        yield ""
        yield f"visited   {_spread_text(c)}, of {prod(a.tiles for a in c.keys)} per query tile"
        pairs = c.query_tiles * c.key_tiles
        classes = f"{c.full} full, {c.partial} partial, {c.empty} empty"
        yield f"in all    {c.visited} of {pairs} pairs of tiles: {classes}"
        yield f"sparsity  {sparsity(c):.2%}: {c.visible} of {c.points} points are visible"
        yield _verdict(c)
        yield ""
        yield "at best, over attention without a mask"
        for name, value in _SPEEDUPS:
            yield f"  {times(speedups(c)[name]):>8}  {value}"
        if len(c.parts) > 1 or any(p.dilations for p in c.parts):
            yield ""
            yield from _part_table(c.parts)


@dataclass(frozen=True, slots=True)
class Tiles:
    """The result of `attnc tiles`: a census per kernel."""

    name: str
    params: Mapping[str, ParamValue]
    keys: KeyTiles
    flat: bool
    stages: tuple[StageTiles, ...]

    @property
    def main(self) -> StageTiles:
        """The kernel that visits the most tiles."""
        return largest(self.stages)

    def to_dict(self) -> dict[str, object]:
        """The command's JSON: the kernel that visits the most tiles, and below `stages` each."""
        params = {n: list(v) if isinstance(v, tuple) else v for n, v in self.params.items()}
        head = {"name": self.name, "params": params, "keys": self.keys, "flat": self.flat}
        return {**head, **self.main.to_dict(), "stages": [s.to_dict() for s in self.stages]}

    def __str__(self) -> str:
        settings = ", ".join(f"{n} = {show_value(v)}" for n, v in self.params.items())
        lines = [f"{self.name}: {settings}" if settings else self.name]
        for stage in self.stages:
            title = ["", f"kernel {stage.stage}"] if len(self.stages) > 1 else []
            lines += [*title, *stage.lines(self.keys)]
        return "\n".join(lines)


def tiles(
    cascade: Cascade,
    masks: Sequence[Mask],
    *,
    tile: TileSizes,
    keys: str = "static",
    flat: bool = False,
) -> Tiles:
    """Count the tiles of each kernel's mask.

    Raises AttncError E524 for a tile that does not fit, E525 for other `keys`, E526 where nothing
    is swept.
    """
    stages = stage_tiles(cascade, masks, tile=tile, keys=keys, flat=flat, known={})
    return Tiles(cascade.name, _read_params(masks), key_tiles(keys), flat, stages)


def stage_tiles(
    cascade: Cascade,
    masks: Sequence[Mask],
    *,
    tile: TileSizes,
    keys: str,
    flat: bool,
    known: dict[Problem, Part],
) -> tuple[StageTiles, ...]:
    """The census of each kernel; `known` remembers counts for the same shape, data and `keys`."""
    start = key_tiles(keys)
    if not masks:
        raise AttncError("E526", f"`{cascade.name}` sweeps no keys: no kernel has tiles")
    check_tile_ranks(masks, tile)
    stages = []
    for mask in masks:
        seen = mask.visibility
        rows, swept = tile_axes(mask, tile, flat=flat)
        grid = tuple(Axis(c, mask.extent(c), 1) for r in seen.grid for c in mask.coordinates(r))
        found = census(
            seen, grid, rows, swept, mask.bound, start=start, grouped=not flat, known=known
        )
        stages.append(StageTiles(mask.stage, seen.row, seen.swept, found))
    return tuple(stages)


def key_tiles(keys: str) -> KeyTiles:
    """The kind of key tiles by its name. Raises AttncError E525 for another name."""
    match keys:
        case "static":
            return "static"
        case "dynamic":
            return "dynamic"
        case _:
            raise AttncError("E525", f"key tiles are `static` or `dynamic`, not `{keys}`")


def _read_params(masks: Iterable[Mask]) -> dict[str, ParamValue]:
    """The params that the masks depend on."""
    seen = (e for m in masks for e in (m.visibility.some, m.visibility.every))
    names = {x.name for e in seen for x in numbers_of(e) if isinstance(x, Param)}
    params = next(iter(masks)).bound.params
    return {n: value for n, value in params.items() if n in names}


def largest(stages: tuple[StageTiles, ...]) -> StageTiles:
    """The kernel that visits the most tiles, the first of several."""
    return max(stages, key=lambda s: s.census.visited)


# numbers -----------------------------------------------------------------------------------------

_SPEEDUPS = (
    ("flop", "by visible points"),
    ("tile_max", "by the query tile that visits most"),
    ("tile_mean", "by the visited tiles on average: what a busy GPU follows"),
    ("tile_total", "by all tiles, those for padding included"),
)


def speedups(c: Census) -> dict[str, float]:
    """What may be gained over attention without a mask, by each way of counting."""
    values = (c.flop, c.tile_max, c.tile_mean, c.tile_total)
    return {name: value for (name, _), value in zip(_SPEEDUPS, values, strict=True)}


def sparsity(c: Census) -> float:
    """The share of points that are hidden; 0 where there are none."""
    return 1 - c.visible / c.points if c.points else 0.0


def _spread(most: int, mean: float, fewest: int, total: int) -> dict[str, float]:
    return {"max": most, "mean": mean, "min": fewest, "total": total}


def _part(p: Part) -> dict[str, object]:
    return {
        "queries": [a.name for a in p.rows],
        "keys": [a.name for a in p.keys],
        "query_tiles": p.query_tiles,
        "key_tiles": p.key_tiles,
        "visited": _spread(*_extremes(p.visited), int(p.visited.sum())),
        "full": int(p.full.sum()),
        "fully_block_sparse": bool(p.visited.sum() == p.full.sum()),
        "dilation": {d.row: d.step for d in p.dilations},
    }


def _extremes(visited: IntArray) -> tuple[int, float, int]:
    if not len(visited):
        return 0, 0.0, 0
    return int(visited.max()), float(visited.mean()), int(visited.min())


# text --------------------------------------------------------------------------------------------


def times(x: float) -> str:
    """`6.10x`; a dash where there is nothing to compare."""
    return "-" if isnan(x) else f"{x:.2f}x" if isfinite(x) else "inf"


def show_value(value: ParamValue) -> str:
    """A param as a spec writes it."""
    if isinstance(value, tuple):
        return f"({', '.join(map(show_value, value))})"
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def _tiling(axes: tuple[Axis, ...], tiles: int, padding: float) -> str:
    sizes = " x ".join(str(a.extent) for a in axes) or "1"
    tile = " x ".join(str(a.tile) for a in axes) or "1"
    padded = f", {padding - 1:.1%} of padding" if padding > 1 else ""
    return f"{sizes} in {tiles} {'tile' if tiles == 1 else 'tiles'} of {tile}{padded}"


def _points(axes: tuple[Axis, ...]) -> str:
    return ", ".join(f"{a.extent} {a.name}" for a in axes)


def _spread_text(c: Census) -> str:
    return f"{c.most} at most, {c.mean:.2f} on average, {c.fewest} at least"


def _verdict(c: Census) -> str:
    if not c.visited:
        return "no tile is visited: nothing is visible"
    if c.fully_block_sparse:
        return "fully block-sparse: every visited tile is full, no kernel needs the mask"
    return f"not fully block-sparse: the mask is needed in {c.partial / c.visited:.1%} of the tiles"


def _part_table(parts: tuple[Part, ...]) -> Iterator[str]:
    rows = [("axes", "query tiles", "key tiles", "max", "mean", "min", "full", "groups")]
    for p in parts:
        most, mean, fewest = _extremes(p.visited)
        names = " ".join(a.name for a in (*p.rows, *p.keys))
        full = int(p.full.sum()) / max(1, int(p.visited.sum()))
        counts = (str(p.query_tiles), str(p.key_tiles), str(most), f"{mean:.2f}", str(fewest))
        groups = " x ".join(str(d.step) for d in p.dilations)
        rows.append((names, *counts, f"{full:.0%}", groups))
    if not any(p.dilations for p in parts):
        rows = [row[:-1] for row in rows]  # type: ignore[misc]
    yield from table(rows)


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = (
            f"{cell:>{width}}" if i else f"{cell:{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *others]).rstrip()


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip()
