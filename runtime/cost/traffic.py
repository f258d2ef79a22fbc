"""Bytes between DRAM and the chip: each tensor once, and again what the caches could not keep."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from attnc.codegen.config import MAX_COLUMNS, Config, padded
from attnc.codegen.permute import memory_reads
from attnc.ir.plan import Load, SweepStage
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.tile_visits import Visits


def traffic_bytes(
    call: Call, stage: SweepStage, config: Config, visits: Visits, places: int, cache: float
) -> float:
    """What a kernel moves to and from DRAM.

    places: programs that run at the same time; cache: bytes that the last cache level holds.
    What programs stream that run at the same time is shared: they walk it side by side. If the
    slices in flight exceed the cache, each round of programs fetches them anew (the refetch term of
    KernelSight-LM and Sim-FA).
    """
    streamed = set(_streamed(stage))
    others = {r.tensor for r in memory_reads(stage)} - streamed
    total = float(sum(map(call.tensor_bytes, others)))
    sliced = [(t, call.tensor_bytes(t), _slices(call, stage, t)) for t in streamed]
    in_flight = sum(
        size / slices * min(slices, max(1.0, places * slices / max(1, visits.programs)))
        for _, size, slices in sliced
    )
    for tensor, size, slices in sliced:
        rounds = max(1.0, visits.programs / slices / places) if in_flight > cache else 1.0
        most = _tile_bytes(call, stage, tensor, config) * _visited(visits)
        total += min(size * rounds, most)
    return total


def _streamed(stage: SweepStage) -> Iterator[str]:
    """The tensors that are read along the swept rank, tile by tile."""
    for p in stage.passes:
        for let in p.body:
            if isinstance(let.value, Load) and stage.swept in let.ranks:
                yield let.value.read.tensor


def _slices(call: Call, stage: SweepStage, tensor: str) -> int:
    """How many parts of a tensor there are that no two grid points share; rows have their own.

    Programs that take turns at its tiles share none of them.
    """
    inside = {stage.swept, *stage.inner, *stage.columns}
    own = [r for r in call.axes(tensor) if r not in inside]
    own += [stage.part] if stage.part is not None else []
    return prod(map(call.extent, own)) or 1


def _tile_bytes(call: Call, stage: SweepStage, tensor: str, config: Config) -> int:
    blocks = {stage.row: config.block_m, stage.swept: config.block_n}
    blocks |= {r: padded(call.extent(r)) for r in stage.inner}
    blocks |= {r: min(MAX_COLUMNS, padded(call.extent(r))) for r in stage.columns}
    return prod(blocks.get(r, 1) for r in call.axes(tensor)) * call.element(tensor)


def _visited(visits: Visits) -> int:
    """Tiles that all programs visit in all passes."""
    return visits.total("full") + visits.total("partial")
