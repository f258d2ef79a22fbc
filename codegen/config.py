"""Tile sizes and warps: what fits in registers and shared memory, by the width of the tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnc.ir.plan import SweepStage


@dataclass(frozen=True, slots=True)
class Config:
    """Rows and swept coordinates per tile, warps per program, depth of the load pipeline."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


def default_config(stage: SweepStage, dims: Mapping[str, int], itemsize: int) -> Config:
    """The configuration that the launcher picks: `dims` has the extent of each feature rank."""
    width = max((padded(dims[r]) for r in (*stage.inner, *stage.columns)), default=16) * itemsize
    return next(c for limit, c in config_table(stage) if width <= limit)


def config_table(stage: SweepStage) -> tuple[tuple[int, Config], ...]:
    """(bytes in the widest row of a tile, up to which; configuration), widest last."""
    if stage.row is None:
        return ((1 << 30, Config(16, 64, 4, 2)),)
    return (
        (128, Config(128, 64, 4, 3)),
        (256, Config(128, 64, 8, 3)),
        (512, Config(64, 32, 4, 2)),
        (1 << 30, Config(32, 16, 4, 2)),
    )


def padded(extent: int) -> int:
    """A block's length: a power of two, and no less than tl.dot takes."""
    return max(16, 1 << (max(extent, 1) - 1).bit_length())
