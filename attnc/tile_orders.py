"""Which order of the tokens of a plane or a volume, and which tile, make a mask cheapest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from attnc.errors import AttncError
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Expr
from attnc.ir.geometry.count_flat_tiles import FlatCounts, count_flat_tiles, seen_tokens
from attnc.ir.geometry.dilation import Problem, dilations
from attnc.ir.geometry.put_in_numbers import put_in_numbers
from attnc.ir.geometry.tiling import Axis
from attnc.ir.geometry.token_order import TokenOrder, token_orders
from attnc.masks import Mask
from attnc.tile_shapes import TileSizes, check_tile_ranks, tile_axes
from attnc.tiles import key_tiles, table, times

# Of a flat tile, unless it is given.
_TOKENS = 128


@dataclass(frozen=True, slots=True)
class TokenOrders:
    """The result of `attnc tiles --orders`: counts of the same flat tiles in each order.

    `orders`: the one that visits fewest tiles first. `tile`: tokens of a tile, by rank.
    """

    name: str
    stage: str
    tile: Mapping[str, int]
    extents: Mapping[str, tuple[int, ...]]
    visible: int
    points: int
    orders: tuple[tuple[TokenOrder, FlatCounts], ...]

    @property
    def best(self) -> TokenOrder:
        """The order that visits the fewest tiles."""
        return self.orders[0][0]

    def to_dict(self) -> dict[str, object]:
        """The command's JSON."""
        return {
            "name": self.name,
            "stage": self.stage,
            "tile": dict(self.tile),
            "best": self.best.name,
            "orders": [self._row(order, counts) for order, counts in self.orders],
        }

    def _row(self, order: TokenOrder, o: FlatCounts) -> dict[str, object]:
        total, full = int(o.visited.sum()), int(o.full.sum())
        most, fewest = int(o.visited.max(initial=0)), int(o.visited.min(initial=o.key_tiles))
        pairs = len(o.visited) * o.key_tiles
        return {
            "order": order.name,
            "block": None if order.tile is None else list(order.tile),
            "visited": {
                "max": most,
                "mean": total / len(o.visited) if len(o.visited) else 0.0,
                "min": fewest if len(o.visited) else 0,
                "total": total,
            },
            "full": full,
            "partial": total - full,
            "empty": pairs - total,
            "fully_block_sparse": total == full,
            "speedup": {
                "flop": _ratio(self.points, self.visible),
                "tile_max": _ratio(o.key_tiles, most),
                "tile_mean": _ratio(pairs, total),
                "tile_total": _ratio(pairs, total),
            },
        }

    def __str__(self) -> str:
        sizes = (f"{rank} {' x '.join(map(str, e))}" for rank, e in self.extents.items())
        cut = (f"{rank} {size}" for rank, size in self.tile.items())
        lines = [f"{self.name}: tokens {', '.join(sizes)}; flat tiles {', '.join(cut)}", ""]
        lines += self._table()
        total = int(self.orders[0][1].visited.sum())
        plain = next(int(o.visited.sum()) for order, o in self.orders if order.plain)
        gain = f", {_ratio(plain, total):.2f} times fewer than row-major" if total < plain else ""
        return "\n".join([*lines, "", f"cheapest: {self.best.name}{gain}"])

    def _table(self) -> Iterator[str]:
        rows: list[tuple[str, ...]] = [
            ("order", "max", "mean", "total", "by max", "by mean", "full")
        ]
        for order, o in self.orders:
            total, most = int(o.visited.sum()), int(o.visited.max(initial=0))
            mean = total / len(o.visited) if len(o.visited) else 0.0
            gains = (_ratio(o.key_tiles, most), _ratio(len(o.visited) * o.key_tiles, total))
            share = f"{int(o.full.sum()) / total:.0%}" if total else "-"
            counts = (str(most), f"{mean:.2f}", str(total), *map(times, gains))
            rows.append((order.name, *counts, share))
        yield from table(rows)


def _ratio(a: int, b: int) -> float:
    if b:
        return a / b
    return float("inf") if a else float("nan")


def tile_orders(
    cascade: Cascade, masks: Sequence[Mask], tile: TileSizes, keys: str = "static"
) -> TokenOrders:
    """Count the flat tiles of the first mask that relates two grids, in each order of tokens.

    Queries and keys are in the same order; `keys` as for `tiles`. Raises AttncError: E524, E525 for
    tiles that do not fit, E533 where there is no grid of several axes, or too many points.
    """
    shifted = key_tiles(keys) == "dynamic"
    check_tile_ranks(masks, tile)
    mask = next((m for m in masks if _is_grid(m)), None)
    if mask is None:
        raise AttncError(
            "E533",
            f"the tokens of `{cascade.name}` have no other order: no mask relates two grids",
            hint="declare a plane, like `rank m = (my, mx)` and `rank n = (ny, nx)`",
        )
    seen = mask.visibility
    assert seen.row is not None
    rows, columns = (_points(mask, rank) for rank in (seen.row, seen.swept))
    grid = tuple(Axis(c, mask.extent(c), 1) for r in seen.grid for c in mask.coordinates(r))
    usual = {seen.row: _TOKENS, seen.swept: _TOKENS}
    flat = tile_axes(mask, {**usual, **tile}, flat=True)
    sizes = flat[0][0].tile, flat[1][0].tile
    some, every = (put_in_numbers(e, mask.bound) for e in (seen.some, seen.every))
    tokens = seen_tokens(some, every, grid, rows, columns, mask.bound)
    if tokens is None:
        raise AttncError(
            "E533",
            f"the mask of `{cascade.name}` ties its axes together: too many points at this shape",
            hint="compare the orders of a smaller grid",
        )
    orders = token_orders(len(rows), max(sizes), _steps(some, every, mask, rows, columns))
    counts = [(order, count_flat_tiles(tokens, sizes, order, shifted=shifted)) for order in orders]
    return TokenOrders(
        cascade.name,
        mask.stage,
        {seen.row: sizes[0], seen.swept: sizes[1]},
        {r: tuple(a.extent for a in axes) for r, axes in ((seen.row, rows), (seen.swept, columns))},
        tokens.visible,
        prod(a.extent for a in (*grid, *rows, *columns)),
        tuple(sorted(counts, key=lambda each: int(each[1].visited.sum()))),
    )


def _is_grid(mask: Mask) -> bool:
    row, swept = mask.visibility.row, mask.visibility.swept
    axes = 0 if row is None else len(mask.coordinates(row))
    return axes > 1 and len(mask.coordinates(swept)) == axes


def _points(mask: Mask, rank: str) -> tuple[Axis, ...]:
    return tuple(Axis(c, mask.extent(c), 1) for c in mask.coordinates(rank))


def _steps(
    some: Expr, every: Expr, mask: Mask, rows: tuple[Axis, ...], keys: tuple[Axis, ...]
) -> tuple[int, ...]:
    """The dilation of each axis that queries and keys share."""
    problem = Problem((some, every), rows, keys)
    found = {(d.row, d.key): d.step for d in dilations(problem, mask.bound)}
    return tuple(found.get((a.name, b.name), 1) for a, b in zip(rows, keys, strict=True))
