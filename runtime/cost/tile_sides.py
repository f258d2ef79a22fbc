"""The sides of tiles over several axes: which of them make a mask's programs visit least."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import prod

from attnc.codegen.config import Config, tile_sides
from attnc.codegen.tile_lists import listed_visibility
from attnc.ir.geometry.layout import Layout, layouts
from attnc.ir.plan import SweepStage
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.prediction import StageTime

# Sides that differ by more are seldom of use, and there are many of them.
_MOST_ELONGATED = 4
# A shape other than the launcher's has to save so much.
_GAIN = 0.99

Estimate = Callable[[Config], StageTime | None]


def with_sides(
    call: Call, stage: SweepStage, config: Config, time: StageTime, estimate: Estimate
) -> tuple[Config, StageTime]:
    """The configuration with the sides that are predicted to be fastest, one rank after the other.

    As it is where tiles have one axis, or where no other sides save a hundredth.
    """
    seen = listed_visibility(stage, call.plan.cascade)
    if seen is None:
        return config, time
    rows, keys = layouts(seen, call.plan.cascade)
    best = config, time
    for layout, of_rows in ((keys, False), (rows, True)):
        if layout is None or len(layout.axes) < 2:
            continue
        for sides in _alternatives(call, layout, best[0], of_rows):
            c = best[0]
            changed = replace(c, shape_m=sides) if of_rows else replace(c, shape_n=sides)
            found = estimate(changed)
            if found is not None and found.ms.mid < _GAIN * best[1].ms.mid:
                best = changed, found
    return best


def _alternatives(
    call: Call, layout: Layout, config: Config, of_rows: bool
) -> Iterator[tuple[int, ...]]:
    extents = [call.extent(x) for x in layout.coordinates]
    usual = tile_sides(config, of_rows, extents)
    yield from (s for s in side_shapes(prod(usual), extents) if s != usual)


def side_shapes(block: int, extents: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The sides of tiles of `block` places, powers of 2: no longer than the extents need, not too
    elongated."""
    powers = [1 << i for i in range(block.bit_length())]
    choices = [[p for p in powers if p < 2 * max(n, 1)] for n in extents]
    found = (s for s in product(*choices) if prod(s) == block)
    return tuple(s for s in found if max(s) <= _MOST_ELONGATED * min(_free(s, extents)))


def _free(sides: Sequence[int], extents: Sequence[int]) -> list[int]:
    """The sides that could be longer."""
    return [s for s, n in zip(sides, extents, strict=True) if s < n] or [max(sides)]
