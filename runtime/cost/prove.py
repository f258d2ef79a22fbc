"""Prove configurations by compiling them: what spills, or cannot be launched, is out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from attnc.codegen.config import Config, registers_of, widest
from attnc.errors import AttncError
from attnc.ir.plan import SweepStage
from attnc.runtime.cost.calibration import Calibration
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.machine_demand import MachineKernel, Request, compiled_kernels
from attnc.runtime.cost.predict import Kernel, joined_time, kernel_time, planned
from attnc.runtime.cost.prediction import StageTime
from attnc.runtime.cost.split_call import split_call
from attnc.runtime.targets import Target

# Kernels of one stage that are compiled at most, in search of some that do not spill.
_MOST_COMPILED = 24
# After so many that the compiler refused, and none that it took, it will take none.
_MOST_REFUSED = 6
# After a configuration that spilled, only those with the same warps are tried that are estimated to
# need less than this share of its registers.
_LESS = 0.85


@dataclass(frozen=True, slots=True)
class Proof:
    """A configuration that was compiled, and the time that its machine code is predicted to take.

    reason: why it cannot be taken, if it cannot
    """

    config: Config
    time: StageTime | None
    kernel: MachineKernel | None
    reason: str = ""

    @property
    def spills(self) -> int:
        """Bytes per thread."""
        return self.kernel.resources.spills if self.kernel is not None else 0

    @property
    def order(self) -> tuple[float, ...]:
        assert self.time is not None
        return order(self.config, self.time)


def order(config: Config, time: StageTime) -> tuple[float, ...]:
    """The fastest first; among equals what hides more latency, then what takes less room."""
    return (
        rough_ms(time),
        config.splits,
        config.descriptors,
        -min(config.num_stages, 3),
        config.num_stages,
        time.ms.mid,
        config.block_m,
        config.block_n,
    )


def rough_ms(time: StageTime) -> float:
    """Milliseconds to three digits: the model knows no better."""
    return float(f"{time.ms.mid:.3g}")


@dataclass(slots=True)
class Prover:
    """Compiles configurations of a stage until some can be taken.

    boxes: tiles are loaded by tensor descriptors. Calls whose tensors these do not take are left to
    the same kernel without them, and calls with too few keys to be split to one that is not split:
    these are therefore proved, too.
    """

    call: Call
    stage: SweepStage
    target: Target
    calibration: Calibration
    boxes: bool
    tried: dict[Config, Proof] = field(default_factory=dict)
    refused: list[AttncError] = field(default_factory=list)

    def search(self, ranked: Sequence[Config], first: int, wanted: int = 1) -> None:
        """Go down the list: `first` at once, then two by two, until `wanted` are sure.

        If none is with descriptors, the first of them are tried without.

        Raises AttncError E812 where the compiler is absent, E813 where it takes none of them.
        """
        waiting = list(ranked)
        while waiting and len(self.tried) < max(_MOST_COMPILED, 3 * wanted):
            if len(self.sure) >= wanted:
                return
            batch = _varied(waiting, 2 if self.tried else first)
            self._compile([replace(c, descriptors=self.boxes or c.descriptors) for c in batch])
            self._prove_twins(wanted)
            if len(self.refused) == len(self.tried) >= _MOST_REFUSED:
                raise self.refused[0]
            waiting = [c for c in waiting if c not in batch and self._may_fit(c)]
        if self.boxes and not self.sure:
            # loads by pointers keep other things in registers
            boxed = [p.config for p in self.bad if p.config.descriptors]
            self._compile([replace(c, descriptors=False) for c in boxed[:first]])
            self._prove_twins(wanted)

    @property
    def good(self) -> list[Proof]:
        """What can be taken as far as is known, the best first."""
        return sorted((p for p in self.tried.values() if not p.reason), key=lambda p: p.order)

    @property
    def bad(self) -> tuple[Proof, ...]:
        """What cannot be taken, in the order of trial."""
        return tuple(p for p in self.tried.values() if p.reason)

    @property
    def sure(self) -> list[Proof]:
        """What can be taken, the best first."""
        return [p for p in self.good if all(c in self.tried for c in _fallbacks(p.config))]

    def _prove_twins(self, wanted: int) -> None:
        """Of the best with descriptors, or in parts, compile what they fall back to."""
        while (missing := wanted - len(self.sure)) > 0:
            unsure = [p for p in self.good if p not in self.sure][:missing]
            if not unsure:
                return
            self._compile([c for p in unsure for c in _fallbacks(p.config)])
            for p in unsure:
                bad = [c for c in _fallbacks(p.config) if self.tried[c].reason]
                if bad:
                    how = "whole" if bad[0].splits < p.config.splits else "without descriptors"
                    self.tried[p.config] = replace(p, reason=f"{how}, {self.tried[bad[0]].reason}")

    def _may_fit(self, c: Config) -> bool:
        spilled = (s.config for s in self.tried.values() if s.spills)
        bounds = (_LESS * self._registers(s) for s in spilled if s.num_warps == c.num_warps)
        return self._registers(c) < min(bounds, default=float("inf"))

    def _registers(self, c: Config) -> float:
        known = registers_of(self.stage, self.call.plan.cascade)
        width = widest(self.stage, self.call.widths(self.stage))
        return known.estimate(c, width, self.call.itemsize)

    def _compile(self, configs: Sequence[Config]) -> None:
        waiting = [c for c in dict.fromkeys(configs) if c not in self.tried]
        requests = []
        for c in waiting:
            call, ((stage, own), *_) = self._launched(c)
            requests.append(
                Request(
                    call.plan, stage.name, call.extents, call.params, call.dtype, self.target, own
                )
            )
        for c, made in zip(waiting, compiled_kernels(requests), strict=True):
            assert made is not None
            if isinstance(made, AttncError) and made.code == "E812":
                raise made
            self.tried[c] = self._proof(c, made)

    def _launched(self, config: Config) -> tuple[Call, list[tuple[SweepStage, Config]]]:
        """The kernel of the stage; or the one that sweeps in parts, and the one that merges."""
        call, chosen = split_call(self.call, {self.stage.name: config})
        return call, [(s, chosen[s.name]) for s in call.sweeps if s.name in chosen]

    def _proof(self, config: Config, made: MachineKernel | AttncError) -> Proof:
        """What became of a compiled configuration."""
        if isinstance(made, AttncError):
            self.refused.append(made)
            return Proof(config, None, None, made.message)
        call, ((stage, own), *others) = self._launched(config)
        kernels = [(stage, Kernel(own, made.demand, made.resources, True))]
        # what merges has small tiles of its own, which never spill
        kernels += [(s, planned(call, s, self.target, c)) for s, c in others]
        try:
            time = joined_time(
                kernel_time(call, s, self.target, k, "machine code", self.calibration, "own")
                for s, k in kernels
            )
        except AttncError as e:
            if e.code != "E852":
                raise
            return Proof(config, None, made, e.message)
        spills = made.resources.spills
        return Proof(config, time, made, f"it spills {spills} bytes per thread" if spills else "")


def _fallbacks(c: Config) -> tuple[Config, ...]:
    """What a module launches instead where it cannot do as the configuration says."""
    others = (
        replace(c, descriptors=d, splits=n)
        for n in dict.fromkeys((c.splits, 1))
        for d in dict.fromkeys((c.descriptors, False))
    )
    return tuple(x for x in others if x != c)


def _varied(ranked: Sequence[Config], count: int) -> list[Config]:
    """The best few, not of one kind: other tiles, and at least two numbers of warps.

    What makes one spill often makes those like it spill, too.
    """
    found: dict[tuple[int, ...], Config] = {}
    for c in ranked:
        found.setdefault((c.block_m, c.block_n, c.num_warps), c)
    best, *others = found.values()
    other = next((c for c in others if c.num_warps != best.num_warps), None)
    first = [best] if other is None else [best, other]
    return [*first, *(c for c in others if c is not other)][:count]
