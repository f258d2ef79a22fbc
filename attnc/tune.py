"""`attnc tune`: measure the model's best configurations on the GPU, keep the winner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from attnc.errors import AttncError
from attnc.ir.bind import bind_extents
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.choices import store
from attnc.runtime.cost.pinned import config_text
from attnc.runtime.cost.tile_choice import finalists
from attnc.runtime.targets import Target, load_target, target_of_device

if TYPE_CHECKING:
    from attnc.codegen import Config
    from attnc.runtime.tuning import Bench

# So many configurations of each kernel are measured.
COUNT = 8


@dataclass(frozen=True, slots=True)
class Trial:
    """A configuration of a kernel: milliseconds of the kernel as predicted, of the call as measured
    with it."""

    kernel: str
    config: str
    predicted_ms: float
    measured_ms: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured, the fastest first within each kernel; `stored` are the winners."""

    name: str
    device: str
    dtype: str
    shape: Mapping[str, int]
    trials: tuple[Trial, ...]
    stored: Mapping[str, str]

    def to_dict(self) -> dict[str, object]:
        """The command's JSON."""
        return asdict(self)

    def __str__(self) -> str:
        shape = ", ".join(f"{name}={n}" for name, n in self.shape.items())
        lines = [f"{self.name} on {self.device}, {self.dtype}, {shape}"]
        for kernel, winner in self.stored.items():
            lines.append(f"  {kernel}: {winner} is kept")
            lines += [
                f"    {t.measured_ms:9.4f} ms  {t.config}  (kernel predicted {t.predicted_ms:.4f})"
                for t in self.trials
                if t.kernel == kernel
            ]
        return "\n".join(lines)


def device_target() -> Target:
    """The target that the GPU in use is.

    Raises AttncError E832 where there is none, E801 where it is none of the targets.
    """
    import torch

    if not torch.cuda.is_available():
        raise AttncError(
            "E832",
            "cannot tune here: there is no GPU",
            hint="`attnc compile --target h200` chooses by the model, without one",
        )
    about: Any = torch.cuda.get_device_properties()
    found = target_of_device(about.name, about.multi_processor_count)
    if found is None:
        raise AttncError(
            "E801",
            f"the GPU here, `{about.name}`, is none of the targets",
            hint="--target names a file that describes it, `mygpu.toml`",
        )
    return found


def tune(call: Call, target: str | None, data: Mapping[str, object]) -> Tuning:
    """Measure on the GPU; `data` are captured tensors, random where they are not given."""
    import torch

    from attnc.runtime.dtypes import torch_dtype
    from attnc.runtime.tuning import Bench, time_on_gpu

    here = device_target() if target is None else load_target(target)
    if target is not None and not torch.cuda.is_available():
        device_target()
    tensors = inputs(call, data, torch_dtype(call.dtype), "cuda")
    integers = {n: x.cpu().numpy() for n, x in tensors.items() if not x.is_floating_point()}
    call = replace(call, tensors=integers)
    bench = Bench(call.plan, call.params, call.extents, tensors, time_on_gpu)
    return measure(call, here, bench, torch.cuda.get_device_name())


def inputs(call: Call, data: Mapping[str, object], dtype: Any, device: str) -> dict[str, Any]:
    """Random tensors of a call's shapes, and those that are given."""
    import torch

    from attnc.runtime.cases import Case, draw

    case = Case("tune", call.extents, params=call.params)
    drawn = draw(call.plan, case, dtype, seed=0)
    found = {name: torch.as_tensor(data.get(name, x)).to(device) for name, x in drawn.items()}
    bind_extents(call.plan.written, {n: tuple(x.shape) for n, x in found.items()}, {})
    return found


def measure(call: Call, target: Target, bench: Bench, device: str, count: int = COUNT) -> Tuning:
    """Measure the best `count` of each kernel, in the order of the stages, and store the winners.

    The kernels before have their winners, those after the model's choice.
    """
    ranked = {s.name: finalists(call, s, target, count) for s in call.sweeps}
    best: dict[str, Config] = {name: proofs[0].config for name, proofs in ranked.items()}
    found: dict[str, tuple[Config, float]] = {}
    trials: list[Trial] = []
    for name, proofs in ranked.items():
        predicted = {p.config: p.time.ms.mid for p in proofs if p.time is not None}
        timed = bench.fastest(name, [p.config for p in proofs], best)
        trials += [Trial(name, config_text(c), predicted[c], ms) for ms, c in timed]
        ms, best[name] = timed[0]
        found[name] = best[name], ms
    store(call, target, "measured", found)
    kept = {name: config_text(c) for name, c in best.items()}
    return Tuning(call.name, device, call.dtype, call.shape(), tuple(trials), kept)
