"""What a picture of a mask says: its rule, its sizes, how many tiles of each class, and where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from attnc.dsl import parse, tree
from attnc.errors import AttncError, Span
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Number, Param
from attnc.ir.frame import Scope, Value
from attnc.ir.geometry.tile_classes import tile_classes
from attnc.ir.geometry.tile_runs import Runs
from attnc.ir.geometry.tiling import Axis
from attnc.ir.presence import TRUE
from attnc.ir.show import show_expr
from attnc.ir.walk import subexprs, substitute_indices
from attnc.panels import Panel, Points, matrix_of_points, matrix_of_tiles
from attnc.query_view import query_of, query_panels
from attnc.tile_shapes import TileSizes, check_tile_ranks, tile_axes

if TYPE_CHECKING:
    from attnc.masks import Mask


@dataclass(frozen=True, slots=True)
class Counts:
    """Tiles by class; `visited` (full and partial ones) per query tile."""

    full: int
    partial: int
    total: int
    most: int
    mean: float
    least: int

    @staticmethod
    def of(runs: Runs) -> Counts:
        visited = runs.visited()
        full, total = int(runs.full_tiles().sum()), runs.rows * runs.keys
        some = (int(visited.max()), float(visited.mean()), int(visited.min())) if runs.rows else ()
        most, mean, least = some or (0, 0.0, 0)
        return Counts(full, int(visited.sum()) - full, total, most, mean, least)

    @property
    def visited(self) -> int:
        return self.full + self.partial

    @property
    def empty(self) -> int:
        return self.total - self.visited

    def to_dict(self) -> dict[str, object]:
        visited = {"max": self.most, "mean": self.mean, "min": self.least, "total": self.visited}
        return {
            "visited": visited,
            "full": self.full,
            "partial": self.partial,
            "empty": self.empty,
            "total": self.total,
        }

    def summary(self) -> str:
        """One line: what is visited, in all and per query tile."""
        spread = f"{self.least} to {self.most}" if self.least < self.most else f"{self.most}"
        saved = f", 1 in {self.total / self.visited:.3g}" if self.visited else ""
        return (
            f"visited: {self.visited} of {self.total} tiles{saved};  "
            f"per query tile {spread}, on average {self.mean:.4g}"
        )

    def __str__(self) -> str:
        return f"{self.full} full, {self.partial} partial, {self.empty} empty tiles"


@dataclass(frozen=True, slots=True)
class MaskView:
    """All that a picture says: texts, counts, the panels of one query, the matrix of tiles.

    caption:  of the panels of one query
    resolved: whether the points of partial tiles are shown
    """

    name: str
    rules: tuple[str, ...]
    sizes: str
    counts: Counts
    matrix: Panel
    query: tuple[Panel, ...]
    caption: str
    resolved: bool


def first_mask(found: Sequence[Mask], cascade: Cascade) -> Mask:
    """The first mask that hides something, else the first. Raises E526 where nothing is swept."""
    hiding = [m for m in found if m.visibility.some != TRUE]
    if not found:
        raise AttncError("E526", f"`{cascade.name}` sweeps no keys, so there is no mask to draw")
    return (hiding or list(found))[0]


def mask_view(
    mask: Mask,
    cascade: Cascade,
    tile: TileSizes,
    *,
    query: Mapping[str, int],
    at: Mapping[str, int],
    keys: str = "static",
    flat: bool = False,
) -> MaskView:
    """A mask as it is seen at one point of the ranks along which it varies (`at`, else 0).

    tile:  of the row and the swept rank, one number per component, or of the flat ranks (`flat`)
    query: coordinates of the query to show (else the middle)
    keys:  `dynamic` tiles start at the window of the query's tile; the matrix is on the fixed grid
    Raises AttncError: E523 a coordinate that is none, or outside, E524 a tile that is none, E525
    other `keys`.
    """
    seen, bound = mask.visibility, mask.bound
    place = {r: at.get(r, 0) for r in seen.grid}
    _check(at, {r: mask.extent(r) for r in seen.grid}, "the mask does not vary along")
    check_tile_ranks([mask], tile)
    rows, columns = tile_axes(mask, tile, flat=flat)
    # One query has no rank: it is a tile of its own.
    rows = rows or (Axis("", 1, 1),)
    if keys not in ("static", "dynamic"):
        raise AttncError("E525", f"key tiles are `static` or `dynamic`, not `{keys}`")
    _check(query, {x.name: x.extent for x in rows}, "no coordinate of a query is")
    predicate = substitute_indices(seen.some, {r: Number(n) for r, n in place.items()})
    runs = tile_classes(predicate, rows, columns, bound).runs()
    points = Points(predicate, _scope(mask, cascade))
    return MaskView(
        cascade.name,
        tuple(_rules(cascade)) or (show_expr(seen.some),),
        _sizes(mask, rows, columns, place),
        Counts.of(runs),
        *_panels(points, rows, columns, runs, query, keys == "dynamic"),
    )


def _panels(
    points: Points,
    rows: tuple[Axis, ...],
    keys: tuple[Axis, ...],
    runs: Runs,
    query: Mapping[str, int],
    dynamic: bool,
) -> tuple[Panel, tuple[Panel, ...], str, bool]:
    """The matrix of tiles, what one query sees, its caption, whether single points are shown."""
    place = tuple(query.get(x.name, x.extent // 2) for x in rows)
    if len(rows) == len(keys) == 1:
        matrix, resolved = matrix_of_points(points, rows[0], keys[0], runs)
        return (replace(matrix, marked=place[0]) if query else matrix), (), "", resolved
    labels = _label("query tiles", rows), _label("key tiles", keys)
    if len(keys) == 1 or not runs.rows:
        return matrix_of_tiles(runs, labels, None), (), "", False
    one = query_of(points, rows, keys, runs, place, dynamic)
    return matrix_of_tiles(runs, labels, one.row), query_panels(points, one), one.caption, True


def _check(given: Mapping[str, int], extents: Mapping[str, int], what: str) -> None:
    for name, n in given.items():
        known = ", ".join(f"`{x}`" for x in extents) or "none"
        if name not in extents:
            raise AttncError("E523", f"{what} `{name}`", hint=f"known: {known}")
        if not 0 <= n < max(extents[name], 1):
            raise AttncError("E523", f"`{name}` = {n} is outside 0 .. {extents[name] - 1}")


def _scope(mask: Mask, cascade: Cascade) -> Scope:
    bound = mask.bound
    tensors = {n: Value(x, cascade.input(n).ranks) for n, x in bound.tensors.items()}
    ranks = {r.name: r for r in cascade.ranks}
    return Scope(tensors=tensors, extents=bound.extents, params=bound.params, ranks=ranks)


def _label(what: str, axes: tuple[Axis, ...]) -> str:
    names = ", ".join(x.name for x in axes)
    return f"{what} ({names})" if len(axes) > 1 else f"{what} {names}"


def _rules(cascade: Cascade) -> Iterator[str]:
    """The spec's masks as written, and the conditions that use them; nothing without its text."""
    if not cascade.source:
        return
    spec = parse(cascade.source, cascade.file)
    masks = [i for i in spec.items if isinstance(i, tree.Mask)]
    for item in masks:
        yield f"{_text(spec, item.target.span)} = {_text(spec, item.value.span)}"
    uses = [i.where for i in spec.items if isinstance(i, tree.Assign) and i.where is not None]
    wheres = dict.fromkeys(_text(spec, w.span) for w in uses)
    single = len(masks) == 1 and len(uses) == 1 and isinstance(uses[0], tree.Access)
    if not single:
        yield from (f"where {text}" for text in wheres)


def _text(spec: tree.Spec, span: Span) -> str:
    """What is written there, on one line."""
    lines = spec.text.splitlines()[span.line - 1 : span.end_line]
    lines[-1] = lines[-1][: span.end_column - 1]
    lines[0] = lines[0][span.column - 1 :]
    return " ".join(" ".join(line.partition("#")[0].split()) for line in lines)


def _sizes(
    mask: Mask, rows: tuple[Axis, ...], keys: tuple[Axis, ...], place: Mapping[str, int]
) -> str:
    """`window = 4096;  m 8192, n 8192 tokens;  tiles m 128, n 128;  h = 0`."""
    used = {s.name for e in (mask.visibility.some,) for s in subexprs(e) if isinstance(s, Param)}
    params = [f"{name} = {_value(v)}" for name, v in mask.bound.params.items() if name in used]
    sides = [(r, axes) for r, axes in ((mask.visibility.row, rows), (mask.visibility.swept, keys))]
    lengths = [f"{r} {_product(x.extent for x in axes)}" for r, axes in sides if r is not None]
    tiles = [f"{r} {_product(x.tile for x in axes)}" for r, axes in sides if r is not None]
    parts = [
        ", ".join(params),
        f"{', '.join(lengths)} tokens",
        f"tiles {', '.join(tiles)}",
        ", ".join(f"{r} = {n}" for r, n in place.items()),
    ]
    return ";  ".join(part for part in parts if part)


def _value(value: object) -> str:
    shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    shown = shown.replace("True", "true").replace("False", "false")
    return f"({shown})" if isinstance(value, tuple) else shown


def _product(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes))
