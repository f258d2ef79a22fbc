"""How the tiles of a kernel lie in the registers of its threads, and what is computed repeatedly.

Accumulators of matrix instructions have a fixed layout (PTX ISA, "Matrix fragments"): four lanes
share a row of 8 columns, a lane has two rows. A value of a row is then held by four lanes, one of a
column by eight, and by every warp that works on the same row or column. On AMD two lanes share one
of 32 rows. How warps are laid over a tile is Triton's choice: along the rows where one product
feeds another, unless the result has more columns than rows (`warpsPerTile` of its layouts).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import Literal, TypeAlias

from attnc.codegen.config import Config

# What runs one matrix instruction: a warp of 16 rows (mma.sync), four warps of 64 rows (wgmma), one
# thread for the whole block (tcgen05), or a wave of 64 lanes, counted as two warps, of 32 rows
# (mfma). None: products are plain multiply-adds.
MatrixUnit: TypeAlias = Literal["warp", "warpgroup", "block", "wave"] | None


@dataclass(frozen=True, slots=True)
class Layout:
    """A tile of `rows` over threads; `along`: how many warps lie along the rows.

    side: without a matrix unit, a thread has squares of so many rows
    """

    unit: MatrixUnit
    rows: int
    warps: int
    along: int
    lanes: int
    side: int = 2

    @property
    def threads(self) -> int:
        return 32 * self.warps

    @property
    def across(self) -> int:
        return self.warps // self.along

    @property
    def rows_per_thread(self) -> float:
        """Of how many rows a thread has points; more than its share where warps have none left."""
        return max(self.side, self.lanes * self.across * self.rows / self.threads)

    def columns_per_thread(self, columns: int) -> float:
        """Of how many columns a thread has points."""
        if self.unit == "block":
            return columns * min(self.rows, self.threads) / self.threads
        return max(self.side, columns / (self.lanes * self.across))

    @property
    def exchanges(self) -> float:
        """Steps in which threads combine what they have of one row."""
        if self.unit == "block":
            return log2(max(1.0, self.threads / self.rows))
        return log2(self.lanes * self.across)


@dataclass(frozen=True, slots=True)
class Spread:
    """The layouts of maps over (row, swept) and of accumulators over (row, columns)."""

    maps: Layout
    sums: Layout


def spread(config: Config, columns: int, chained: bool, unit: MatrixUnit) -> Spread:
    """The layouts of a sweep with accumulators of `columns` columns.

    chained: whether a map enters a second product
    """
    rows, keys, warps = config.block_m, config.block_n, config.num_warps
    if (unit == "warpgroup" and warps % 4) or (unit in ("warpgroup", "block") and rows < 64):
        unit = "warp"
    match unit:
        case None:
            maps = _plain(rows, keys, warps)
            return Spread(maps, _plain(rows, columns, warps))
        case "block":
            layout = Layout(unit, rows, warps, warps, 1, 1)
            return Spread(layout, layout)
        case "warpgroup":
            fit = max(4, min(warps, rows // 16))
            sums = Layout(unit, rows, warps, fit, 4)
            return Spread(Layout(unit, rows, warps, warps, 4) if chained else sums, sums)
        case "wave":
            layout = Layout(unit, rows, warps, warps, 2, 1)
            return Spread(layout, layout)
        case "warp":
            along = _balanced(rows, keys, warps)
            if chained:
                along = warps if rows >= columns else 1
            layout = Layout(unit, rows, warps, along, 4)
            return Spread(layout, layout)


def _plain(rows: int, columns: int, warps: int) -> Layout:
    """Triton's default layout of products without matrix units (`TritonToTritonGPU`)."""
    points = rows * columns // (32 * warps)
    side = 4 if points >= 16 else 2 if points >= 4 else 1
    lanes = max(1, min(32, columns // side))
    return Layout(None, rows, warps, warps, lanes, side)


def _balanced(rows: int, keys: int, warps: int) -> int:
    """Warps along the rows of a product that feeds none: they are doubled where most is left."""
    along = across = 1
    while along * across < warps:
        left = rows // 16 // along
        if left > 1 and left >= keys // 16 // across:
            along *= 2
        else:
            across *= 2
    return along
