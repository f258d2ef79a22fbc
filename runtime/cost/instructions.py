"""One machine instruction, as the readers of all instruction sets describe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from attnc.ir.demand import Demand

# next: the following one; branch: that, or `target`; jump: `target`; call: `target`, then the
# following one; end: nowhere.
Flow: TypeAlias = Literal["next", "branch", "jump", "call", "end"]


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction and what one warp asks of the units by it.

    line:     the line of the kernel's module from which it comes; None: of some other file
    labels:   those that stand before it
    fills:    registers that it fills from memory outside the SM, later
    reads:    registers that it reads
    writes:   the first register that it writes; "": none
    sum:      a register and a number whose sum it writes, if that is all it does
    compared: registers that it compares, and a number if it compares them with one
    commits:  closes a group of asynchronous copies to shared memory
    awaits:   waits until at most this many such groups are under way
    barrier:  where arrivals of announced copies are counted: announced here, or waited for
    lone:     one warp runs it for all; if it has no predicate, the whole block of instructions
    guarded:  whether it has a predicate
    spins:    tests whether something has arrived, in a loop until it has
    known:    whether the reader knows the opcode
    """

    opcode: str
    work: Demand
    line: int | None = None
    labels: tuple[str, ...] = ()
    flow: Flow = "next"
    target: str = ""
    fills: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: str = ""
    sum: tuple[str, int] | None = None
    compared: tuple[tuple[str, ...], int | None] | None = None
    commits: bool = False
    awaits: int | None = None
    barrier: str = ""
    lone: bool = False
    guarded: bool = False
    spins: bool = False
    known: bool = True
