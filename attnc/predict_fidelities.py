"""The three fidelities side by side, and what each knows that the one before does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from attnc.predict import Predicted, limit_text, predict_call
from attnc.predict_setup import FIDELITIES, Setup, chosen_configs, make_call
from attnc.runtime.cost.predict import check_memory
from attnc.tiles import table, times

if TYPE_CHECKING:
    from attnc.api import Attention


@dataclass(frozen=True, slots=True)
class Fidelities:
    """The result of `attnc predict --explain`: the same call with the same kernels, thrice."""

    each: tuple[Predicted, ...]

    @property
    def last(self) -> Predicted:
        """The one that knows most."""
        return self.each[-1]

    def to_dict(self) -> dict[str, object]:
        """The command's JSON: that of the last, and `fidelities`."""
        kept = ("fidelity", "ms", "bottleneck", "tflops", "pipes", "baseline", "speedup", "notes")
        found = [p.to_dict() for p in self.each]
        return {**found[-1], "fidelities": [{n: x[n] for n in kept} for x in found]}

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
        for q in self.each:
            yield f"{q.prediction.fidelity}: limited by {limit_text(q.prediction.bottleneck)}"
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
    return Fidelities(tuple(predict_call(attention, call, s, chosen) for s in setups))
