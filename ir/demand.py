"""What a kernel asks of each hardware unit: the language in which all fidelities of a cost speak.

It can be counted in the plan or in the machine code of the compiled kernel; the time is worked out
from it in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

Unit: TypeAlias = Literal["tensor", "fma", "alu", "sfu", "shared", "l2", "issue", "waits"]


@dataclass(frozen=True, slots=True)
class Demand:
    """Work of one program (all its warps together).

    tensor:  floating-point operations in matrix units, two per multiply-add
    fma:     single-precision adds, multiplies and multiply-adds, each of a thread
    alu:     integer, logic, compare, select, minimum, conversion and move, each of a thread
    sfu:     exp2, logarithm, reciprocal, root, .. each of a thread
    shared:  bytes read from and written to shared memory
    l2:      bytes that go between the SM and the L2 cache
    issue:   instructions of a warp, of whatever kind; 0 where they were not counted
    waits:   round trips to memory that the program has to sit out: loads that nothing prefetches
    """

    tensor: float = 0.0
    fma: float = 0.0
    alu: float = 0.0
    sfu: float = 0.0
    shared: float = 0.0
    l2: float = 0.0
    issue: float = 0.0
    waits: float = 0.0

    def __add__(self, other: Demand) -> Demand:
        return Demand(*(getattr(self, u) + getattr(other, u) for u in UNITS))

    def __mul__(self, times: float) -> Demand:
        return Demand(*(getattr(self, u) * times for u in UNITS))


UNITS: tuple[Unit, ...] = tuple(f.name for f in fields(Demand))  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class PassDemand:
    """Per visited tile of a sweep: one in which nothing is hidden, and one at a border."""

    full: Demand
    partial: Demand


@dataclass(frozen=True, slots=True)
class KernelDemand:
    """Of one program: `once` before, between and after the sweeps, then per visited tile."""

    once: Demand
    passes: tuple[PassDemand, ...]
