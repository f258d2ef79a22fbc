"""The census over a range of settings: where more sparsity stops buying speed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from attnc.errors import AttncError
from attnc.ir.bind import check_params
from attnc.ir.cascade import Cascade, ParamDecl
from attnc.ir.frame import ParamValue
from attnc.ir.geometry.census import Census, Part
from attnc.ir.geometry.dilation import Problem
from attnc.masks import Mask, masks
from attnc.tile_shapes import TileSizes
from attnc.tiles import largest, show_value, sparsity, speedups, stage_tiles, table, times

if TYPE_CHECKING:
    from attnc.api import Attention

# `stride`, or one item of it: `stride[0]`; for a tuple param a value stands for all its items.
Ranges: TypeAlias = Mapping[str, Iterable[int | Sequence[int]]]
Setting: TypeAlias = Mapping[str, ParamValue]

_NAME = re.compile(r"(\w+)(?:\[(\d+)\])?")
_MOST = 20_000
# Rows of a printed table; of a longer one only those that are marked.
_SHOWN = 64


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One setting.

    frontier:  no other setting lets the queries see at least as much and visits at most as many
               tiles; of settings that are equal in both, the first
    gains:     every other setting with values at most its own visits more tiles
    """

    values: Setting
    census: Census
    frontier: bool
    gains: bool

    def to_dict(self) -> dict[str, object]:
        """One entry of `rows` in the command's JSON."""
        c = self.census
        return {
            "values": {n: list(v) if isinstance(v, tuple) else v for n, v in self.values.items()},
            "visited": {"max": c.most, "mean": c.mean, "min": c.fewest, "total": c.visited},
            "full": c.full,
            "partial": c.partial,
            "empty": c.empty,
            "fully_block_sparse": c.fully_block_sparse,
            "visible": c.visible,
            "sparsity": sparsity(c),
            "speedup": speedups(c),
            "frontier": self.frontier,
            "gains": self.gains,
        }


@dataclass(frozen=True, slots=True)
class TileSweep:
    """The result of `attnc tiles --sweep`: a row per setting, in the order of the ranges.

    monotonic: larger values never visit more tiles, or never fewer
    """

    name: str
    stage: str
    tile: Mapping[str, Sequence[int]]
    rows: tuple[SweepRow, ...]
    monotonic: bool

    @property
    def frontier(self) -> tuple[SweepRow, ...]:
        """The settings of which no other is both at least as dense and at least as fast."""
        return tuple(r for r in self.rows if r.frontier)

    def to_dict(self) -> dict[str, object]:
        """The command's JSON."""
        return {
            "name": self.name,
            "stage": self.stage,
            "tile": {rank: list(sizes) for rank, sizes in self.tile.items()},
            "monotonic": self.monotonic,
            "rows": [r.to_dict() for r in self.rows],
        }

    def __str__(self) -> str:
        tile = ", ".join(f"{r} {' x '.join(map(str, s))}" for r, s in self.tile.items())
        lines = [f"{self.name}: {len(self.rows)} settings, tiles {tile}", ""]
        shown = [r for r in self.rows if r.frontier or r.gains or r.census.fully_block_sparse]
        if len(self.rows) <= _SHOWN:
            shown = list(self.rows)
        elif len(shown) > _SHOWN:
            shown = [r for r in self.rows if r.frontier or r.gains]
        lines += _table(shown)
        if len(shown) < len(self.rows):
            lines += [f"{len(self.rows) - len(shown)} settings without a mark are not shown"]
        return "\n".join([*lines, "", *self._legend()])

    def _legend(self) -> Iterator[str]:
        yield "=  fully block-sparse: every visited tile is full"
        yield "+  fewer tiles than any setting with smaller values"
        yield "*  the frontier: any other setting hides more, or visits more tiles"
        if not self.monotonic:
            yield "More of it is not always faster: tiles visited rise and fall along the range."


def sweep_tiles(
    attention: Attention,
    shape: Mapping[str, int],
    ranges: Ranges,
    tensors: Mapping[str, object],
    *,
    tile: TileSizes,
    keys: str,
    flat: bool,
) -> TileSweep:
    """The census of each combination of values; counts that settings share are made once.

    Raises AttncError E531 for what is no int param or no range, E509 for values that the param does
    not take, and what `masks` and `tiles` raise.
    """
    cascade = attention.cascade
    known: dict[Problem, Part] = {}
    found = []
    for values, mask in _settings(attention, shape, ranges, tensors):
        counted = stage_tiles(cascade, mask, tile=tile, keys=keys, flat=flat, known=known)
        found.append((values, counted))
    stage = largest(found[0][1])
    counts = [next(s.census for s in stages if s.stage == stage.stage) for _, stages in found]
    frontier = _frontier(counts)
    gains, monotonic = _compare([v for v, _ in found], counts)
    rows = tuple(
        SweepRow(values, c, i in frontier, gains[i])
        for i, ((values, _), c) in enumerate(zip(found, counts, strict=True))
    )
    return TileSweep(cascade.name, stage.stage, stage.tile, rows, monotonic)


# settings ----------------------------------------------------------------------------------------


def _settings(
    attention: Attention,
    shape: Mapping[str, int],
    ranges: Ranges,
    tensors: Mapping[str, object],
) -> Iterator[tuple[Setting, tuple[Mask, ...]]]:
    """The swept params' values, and the masks with them, of each combination; the last fastest."""
    cascade = attention.cascade
    axes = [_values(cascade, name, values) for name, values in ranges.items()]
    count = prod(len(values) for _, _, values in axes)
    if not 0 < count <= _MOST:
        what = f"{count} settings are more than {_MOST}" if count else "no setting to sweep"
        raise AttncError("E531", what, hint="sweep fewer values, or in steps: `stride=1..64:8`")
    swept = dict.fromkeys(p for p, _, _ in axes)
    fixed = not any(p.const for p in swept)
    found = masks(attention.plan, attention.run_time_params, shape, tensors) if fixed else ()
    for chosen in product(*(values for _, _, values in axes)):
        settings = dict(attention.params)
        for (p, item, _), value in zip(axes, chosen, strict=True):
            settings[p.name] = _put(settings[p.name], item, value)
        params = check_params(cascade, settings)
        if not fixed:  # a const param is part of the plan
            other = replace(attention, params=params)
            found = masks(other.plan, other.run_time_params, shape, tensors)
        values = {p.name: params[p.name] for p in swept}
        yield values, tuple(replace(m, bound=replace(m.bound, params=params)) for m in found)


def _values(
    cascade: Cascade, name: str, values: Iterable[int | Sequence[int]]
) -> tuple[ParamDecl, int | None, tuple[int | tuple[int, ...], ...]]:
    match = _NAME.fullmatch(name)
    declared = {p.name: p for p in cascade.params}
    p = declared.get(match[1]) if match else None
    if p is None or match is None or p.dtype != "int":
        known = ", ".join(f"`{p.name}`" for p in cascade.params if p.dtype == "int")
        what = "is no param" if p is None else f"is a {p.dtype}, not an int:"
        hint = f"int params of it: {known}" if known else "it has no int param"
        raise AttncError("E531", f"`{name}` {what} of `{cascade.name}` to sweep", hint=hint)
    item = int(match[2]) if match[2] else None
    if item is not None and item >= (p.length or 0):
        raise AttncError("E531", f"param `{p.name}` has no item `{name}`")
    return p, item, tuple(v if isinstance(v, int) else tuple(v) for v in values)


def _put(value: ParamValue, item: int | None, new: int | tuple[int, ...]) -> ParamValue:
    if not isinstance(value, tuple) or isinstance(new, tuple):
        return new
    return tuple(new if item in (None, i) else v for i, v in enumerate(value))


# marks -------------------------------------------------------------------------------------------


def _frontier(counts: Sequence[Census]) -> set[int]:
    """Most visible points first, then fewest tiles: what visits fewer than all before is kept."""
    order = sorted(range(len(counts)), key=lambda i: (-counts[i].visible, counts[i].visited, i))
    kept, fewest = set(), None
    for i in order:
        if fewest is None or counts[i].visited < fewest:
            kept.add(i)
            fewest = counts[i].visited
    return kept


def _compare(values: Sequence[Setting], counts: Sequence[Census]) -> tuple[list[bool], bool]:
    """(per setting, whether it gains; whether the sweep is monotonic)."""
    at = np.array([list(_flat(v)) for v in values], float)
    # Counts may exceed 64 bits; their order is what matters.
    ranks = {n: i for i, n in enumerate(sorted({c.visited for c in counts}))}
    tiles = np.array([ranks[c.visited] for c in counts])
    gains, rises, falls = [], False, False
    for i in range(len(at)):
        smaller = (at <= at[i]).all(axis=1) & (at < at[i]).any(axis=1)
        gains.append(bool((tiles[smaller] > tiles[i]).all()))
        rises |= bool((tiles[smaller] < tiles[i]).any())
        falls |= bool((tiles[smaller] > tiles[i]).any())
    return gains, not (rises and falls)


def _flat(values: Setting) -> Iterator[float]:
    for value in values.values():
        yield from value if isinstance(value, tuple) else (value,)


def _table(rows: Sequence[SweepRow]) -> Iterator[str]:
    head = (*rows[0].values, "max", "mean", "by max", "by mean", "full", "sparsity", "")
    yield from table([head, *(_cells(r) for r in rows)])


def _cells(r: SweepRow) -> tuple[str, ...]:
    c, speed = r.census, speedups(r.census)
    marks = zip("=+*", (c.fully_block_sparse, r.gains, r.frontier), strict=True)
    return (
        *map(show_value, r.values.values()),
        str(c.most),
        f"{c.mean:.2f}",
        times(speed["tile_max"]),
        times(speed["tile_mean"]),
        f"{c.full / c.visited:.0%}" if c.visited else "-",
        f"{sparsity(c):.2%}",
        "".join(mark if there else " " for mark, there in marks),
    )
