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
from attnc.runtime.cost.predict import Kernel, kernel_time
from attnc.runtime.cost.prediction import StageTime
from attnc.runtime.targets import Target

# Kernels of one stage that are compiled at most, in search of some that do not spill.
_MOST_COMPILED = 24
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
    the same kernel without them, which is therefore proved, too.
    """

    call: Call
    stage: SweepStage
    target: Target
    calibration: Calibration
    boxes: bool
    tried: dict[Config, Proof] = field(default_factory=dict)

    def search(self, ranked: Sequence[Config], first: int, wanted: int = 1) -> None:
        """Go down the list: `first` at once, then two by two, until `wanted` are sure.

        Raises AttncError E812 where the compiler is absent.
        """
        waiting = list(ranked)
        while waiting and len(self.tried) < max(_MOST_COMPILED, 3 * wanted):
            if len(self.sure) >= wanted:
                return
            batch = _varied(waiting, 2 if self.tried else first)
            self._compile([replace(c, descriptors=self.boxes or c.descriptors) for c in batch])
            self._prove_twins(wanted)
            waiting = [c for c in waiting if c not in batch and self._may_fit(c)]

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
        return [p for p in self.good if not p.config.descriptors or _plain(p.config) in self.tried]

    def _prove_twins(self, wanted: int) -> None:
        """Of the best with descriptors, compile what they fall back to."""
        while (missing := wanted - len(self.sure)) > 0:
            boxed = [p for p in self.good if p not in self.sure][:missing]
            if not boxed:
                return
            self._compile([_plain(p.config) for p in boxed])
            for p in boxed:
                if reason := self.tried[_plain(p.config)].reason:
                    self.tried[p.config] = replace(p, reason=f"without descriptors, {reason}")

    def _may_fit(self, c: Config) -> bool:
        spilled = (s.config for s in self.tried.values() if s.spills)
        bounds = (_LESS * self._registers(s) for s in spilled if s.num_warps == c.num_warps)
        return self._registers(c) < min(bounds, default=float("inf"))

    def _registers(self, c: Config) -> float:
        known = registers_of(self.stage, self.call.plan.cascade)
        width = widest(self.stage, self.call.widths(self.stage))
        return known.estimate(c, width, self.call.itemsize)

    def _compile(self, configs: Sequence[Config]) -> None:
        call, stage, target = self.call, self.stage, self.target
        requests = [
            Request(call.plan, stage.name, call.extents, call.params, call.dtype, target, c)
            for c in configs
            if c not in self.tried
        ]
        for request, made in zip(requests, compiled_kernels(requests), strict=True):
            assert made is not None
            if isinstance(made, AttncError) and made.code == "E812":
                raise made
            self.tried[request.config] = self._proof(request.config, made)

    def _proof(self, config: Config, made: MachineKernel | AttncError) -> Proof:
        """What became of a compiled configuration."""
        if isinstance(made, AttncError):
            return Proof(config, None, None, made.message)
        kernel = Kernel(config, made.demand, made.resources, True)
        try:
            time = kernel_time(
                self.call, self.stage, self.target, kernel, "machine code", self.calibration, "own"
            )
        except AttncError as e:
            if e.code != "E852":
                raise
            return Proof(config, None, made, e.message)
        spills = made.resources.spills
        return Proof(config, time, made, f"it spills {spills} bytes per thread" if spills else "")


def _plain(c: Config) -> Config:
    return replace(c, descriptors=False)


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
