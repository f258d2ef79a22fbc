"""The time of what is no kernel of ours: torch calls, and putting tokens in the order of tiles."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from attnc.codegen.config import Config, permutes_tokens
from attnc.codegen.permute import permuted_axes
from attnc.codegen.scope import Scope
from attnc.codegen.tile_lists import listed_visibility
from attnc.ir.cascade import Reduction
from attnc.ir.expr import Apply
from attnc.ir.geometry.layout import layouts
from attnc.ir.plan import SweepStage, TorchStage
from attnc.ir.walk import iteration_ranks, statement_reads
from attnc.runtime.cost.calibration import Calibration, Setting
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.prediction import Interval, StageTime, interval
from attnc.runtime.cost.timing import peak_flop_per_ms
from attnc.runtime.targets import Target


def torch_time(call: Call, stage: TorchStage, target: Target, known: Calibration) -> StageTime:
    """A torch call, by its roofline: a product of matrices, or operands in and a result out."""
    s = stage.statement
    reads = dict.fromkeys(r.tensor for r in statement_reads(s))
    moved = sum(call.tensor_bytes(t) for t in (*reads, stage.name))
    points = prod(map(call.extent, iteration_ranks(s)))
    match s.reduce, s.expr:
        case Reduction("sum"), Apply("mul", _):
            flops = 2 * points
        case _:
            flops = 0
    units = {
        "tensor": flops / peak_flop_per_ms(target),
        "memory": moved / target.memory_bytes_per_second * 1e3,
    }
    ms = _times(known, units)
    return StageTime(stage.name, "torch", ms, _limit(units, known), units, flops, moved, {})


def permutation_time(
    call: Call, stage: SweepStage, target: Target, config: Config, known: Calibration
) -> Iterator[StageTime]:
    """Tokens put in the order of tiles before a kernel, and back after it, if its launcher does."""
    permutes = permutes_tokens(stage) if config.permuted is None else config.permuted
    cascade = call.plan.cascade
    seen = listed_visibility(stage, cascade)
    if not permutes or seen is None:
        return
    shapes = {x.rank: x for x in layouts(seen, cascade) if x is not None}
    scope = Scope(cascade, stage, {}, shapes)
    tensors = sorted({t for t, _ in permuted_axes(stage, scope)})
    if tensors:
        # read once and written once
        moved = 2 * sum(map(call.tensor_bytes, tensors))
        units = {"memory": moved / target.memory_bytes_per_second * 1e3}
        ms = _times(known, units, len(tensors))
        name = f"{stage.name}: order of tokens"
        yield StageTime(name, "permute", ms, _limit(units, known), units, 0.0, moved, {})


def _times(known: Calibration, units: dict[str, float], launches: int = 1) -> Interval:
    def ms(setting: Setting) -> float:
        busy = max(units.get("tensor", 0.0) / setting.clock, units["memory"] / setting.memory)
        return busy + launches * setting.launch * 1e-3

    return interval(known, ms)


def _limit(units: dict[str, float], known: Calibration) -> str:
    longest = max(units, key=lambda u: units[u])
    return "launch" if known.launch.likely * 1e-3 > units[longest] else longest
