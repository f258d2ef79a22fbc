"""Words that a kernel moves between chip and DRAM.

Three ways to hold tensors: a block of rows stays while the keys stream past (FuseMax), a mapping
says what stays (FLAT), or nothing does (unfused).
"""

from __future__ import annotations

from attnc.errors import AttncError
from attnc.runtime.spatial.counts import ROWS, Attention, Problem
from attnc.runtime.spatial.designs import Design, Kernel, Machine
from attnc.runtime.spatial.mappings import Found


def resident(problem: Problem, kernel: Kernel, machine: Machine) -> float:
    """Words moved if a block of rows, as large as fits, meets all keys, pass after pass.

    What is shared by all rows is read again for each block and in each pass; all else moves once.
    """
    attention = problem.attention
    inputs = [t.name for t in attention.cascade.inputs]
    shared = [t for t in inputs if ROWS not in attention.ranks[t]]
    once = [t for t in inputs if t not in shared] + list(attention.cascade.outputs)
    row_tiles = problem.extents[ROWS] // problem.edge
    blocks = row_tiles // _block(problem, kernel, machine, shared, row_tiles)
    again = sum(problem.size(t) * attention.passes.tensor(t).passes for t in shared)
    return sum(map(problem.size, once)) + blocks * again


def _block(
    problem: Problem, kernel: Kernel, machine: Machine, shared: list[str], row_tiles: int
) -> int:
    """Tiles of rows per block: as many as fit, and a divisor of all."""
    tile_bytes = machine.word_bytes * problem.edge
    row_words = sum(map(problem.tile_of_row, _held(problem.attention, kernel)))
    streamed_bytes = machine.word_bytes * sum(map(problem.tile_of_row, shared))
    fitting = (machine.buffer_bytes - streamed_bytes) // (tile_bytes * row_words)
    if fitting < 1:
        needed = (tile_bytes * row_words + streamed_bytes) / 2**20
        raise AttncError(
            "E844",
            f"one tile needs {needed:.1f} MiB on chip, there are {machine.buffer_bytes >> 20} MiB",
            hint="model a smaller head dimension",
        )
    return next(k for k in range(min(row_tiles, fitting), 0, -1) if row_tiles % k == 0)


def _held(attention: Attention, kernel: Kernel) -> list[str]:
    """What a resident row needs: its inputs, its state, and tiles on the way between the arrays.

    A tile's summaries (its maxima, its sums) are consumed as they appear.
    """
    inputs = [t.name for t in attention.cascade.inputs if ROWS in attention.ranks[t.name]]
    state = [t.tensor for t in attention.passes.tensors if t.state]
    on_1d = set(kernel.on_1d())
    crossing = [
        t
        for t in attention.einsums
        if {ROWS, "n0"} <= set(attention.ranks[t])
        and any(
            (t in on_1d) != (reader in on_1d)
            for reader in attention.einsums
            if t in attention.operands(reader)
        )
    ]
    return inputs + state + crossing


def streamed(problem: Problem, kernel: Kernel, design: Design) -> float:
    """Words moved if a kernel reads its operands from DRAM and writes its results there."""
    operands, results = _boundary(problem.attention, kernel.einsums())
    read = sum(problem.size(t) * _rereads(problem, t, design) for t in operands)
    return read + sum(map(problem.size, results))


def _rereads(problem: Problem, tensor: str, design: Design) -> int:
    """How often an operand is read: once if all rows have their own, or if half the buffer does."""
    ranks = problem.attention.ranks[tensor]
    size = problem.of_a_head(tensor, 1) * design.machine.word_bytes
    if ROWS in ranks or size <= design.machine.buffer_bytes // 2:
        return 1
    width = problem.extents[ranks[-1]]
    if width not in design.rereads:
        known = " and ".join(map(str, design.rereads))
        fitting = design.machine.buffer_bytes >> 21
        raise AttncError(
            "E844",
            f"how often {design.name} reads `{tensor}` again is not known for a width of {width}",
            hint=f"known are {known}; up to {fitting} MiB per head it is read once",
        )
    return design.rereads[width]


def mapped(problem: Problem, kernel: Kernel, found: Found, machine: Machine) -> float:
    """Words moved under a mapping of FLAT: by the two products, and by the softmax between."""
    attention = problem.attention
    products = [t for t in kernel.einsums() if t not in kernel.on_1d()]
    moved = 0.0
    for product in products:
        for tensor in attention.operands(product):
            times = found.times(problem, product, tensor)
            moved += _of_product(problem, tensor, times, found)
        # A partial result is read back before it is written again.
        writes = found.times(problem, product, product)
        moved += _of_product(problem, product, 2 * writes - 1, found)
    return moved + _between(problem, kernel, products[0], found, machine)


def _of_product(problem: Problem, tensor: str, times: int, found: Found) -> float:
    """Words for `times` visits of a tensor: all of them off chip, else those of what spills."""
    size = problem.size(tensor)
    if tensor not in found.on_chip:
        return size * times
    cascade = problem.attention.cascade
    outside = tensor in cascade.input_names or tensor in cascade.outputs
    return (size * (1 - found.spilled) if outside else 0) + found.spilled * size * times


def _between(
    problem: Problem, kernel: Kernel, scores: str, found: Found, machine: Machine
) -> float:
    """Words moved by the 1d array, which visits whole rows of scores, pass after pass."""
    needed, again = _row_visits(problem.attention, kernel.on_1d())
    size = problem.size(scores)
    if scores in found.on_chip:
        return (needed + again) * found.spilled * size
    held = sum(problem.of_a_head(t, found.rows) for t in found.on_chip)
    free = machine.buffer_bytes - machine.word_bytes * held
    kept = min(1.0, free / (machine.word_bytes * problem.of_a_head(scores, 1)))
    return needed * size + again * size * (1 - kept)


def _row_visits(attention: Attention, einsums: tuple[str, ...]) -> tuple[int, int]:
    """How many times all scores are read or written: at least, and more if no row stays on chip.

    Within a pass Einsums share what they visit; from one pass to the next a row is read again.
    """
    operands, results = (
        [t for t in tensors if attention.is_whole(t)] for tensors in _boundary(attention, einsums)
    )
    read = {
        (t, attention.level(e))
        for e in einsums
        for t in attention.operands(e)
        if attention.is_whole(t) and not (t in einsums and attention.level(t) == attention.level(e))
    }
    written = {t for t, _ in read if t in einsums} | set(results)
    needed = len(operands) + len(results)
    return needed, len(read) + len(written) - needed


def _boundary(
    attention: Attention, einsums: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What some Einsums read of others or of the inputs, and what they hand on."""
    read = dict.fromkeys(t for e in einsums for t in attention.operands(e))
    elsewhere = {
        t for e in attention.einsums if e not in einsums for t in attention.operands(e)
    } | set(attention.cascade.outputs)
    return tuple(t for t in read if t not in einsums), tuple(t for t in einsums if t in elsewhere)
