"""What a tile asks of each unit, against arithmetic by hand and against what must always hold."""

from __future__ import annotations

from functools import cache

from attnc import library
from attnc.codegen.config import Config
from attnc.codegen.spread import MatrixUnit
from attnc.codegen.tile_demand import kernel_demand
from attnc.dsl import load_text
from attnc.ir.demand import KernelDemand
from attnc.ir.pipeline import plan
from attnc.ir.plan import Plan, SweepStage

CONFIG = Config(128, 64, 8, 2)


@cache
def planned(name: str) -> Plan:
    return plan(load_text(*library.resolve(name)))


def demands(
    name: str,
    config: Config = CONFIG,
    width: int = 64,
    itemsize: int = 2,
    unit: MatrixUnit = "warpgroup",
) -> list[KernelDemand]:
    """Of each kernel, with feature ranks of `width`."""
    made = planned(name)
    stages = [s for s in made.stages if isinstance(s, SweepStage)]
    return [
        kernel_demand(
            s, made.cascade, config, {r: width for r in (*s.inner, *s.columns)}, itemsize, unit
        )
        for s in stages
    ]


def test_a_full_tile_of_causal_attention_by_hand() -> None:
    """Per thread of 256: 32 points in 2 rows of 16, and 32 elements of the accumulator."""
    (found,) = demands("causal")
    full = found.passes[0].full
    assert full.tensor == 2 * 128 * 64 * (64 + 64)
    # exp2 of each point, and of how far each row moves
    assert full.sfu == 256 * (32 + 2)
    # per point (score - base) * scale and a sum; two exchanges per row in place of one sum;
    # per row how far it moves (2), z * rescale + tile (1); the accumulator rescaled
    assert full.fma == 256 * (2 * 32 + 32 + 2 * (2 - 1) + 2 * 3 + 32)
    # a maximum per point, exchanged; per row the larger, two for the base; weights packed in pairs
    assert full.alu == 256 * (32 + 2 * (2 - 1) + 2 * 3 + 16)
    assert full.l2 == 2 * 64 * 64 * 2
    # two warpgroups read all keys and all values; each reads its half of the queries; tiles stored
    exchanged = 256 * 2 * 2 * 2 * 4
    assert full.shared == 2 * (2 * 64 * 64 * 2 + 128 * 64 + 2 * 64 * 64) + exchanged
    assert full.waits == 0 and full.issue == 0


def test_a_border_tile_asks_for_its_mask_and_waits() -> None:
    (found,) = demands("causal")
    full, partial = found.passes[0].full, found.passes[0].partial
    assert (partial.tensor, partial.sfu, partial.l2) == (full.tensor, full.sfu, full.l2)
    assert partial.alu > full.alu + 2 * 128 * 64
    assert partial.waits == 1
