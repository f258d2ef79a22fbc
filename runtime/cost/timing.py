"""From what a kernel asks of each unit to the time that it takes.

A tile keeps the units of an SM busy one after another, as its instructions depend on each other:
first the matrix units, then the others. A lone program hides a share of that (`overlap`); several
programs on an SM fill each other's gaps, so that together they approach the time of the unit that
is busy longest. The demand per unit with special functions and shared memory as roofs of their own
follows SynPerf and FlashAttention-4; that dependent phases of one program add up, FlashAttention-3,
section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from attnc.ir.demand import Demand, KernelDemand, Unit
from attnc.runtime.cost.calibration import Setting
from attnc.runtime.cost.schedule import FloatArray, makespan
from attnc.runtime.cost.tile_visits import Visits
from attnc.runtime.targets import Target

# Parts of an SM that issue instructions; a program of fewer warps leaves some idle.
_SCHEDULERS = 4
_VECTOR: tuple[Unit, ...] = ("fma", "alu", "sfu")


@dataclass(frozen=True, slots=True)
class Work:
    """A kernel's launch: what a program asks for, what the programs visit, how they share an SM.

    per_sm:  programs that an SM holds at the same time
    warps:   of a program
    traffic: bytes between DRAM and the chip
    """

    demand: KernelDemand
    visits: Visits
    per_sm: int
    warps: int
    traffic: float


def unit_rates(target: Target) -> dict[Unit, float]:
    """What an SM does per clock, in the units of a `Demand`."""
    return {
        "tensor": target.tensor_flop_per_clk,
        "fma": target.fma_per_clk,
        "alu": target.alu_per_clk,
        "sfu": target.special_per_clk,
        "shared": target.shared_bytes_per_clk,
        "l2": target.l2_bytes_per_clk / target.sms,
        "issue": target.issue_per_clk,
    }


def peak_flop_per_ms(target: Target) -> float:
    """Floating-point operations of all matrix units in a millisecond, at the target's clock."""
    return target.tensor_flop_per_clk * target.sms * target.clock_mhz * 1e3


def busy_clocks(d: Demand, rates: Mapping[Unit, float]) -> dict[Unit, float]:
    """Clocks for which a demand keeps each unit of an SM busy."""
    return {unit: getattr(d, unit) / rate for unit, rate in rates.items()}


def busy_ms(work: Work, target: Target, clock: float = 1.0) -> dict[str, float]:
    """Milliseconds for which each unit, and the memory, would be busy with nothing in its way.

    clock: of the target's. This is the roofline: the longest bounds the time from below.
    """
    total = total_demand(work)
    per_ms = target.sms * target.clock_mhz * 1e3 * clock
    found: dict[str, float] = {
        unit: clocks / per_ms for unit, clocks in busy_clocks(total, unit_rates(target)).items()
    }
    return {**found, "memory": work.traffic / target.memory_bytes_per_second * 1e3}


def total_demand(work: Work) -> Demand:
    """Of all programs together."""
    v, d = work.visits, work.demand
    total = d.once * v.programs
    for p, seen in zip(d.passes, v.passes, strict=True):
        total += p.full * (int(seen.full.sum()) * v.repeats)
        total += p.partial * (int(seen.partial.sum()) * v.repeats)
    return total


def kernel_ms(work: Work, target: Target, setting: Setting) -> float:
    """Milliseconds from launch to end."""
    places = min(work.per_sm, max(1, -(-work.visits.programs // int(target.sms))))
    clocks = makespan(
        _program_clocks(work, target, setting, places),
        work.visits.repeats,
        places * int(target.sms),
    )
    running = clocks / (target.clock_mhz * 1e3 * setting.clock)
    memory = work.traffic / (target.memory_bytes_per_second * setting.memory) * 1e3
    return max(running, memory) + setting.launch * 1e-3


def _program_clocks(work: Work, target: Target, setting: Setting, places: int) -> FloatArray:
    """[programs of the pattern]: how long each runs beside `places` - 1 others like it."""
    rates = unit_rates(target)

    def clocks(d: Demand) -> float:
        return tile_clocks(d, rates, places, work.warps, setting.overlap, target.latency_clk)

    found = np.full(work.visits.pattern, clocks(work.demand.once))
    for p, seen in zip(work.demand.passes, work.visits.passes, strict=True):
        full = clocks(p.full)
        found += full * seen.full
        if seen.partial.any():
            found += (full + (clocks(p.partial) - full) * setting.masked) * seen.partial
    return found


def tile_clocks(
    d: Demand,
    rates: Mapping[Unit, float],
    places: int,
    warps: int,
    overlap: float,
    latency: float,
) -> float:
    """Clocks that a tile takes a program which shares its SM with `places` - 1 others."""
    busy = busy_clocks(d, rates)
    longest = max(busy.values())
    others = sum(busy[u] for u in _VECTOR)
    vector = max(busy[u] for u in _VECTOR)
    phase = max(vector + (1 - overlap) * (others - vector), busy["issue"])
    alone = (busy["tensor"] + phase) * max(1.0, _SCHEDULERS / warps)
    exposed = max(0.0, alone - longest) + d.waits * latency
    return places * longest + (1 - overlap) * exposed
