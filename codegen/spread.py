"""How the tiles of a kernel lie in the registers of its threads, and what is computed repeatedly.

Accumulators of matrix instructions have a fixed layout (PTX ISA, "Matrix fragments"): four lanes
share a row of 8 columns, two rows per lane. A value of a row is then held by four lanes, one of a
column by eight, and by every warp that works on the same row or column. How warps are laid over a
tile is Triton's choice: along the rows where one product feeds another, unless the result has more
columns than rows (`warpsPerTile` of its matrix layouts).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import Literal, TypeAlias

from attnc.codegen.config import Config

# What runs one matrix instruction: a warp of 16 rows (mma.sync, mfma), four warps of 64 rows
# (wgmma), or one thread for the whole block (tcgen05).
MatrixUnit: TypeAlias = Literal["warp", "warpgroup", "block"]


@dataclass(frozen=True, slots=True)
class Spread:
    """A kernel's tiles over its threads.

    rows, keys:    coordinates of the row and of the swept rank per tile; rows is 1 without one
    warps:         of a block; map_warps: how many of them lie along the rows of a map
    sum_warps:     along the rows of an accumulator
    unit:          whose registers hold the tiles of matrix products; None: no matrix unit is used
    """

    rows: int
    keys: int
    warps: int
    map_warps: int
    sum_warps: int
    unit: MatrixUnit | None

    @property
    def threads(self) -> int:
        return 32 * self.warps

    @property
    def lanes_per_row(self) -> int:
        """Threads of one warp that share a row: 4, or 1 where tensor memory is read by rows."""
        return 1 if self.unit == "block" else 4

    @property
    def map_repeats(self) -> float:
        """How often each point of a map is computed: where warps have no rows or columns left."""
        return _repeats(self, self.map_warps, self.keys)

    def sum_repeats(self, columns: int) -> float:
        """How often each element of an accumulator is."""
        return _repeats(self, self.sum_warps, columns)

    @property
    def row_values(self) -> float:
        """What threads hold together of a value per row."""
        if self.unit == "block":
            return max(self.rows, self.threads)
        across = self.warps // self.map_warps
        return 4 * across * max(self.rows, 16 * self.map_warps)

    def column_values(self, columns: int) -> float:
        """What they hold of a value per key or column."""
        if self.unit == "block":
            return columns * min(self.rows, self.threads)
        across = self.warps // self.map_warps
        return 8 * self.map_warps * max(columns, 8 * across)

    @property
    def exchanges(self) -> float:
        """Steps in which threads combine what they have of one row."""
        return log2(self.lanes_per_row) + log2(max(1, self.warps // self.map_warps))


def _repeats(s: Spread, along: int, columns: int) -> float:
    if s.unit == "block" or s.rows == 1:
        return 1.0
    across = s.warps // along
    return max(1.0, 16 * along / s.rows) * max(1.0, 8 * across / columns)


def spread(config: Config, columns: int, chained: bool, unit: MatrixUnit | None) -> Spread:
    """The layout of a sweep with accumulators of `columns` columns.

    chained: whether a map enters a second product
    """
    rows, keys, warps = config.block_m, config.block_n, config.num_warps
    if unit == "warpgroup" and (rows < 64 or warps % 4):
        unit = "warp"
    if unit == "block" and rows < 64:
        unit = "warp"
    if unit == "warpgroup" and chained:
        return Spread(rows, keys, warps, warps, max(4, min(warps, rows // 16)), unit)
    if chained:
        along = warps if rows >= columns else 1
        return Spread(rows, keys, warps, along, along, unit)
    along = _balanced(rows, keys, warps, 4 if unit == "warpgroup" else 1)
    return Spread(rows, keys, warps, along, along, unit)


def _balanced(rows: int, keys: int, warps: int, along: int) -> int:
    """Warps along the rows of a product that feeds none: they are doubled where most is left."""
    across = 1
    while along * across < warps:
        left = rows // 16 // along
        if left > 1 and left >= keys // 16 // across:
            along *= 2
        else:
            across *= 2
    return along


def axes_product(ranks: frozenset[str], blocks: Mapping[str, int]) -> int:
    """Elements of a tile."""
    found = 1
    for r in ranks:
        found *= blocks[r]
    return found
