"""What a compiled kernel asks of each unit, read in its machine code.

The loops of the machine code are found from its jumps, and tied to the `for` loops of the emitted
source by the lines that the instructions come from. One machine iteration may be several tiles: as
many as the matrix products of a tile go into its own. What stands outside the loops counts once
per program, less the tiles that are there because a pipeline begins or ends with them.

Of what goes between an SM and the L2 cache the code only tells a bound: lanes may hold copies of an
element. There the plan's count of a tile's bytes is taken if it is less; once per program, always,
since stores by tensor descriptors do not tell their size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from attnc.codegen.spread import MatrixUnit
from attnc.codegen.visits import VisitKind
from attnc.errors import AttncError
from attnc.ir.demand import Demand, KernelDemand, PassDemand
from attnc.runtime.cost.amdgcn import read_amdgcn
from attnc.runtime.cost.instructions import Instruction
from attnc.runtime.cost.loop_counters import iterations, unrolled
from attnc.runtime.cost.machine_loops import Code, Loop, block_work, find_loops, walk
from attnc.runtime.cost.round_trips import round_trips, round_trips_per_iteration
from attnc.runtime.cost.sass import read_sass
from attnc.runtime.cost.source_loops import (
    SourceLoop,
    loop_pairs,
    machine_loops_of,
    source_loops,
)
from attnc.runtime.machine_code import CompiledKernel, machine_code


@dataclass(frozen=True, slots=True)
class EmittedKernel:
    """What is known of a kernel before it is compiled.

    path, source: the module in which it stands
    kinds:        which loops each of its passes has
    products:     floating-point operations in matrix products per tile, for each pass
    numbers:      values of its parameters
    planned:      what the plan says that it asks for
    """

    name: str
    path: str
    source: str
    kinds: tuple[VisitKind, ...]
    products: tuple[float, ...]
    numbers: Mapping[str, int]
    planned: KernelDemand


@dataclass(frozen=True, slots=True)
class MachineCounts:
    """What is read in a kernel's machine code.

    unit:    what runs its matrix products, most of them if they differ
    unknown: opcodes that the reader does not know: counted as `alu`
    """

    demand: KernelDemand
    unit: MatrixUnit
    unknown: tuple[str, ...]


def count_kernel(kernel: CompiledKernel, emitted: EmittedKernel) -> MachineCounts:
    """Per tile of each pass and once per program; raises E813 for a loop that is not found."""
    text = machine_code(kernel, lines=True)
    read = read_amdgcn if kernel.target.backend == "hip" else read_sass
    instructions = read(text, emitted.path)
    warps = kernel.resources.threads // kernel.target.warp_size
    counter = _Counter(find_loops(instructions), warps, emitted)
    unknown = sorted({i.opcode for i in instructions if not i.known})
    return MachineCounts(counter.kernel(), _matrix_unit(instructions), tuple(unknown))


def _matrix_unit(instructions: Iterable[Instruction]) -> MatrixUnit:
    done: Counter[MatrixUnit] = Counter()
    for i in instructions:
        if i.work.tensor:
            group: MatrixUnit = "warpgroup" if "GMMA" in i.opcode else "warp"
            done["block" if i.lone else group] += int(i.work.tensor)
    return max(done, key=done.__getitem__) if done else None


@dataclass(slots=True)
class _Counter:
    code: Code
    warps: int
    emitted: EmittedKernel

    def kernel(self) -> KernelDemand:
        loops = source_loops(self.emitted.source, self.emitted.name)
        machine = machine_loops_of(self.code, loops)
        skipped = {m.header: 0.0 for found in machine.values() for m in found}
        once = walk(self.code, self.code.way, self.warps, skipped)
        passes: list[PassDemand] = []
        for n, (full, partial) in enumerate(loop_pairs(loops, self.emitted.kinds)):
            products, planned = self.emitted.products[n], self.emitted.planned.passes[n]
            tiles = {x: self._tile(x, machine[x], products) for x in (full, partial)}
            for loop, tile in tiles.items():
                once = _less(once, self._outside(loop, tile))
            passes.append(
                PassDemand(
                    _fetched_once(tiles[full], planned.full),
                    _fetched_once(tiles[partial], planned.partial),
                )
            )
        waits = round_trips(self.code, self.code.way, skipped)
        once = replace(once, waits=waits, l2=self.emitted.planned.once.l2)
        return KernelDemand(once, tuple(passes))

    def _tile(self, loop: SourceLoop, found: Sequence[Loop], products: float) -> Demand:
        """Per tile: of several machine loops of one source loop the one that does most at once."""
        if not found:
            raise AttncError(
                "E813",
                f"kernel `{self.emitted.name}`: line {loop.first} has no loop in the machine code",
            )
        made = [self._iteration(loop, x) for x in found]
        most, machine = max(
            zip(made, found, strict=True), key=lambda pair: (pair[0].tensor, pair[0].issue)
        )
        return most * (1 / self._tiles_at_once(loop, machine, most, products))

    def _iteration(self, loop: SourceLoop, machine: Loop) -> Demand:
        times = self._times(loop, machine)
        waits = round_trips_per_iteration(self.code, machine, times)
        return replace(walk(self.code, machine.way, self.warps, times), waits=waits)

    def _tiles_at_once(self, loop: SourceLoop, machine: Loop, work: Demand, products: float) -> int:
        """No more than its products are of: in matrix units, else multiply-adds. They may be of
        fewer, since small tiles are computed by several warps each."""
        done = work.tensor or 2 * work.fma
        most = int(done / products + 1e-6) if products else 1
        return unrolled(self.code, machine, self._number(loop.step), most) if most > 1 else 1

    def _times(self, loop: SourceLoop, machine: Loop) -> dict[int, float]:
        """How often the loops inside an iteration go round, by their headers."""
        within = Code(self.code.blocks, machine.way, self.code.calls)
        found: dict[int, float] = {}
        for inner, loops in machine_loops_of(within, loop.inner).items():
            count = 1 if inner.count is None else self._number(inner.count)
            for x in loops:
                found |= self._times(inner, x) | {x.header: iterations(self.code, x, count)}
        return found

    def _number(self, text: str) -> int:
        """A number, or a parameter that is one."""
        return int(text) if text.isdecimal() else self.emitted.numbers[text]

    def _outside(self, loop: SourceLoop, tile: Demand) -> Demand:
        """What stands outside a loop of its tiles: all products of its lines, for which those in
        the loop are skipped or done less often; the rest of as many tiles as these are."""
        found = sum(
            work.tensor
            for step in self.code.way
            if not isinstance(step, Loop)
            for i, work in block_work(self.code, step, self.warps)
            if i.line is not None and loop.covers(i.line)
        )
        whole = int(found / tile.tensor + 1e-6) if tile.tensor else 0
        return replace(tile * whole, tensor=found)


def _fetched_once(tile: Demand, planned: Demand) -> Demand:
    """Lanes that hold copies of an element find it in the L1 cache."""
    return replace(tile, l2=min(tile.l2, planned.l2))


def _less(a: Demand, b: Demand) -> Demand:
    return Demand(*(max(0.0, getattr(a, f.name) - getattr(b, f.name)) for f in fields(Demand)))
