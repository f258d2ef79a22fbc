"""The keys that a whole tile of queries visits, and those that all of its queries see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attnc.ir.expr import Expr, Index
from attnc.ir.geometry.key_range import KeyRange
from attnc.ir.show import show_expr
from attnc.ir.walk import index_ranks, substitute_indices


@dataclass(frozen=True, slots=True)
class TileBound:
    """`expr`, over the coordinates of the tile's first and last row; or, where it is not known at
    which row they are, the least or greatest of its values at the tile's rows.
    """

    expr: Expr
    of_rows: Literal["least", "greatest"] | None = None

    def __str__(self) -> str:
        text = show_expr(self.expr)
        return f"{self.of_rows} {text}" if self.of_rows else text


@dataclass(frozen=True, slots=True)
class TileRange:
    """A tile of rows visits start <= n < stop; all its rows see full_start <= n < full_stop.

    The coordinates of its first and last row are `Index("first")` and `Index("last")`.
    """

    start: TileBound
    stop: TileBound
    full_start: TileBound
    full_stop: TileBound

    @property
    def visits(self) -> str:
        """`[max(0, first - window + 1), min(N, last + 1))`."""
        return f"[{self.start}, {self.stop})"

    @property
    def full(self) -> str:
        """Like `visits`, for the keys that all rows see."""
        return f"[{self.full_start}, {self.full_stop})"


def tile_range(r: KeyRange, row: str | None) -> TileRange:
    """The four bounds of a tile of `row`, of which `r` has those of one row."""
    return TileRange(
        _bound(r.low, r.rising[0], row, "least"),
        _bound(r.high, r.rising[1], row, "greatest"),
        _bound(r.low, r.rising[0], row, "greatest"),
        _bound(r.high, r.rising[1], row, "least"),
    )


def _bound(
    e: Expr, rising: bool, row: str | None, which: Literal["least", "greatest"]
) -> TileBound:
    if row is None or row not in index_ranks(e):
        return TileBound(e)
    if not rising:
        return TileBound(e, which)
    at = "first" if which == "least" else "last"
    return TileBound(substitute_indices(e, {row: Index(at)}))
