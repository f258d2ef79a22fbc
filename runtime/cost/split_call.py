"""A call whose sweeps are split over programs, as the kernels that it launches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from attnc.codegen.candidates import split_counts
from attnc.codegen.config import Config
from attnc.codegen.split_plan import merge_config
from attnc.ir.plan import Plan, Stage, SweepStage
from attnc.ir.split_sweep import SplitSweep, split_sweep
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.tile_visits import tile_visits


def split_call(call: Call, configs: Mapping[str, Config]) -> tuple[Call, dict[str, Config]]:
    """The call with two stages in place of each that its configuration splits, and theirs.

    As in the launcher of a module, there are no more parts than tiles.
    """
    parts = {s.name: _parts(call, s, configs[s.name]) for s in call.sweeps if s.name in configs}
    asked = tuple(name for name, n in parts.items() if n > 1)
    plan, made = _split_plan(call, asked)
    if not made:
        return call, dict(configs)
    key = ("parts", *(parts[name] for name in made), *made)
    if key not in call.known:
        ranks = {split.merge.swept: parts[name] for name, split in made.items()}
        extents = {**call.extents, **ranks}
        call.known[key] = replace(call, plan=plan, extents=extents, known={})
    chosen = {name: c for name, c in configs.items() if name not in made}
    for name, split in made.items():
        chosen[split.partial.name] = replace(configs[name], permuted=False, splits=1)
        chosen[split.merge.name] = merge_config(parts[name])
    return call.known[key], chosen


def in_parts(
    call: Call, stage: SweepStage, sms: int, configs: Iterable[Config]
) -> Iterator[Config]:
    """The configurations, and the same with sweeps split where programs leave SMs idle."""
    _, made = _split_plan(call, (stage.name,))
    for c in configs:
        programs = tile_visits(call, stage, c).programs if made else sms
        tiles = -(-call.extent(stage.swept) // c.block_n)
        yield from (replace(c, splits=n) for n in split_counts(programs, tiles, sms))


def _parts(call: Call, stage: SweepStage, config: Config) -> int:
    return max(1, min(config.splits, -(-call.extent(stage.swept) // config.block_n)))


def _split_plan(call: Call, asked: tuple[str, ...]) -> tuple[Plan, dict[str, SplitSweep]]:
    """The plan with these stages in parts, as far as they can be; the same one when asked again."""
    key = ("split plan", asked)
    if key not in call.known:
        cascade = call.plan.cascade
        stages: list[Stage] = []
        made: dict[str, SplitSweep] = {}
        for stage in call.plan.stages:
            split = None
            if isinstance(stage, SweepStage) and stage.name in asked:
                split = split_sweep(stage, cascade)
            if split is None:
                stages.append(stage)
            else:
                stages += split.both
                made[stage.name], cascade = split, split.cascade
        plan = replace(call.plan, cascade=cascade, stages=tuple(stages))
        call.known[key] = (plan, made)
    found: tuple[Plan, dict[str, SplitSweep]] = call.known[key]
    return found
