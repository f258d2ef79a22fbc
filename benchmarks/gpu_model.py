"""What the cost model says of the problems that `gpu.py` times: predictions, a fit, its tiles.

Everything here runs in a child process, and is named by strings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from gpu_problems import FITTED, problem

from attnc.codegen.candidates import candidates
from attnc.codegen.config import Config
from attnc.codegen.emit import loads_boxes
from attnc.compilation import complete_shape
from attnc.ir.plan import SweepStage
from attnc.runtime.cost.calibration import (
    Calibration,
    Range,
    Setting,
    save_calibration,
    specs_only,
)
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.fit import Errors, Measured, errors, fit
from attnc.runtime.cost.other_stages import permutation_time, torch_time
from attnc.runtime.cost.predict import Kernel, compiled, kernel_time, planned, predict, rule
from attnc.runtime.cost.prediction import Fidelity, StageTime
from attnc.runtime.cost.split_call import split_call
from attnc.runtime.cost.tile_choice import choose, limits_of
from attnc.runtime.targets import Target, load_target, target_of_device

Configs = dict[str, Config]


@dataclass(frozen=True, slots=True)
class Forecast:
    """A prediction with nothing measured: milliseconds, what limits, and the kernel's tiles."""

    low: float
    likely: float
    high: float
    limit: str
    fidelity: str
    tiles: str


@dataclass(frozen=True, slots=True)
class Timed:
    """A measured row: problem, implementation, milliseconds."""

    name: str
    impl: str
    ms: float


def device_name() -> str | None:
    """The target that this machine's GPU is, if it is one."""
    import torch

    about = torch.cuda.get_device_properties(0)
    found = target_of_device(about.name, about.multi_processor_count)
    return None if found is None else found.name


def forecast(name: str, impl: str, tiny: bool, target: str) -> Forecast:
    """What is predicted of a problem from the target's figures alone.

    `tiny`: counted in the plan, which compiles nothing.
    """
    call, configs = _call(name, tiny), _configs(name, impl, tiny, target)
    fidelity: Fidelity = "roofline" if tiny else "machine code"
    p = predict(call, load_target(target), fidelity=fidelity, configs=configs)
    c = p.longest.config
    tiles = f"{c['block_m']}x{c['block_n']}" if c else ""
    return Forecast(p.ms.low, p.ms.mid, p.ms.high, p.bottleneck, p.fidelity, tiles)


def _call(name: str, tiny: bool) -> Call:
    p = problem(name, tiny)
    attn = p.attention
    tensors = {key: x.numpy() for key, x in p.data().items()}
    extents = complete_shape(attn.plan, p.sizes)
    dtype = "fp32" if tiny else "bf16"
    return Call(attn.plan, attn.run_time_params, extents, dtype, tensors)


def _configs(name: str, impl: str, tiny: bool, target: str) -> Configs:
    """What the emitted module launches."""
    if impl == "attnc chosen":
        return chosen(name, tiny, target)
    call = _call(name, tiny)
    permuted = True if impl == "attnc permuted" else None
    return {s.name: replace(rule(call, s), permuted=permuted) for s in call.sweeps}


# the fit -----------------------------------------------------------------------------------------


def calibrate(rows: Sequence[Timed], tiny: bool, target: str, keep: Path | None) -> dict[str, Any]:
    """Fit the model's parameters to the declared rows; errors on these and on the others.

    keep: where to write the calibration, if anywhere. Rows that cannot be predicted are left out,
    and named.
    """
    machine = load_target(target)
    told: list[tuple[bool, Measured[_Case]]] = []
    left_out: dict[str, str] = {}
    for r in rows:
        try:
            case = _case(r.name, r.impl, tiny, machine)
            case.ms(specs_only(machine).at(lambda x: x.likely))
        except Exception as e:
            left_out[f"{r.name}: {r.impl}"] = str(e)
        else:
            told.append(((r.name, r.impl) in FITTED, Measured(case, r.ms)))
    seen = [m for is_fitted, m in told if is_fitted]
    held_out = [m for is_fitted, m in told if not is_fitted]
    found = fit(seen, _Case.ms, specs_only(machine), held_out)
    if keep is not None:
        save_calibration(found.calibration, keep)
    return {
        "calibration": asdict(found.calibration),
        "not_told": found.kept,
        "one sweep": {"fitted": _shown(found.fitted), "held_out": _shown(found.held_out)},
        "specs only": {
            part: _shown(errors(some, lambda c: c.ms(c.prior)) if some else None)
            for part, some in (("fitted", seen), ("held_out", held_out))
        },
        "fitted_rows": [f"{n}: {impl}" for n, impl in FITTED],
        "left_out": left_out,
    }


@dataclass(frozen=True)
class _Case:
    """A row ready to be predicted again and again."""

    call: Call
    target: Target
    kernels: Mapping[str, Kernel]

    @property
    def prior(self) -> Setting:
        return specs_only(self.target).at(lambda r: r.likely)

    def ms(self, setting: Setting) -> float:
        return sum(stage.ms.mid for stage in self._stages(_exactly(setting)))

    def _stages(self, known: Calibration) -> Iterator[StageTime]:
        call, target = self.call, self.target
        for s in call.plan.stages:
            if isinstance(s, SweepStage):
                kernel = self.kernels[s.name]
                yield kernel_time(call, s, target, kernel, "machine code", known, "own")
                yield from permutation_time(call, s, target, kernel.config, known)
            else:
                yield torch_time(call, s, target, known)


def _exactly(s: Setting) -> Calibration:
    clock, memory, overlap, masked, launch = (
        Range(x, x, x) for x in (s.clock, s.memory, s.overlap, s.masked, s.launch)
    )
    return Calibration("one sweep", clock, memory, overlap, masked, launch)


def _case(name: str, impl: str, tiny: bool, target: Target) -> _Case:
    call, configs = split_call(_call(name, tiny), _configs(name, impl, tiny, target.name))
    if tiny:
        kernels = {s.name: planned(call, s, target, configs[s.name]) for s in call.sweeps}
    else:
        kernels = compiled(call, target, configs)
    return _Case(call, target, kernels)


def _shown(e: Errors | None) -> dict[str, Any] | None:
    return None if e is None else asdict(e)


# tiles -------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def chosen(name: str, tiny: bool, target: str) -> Configs:
    """The model's first choice; in `tiny`, the launcher's rule."""
    if tiny:
        return _configs(name, "attnc", tiny, target)
    return {c.stage: c.config for c in choose(_call(name, tiny), load_target(target))}


def sweep(name: str, tiny: bool, target: str) -> tuple[Configs, ...]:
    """Configurations of a problem with one kernel, two in `tiny`.

    All that may fit, but for tiles of fewer than 32 places and pipelines of more than 3 stages; by
    pointers, and by tensor descriptors where the kernel can have them.
    """
    call, machine = _call(name, tiny), load_target(target)
    (stage,) = call.sweeps
    if tiny:
        return tuple({stage.name: Config(m, 16, 4, 2)} for m in (16, 32))
    dims = call.widths(stage) | {r: call.extent(r) for r in (stage.row, stage.swept) if r}
    found = candidates(stage, call.plan.cascade, dims, call.itemsize, limits_of(machine))
    boxes = machine.capability >= 90 and loads_boxes(call.plan, stage)
    return tuple(
        {stage.name: replace(c, descriptors=d)}
        for c in found
        if min(c.block_m, c.block_n) >= 32 and c.num_stages <= 3
        for d in ((False, True) if boxes else (False,))
    )
