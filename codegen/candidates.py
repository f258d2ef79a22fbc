"""The configurations that a stage could be launched with, before any is compiled.

What a kernel takes is estimated generously, in favour of the configuration: what remains is ranked
by the cost model, and its resources are proved by compiling it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from attnc.codegen.config import Config, StageRegisters, padded, registers_of, widest
from attnc.ir.cascade import Cascade
from attnc.ir.plan import SweepStage

_SIDES = (16, 32, 64, 128, 256)
_WARPS = (4, 8)
# More warps serve tiles of many rows only.
_MANY_WARPS, _MANY_ROWS = 16, 256
_ONE_ROW_SIDES = (16, 32, 64, 128, 256)
_ONE_ROW_WARPS = (2, 4, 8)
# Multiply-adds per thread and matrix product of float32, which uses no matrix unit: each is an
# instruction of its own, and more of them take the compiler minutes.
_MOST_UNROLLED = 512
# A thread with fewer points than this repeats the work of another one.
_LEAST_POINTS = 2
# Parts of a sweep, and programs per SM, beyond which more parts only cost a longer merge.
_MOST_SPLITS, _PER_SM = 64, 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What a GPU has for one block of threads, and how its compiler uses it.

    registers:        32-bit, that a thread can address
    block_registers:  32-bit, of all threads of a block
    shared_bytes:     of a block
    generosity:       by how much the estimate of registers may exceed them; what is admitted in
                      vain costs a compilation
    stages:           depths of the load pipeline that make a difference
    """

    registers: int
    block_registers: int
    shared_bytes: int
    generosity: float
    stages: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lack:
    """What a configuration asks for beyond what there is: `resource` is a plural."""

    resource: str
    needed: int
    available: int

    def __str__(self) -> str:
        return (
            f"it takes {self.needed} {self.resource}, {self.needed - self.available} more than "
            f"the {self.available} there are"
        )


def candidates(
    stage: SweepStage,
    cascade: Cascade,
    dims: Mapping[str, int],
    itemsize: int,
    limits: Limits,
) -> tuple[Config, ...]:
    """All configurations that may fit, the estimate of their registers ascending.

    dims: extents of feature ranks, and of the row and the swept rank, where they are known: tiles
    longer than these are left out. itemsize: bytes of an element of the inputs.
    """
    known, width = registers_of(stage, cascade), widest(stage, dims)
    rows = _up_to(_SIDES, dims.get(stage.row)) if stage.row is not None else (1,)
    keys = _up_to(_SIDES if stage.row is not None else _ONE_ROW_SIDES, dims.get(stage.swept))
    every = [
        Config(m, n, warps, stages)
        for m in rows
        for n in keys
        for warps in _warps(stage, m)
        for stages in limits.stages
    ]
    fit = [c for c in every if lack(c, known, width, itemsize, limits) is None]
    # Where all else is too large, threads that repeat each other's work are better than no kernel.
    found = [c for c in fit if not _wasteful(c, known, width, itemsize)] or fit
    return tuple(sorted(found, key=lambda c: known.estimate(c, width, itemsize)))


def split_counts(programs: int, tiles: int, sms: int) -> tuple[int, ...]:
    """In how many parts the sweeps of so many programs may be worth splitting, 1 among them.

    tiles: of the swept rank; sms: what runs programs. Only where programs leave some idle.
    """
    most = min(tiles, _MOST_SPLITS, -(-_PER_SM * sms // max(programs, 1)))
    if programs >= sms or most < 2:
        return (1,)
    return tuple(1 << i for i in range((most - 1).bit_length() + 1) if 1 << i <= tiles)


def smallest_config(stage: SweepStage, limits: Limits) -> Config:
    """The configuration that takes least."""
    if stage.row is None:
        return Config(1, _ONE_ROW_SIDES[0], _ONE_ROW_WARPS[-1], limits.stages[0])
    return Config(_SIDES[0], _SIDES[0], _WARPS[-1], limits.stages[0])


def lack(
    c: Config, known: StageRegisters, width: int, itemsize: int, limits: Limits
) -> Lack | None:
    """The resource of which a configuration surely takes too much, if there is one."""
    shared = least_shared_bytes(c, known, width, itemsize)
    if shared > limits.shared_bytes:
        return Lack("bytes of shared memory", shared, limits.shared_bytes)
    needed = round(known.estimate(c, width, itemsize) / limits.generosity)
    threads = 32 * c.num_warps
    if needed > limits.registers:
        return Lack("registers of a thread", needed, limits.registers)
    if needed * threads > limits.block_registers:
        return Lack("registers of a block", needed * threads, limits.block_registers)
    return None


def least_shared_bytes(c: Config, known: StageRegisters, width: int, itemsize: int) -> int:
    """Shared memory of a block: no kernel takes less.

    Compilers keep all tiles but the one in use, or all of them, in the buffers of the pipeline.
    """
    return max(1, c.num_stages - 1) * known.streamed * c.block_n * width * itemsize


def _up_to(sides: tuple[int, ...], length: int | None) -> tuple[int, ...]:
    """The sides that are no longer than the length needs."""
    return sides if length is None else tuple(s for s in sides if s <= padded(length))


def _warps(stage: SweepStage, rows: int) -> Iterator[int]:
    if stage.row is None:
        yield from _ONE_ROW_WARPS
        return
    yield from _WARPS
    if rows >= _MANY_ROWS:
        yield _MANY_WARPS


def _wasteful(c: Config, known: StageRegisters, width: int, itemsize: int) -> bool:
    """Whether threads have next to nothing to do, or unrolled products become too long."""
    threads = 32 * c.num_warps
    points = c.block_m * c.block_n
    unrolled = itemsize == 4 and points * width > _MOST_UNROLLED * threads
    return (c.block_m > 1 and points < _LEAST_POINTS * threads) or unrolled
