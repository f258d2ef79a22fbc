"""`attnc predict`: how long an attention takes on a GPU that need not be there, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

from attnc.ir.frame import ParamValue
from attnc.predict_setup import Chosen, Setup, chosen_configs, make_call
from attnc.runtime.cost.baseline import BASELINE_NAMES, baseline
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.predict import check_memory, predict
from attnc.runtime.cost.prediction import Interval, Prediction, StageTime
from attnc.tiles import show_value, times

if TYPE_CHECKING:
    from attnc.api import Attention

_BAR, _LINE = 40, 100
_FITS = {
    "surely": "surely fits",
    "likely": "likely fits",
    "hardly": "fits at the low end only",
    "no": "does not fit",
}
_LIMITS = {
    "tensor": "the matrix units",
    "fma": "single-precision arithmetic",
    "alu": "integer and compare instructions",
    "sfu": "special functions",
    "shared": "shared memory",
    "l2": "the L2 cache",
    "issue": "the rate at which instructions are issued",
    "memory": "memory",
    "latency": "latency: no unit is busy for long",
    "parallelism": "too few programs to fill the GPU",
    "launch": "launching kernels",
}


@dataclass(frozen=True, slots=True)
class Predicted:
    """The result of `attnc predict` for one setting.

    baseline:  the same kernels without the mask, or with a causal one: `dense`, `dense causal`
    tiles:     where the configurations of the kernels are from
    """

    prediction: Prediction
    params: Mapping[str, ParamValue]
    baseline: tuple[str, Interval]
    setup: Setup
    tiles: str

    @property
    def ms(self) -> Interval:
        return self.prediction.ms

    @property
    def speedup(self) -> float:
        """Over the baseline, in the likely case of both."""
        return self.baseline[1].mid / self.ms.mid if self.ms.mid else float("nan")

    @property
    def end_to_end(self) -> float | None:
        """How much faster a model gets that spends `share` of its time in the baseline."""
        share = self.setup.share
        return None if share is None else 1 / (1 - share + share / self.speedup)

    @property
    def fits(self) -> str:
        """Whether it takes no longer than the budget.

        `surely`: all of the interval; `likely`: its middle; `hardly`: its low end; else `no`.
        """
        budget = self.setup.budget_ms
        assert budget is not None
        levels = (("surely", self.ms.high), ("likely", self.ms.mid), ("hardly", self.ms.low))
        return next((level for level, ms in levels if ms <= budget), "no")

    @property
    def config(self) -> Mapping[str, int]:
        """Of the kernel that takes longest."""
        kernels = [s for s in self.prediction.stages if s.config]
        return max(kernels, key=lambda s: s.ms.mid).config if kernels else {}

    def to_dict(self) -> dict[str, object]:
        """The command's JSON."""
        p, (name, ms) = self.prediction, self.baseline
        share, budget = self.setup.share, self.setup.budget_ms
        whole = {} if share is None else {"share": share, "end_to_end": self.end_to_end}
        fits = {} if budget is None else {"budget_ms": budget, "fits": self.fits}
        return {
            "name": p.name,
            "target": p.target,
            "dtype": p.dtype,
            "shape": dict(p.shape),
            "params": {n: list(v) if isinstance(v, tuple) else v for n, v in self.params.items()},
            "fidelity": p.fidelity,
            "calibration": {"tier": p.tier, "source": self.setup.calibration.source},
            "ms": p.ms.to_dict(),
            "bottleneck": p.bottleneck,
            "tflops": p.tflops,
            "pipes": p.units,
            "traffic_bytes": sum(s.traffic for s in p.stages),
            "baseline": {"name": name, "ms": ms.mid, "low": ms.low, "high": ms.high},
            "speedup": self.speedup,
            **whole,
            **fits,
            "config": dict(self.config),
            "config_from": self.tiles,
            "stages": [_stage_dict(s) for s in p.stages],
            "notes": list(p.notes),
        }

    def __str__(self) -> str:
        return "\n".join(_report(self))


def predict_attention(
    attention: Attention, shape: Mapping[str, int], setup: Setup, tensors: Mapping[str, object]
) -> Predicted:
    """Predict one call: of a shape by upper-case extents, with the tensors that masks read.

    Raises AttncError: E50x the shape does not fit the spec, E851 the tensors do not fit in the
    target's memory, E852 a configuration that cannot be launched, E81x the compiler fails.
    """
    call = make_call(attention, shape, setup.dtype, tensors)
    check_memory(call, setup.target)
    return predict_call(attention, call, setup, chosen_configs(call, setup))


def predict_call(attention: Attention, call: Call, setup: Setup, chosen: Chosen) -> Predicted:
    """Predict a call and what it is compared with."""
    target, known = setup.target, setup.calibration
    own = predict(call, target, fidelity=setup.fidelity, configs=chosen.configs, calibration=known)
    mask = baseline(call)
    # Where the compiler is absent, neither is counted in machine code.
    dense = predict(
        call,
        target,
        fidelity=own.fidelity,
        configs=chosen.configs,
        calibration=known,
        mask=mask,
    )
    return Predicted(own, attention.params, (BASELINE_NAMES[mask], dense.ms), setup, chosen.origin)


# text --------------------------------------------------------------------------------------------


def _report(p: Predicted) -> Iterator[str]:
    found, (name, dense) = p.prediction, p.baseline
    yield f"{found.name} on {found.target}, {found.dtype}: {show_interval(p.ms)}"
    shape = ", ".join(f"{r}={n}" for r, n in found.shape.items())
    yield "; ".join([shape, *(f"{n} = {show_value(v)}" for n, v in p.params.items())])
    yield ""
    rate = f"; {found.tflops:.4g} TFLOP/s" if found.tflops else ""
    yield f"limited by  {limit_text(found.bottleneck)}{rate}"
    yield f"over        {name}, {dense.mid:.4g} ms: {times(p.speedup)}"
    if p.setup.share is not None:
        yield f"end to end  {p.end_to_end:.2f}x, attention having been {p.setup.share:.0%} of it"
    if p.setup.budget_ms is not None:
        yield f"budget      {p.setup.budget_ms:g} ms: {_FITS[p.fits]}"
    yield f"traffic     {show_bytes(sum(s.traffic for s in found.stages))} to and from memory"
    if found.ms.mid:
        yield ""
        yield from _bars(found)
    for stage in found.stages:
        yield from ("", *_stage_lines(stage, len(found.stages) > 1))
    yield from ("", *_assumptions(p))


def _bars(p: Prediction) -> Iterator[str]:
    """How long each unit is busy, of the whole time."""
    units = {u: ms for u, ms in p.units.items() if ms > 0}
    yield "busy        of the time"
    for unit, ms in sorted(units.items(), key=lambda x: -x[1]):
        part = ms / p.ms.mid
        bar = "#" * min(_BAR, max(1, round(_BAR * part)))
        yield f"  {unit:8s}  {part:6.1%}  {ms:9.4g} ms  {bar}"


def _stage_lines(s: StageTime, timed: bool) -> Iterator[str]:
    what = {"sweep": "kernel", "torch": "torch", "permute": "permutation"}[s.family]
    time = f": {s.ms.mid:.4g} ms, limited by {limit_text(s.limit)}" if timed else ""
    yield f"{what} {s.name}{time}"
    if s.family != "sweep":
        return
    config = show_config(s.config)
    yield f"  tiles of {config}; {s.programs} programs, {s.per_sm} at once on an SM"
    yield f"  visits {s.full} full and {s.partial} partial tiles"
    if s.registers is not None:
        spills = f"spills {s.spills} bytes" if s.spills else "spills nothing"
        yield f"  {s.registers} registers, {spills}, {s.shared_bytes} bytes shared"


def _assumptions(p: Predicted) -> Iterator[str]:
    counted = {
        "tiles": "visited tiles at the peak of the matrix units: nothing is faster",
        "roofline": "operations and bytes counted in the plan: the longest decides",
        "machine code": "instructions counted in the compiled kernel, its launch simulated",
    }
    told = [("fidelity", f"{p.prediction.fidelity}: {counted[p.prediction.fidelity]}")]
    if any(s.config for s in p.prediction.stages):
        told.append(("tiles", p.tiles))
    told.append(("calibration", f"{p.prediction.tier}: {p.setup.calibration.source}"))
    for name, text in (*told, *(("note", note) for note in p.prediction.notes)):
        yield from wrap(f"{name:13s}{text}", _LINE, subsequent_indent=" " * 13)


def show_interval(ms: Interval) -> str:
    """`2.31 ms (2.05 to 2.8)`."""
    if ms.low == ms.high:
        return f"{ms.mid:.4g} ms"
    return f"{ms.mid:.4g} ms ({ms.low:.4g} to {ms.high:.4g})"


def show_config(config: Mapping[str, int]) -> str:
    """`128 x 64, 8 warps, 2 stages`."""
    m, n, warps, stages = (config[k] for k in ("block_m", "block_n", "num_warps", "num_stages"))
    others = {k: v for k, v in config.items() if not k.startswith(("block_", "num_"))}
    more = "".join(f", {name} {value}" for name, value in others.items())
    return f"{m} x {n}, {warps} warps, {stages} stages{more}"


def limit_text(limit: str) -> str:
    """What limits a time, in words."""
    return _LIMITS.get(limit, limit)


def show_bytes(count: float) -> str:
    """`1.07 GB`."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"


def _stage_dict(s: StageTime) -> dict[str, object]:
    found: dict[str, object] = {
        "name": s.name,
        "family": s.family,
        "ms": s.ms.to_dict(),
        "limit": s.limit,
        "pipes": dict(s.units),
        "flops": s.flops,
        "traffic_bytes": s.traffic,
    }
    if s.family != "sweep":
        return found
    return found | {
        "config": dict(s.config),
        "programs": s.programs,
        "per_sm": s.per_sm,
        "tiles": {"full": s.full, "partial": s.partial},
        "registers": s.registers,
        "spills": s.spills,
        "shared_bytes": s.shared_bytes,
    }
