"""What a prediction says: times with an interval, what limits them, and what was assumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from attnc.runtime.cost.calibration import Calibration, Setting, Tier

Fidelity: TypeAlias = Literal["tiles", "roofline", "machine code"]


@dataclass(frozen=True, slots=True)
class Interval:
    """Milliseconds: under favourable, likely and unfavourable assumptions."""

    low: float
    mid: float
    high: float

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.mid + other.mid, self.high + other.high)

    def __mul__(self, factor: float) -> Interval:
        return Interval(self.low * factor, self.mid * factor, self.high * factor)

    def to_dict(self) -> dict[str, float]:
        return {"low": self.low, "mid": self.mid, "high": self.high}


def interval(known: Calibration, ms: Callable[[Setting], float]) -> Interval:
    """A time under the favourable, likely and unfavourable values of all parameters."""
    settings = [
        known.at(lambda r: r.fast), known.at(lambda r: r.likely), known.at(lambda r: r.slow)
    ]  # fmt: skip
    # A calibration without intervals needs one evaluation.
    times = {setting: ms(setting) for setting in dict.fromkeys(settings)}
    return Interval(*(times[setting] for setting in settings))


@dataclass(frozen=True, slots=True)
class StageTime:
    """One kernel, torch call or permutation of tokens.

    limit:      what takes longest: a unit (`tensor`, `sfu`, ..), `memory`, `latency`, `launch`
    units:      milliseconds for which each unit is busy, the likely case
    flops:      floating-point operations that the visible points need in matrix products
    traffic:    bytes between DRAM and the chip
    config:     tile sizes, warps, stages, as launched; empty for torch calls
    programs, full, partial:  programs, and tiles that all of them visit
    per_sm:     programs that run at the same time on an SM
    registers, spills, shared_bytes:  of the compiled kernel, None where it was not compiled
    """

    name: str
    family: Literal["sweep", "torch", "permute"]
    ms: Interval
    limit: str
    units: Mapping[str, float]
    flops: float
    traffic: float
    config: Mapping[str, int]
    programs: int = 0
    full: int = 0
    partial: int = 0
    per_sm: int = 0
    registers: int | None = None
    spills: int | None = None
    shared_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The time of one call on a GPU.

    notes: sentences on what a user must know: a compiler that is absent, a shape limited by memory
    """

    name: str
    target: str
    dtype: str
    shape: Mapping[str, int]
    fidelity: Fidelity
    tier: Tier
    stages: tuple[StageTime, ...]
    notes: tuple[str, ...] = ()

    @property
    def ms(self) -> Interval:
        total = Interval(0.0, 0.0, 0.0)
        for s in self.stages:
            total += s.ms
        return total

    @property
    def longest(self) -> StageTime:
        """The stage that takes longest."""
        return max(self.stages, key=lambda s: s.ms.mid)

    @property
    def bottleneck(self) -> str:
        """What limits the stage that takes longest."""
        return self.longest.limit

    @property
    def tflops(self) -> float:
        """TFLOP/s of the visible points, in the likely case."""
        ms = self.ms.mid
        return sum(s.flops for s in self.stages) / ms / 1e9 if ms else 0.0

    @property
    def units(self) -> dict[str, float]:
        """Milliseconds for which each unit is busy."""
        names = dict.fromkeys(u for s in self.stages for u in s.units)
        return {u: sum(s.units.get(u, 0.0) for s in self.stages) for u in names}
