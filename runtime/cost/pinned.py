"""Configurations of which the user decides a part, or all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from attnc.codegen.candidates import Lack, Limits, lack, smallest_config
from attnc.codegen.config import Config, registers_of, widest
from attnc.errors import AttncError
from attnc.ir.plan import SweepStage
from attnc.runtime.cost.call import Call
from attnc.runtime.targets import Target

# `m`, `n`: rows and swept coordinates of a tile; `warps` of 32 threads; `stages` of loads.
Pins: TypeAlias = Mapping[str, int]
FIELDS = {"m": "block_m", "n": "block_n", "warps": "num_warps", "stages": "num_stages"}
# What Triton takes: places of a tile, threads of a block, depth of a pipeline that anybody has use
# for.
_MOST = {"m": 1024, "n": 1024, "warps": 32, "stages": 8}


def check_pins(pins: Pins) -> None:
    """Raises AttncError E852 for what is no size of a tile, number of warps or stages."""
    for name, value in pins.items():
        if name not in FIELDS:
            raise AttncError(
                "E852", f"`{name[:60]}` is no part of a configuration: {', '.join(FIELDS)} are"
            )
        power = value > 0 and not value & (value - 1)
        if not 1 <= value <= _MOST[name] or not (power or name == "stages"):
            kind = "" if name == "stages" else "power of 2 "
            raise AttncError(
                "E852", f"a configuration cannot have `{name}={value}`: a {kind}up to {_MOST[name]}"
            )


def pins_of(config: Config) -> dict[str, int]:
    """All of a configuration."""
    return {name: getattr(config, field) for name, field in FIELDS.items()}


def pinned(
    call: Call,
    stage: SweepStage,
    target: Target,
    limits: Limits,
    found: Sequence[Config],
    pins: Pins,
) -> tuple[Config, ...]:
    """The candidates that have what is pinned; the one that is meant, if all of it is.

    Raises AttncError E852 where shared memory, which no compiler can save, does not suffice.
    """
    check_pins(pins)
    least = pins_of(smallest_config(stage, limits)) | dict(pins)
    smallest = Config(least["m"], least["n"], least["warps"], least["stages"])
    if (short := lack_of(call, stage, smallest, limits)) and short.resource.endswith("memory"):
        raise AttncError(
            "E852",
            f"{config_text(smallest)} cannot be launched on `{target.name}`: {short}",
            hint="smaller tiles or fewer stages need less",
        )
    if set(pins) == set(FIELDS):
        return (smallest,)
    kept = tuple(c for c in found if pins_of(c) == pins_of(c) | dict(pins))
    return kept or (smallest,)


def too_little(call: Call, stage: SweepStage, limits: Limits) -> str:
    """What even the smallest configuration lacks."""
    smallest = smallest_config(stage, limits)
    return f"{config_text(smallest)}: {lack_of(call, stage, smallest, limits) or 'it fits nowhere'}"


def lack_of(call: Call, stage: SweepStage, config: Config, limits: Limits) -> Lack | None:
    """The resource of which a configuration surely takes too much, if there is one."""
    known, width = registers_of(stage, call.plan.cascade), widest(stage, call.widths(stage))
    return lack(config, known, width, call.itemsize, limits)


def config_text(c: Config) -> str:
    """`128x64, 8 warps, 3 stages, by descriptors`."""
    how = ", by descriptors" if c.descriptors else ""
    how += f", in {c.splits} parts" if c.splits > 1 else ""
    tile = f"{_tile(c.block_m, c.shape_m)}x{_tile(c.block_n, c.shape_n)}"
    return f"{tile}, {c.num_warps} warps, {c.num_stages} stages{how}"


def _tile(block: int, sides: tuple[int, ...] | None) -> str:
    """`128`, or `128 (8 16)`."""
    return f"{block} ({' '.join(map(str, sides))})" if sides else str(block)
