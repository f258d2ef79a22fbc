"""The three fidelities side by side, and what each knows that the one before does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

from attnc.predict import Predicted, limit_text, predict_call
from attnc.predict_setup import FIDELITIES, Chosen, Setup, chosen_configs, make_call
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.differences import explain_difference
from attnc.runtime.cost.predict import check_memory, compiled, planned
from attnc.runtime.cost.split_call import split_call
from attnc.runtime.targets import Target
from attnc.tiles import table, times

if TYPE_CHECKING:
    from attnc.api import Attention


@dataclass(frozen=True, slots=True)
class Fidelities:
    """The result of `attnc predict --explain`: the same call with the same kernels, thrice.

    reasons: for each, what it says, and why that differs from what the one before says
    """

    each: tuple[Predicted, ...]
    reasons: tuple[tuple[str, ...], ...]

    @property
    def last(self) -> Predicted:
        """The one that knows most."""
        return self.each[-1]

    def to_dict(self) -> dict[str, object]:
        """The command's JSON: that of the last, and `fidelities`."""
        kept = ("fidelity", "ms", "bottleneck", "tflops", "pipes", "baseline", "speedup", "notes")
        found = [p.to_dict() for p in self.each]
        told = [
            {**{n: x[n] for n in kept}, "reasons": list(why)}
            for x, why in zip(found, self.reasons, strict=True)
        ]
        return {**found[-1], "fidelities": told}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        p = self.last.prediction
        yield f"{p.name} on {p.target}, {p.dtype}, calibration: {p.tier}"
        yield ", ".join(f"{r}={n}" for r, n in p.shape.items())
        yield ""
        head = ("fidelity", "ms", "low", "high", "TFLOP/s", f"over {self.last.baseline[0]}")
        yield from table([head, *map(_cells, self.each)])
        yield ""
        yield "ms busy"
        units = sorted(p.units, key=lambda u: -p.units[u])
        names = tuple(q.prediction.fidelity for q in self.each)
        rows = [(u, *(f"{q.prediction.units.get(u, 0):.4g}" for q in self.each)) for u in units]
        yield from table([("  unit", *names), *((f"  {u}", *x) for u, *x in rows)])
        yield ""
        for q, why in zip(self.each, self.reasons, strict=True):
            yield q.prediction.fidelity
            yield from (f"  {reason}" for reason in why)
            yield from (f"  note: {note}" for note in q.prediction.notes)


def _cells(p: Predicted) -> tuple[str, ...]:
    ms = (f"{x:.4g}" for x in (p.ms.mid, p.ms.low, p.ms.high))
    return (p.prediction.fidelity, *ms, f"{p.prediction.tflops:.4g}", times(p.speedup))


def predict_fidelities(
    attention: Attention, shape: Mapping[str, int], setup: Setup, tensors: Mapping[str, object]
) -> Fidelities:
    """Predict a call at each fidelity, with the configuration that the last of them prefers.

    Raises AttncError what `predict_attention` raises.
    """
    call = make_call(attention, shape, setup.dtype, tensors)
    check_memory(call, setup.target)
    setups = [replace(setup, fidelity=f) for f in FIDELITIES.values()]
    chosen = chosen_configs(call, setups[-1])
    tiles, roofline, machine = (predict_call(attention, call, s, chosen) for s in setups)
    reasons = (
        _of_tiles(tiles),
        _of_roofline(tiles, roofline),
        (
            *_of_machine(roofline, machine, setup.target),
            *_counts(call, setup.target, machine, chosen),
        ),
    )
    return Fidelities((tiles, roofline, machine), reasons)


# reasons -----------------------------------------------------------------------------------------


def _of_tiles(p: Predicted) -> tuple[str, ...]:
    kernels = [s for s in p.prediction.stages if s.family == "sweep"]
    full, partial = sum(s.full for s in kernels), sum(s.partial for s in kernels)
    return (
        f"at best {times(p.speedup)} over {p.baseline[0]}: {full} full and {partial} border tiles",
    )


def _of_roofline(tiles: Predicted, p: Predicted) -> tuple[str, ...]:
    limit = p.prediction.bottleneck
    what = limit_text(limit) + (
        " at a sustained clock" if limit == "tensor" else ", not the matrix products"
    )
    return (f"{_more(tiles, p)}: limited by {what}",)


def _of_machine(roofline: Predicted, p: Predicted, target: Target) -> tuple[str, ...]:
    """What is busy longest, and how the programs share the GPU."""
    found = [f"{_more(roofline, p)}: limited by {limit_text(p.prediction.bottleneck)}"]
    units = p.prediction.units
    longest = max(units, key=lambda u: units[u])
    found.append(
        f"{limit_text(longest)}: busy for {units[longest] / p.ms.mid:.0%} of the time; "
        "the rest is units that wait for each other, and tails"
    )
    for s in p.prediction.stages:
        if s.family == "sweep" and s.per_sm:
            places = s.per_sm * int(target.sms)
            rounds = s.programs / places
            idle = 1 - rounds / ceil(rounds) if s.programs else 0.0
            found.append(
                f"{s.name}: {s.per_sm} at once on an SM, {s.programs} programs on {places} places: "
                f"{rounds:.2f} rounds, {idle:.0%} idle at the end"
            )
    return tuple(found)


def _counts(call: Call, target: Target, p: Predicted, chosen: Chosen) -> Iterator[str]:
    """Where what was read in the kernels differs from what the plan counts."""
    if p.prediction.fidelity != "machine code":
        return
    call, configs = split_call(call, {s.name: chosen.configs[s.name] for s in call.sweeps})
    kernels = compiled(call, target, configs)
    for stage in call.sweeps:
        kernel = kernels[stage.name]
        plan = planned(call, stage, target, kernel.config)
        yield from explain_difference(plan.demand, kernel.demand)


def _more(before: Predicted, p: Predicted) -> str:
    return f"{p.ms.mid / before.ms.mid - 1:+.0%} on {before.prediction.fidelity}"
