"""The few physical parameters of the time model, each with an interval and its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

Tier: TypeAlias = Literal["specs only", "one sweep"]


@dataclass(frozen=True, slots=True)
class Range:
    """A parameter: its most favourable value for speed, the likeliest, the least favourable."""

    fast: float
    likely: float
    slow: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What no datasheet says.

    tier:     `specs only`: nothing was measured on the device; `one sweep`: fitted to a sweep
    clock:    sustained clock under load, of the target's clock
    memory:   bandwidth that kernels reach, of the target's
    overlap:  of what a lone program could overlap between its units, the share that it does
    masked:   time of a tile at a border, of what its instructions say
    launch:   from one kernel's launch to the next one's, empty kernels, in microseconds
    source:   who measured it, or why these values are assumed
    """

    tier: Tier
    clock: Range
    memory: Range
    overlap: Range
    masked: Range
    launch: Range
    source: str = ""

    def at(self, choose: Callable[[Range], float]) -> Setting:
        """One value per parameter: `at(lambda r: r.likely)`."""
        return Setting(*(choose(getattr(self, name)) for name in PARAMETERS))


@dataclass(frozen=True, slots=True)
class Setting:
    """A value for each parameter of a `Calibration`."""

    clock: float
    memory: float
    overlap: float
    masked: float
    launch: float


PARAMETERS: tuple[str, ...] = tuple(f.name for f in fields(Setting))
