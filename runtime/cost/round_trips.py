"""Round trips to memory that nothing hides, counted along a way through machine code.

Loads that are under way at the same time are one round trip: the first instruction that reads what
one of them brings waits for all. That wait counts unless there is a matrix product between the load
and its reader, or the load belongs to the iteration before: then there was time for it to arrive.
For asynchronous copies the reader is the instruction that waits for their group, for those that
were announced at a barrier the one that waits there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from attnc.runtime.cost.instructions import Instruction
from attnc.runtime.cost.machine_loops import Code, Loop, Step


def round_trips(code: Code, way: Sequence[Step], times: Mapping[int, float]) -> float:
    """Those of one walk along a way. `times`: as of `machine_loops.walk`."""
    return _walk(_State(), code, way, times)


def round_trips_per_iteration(code: Code, loop: Loop, times: Mapping[int, float]) -> float:
    """Those of an iteration of a loop that is under way."""
    state = _State()
    _walk(state, code, loop.way, times)
    state.begin()
    return _walk(state, code, loop.way, times)


@dataclass(slots=True)
class _State:
    """Loads under way: whether each is of this iteration, and how many products came before it."""

    registers: dict[str, int] = field(default_factory=dict)
    groups: list[int] = field(default_factory=list)
    announced: dict[str, list[int]] = field(default_factory=dict)
    open: bool = False
    products: int = 0
    first: int = 0

    def begin(self) -> None:
        """Another iteration starts."""
        self.products += 1
        self.first = self.products

    def run(self, i: Instruction) -> bool:
        """Whether the instruction waits."""
        waited = False
        if any(r in self.registers for r in i.reads):
            waited = any(self._late(self.registers.get(r)) for r in i.reads)
            self.registers.clear()
        if i.awaits is not None:
            done = len(self.groups) - min(i.awaits, len(self.groups))
            waited |= any(map(self._late, self.groups[:done]))
            del self.groups[:done]
        if i.barrier and i.work.l2:
            self.announced.setdefault(i.barrier, []).append(self.products)
        elif copies := self.announced.get(i.barrier):
            waited |= self._late(copies.pop(0))
        self.registers.update(dict.fromkeys(i.fills, self.products))
        self.open |= i.work.l2 > 0 and i.work.shared > 0 and not i.barrier
        if i.commits:
            self.groups.append(self.products if self.open else -1)
            self.open = False
        self.products += i.work.tensor > 0
        return waited

    def _late(self, issued: int | None) -> bool:
        """Whether nothing has passed since a load that was issued at this number of products."""
        return issued is not None and issued >= max(self.first, self.products)


def _walk(state: _State, code: Code, way: Sequence[Step], times: Mapping[int, float]) -> float:
    total = 0.0
    for step in way:
        if not isinstance(step, Loop):
            total += sum(state.run(i) for i in code.blocks[step])
        elif not code.waits(step):
            inner = round_trips_per_iteration(code, step, times)
            total += inner * times.get(step.header, 1)
    return total
