"""Predict the time of a call on a GPU that need not be there, at one of three fidelities.

tiles:         the visited tiles' matrix products at the target's peak: no kernel is faster
roofline:      all that the plan asks of each unit and of the memory: the longest decides
machine code:  the same, counted in the compiled kernel; the launch is simulated: programs per SM,
               what each visits, the dependence of units on each other, rounds and tails
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

from attnc.codegen.config import FEW_ROWS, Config, default_config, registers_of, widest
from attnc.codegen.tile_demand import kernel_demand
from attnc.errors import AttncError
from attnc.ir.demand import KernelDemand
from attnc.ir.plan import Dot, SweepStage
from attnc.runtime.cost.calibration import Calibration, Setting, specs_only
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.machine_demand import Request, compiled_kernels
from attnc.runtime.cost.occupancy import programs_per_sm
from attnc.runtime.cost.other_stages import permutation_time, torch_time
from attnc.runtime.cost.prediction import Fidelity, Interval, Prediction, StageTime, interval
from attnc.runtime.cost.split_call import split_call
from attnc.runtime.cost.tile_visits import Mask, tile_visits, visible_points
from attnc.runtime.cost.timing import Work, busy_ms, kernel_ms, peak_flop_per_ms, total_demand
from attnc.runtime.cost.traffic import traffic_bytes
from attnc.runtime.machine_code import Resources
from attnc.runtime.targets import Target


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel with a configuration: what a program asks for, and what it takes of an SM.

    resources: compiled, or estimated; `compiled` says which
    """

    config: Config
    demand: KernelDemand
    resources: Resources
    compiled: bool


def predict(
    call: Call,
    target: Target,
    *,
    fidelity: Fidelity = "machine code",
    configs: Mapping[str, Config] | None = None,
    calibration: Calibration | None = None,
    mask: Mask = "own",
) -> Prediction:
    """The time of a call on `target`.

    configs: of kernels, by the name of their stage; else the launcher's rule. mask: what is taken
    to be visible. Raises AttncError E851 where the tensors exceed the target's memory, E852 for a
    configuration that cannot be launched, E813 where the compiler fails; where it is absent, the
    prediction is at the fidelity `roofline`, and says so.
    """
    chosen = {s.name: (configs or {}).get(s.name) or rule(call, s) for s in call.sweeps}
    shape = call.shape()
    call, chosen = split_call(call, chosen)
    check_memory(call, target)
    notes = list(_unknown_masks(call)) if mask == "own" else []
    kernels: dict[str, Kernel] = {}
    if fidelity == "machine code":
        try:
            kernels = compiled(call, target, chosen)
        except AttncError as e:
            if e.code != "E812":
                raise
            fidelity = "roofline"
            notes.append(f"counted in the plan, not in machine code: {e.message}")
    for s in call.sweeps:
        kernels.setdefault(s.name, planned(call, s, target, chosen[s.name]))
    known = calibration or specs_only(target)
    stages = tuple(_stages(call, target, kernels, fidelity, known, mask))
    return Prediction(
        call.name, target.name, call.dtype, shape, fidelity, known.tier, stages, tuple(notes)
    )


def estimate(
    call: Call, stage: SweepStage, target: Target, config: Config, calibration: Calibration
) -> StageTime:
    """A kernel's likely time before it is compiled: its launch, simulated with what the plan says.

    Raises AttncError E852 where it surely cannot be launched.
    """
    call, chosen = split_call(call, {stage.name: config})
    likely = calibration.certain()
    return joined_time(
        kernel_time(call, s, target, planned(call, s, target, c), "machine code", likely, "own")
        for s, c in ((s, chosen[s.name]) for s in call.sweeps if s.name in chosen)
    )


def joined_time(times: Iterable[StageTime]) -> StageTime:
    """The time of a stage: of its kernel, or of those that sweep in parts and merge."""
    first, *others = times
    if not others:
        return first
    ms, traffic = first.ms, first.traffic
    for t in others:
        ms, traffic = ms + t.ms, traffic + t.traffic
    return replace(first, ms=ms, traffic=traffic)


def check_memory(call: Call, target: Target) -> None:
    """Raises E851 unless all tensors of the call fit in the target's memory."""
    missing = call.total_bytes - target.memory_bytes
    if missing > 0:
        raise AttncError(
            "E851",
            f"`{call.name}` needs {call.total_bytes / 1e9:.1f} GB for its tensors, `{target.name}` "
            f"has {target.memory_bytes / 1e9:.0f} GB: {missing / 1e9:.1f} GB are missing",
            hint="a smaller batch, fewer heads or a shorter sequence would fit",
        )


def rule(call: Call, stage: SweepStage) -> Config:
    """What the launcher of an emitted module picks, if nothing was chosen for the GPU."""
    found = default_config(stage, call.plan.cascade, call.widths(stage), call.itemsize)
    return replace(found, block_m=FEW_ROWS) if call.has_few_rows(stage) else found


# kernels -----------------------------------------------------------------------------------------


def compiled(call: Call, target: Target, configs: Mapping[str, Config]) -> dict[str, Kernel]:
    """The kernels of a call as compiled; raises the compiler's errors (E812, E813)."""
    names = [s.name for s in call.sweeps]
    requests = [
        Request(call.plan, n, call.extents, call.params, call.dtype, target, configs[n])
        for n in names
    ]
    found: dict[str, Kernel] = {}
    for name, made in zip(names, compiled_kernels(requests), strict=True):
        if isinstance(made, AttncError):
            raise made
        assert made is not None
        found[name] = Kernel(configs[name], made.demand, made.resources, True)
    return found


def planned(call: Call, stage: SweepStage, target: Target, config: Config) -> Kernel:
    """A kernel as the plan and the estimate of its registers tell."""
    widths, cascade = call.widths(stage), call.plan.cascade
    demand = kernel_demand(stage, cascade, config, widths, call.itemsize, target.matrix_unit)
    known, width = registers_of(stage, cascade), widest(stage, widths)
    registers = known.estimate(config, width, call.itemsize)
    shared = config.num_stages * known.streamed * config.block_n * width * call.itemsize
    most = int(target.registers_per_thread)
    threads = config.num_warps * 32
    resources = Resources(min(most, round(registers)), 0, shared, 0, threads)
    return Kernel(config, demand, resources, False)


# stages ------------------------------------------------------------------------------------------


def _stages(
    call: Call,
    target: Target,
    kernels: Mapping[str, Kernel],
    fidelity: Fidelity,
    calibration: Calibration,
    mask: Mask,
) -> Iterator[StageTime]:
    for stage in call.plan.stages:
        if isinstance(stage, SweepStage):
            kernel = kernels[stage.name]
            yield kernel_time(call, stage, target, kernel, fidelity, calibration, mask)
            if mask == "own":
                yield from permutation_time(call, stage, target, kernel.config, calibration)
        else:
            yield torch_time(call, stage, target, calibration)


def kernel_time(
    call: Call,
    stage: SweepStage,
    target: Target,
    kernel: Kernel,
    fidelity: Fidelity,
    calibration: Calibration,
    mask: Mask,
) -> StageTime:
    """The time of one kernel. Raises AttncError E852 if it cannot be launched."""
    config = kernel.config
    visits = tile_visits(call, stage, config, mask)
    per_sm = programs_per_sm(kernel.resources, target)
    cache = max(target.l2_bytes, target.last_level_bytes or 0.0)
    traffic = traffic_bytes(call, stage, config, visits, per_sm * int(target.sms), cache)
    warps = kernel.resources.threads // target.warp_size
    work = Work(kernel.demand, visits, per_sm, max(1, warps), traffic)
    likely = calibration.at(lambda r: r.likely)
    units = busy_ms(work, target, likely.clock)
    ms = _times(work, target, fidelity, calibration)
    return StageTime(
        name=stage.name,
        family="sweep",
        ms=ms,
        limit=_limit(units, ms.mid, work, target, likely),
        units=units,
        flops=_flops(call, stage, mask),
        traffic=traffic,
        config=shown(config) | ({} if stage.part is None else {"splits": call.extent(stage.part)}),
        programs=visits.programs,
        full=visits.total("full"),
        partial=visits.total("partial"),
        per_sm=per_sm,
        registers=kernel.resources.registers if kernel.compiled else None,
        spills=kernel.resources.spills if kernel.compiled else None,
        shared_bytes=kernel.resources.shared_bytes if kernel.compiled else None,
    )


def shown(config: Config) -> dict[str, int]:
    """A configuration for people and JSON."""
    return {
        "block_m": config.block_m,
        "block_n": config.block_n,
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
    }


def _times(work: Work, target: Target, fidelity: Fidelity, known: Calibration) -> Interval:
    def ms(setting: Setting) -> float:
        match fidelity:
            case "tiles":
                return total_demand(work).tensor / peak_flop_per_ms(target)
            case "roofline":
                busy = busy_ms(work, target, setting.clock)
                memory = busy.pop("memory") / setting.memory
                return max(*busy.values(), memory)
            case "machine code":
                return kernel_ms(work, target, setting)

    return interval(known, ms)


# A unit that is busy for this share of the time is what limits it.
_LIMITING = 0.55


def _limit(
    units: Mapping[str, float], ms: float, work: Work, target: Target, setting: Setting
) -> str:
    """What takes longest; `parallelism`: too few programs; `latency`: none is busy for long."""
    longest = max(units, key=lambda u: units[u])
    if setting.launch * 1e-3 > ms / 2:
        return "launch"
    if units[longest] >= _LIMITING * ms:
        return longest
    return "parallelism" if work.visits.programs < target.sms else "latency"


def _flops(call: Call, stage: SweepStage, mask: Mask) -> float:
    """Matrix-product operations of the visible points: what is counted for TFLOP/s."""
    tile = {stage.row, stage.swept}
    per_point = 0
    for p in stage.passes:
        for let in p.body:
            if isinstance(let.value, Dot):
                ranks = {*let.ranks, let.value.over}
                if tile - {None} <= ranks:
                    per_point += 2 * prod(call.extent(r) for r in ranks - tile - {*stage.grid})
    return float(per_point * visible_points(call, stage, mask))


def _unknown_masks(call: Call) -> Iterator[str]:
    """Notes on masks whose data were not given."""
    for t in dict.fromkeys(
        t for s in call.sweeps for p in s.passes for t in call.unknown(p.visibility)
    ):
        yield f"the mask reads `{t}`, which was not given: predicted as if it hid nothing"
