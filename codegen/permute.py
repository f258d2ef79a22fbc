"""Which axes of tensors a kernel wants in the order of tiles.

Where a rank's tiles have several axes, or gaps, the tokens of a tile lie apart in memory. A kernel
either gathers them, or a pass before it puts each tile's tokens side by side, and one after it puts
the outputs back.
"""

from __future__ import annotations

from collections.abc import Iterator

from attnc.codegen.prune import all_lets
from attnc.codegen.scope import Scope
from attnc.ir.expr import Index, Read
from attnc.ir.plan import Load, Serial, SweepStage, value_exprs
from attnc.ir.walk import reads


def permuted_axes(stage: SweepStage, scope: Scope) -> frozenset[tuple[str, int]]:
    """The axes at which tensors are only read, or written, at the coordinate of a rank whose tiles
    lie apart: by name of the tensor and number of the axis."""
    apart = {r for r, layout in scope.layouts.items() if not layout.is_flat}
    found: dict[tuple[str, int], bool] = {}
    for read in memory_reads(stage):
        ranks = scope.axes_of(read.tensor)
        for axis, (index, rank) in enumerate(zip(read.indices, ranks, strict=True)):
            plain = index == Index(rank) and rank in apart
            found[read.tensor, axis] = found.get((read.tensor, axis), True) and plain
    return frozenset(at for at, plain in found.items() if plain)


def memory_reads(stage: SweepStage) -> Iterator[Read]:
    """Every place at which a kernel reads or writes a tensor in memory."""
    lets = {let.name for let in all_lets(stage)}
    for let in all_lets(stage):
        if isinstance(let.value, Load):
            yield let.value.read
        elif isinstance(let.value, Serial):
            inside = (r for e in value_exprs(let.value) for r in reads(e))
            yield from (r for r in inside if r.tensor not in lets)
    for store in stage.stores:
        yield Read(store.tensor, tuple(map(Index, store.axes)))
