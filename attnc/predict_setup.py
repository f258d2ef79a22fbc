"""What a prediction needs besides the spec: GPU, fidelity, calibration, call, configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attnc.codegen.config import Config
from attnc.compilation import complete_shape
from attnc.errors import AttncError
from attnc.ir.plan import SweepStage
from attnc.masks import captured_arrays, given_extents, share_extents
from attnc.runtime.cost.calibration import (
    Calibration,
    load_calibration,
    specs_only,
    stored_calibration,
)
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.choices import store, stored_configs
from attnc.runtime.cost.pinned import FIELDS, check_pins
from attnc.runtime.cost.prediction import Fidelity
from attnc.runtime.targets import Target, load_target

if TYPE_CHECKING:
    from attnc.api import Attention

# By the names that users give them, from what is known before a kernel to what is counted in it.
FIDELITIES: dict[str, Fidelity] = {
    "tiles": "tiles",
    "roofline": "roofline",
    "machine-code": "machine code",
}


@dataclass(frozen=True, slots=True)
class Setup:
    """On what, and how, an attention is predicted.

    pins:  what is asked of configurations: `m`, `n`, `warps`, `stages`
    share: of a model's time that it spends in the baseline attention; None: not asked
    budget_ms: that a call may take; None: not asked
    """

    target: Target
    dtype: str
    fidelity: Fidelity
    calibration: Calibration
    pins: Mapping[str, int]
    share: float | None = None
    budget_ms: float | None = None


def make_setup(
    target: str | Path,
    *,
    dtype: str = "bf16",
    fidelity: str = "machine-code",
    calibration: str | Path | None = None,
    config: Mapping[str, int] | None = None,
    share: float | None = None,
    budget_ms: float | None = None,
) -> Setup:
    """From what a user names.

    Without a calibration file, what was measured on such a device and comes with attnc counts, if
    there is any. Raises AttncError E801, E802 for the target, E853 for the calibration, E854 for
    a fidelity, share or budget that is none.
    """
    if fidelity not in FIDELITIES:
        known = ", ".join(f"`{f}`" for f in FIDELITIES)
        raise AttncError("E854", f"no fidelity is called `{fidelity[:60]}`: {known} are")
    if share is not None and not 0 < share <= 1:
        raise AttncError("E854", f"a share lies between 0 and 1: {share} does not")
    if budget_ms is not None and not budget_ms > 0:
        raise AttncError("E854", f"a budget is a time, not {budget_ms} ms")
    found = load_target(target)
    if calibration is None:
        known_of = stored_calibration(found) or specs_only(found)
    else:
        known_of = load_calibration(Path(calibration))
    return Setup(found, dtype, FIDELITIES[fidelity], known_of, config or {}, share, budget_ms)


def make_call(
    attention: Attention, shape: Mapping[str, int], dtype: str, tensors: Mapping[str, object]
) -> Call:
    """The call of a shape. Extents that are not given are those of the other length, or usual."""
    plan = attention.plan
    captured = captured_arrays(plan.written, tensors)
    extents = given_extents(plan.cascade, shape, captured)
    for stage in plan.stages:
        if isinstance(stage, SweepStage) and stage.row is not None:
            share_extents(plan.cascade, stage.row, stage.swept, extents)
    named = {name.upper(): n for name, n in extents.items()}
    params = attention.run_time_params
    return Call(plan, params, complete_shape(plan, named, params), dtype, captured)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Configurations by the name of their stage, and where they are from."""

    configs: Mapping[str, Config]
    origin: str


def chosen_configs(call: Call, setup: Setup) -> Chosen:
    """The configuration of each kernel: what is asked for, what was stored, what the model prefers.

    The model chooses once per kind of call and GPU, which takes compiling a few kernels. For the
    fidelities that compile nothing it ranks by the plan alone. Raises AttncError E852 where what is
    asked for cannot be launched, E855 where nothing can, E81x where the compiler fails.
    """
    if setup.pins:
        check_pins(setup.pins)
        if setup.pins.keys() == FIELDS.keys():
            m, n, warps, stages = (setup.pins[name] for name in FIELDS)
            config = Config(m, n, warps, stages)
            return Chosen({s.name: config for s in call.sweeps}, "as asked for")
    else:
        stored = stored_configs(call, setup.target)
        if len(stored) == len(call.sweeps):
            return Chosen(stored, "chosen before for calls like this one")
    # Ranking and compiling: not needed where a choice is stored.
    from attnc.runtime.cost.tile_choice import choose, ranked_configs

    if not setup.pins and setup.fidelity != "machine code":
        ranked = {
            s.name: ranked_configs(call, s, setup.target, setup.calibration) for s in call.sweeps
        }
        best = {name: found[0][0] for name, found in ranked.items() if found}
        return Chosen(best, "the best by what the plan says; none was compiled")

    made = choose(call, setup.target, calibration=setup.calibration, pins=setup.pins)
    if not setup.pins:
        store(call, setup.target, "model", {c.stage: (c.config, c.time.ms.mid) for c in made})
    what = (
        "the best by the model that have what was asked for"
        if setup.pins
        else "chosen by the model"
    )
    return Chosen({c.stage: c.config for c in made}, what)
