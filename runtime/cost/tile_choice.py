"""Choose a kernel's configuration for a GPU that need not be there.

All configurations that may fit are ranked by the cost model with what the plan says. The best few
are compiled: what spills, or cannot be launched, is out, and the others are ranked again with what
their machine code says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnc.codegen.candidates import Limits, candidates
from attnc.codegen.config import Config
from attnc.errors import AttncError
from attnc.ir.plan import SweepStage
from attnc.runtime.cost.calibration import Calibration, Tier, specs_only
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.machine_demand import MachineKernel, Request, compiled_kernels
from attnc.runtime.cost.pinned import Pins, config_text, pinned, too_little
from attnc.runtime.cost.predict import Kernel, check_memory, estimate, kernel_time
from attnc.runtime.cost.prediction import StageTime
from attnc.runtime.targets import Target

# Kernels of one stage that are compiled at most, in search of some that do not spill.
_MOST_COMPILED = 24


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


@dataclass(frozen=True, slots=True)
class Choice:
    """The configuration of one stage, and how it came about.

    time:       of the kernel, as predicted; `tier`: of the calibration that was used
    runner_up:  the next best that could have been taken, None where there is no other
    why:        what decided against it
    rejected:   what was compiled and cannot be taken
    candidates: how many configurations were ranked; `compiled`: of which so many were compiled
    kernel:     the compiled kernel, None where the target's compiler is absent: see `note`
    """

    stage: str
    target: str
    config: Config
    time: StageTime
    tier: Tier
    runner_up: Config | None
    why: str
    rejected: tuple[Proof, ...]
    candidates: int
    compiled: int
    kernel: MachineKernel | None
    note: str = ""


def choose(
    call: Call,
    target: Target,
    *,
    calibration: Calibration | None = None,
    prove: int = 3,
    pins: Pins | None = None,
    known: Mapping[str, Config] | None = None,
) -> tuple[Choice, ...]:
    """The configuration of each kernel of a call, in the order of its stages.

    prove: how many configurations are compiled; more, two by two, only while none of them can be
    taken. pins: what the user decides, of all kernels: `m`, `n`, `warps`, `stages`; where that is
    all, a spill is accepted. known: by stage, what is decided already.
    Raises AttncError E851 where the tensors do not fit in memory, E852 where what is pinned cannot
    be launched, E855 where no configuration can, E813 where the compiler fails.
    """
    check_memory(call, target)
    model = calibration or specs_only(target)
    found = []
    for stage in call.sweeps:
        search = _Search(call, stage, target, model, pins or {}, (known or {}).get(stage.name))
        found.append(search.choose(prove))
    return tuple(found)


def finalists(
    call: Call,
    stage: SweepStage,
    target: Target,
    count: int,
    *,
    calibration: Calibration | None = None,
) -> tuple[Proof, ...]:
    """The best `count` configurations of a stage that were compiled and can be taken.

    Fewer where there are no more. Raises AttncError E812 where the compiler is absent, E855 where
    nothing fits.
    """
    search = _Search(call, stage, target, calibration or specs_only(target), {}, None)
    tried = search.tried([c for c, _ in search.ranked()], count, wanted=count)
    if isinstance(tried, AttncError):
        raise tried
    good = sorted((p for p in tried if not p.reason), key=_proof_order)
    if not good:
        raise search.nothing_fits(tried)
    return tuple(good[:count])


def ranked_configs(
    call: Call, stage: SweepStage, target: Target, calibration: Calibration
) -> tuple[tuple[Config, StageTime], ...]:
    """All configurations that may fit, the fastest first, as the plan tells."""
    return _Search(call, stage, target, calibration, {}, None).ranked()


def limits_of(target: Target) -> Limits:
    """What a target has for one block, and how far the estimate of registers may be off there.

    From Hopper on, matrix units read what they multiply from shared memory: less is in registers
    than the estimate says. Seen by compiling; what is admitted in vain only costs a compilation.
    """
    return Limits(
        registers=int(target.registers_per_thread),
        block_registers=int(target.registers_per_sm),
        shared_bytes=int(target.shared_bytes_per_block),
        generosity=1.3 if target.capability >= 90 else 1.0,
        stages=(2, 3, 4) if target.backend == "cuda" else (1, 2),
    )


@dataclass(frozen=True, slots=True)
class _Search:
    call: Call
    stage: SweepStage
    target: Target
    calibration: Calibration
    pins: Pins
    known: Config | None

    def ranked(self) -> tuple[tuple[Config, StageTime], ...]:
        timed = [(c, t) for c in self._candidates() if (t := self._estimate(c)) is not None]
        return tuple(sorted(timed, key=lambda x: _order(*x)))

    def choose(self, prove: int) -> Choice:
        ranked = self.ranked()
        # what was asked for is compiled, whatever is estimated
        configs = [c for c, _ in ranked] or (self._candidates() if self._asked else ())
        if not configs:
            raise self.nothing_fits(())
        tried = self.tried(configs, prove)
        if isinstance(tried, AttncError):
            if not ranked:
                raise tried
            best, *others = (Proof(c, t, None) for c, t in ranked)
            second = next((p for p in others if _tile(p.config) != _tile(best.config)), None)
            note = f"not compiled: {tried.message}"
            return self._choice(best, second, (), len(ranked), 0, note)
        good = sorted((p for p in tried if not p.reason), key=_proof_order)
        bad = tuple(p for p in tried if p.reason)
        note = ""
        if not good:
            good = sorted((p for p in bad if p.time is not None), key=lambda p: p.spills)[:1]
            if not good:
                raise self.nothing_fits(bad)
            bad = tuple(p for p in bad if p is not good[0])
            note = f"it spills {good[0].spills} bytes per thread"
            note += f", and the other {len(bad)} that were compiled are no better" if bad else ""
        second = next(iter((*good[1:], *bad)), None)
        return self._choice(good[0], second, bad, len(ranked), len(tried), note)

    def _choice(
        self,
        best: Proof,
        second: Proof | None,
        rejected: tuple[Proof, ...],
        candidates: int,
        compiled: int,
        note: str,
    ) -> Choice:
        assert best.time is not None
        return Choice(
            self.stage.name,
            self.target.name,
            best.config,
            best.time,
            self.calibration.tier,
            None if second is None else second.config,
            "" if second is None else _why(best, second),
            rejected,
            candidates,
            compiled,
            best.kernel,
            note,
        )

    @property
    def _asked(self) -> bool:
        """Whether somebody else decides, at least in part."""
        return bool(self.pins) or self.known is not None

    def _candidates(self) -> tuple[Config, ...]:
        if self.known is not None:
            return (self.known,)
        call, stage, cascade = self.call, self.stage, self.call.plan.cascade
        dims = call.widths(stage) | {r: call.extent(r) for r in (stage.row, stage.swept) if r}
        limits = limits_of(self.target)
        found = candidates(stage, cascade, dims, call.itemsize, limits)
        return pinned(call, stage, self.target, limits, found, self.pins) if self.pins else found

    def _estimate(self, config: Config) -> StageTime | None:
        try:
            return estimate(self.call, self.stage, self.target, config, self.calibration)
        except AttncError as e:
            if e.code != "E852":
                raise
            return None

    def tried(
        self, ranked: Sequence[Config], prove: int, wanted: int = 1
    ) -> list[Proof] | AttncError:
        """Compile the best, until `wanted` can be taken; the error if no compiler is here."""
        tried: list[Proof] = []
        waiting = list(ranked)
        while waiting and len(tried) < max(_MOST_COMPILED, 2 * wanted):
            if sum(1 for p in tried if not p.reason) >= wanted:
                break
            batch = _varied(waiting, prove if not tried else 2)
            for config, made in zip(batch, self._compile(batch), strict=True):
                if isinstance(made, AttncError) and made.code == "E812":
                    return made
                tried.append(self._proof(config, made))
            spilled = [p.config for p in tried if p.spills]
            waiting = [
                c for c in waiting if c not in batch and not any(_no_smaller(c, s) for s in spilled)
            ]
        return tried

    def _compile(self, configs: Sequence[Config]) -> list[MachineKernel | AttncError]:
        call = self.call
        requests = [
            Request(
                call.plan, self.stage.name, call.extents, call.params, call.dtype, self.target, c
            )
            for c in configs
        ]
        made = compiled_kernels(requests)
        return [m for m in made if m is not None]

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

    def nothing_fits(self, tried: Sequence[Proof]) -> AttncError:
        """E855, or E852 where the configuration was asked for, with what it takes too much of."""
        why = (
            f"{config_text(tried[-1].config)}: {tried[-1].reason}"
            if tried
            else too_little(self.call, self.stage, limits_of(self.target))
        )
        what = "the configuration that was asked for" if self._asked else "no configuration"
        does = "does not fit" if self._asked else "fits"
        return AttncError(
            "E852" if self._asked else "E855",
            f"{what} of `{self.stage.name}` {does} on `{self.target.name}`; {why}",
            hint="smaller tiles or narrower heads need less",
        )


def _order(config: Config, time: StageTime) -> tuple[float, ...]:
    """The fastest first; among equals what hides more latency, then what takes less room."""
    return (
        _rough(time),
        -min(config.num_stages, 3),
        config.num_stages,
        time.ms.mid,
        config.block_m,
        config.block_n,
    )


def _proof_order(p: Proof) -> tuple[float, ...]:
    assert p.time is not None
    return _order(p.config, p.time)


def _rough(time: StageTime) -> float:
    """Milliseconds to three digits: the model knows no better."""
    return float(f"{time.ms.mid:.3g}")


def _varied(ranked: Sequence[Config], count: int) -> list[Config]:
    """The best few, not of one kind: other tiles, and at least two numbers of warps.

    What makes one spill often makes those like it spill, too.
    """
    found: dict[tuple[int, ...], Config] = {}
    for c in ranked:
        found.setdefault(_tile(c), c)
    best, *others = found.values()
    other = next((c for c in others if c.num_warps != best.num_warps), None)
    first = [best] if other is None else [best, other]
    return [*first, *(c for c in others if c is not other)][:count]


def _tile(c: Config) -> tuple[int, ...]:
    return c.block_m, c.block_n, c.num_warps


def _no_smaller(c: Config, spilled: Config) -> bool:
    """Whether it needs as much as another one in everything."""
    return (
        c.num_warps == spilled.num_warps
        and c.num_stages >= spilled.num_stages
        and c.block_m >= spilled.block_m
        and c.block_n >= spilled.block_n
    )


def _why(best: Proof, second: Proof) -> str:
    """Why the second is not taken."""
    name = config_text(second.config)
    if second.reason:
        return f"{name} loses: {second.reason}"
    assert best.time is not None and second.time is not None
    a, b = _rough(best.time), _rough(second.time)
    if a == b:
        shallow = min(second.config.num_stages, 3) < min(best.config.num_stages, 3)
        how = "its pipeline of loads is shallower" if shallow else "it takes more room"
        return f"{name} loses: the same time, and {how}"
    return f"{name} loses: {b / a - 1:.1%} more time, limited by {second.time.limit}"
