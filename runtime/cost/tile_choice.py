"""Choose a kernel's configuration for a GPU that need not be there.

All configurations that may fit are ranked by the cost model with what the plan says. The best few
are compiled: what spills, or cannot be launched, is out, and the others are ranked again with what
their machine code says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnc.codegen.candidates import Limits, candidates, smallest_config
from attnc.codegen.config import Config
from attnc.codegen.emit import loads_boxes
from attnc.errors import AttncError
from attnc.ir.plan import SweepStage
from attnc.runtime.cost.calibration import Calibration, Tier, specs_only
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.machine_demand import MachineKernel
from attnc.runtime.cost.pinned import FIELDS, Pins, config_text, lack_of, pinned, too_little
from attnc.runtime.cost.predict import check_memory, estimate
from attnc.runtime.cost.prediction import StageTime
from attnc.runtime.cost.prove import Proof, Prover, order, rough_ms
from attnc.runtime.cost.split_call import in_parts
from attnc.runtime.cost.tile_sides import with_sides
from attnc.runtime.targets import Target

# Of so many of the best, other sides of tiles over several axes are tried.
_SHAPED = 12
# NVIDIA's Hopper.
_FIRST_WITH_DESCRIPTORS = 90


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

    prove: how many tiles are compiled; more only while none of them can be taken. pins: what the
    user decides, of all kernels: `m`, `n`, `warps`, `stages`; where that is all, a spill is
    accepted. known: by stage, what is decided already.
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
    prover = search.prover()
    prover.search([c for c, _ in search.ranked()], count, wanted=count)
    if not prover.sure:
        raise search.nothing_fits(prover.bad)
    return tuple(prover.sure[:count])


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

    def choose(self, prove: int) -> Choice:
        ranked = self.ranked()
        # what was asked for is compiled, whatever is estimated
        configs = [c for c, _ in ranked] or (self._candidates() if self._asked else self._least())
        if not configs:
            raise self.nothing_fits(())
        prover = self.prover()
        try:
            prover.search(configs, prove)
        except AttncError as e:
            if e.code != "E812" or not ranked:
                raise
            return self._unproven(ranked, e)
        good, bad, note = prover.sure[:1], prover.bad, ""
        if not good:
            good = sorted((p for p in bad if p.time is not None), key=lambda p: (p.spills, p.order))
            if not good:
                raise self.nothing_fits(bad)
            bad = tuple(p for p in bad if p is not good[0])
            note = good[0].reason
            note += f", and the other {len(bad)} that were compiled are no better" if bad else ""
        others = [*(p for p in prover.good if p is not good[0]), *bad]
        return self._choice(
            good[0], others, rejected=bad, ranked=len(ranked), compiled=len(prover.tried), note=note
        )

    def _unproven(self, ranked: Sequence[tuple[Config, StageTime]], error: AttncError) -> Choice:
        """The best as the plan tells, where there is no compiler."""
        best, *others = (Proof(c, t, None) for c, t in ranked)
        tile = (best.config.block_m, best.config.block_n)
        others = [p for p in others if (p.config.block_m, p.config.block_n) != tile]
        note = f"not compiled: {error.message}"
        return self._choice(best, others, rejected=(), ranked=len(ranked), compiled=0, note=note)

    def _choice(
        self,
        best: Proof,
        others: Sequence[Proof],
        *,
        rejected: tuple[Proof, ...],
        ranked: int,
        compiled: int,
        note: str,
    ) -> Choice:
        assert best.time is not None
        second = others[0] if others else None
        return Choice(
            stage=self.stage.name,
            target=self.target.name,
            config=best.config,
            time=best.time,
            tier=self.calibration.tier,
            runner_up=None if second is None else second.config,
            why="" if second is None else _why(best, second),
            rejected=rejected,
            candidates=max(ranked, 1),
            compiled=compiled,
            kernel=best.kernel,
            note=note,
        )

    def _least(self) -> tuple[Config, ...]:
        """The configuration that takes least, unless it surely takes too much."""
        limits = limits_of(self.target)
        smallest = smallest_config(self.stage, limits)
        return () if lack_of(self.call, self.stage, smallest, limits) else (smallest,)

    @property
    def _asked(self) -> bool:
        """Whether somebody else decides, at least in part."""
        return bool(self.pins) or self.known is not None

    def prover(self) -> Prover:
        decided = self.known is not None or self.pins.keys() == FIELDS.keys()
        able = self.target.capability >= _FIRST_WITH_DESCRIPTORS and not decided
        boxes = able and loads_boxes(self.call.plan, self.stage)
        return Prover(self.call, self.stage, self.target, self.calibration, boxes)

    def ranked(self) -> tuple[tuple[Config, StageTime], ...]:
        timed = [(c, t) for c in self._candidates() if (t := self._estimate(c)) is not None]
        timed.sort(key=lambda x: order(*x))
        if self.known is None:
            timed[:_SHAPED] = [
                with_sides(self.call, self.stage, c, t, self._estimate) for c, t in timed[:_SHAPED]
            ]
        return tuple(sorted(timed, key=lambda x: order(*x)))

    def _candidates(self) -> tuple[Config, ...]:
        if self.known is not None:
            return (self.known,)
        call, stage, cascade = self.call, self.stage, self.call.plan.cascade
        dims = call.widths(stage) | {r: call.extent(r) for r in (stage.row, stage.swept) if r}
        limits = limits_of(self.target)
        found = candidates(stage, cascade, dims, call.itemsize, limits)
        if self.pins:
            found = pinned(call, stage, self.target, limits, found, self.pins)
        return tuple(in_parts(call, stage, int(self.target.sms), found))

    def _estimate(self, config: Config) -> StageTime | None:
        try:
            return estimate(self.call, self.stage, self.target, config, self.calibration)
        except AttncError as e:
            if e.code != "E852":
                raise
            return None

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


def _why(best: Proof, second: Proof) -> str:
    """Why the second is not taken."""
    name = config_text(second.config)
    if second.reason:
        return f"{name} loses: {second.reason}"
    assert best.time is not None and second.time is not None
    a, b = rough_ms(best.time), rough_ms(second.time)
    if a != b:
        return f"{name} loses: {b / a - 1:.1%} more time, limited by {second.time.limit}"
    if second.config.descriptors != best.config.descriptors:
        return f"{name} loses: the same time, and its descriptors have to be made"
    shallow = min(second.config.num_stages, 3) < min(best.config.num_stages, 3)
    how = "its pipeline of loads is shallower" if shallow else "it takes more room"
    return f"{name} loses: the same time, and {how}"
