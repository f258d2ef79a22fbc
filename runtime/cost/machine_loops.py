"""The loops of a kernel's machine code, found from its jumps, and the way through each iteration.

Of branches that meet again the way with more instructions is taken: work that a condition may
skip counts as done, and of two alternatives the longer one, in which a loop counts as so many
rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from attnc.ir.demand import Demand
from attnc.runtime.cost.instructions import Instruction

# As how many rounds a loop counts where ways are compared: any that is more than a few.
ROUNDS = 16


@dataclass(frozen=True, slots=True)
class Loop:
    """A machine loop: the numbers of its blocks, inner loops' included, and its inner loops.

    way: the blocks and inner loops of one iteration, in order
    """

    header: int
    blocks: frozenset[int]
    way: tuple[Step, ...]

    @property
    def inner(self) -> tuple[Loop, ...]:
        """The loops on the way through an iteration."""
        return tuple(x for x in self.way if isinstance(x, Loop))


Step: TypeAlias = "int | Loop"


@dataclass(frozen=True, slots=True)
class Code:
    """A kernel's blocks of instructions that run one after the other, and the way through them.

    way:   blocks and loops from the entry to the end
    calls: the blocks of a subroutine by its label
    """

    blocks: tuple[tuple[Instruction, ...], ...]
    way: tuple[Step, ...]
    calls: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def loops(self) -> Iterator[Loop]:
        """The loops that are in no other loop, in order, waiting loops aside."""
        yield from (x for x in self.way if isinstance(x, Loop) and not self.waits(x))

    def instructions(self, loop: Loop) -> Iterator[Instruction]:
        """All instructions of a loop, those of inner loops and of ways not taken included."""
        for b in sorted(loop.blocks):
            yield from self.blocks[b]

    def waits(self, loop: Loop) -> bool:
        """Whether it only tests again and again whether something has arrived."""
        found = list(self.instructions(loop))
        idle = all(i.work == Demand(issue=i.work.issue) for i in found)
        return idle and any(i.spins for i in found)


def find_loops(instructions: Sequence[Instruction]) -> Code:
    """The blocks, loops and ways of a kernel that starts with the first instruction."""
    blocks = _blocks(instructions)
    at = {label: n for n, b in enumerate(blocks) for label in b[0].labels}
    after = {n: _followers(n, blocks, at) for n in range(len(blocks))}
    called = {i.target for b in blocks for i in b if i.flow == "call"}
    calls = {x: tuple(_reached(at[x], after)) for x in called if x in at}
    code = Code(blocks, (), calls)
    return replace(code, way=_Ways(code, after).kernel())


def _blocks(instructions: Sequence[Instruction]) -> tuple[tuple[Instruction, ...], ...]:
    found: list[list[Instruction]] = []
    opened = False
    for i in instructions:
        if not opened or i.labels:
            found.append([])
        found[-1].append(i)
        opened = i.flow in ("next", "call")
    return tuple(map(tuple, found))


def _followers(
    n: int, blocks: Sequence[Sequence[Instruction]], at: Mapping[str, int]
) -> tuple[int, ...]:
    last = blocks[n][-1]
    found = []
    if last.flow in ("branch", "jump") and last.target in at:
        found.append(at[last.target])
    if last.flow in ("next", "branch", "call") and n + 1 < len(blocks):
        found.append(n + 1)
    return tuple(dict.fromkeys(found))


def _reached(start: int, after: Mapping[int, Iterable[int]]) -> list[int]:
    """What can be reached, each block before those that follow it (loops aside)."""
    order: list[int] = []
    seen = {start}
    stack: list[tuple[int, Iterator[int]]] = [(start, iter(after[start]))]
    while stack:
        n, rest = stack[-1]
        for m in rest:
            if m not in seen:
                seen.add(m)
                stack.append((m, iter(after[m])))
                break
        else:
            order.append(n)
            stack.pop()
    return order[::-1]


def _dominators(order: Sequence[int], before: Mapping[int, list[int]]) -> dict[int, set[int]]:
    """For each block those that every way to it passes, itself included."""
    every = set(order)
    found = {n: every for n in order}
    found[order[0]] = {order[0]}
    changed = True
    while changed:
        changed = False
        for n in order[1:]:
            new = set.intersection(*(found[m] for m in before[n])) | {n}
            changed |= new != found[n]
            found[n] = new
    return found


class _Ways:
    """Finds natural loops (Aho, Lam, Sethi, Ullman, section 9.6) and the ways through them."""

    def __init__(self, code: Code, after: Mapping[int, tuple[int, ...]]) -> None:
        self.code, self.after = code, after
        self.order = _reached(0, after)
        self.before: dict[int, list[int]] = {n: [] for n in self.order}
        for n in self.order:
            for m in after[n]:
                self.before[m].append(n)
        dominators = _dominators(self.order, self.before)
        self.members: dict[int, set[int]] = {}
        for n in self.order:
            for header in (m for m in after[n] if m in dominators[n]):
                self.members.setdefault(header, {header}).update(self._body(n, header))

    def _body(self, end: int, header: int) -> set[int]:
        """The blocks from which `end` is reached without passing the header."""
        found, stack = {header, end}, [end]
        while stack:
            n = stack.pop()
            new = [m for m in self.before[n] if n != header and m not in found]
            found.update(new)
            stack += new
        return found

    def kernel(self) -> tuple[Step, ...]:
        return self._way(self.order[0], set(self.order), None)[0]

    def _loop(self, header: int) -> tuple[Loop, int]:
        members = self.members[header]
        way, weight = self._way(header, members, header)
        return Loop(header, frozenset(members), way), ROUNDS * weight

    def _way(
        self, entry: int, region: set[int], header: int | None
    ) -> tuple[tuple[Step, ...], int]:
        """The longest way through a region, and how many instructions it has.

        `header`: that of the loop whose iteration it is: the way ends where it goes back there.
        """
        steps = {n: self._step(n, region, header) for n in self.order if n in region}
        heads = {n for n, step in steps.items() if step is not None}
        owner = {b: n for n in heads for b in self._inside(n, steps[n])}
        best: dict[int, tuple[int, int | None]] = {entry: (0, None)}
        ends: list[tuple[int, int]] = []
        for n in (n for n in self.order if n in heads and n in best):
            step = steps[n]
            assert step is not None
            total = best[n][0] + step[1]
            targets = {m for b in self._inside(n, step) for m in self.after[b]}
            if header in targets or not targets:
                ends.append((total, n))
            for m in targets:
                if m == header or m not in region or owner[m] == n:
                    continue
                if total > best.get(owner[m], (-1, None))[0]:
                    best[owner[m]] = (total, n)
        weight, at = max(ends, default=(0, entry))
        way: list[Step] = []
        node: int | None = at
        while node is not None:
            step = steps[node]
            assert step is not None
            way.append(step[0])
            node = best[node][1]
        return tuple(way[::-1]), weight

    def _step(self, n: int, region: set[int], header: int | None) -> tuple[Step, int] | None:
        """A block or an inner loop of a region, and its instructions; None inside a loop."""
        inner = [h for h, m in self.members.items() if n in m and h != header and m <= region]
        if not inner:
            return n, len(self.code.blocks[n])
        outer = max(inner, key=lambda h: len(self.members[h]))
        return self._loop(n) if outer == n else None

    def _inside(self, n: int, step: tuple[Step, int] | None) -> Iterable[int]:
        return step[0].blocks if step is not None and isinstance(step[0], Loop) else (n,)


def walk(code: Code, way: Sequence[Step], warps: int, times: Mapping[int, float]) -> Demand:
    """The work of one walk along a way, waits aside.

    `times`: how often the loops with these headers go round; those that are absent go once, and
    those that only wait not at all.
    """
    total = Demand()
    for step in way:
        if not isinstance(step, Loop):
            total += sum((w for _, w in block_work(code, step, warps)), Demand())
        elif not code.waits(step):
            total += walk(code, step.way, warps, times) * times.get(step.header, 1)
    return total


def block_work(code: Code, n: int, warps: int) -> Iterator[tuple[Instruction, Demand]]:
    """The instructions of a block and what all warps of a program ask for by each."""
    alone = any(i.lone and not i.guarded for i in code.blocks[n])
    for i in code.blocks[n]:
        work = i.work
        if i.flow == "call":
            inside = (x.work for b in code.calls.get(i.target, ()) for x in code.blocks[b])
            work = sum(inside, work)
        yield i, work if alone or i.lone else work * warps
