"""Predict latency, traffic and utilisation of attention on a modelled spatial array.

Counts come from the cascade (points, passes, state), time from the binding: Einsums that a step
binds to different arrays overlap, steps follow each other, and memory overlaps a whole kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from attnc.errors import AttncError
from attnc.runtime.spatial.counts import Cycles, Problem, cycles_1d, cycles_2d, make_problem
from attnc.runtime.spatial.designs import Design, Kernel, Step, load_design
from attnc.runtime.spatial.linear import LinearLayers, linear_layers
from attnc.runtime.spatial.mappings import Found, find_mapping
from attnc.runtime.spatial.models import LENGTHS, Model, load_model, show_length
from attnc.runtime.spatial.traffic import mapped, resident, streamed

# Far beyond what an accelerator holds, and well within what a float counts.
_LONGEST = 1 << 40

Unit: TypeAlias = Literal["2d", "1d"]
Limit: TypeAlias = Literal["2d", "1d", "drain", "memory"]

_UNITS: tuple[Unit, ...] = ("2d", "1d")
_LIMITS: tuple[Limit, ...] = ("2d", "1d", "drain", "memory")


@dataclass(frozen=True, slots=True)
class EinsumTime:
    """One Einsum on its array; `utilisation` is its part of the array's in the whole latency."""

    name: str
    unit: Unit
    cycles: float
    utilisation: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What an attention layer takes on a modelled accelerator.

    cycles, ms:    of attention
    passes:        over the keys, by the cascade
    traffic_bytes: between chip and DRAM; a share of a tensor may spill, so it need not be whole
    utilisation:   of the elements of the 2d and of the 1d array
    limited_ms:    the time in which each of them holds up everything else; it adds up to `ms`
    linear:        the linear layers around it
    """

    design: str
    model: str
    length: int
    passes: int
    cycles: float
    ms: float
    traffic_bytes: float
    utilisation: Mapping[Unit, float]
    limited_ms: Mapping[Limit, float]
    einsums: tuple[EinsumTime, ...]
    linear: LinearLayers

    @property
    def bottleneck(self) -> Limit:
        """What holds up the rest for the longest time."""
        return max(self.limited_ms, key=lambda limit: self.limited_ms[limit])

    @property
    def end_to_end_ms(self) -> float:
        """Attention and the linear layers, one after another."""
        return self.ms + self.linear.seconds * 1e3

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {
            "design": self.design,
            "model": self.model,
            "length": self.length,
            "passes": self.passes,
            "cycles": self.cycles,
            "ms": self.ms,
            "end_to_end_ms": self.end_to_end_ms,
            "bottleneck": self.bottleneck,
            "limited_ms": dict(self.limited_ms),
            "traffic_bytes": self.traffic_bytes,
            "utilisation": dict(self.utilisation),
            "einsums": {
                e.name: {"unit": e.unit, "cycles": e.cycles, "utilisation": e.utilisation}
                for e in self.einsums
            },
        }

    def __str__(self) -> str:
        used = ", ".join(f"{unit} {share:.1%}" for unit, share in self.utilisation.items())
        return (
            f"{self.design}, {self.model} at {show_length(self.length)}: {self.ms:.4g} ms, "
            f"limited by {self.bottleneck}; {self.traffic_bytes:.4g} bytes; used: {used}"
        )


def simulate(design: str, model: str | Model, length: int) -> Prediction:
    """One layer of `model` on the accelerator `design`, with `length` queries and keys.

    Raises AttncError: E841 unknown accelerator, E842 unknown model, E843 a length that is not a
    positive multiple of 256, E844 a shape for which a design's mapping is not known.
    """
    chosen = load_design(design)
    shape = load_model(model) if isinstance(model, str) else model
    _check_length(length, chosen.machine.edge)
    problem = make_problem(chosen.spec, shape, length, chosen.machine.edge)
    found = find_mapping(problem) if chosen.traffic == "mapped" else None
    kernels = [_run(problem, chosen, kernel, found) for kernel in chosen.kernels]
    ms = 1e3 / chosen.machine.clock_hz
    latency = sum(cycles for k in kernels for cycles in k.limited.values())
    limited: dict[Limit, float] = {x: sum(k.limited[x] for k in kernels) * ms for x in _LIMITS}
    placed = [e for k in kernels for e in k.einsums]
    einsums = tuple(
        EinsumTime(e.name, e.unit, e.cycles.taken, e.cycles.busy / latency) for e in placed
    )
    return Prediction(
        design=chosen.name,
        model=shape.name,
        length=length,
        passes=problem.attention.passes.passes,
        cycles=latency,
        ms=latency * ms,
        traffic_bytes=sum(k.traffic_bytes for k in kernels),
        utilisation={u: sum(e.utilisation for e in einsums if e.unit == u) for u in _UNITS},
        limited_ms=limited,
        einsums=einsums,
        linear=linear_layers(shape, length, chosen.machine),
    )


@dataclass(frozen=True, slots=True)
class _Placed:
    """An Einsum on an array."""

    name: str
    unit: Unit
    cycles: Cycles


@dataclass(frozen=True, slots=True)
class _Ran:
    """A kernel: cycles by what limits them, bytes, and its Einsums."""

    limited: Mapping[Limit, float]
    traffic_bytes: float
    einsums: tuple[_Placed, ...]


def _run(problem: Problem, design: Design, kernel: Kernel, found: Found | None) -> _Ran:
    einsums: list[_Placed] = []
    limited: dict[Limit, float] = {limit: 0.0 for limit in _LIMITS}
    for step in kernel.steps:
        placed = _place(problem, design, step, found)
        times = {unit: sum(p.cycles.taken for p in placed if p.unit == unit) for unit in _UNITS}
        slower = max(_UNITS, key=lambda unit: times[unit])
        limited[slower] += times[slower]
        rows = sum(_cycles_2d(problem, design, e, found).taken for e in step.drained)
        limited["drain"] += rows * problem.edge
        einsums += placed
    traffic_bytes = _words(problem, design, kernel, found) * design.machine.word_bytes
    memory = traffic_bytes / design.machine.bytes_per_second * design.machine.clock_hz
    if memory > sum(limited.values()):
        limited = {limit: memory if limit == "memory" else 0.0 for limit in _LIMITS}
    return _Ran(limited, traffic_bytes, tuple(einsums))


def _place(
    problem: Problem, design: Design, step: Step, found: Found | None
) -> tuple[_Placed, ...]:
    return (
        *(_Placed(e, "2d", _cycles_2d(problem, design, e, found)) for e in step.array_2d),
        *(_Placed(e, "1d", cycles_1d(problem, e, design.cycles)) for e in step.array_1d),
    )


def _cycles_2d(problem: Problem, design: Design, einsum: str, found: Found | None) -> Cycles:
    spatial = found.spatial(problem, einsum) if found else design.spatial
    return cycles_2d(problem, einsum, design.cycles, spatial)


def _words(problem: Problem, design: Design, kernel: Kernel, found: Found | None) -> float:
    if found is not None:
        return mapped(problem, kernel, found, design.machine)
    if design.traffic == "resident":
        return resident(problem, kernel, design.machine)
    return streamed(problem, kernel, design)


def _check_length(length: int, edge: int) -> None:
    whole = isinstance(length, int)
    if whole and 0 < length <= _LONGEST and length % edge == 0:
        return
    shown = f" of {length}" if whole and abs(length) <= _LONGEST else ""
    nearest = min(max(edge, (length + edge // 2) // edge * edge), _LONGEST) if whole else LENGTHS[0]
    raise AttncError(
        "E843",
        f"a length{shown} is not modelled: the arrays take {edge} tokens at a time",
        hint=f"{nearest} is" + (", the nearest" if whole else ""),
    )
