"""Which stages of a plan are split over programs, as their configurations ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from attnc.codegen.config import Chosen, Config
from attnc.codegen.kernel import Kernel
from attnc.ir.plan import Plan, SweepStage
from attnc.ir.split_sweep import SplitSweep, split_sweep

# Parts that are merged at once: their states over a column block are in registers.
MOST_AT_ONCE = 32
MERGE_WARPS = 4


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """A plan, in whose cascade the tensors between partial and merged stages are known.

    stages: the parts of its stages that some configuration splits, by name
    only:   those of them that every configuration splits
    """

    plan: Plan
    stages: Mapping[str, SplitSweep]
    only: frozenset[str]


@dataclass(frozen=True, slots=True)
class SplitKernels:
    """The kernel that sweeps one of the parts, the one that merges what they stored."""

    partial: Kernel
    merge: Kernel

    @property
    def both(self) -> tuple[Kernel, Kernel]:
        return self.partial, self.merge

    @property
    def part(self) -> str:
        """The rank of the parts."""
        return self.merge.stage.swept


def split_plan(plan: Plan, config: Mapping[str, Config], chosen: Sequence[Chosen]) -> SplitPlan:
    """Splits the stages for which that is asked and whose algebra permits it."""
    found: dict[str, SplitSweep] = {}
    cascade = plan.cascade
    for stage in plan.stages:
        asked = isinstance(stage, SweepStage) and any(
            c.splits > 1 for c in _configurations(stage.name, config, chosen)
        )
        made = split_sweep(stage, cascade) if asked and isinstance(stage, SweepStage) else None
        if made is not None:
            found[stage.name] = made
            cascade = made.cascade
    return SplitPlan(replace(plan, cascade=cascade), found, frozenset(found) & config.keys())


def merge_config(parts: int) -> Config:
    """The tile of the kernel that merges so many parts."""
    return Config(1, min(MOST_AT_ONCE, 1 << (parts - 1).bit_length()), MERGE_WARPS, 1)


def _configurations(
    stage: str, config: Mapping[str, Config], chosen: Sequence[Chosen]
) -> Iterator[Config]:
    if stage in config:
        yield config[stage]
    else:
        yield from (x.config for x in chosen if x.stage == stage)
