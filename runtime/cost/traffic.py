"""Bytes between DRAM and the chip: each tensor once, and again what the caches could not keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
    What programs stream that run at the same time is shared: they walk it side by side, neighbours
    in places that overlap. If what they see at once exceeds the cache, each round of programs
    fetches it anew (the refetch term of KernelSight-LM and Sim-FA).
    """
    streams = dict.fromkeys(_streamed(stage))
    others = {r.tensor for r in memory_reads(stage)} - streams.keys()
    total = float(sum(map(call.tensor_bytes, others)))
    found = [_Stream.of(call, stage, t, config, visits, places) for t in streams]
    fits = sum(s.at_once * s.slices_at_once for s in found) <= cache
    for s in found:
        again = 1.0 if fits else s.rounds
        total += min(max(s.size, again * s.at_once * s.slices), s.most)
    return total


@dataclass(frozen=True, slots=True)
class _Stream:
    """A tensor that programs read along the swept rank.

    size:      its bytes, in `slices` that no two points of the grid share
    most:      what all programs together read of it
    rounds:    of programs, per slice
    at_once:   bytes of a slice that the programs of a round see
    slices_at_once: how many slices are walked at the same time
    """

    size: float
    slices: int
    most: float
    rounds: float
    at_once: float
    slices_at_once: float

    @staticmethod
    def of(
        call: Call, stage: SweepStage, tensor: str, config: Config, visits: Visits, places: int
    ) -> _Stream:
        size, slices = call.tensor_bytes(tensor), _slices(call, stage, tensor)
        programs = max(1, visits.programs)
        most = float(_tile_bytes(call, stage, tensor, config) * _visited(visits))
        per_slice, whole = programs / slices, size / slices
        running = max(1.0, min(per_slice, places))
        at_once = min(whole, most / programs + (running - 1) / max(1.0, per_slice) * whole)
        walked = min(slices, max(1.0, places / max(1.0, per_slice)))
        return _Stream(size, slices, most, max(1.0, per_slice / places), at_once, walked)


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
