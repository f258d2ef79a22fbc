"""How a machine loop counts: the registers that grow by a number in each iteration and are tested.

From them follows how many iterations of the source's loop one of the machine's is, where the
compiler unrolled it, and how often a loop with a constant end goes round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attnc.runtime.cost.instructions import Instruction
from attnc.runtime.cost.machine_loops import Code, Loop


def unrolled(code: Code, loop: Loop, step: int, most: int) -> int:
    """How many iterations of a source loop with this step one machine iteration is, up to `most`:
    1 unless every counter grows by more."""
    steps = {abs(c.step) for c in _counters(code, loop)}
    if step in steps:
        return 1
    return max((n for n in range(1, most + 1) if n * step in steps), default=1)


def iterations(code: Code, loop: Loop, count: int) -> int:
    """How often a machine loop goes round that does what a source loop does `count` times: that,
    or a divisor of it that a comparison of a counter with a number tells."""
    found = [
        abs(c.end) // abs(c.step)
        for c in _counters(code, loop)
        if c.end is not None and c.end % c.step == 0
    ]
    return next((n for n in found if n and count % n == 0), count)


@dataclass(frozen=True, slots=True)
class _Counter:
    """A register that grows by `step` and is compared, with the number `end` if with one."""

    step: int
    end: int | None


def _counters(code: Code, loop: Loop) -> Iterator[_Counter]:
    """Follows, along an iteration, what each register holds: a register's old value plus a number,
    as far as that is known."""
    holds: dict[str, tuple[str, int] | None] = {}
    tests: list[tuple[str, int | None]] = []
    for i in _instructions(code, loop):
        if i.compared is not None:
            registers, end = i.compared
            known = (holds.get(r, (r, 0)) for r in registers)
            tests += [(x[0], end) for x in known if x is not None]
        if i.writes:
            source = None if i.sum is None else holds.get(i.sum[0], (i.sum[0], 0))
            holds[i.writes] = (
                None if source is None or i.sum is None else (source[0], source[1] + i.sum[1])
            )
    for register, end in tests:
        after = holds.get(register)
        if after is not None and after[0] == register and after[1]:
            yield _Counter(after[1], end)


def _instructions(code: Code, loop: Loop) -> Iterator[Instruction]:
    for step in loop.way:
        if not isinstance(step, Loop):
            yield from code.blocks[step]
