"""Predictions side by side: of several specs at one shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnc.ir.bind import complete_extents, named_extents
from attnc.ir.cascade import Cascade
from attnc.predict import Predicted, predict_attention, show_config
from attnc.predict_setup import Setup
from attnc.tiles import show_value, table, times

if TYPE_CHECKING:
    from attnc.api import Attention


@dataclass(frozen=True, slots=True)
class Versus:
    """The result of `attnc predict A --versus B`."""

    first: Predicted
    others: tuple[Predicted, ...]

    def ratio(self, other: Predicted) -> float:
        """How many times as fast the first is, in the likely case of both."""
        return other.ms.mid / self.first.ms.mid

    def bounds(self, other: Predicted) -> tuple[float, float]:
        """The same at the unfavourable and the favourable ends of both intervals.

        What is uncertain of the GPU is the same for both, so like ends are compared.
        """
        ends = [(other.ms.low, self.first.ms.low), (other.ms.high, self.first.ms.high)]
        ratios = sorted(theirs / own for theirs, own in ends)
        return ratios[0], ratios[1]

    def to_dict(self) -> dict[str, object]:
        """The command's JSON: that of the first, and `versus`."""
        return {
            **self.first.to_dict(),
            "versus": [
                {**p.to_dict(), "ratio": self.ratio(p), "ratio_bounds": list(self.bounds(p))}
                for p in self.others
            ],
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        found = self.first.prediction
        yield f"on {found.target}, {found.dtype}; {found.fidelity}, calibration: {found.tier}"
        yield ", ".join(f"{r}={n}" for r, n in found.shape.items())
        yield ""
        head = ("", "ms", "low", "high", "TFLOP/s", "limited by", "config", "over it", "")
        yield from table([head, *(self._cells(p) for p in (self.first, *self.others))])
        for p in (self.first, *self.others):
            for note in p.prediction.notes:
                yield f"note: {p.prediction.name}: {note}"

    def _cells(self, p: Predicted) -> tuple[str, ...]:
        params = ", ".join(f"{n}={show_value(v)}" for n, v in p.params.items())
        ms = (f"{x:.4g}" for x in (p.ms.mid, p.ms.low, p.ms.high))
        over = ("", "")
        if p is not self.first:
            over = (times(self.ratio(p)), "{:.2f}x to {:.2f}x".format(*self.bounds(p)))
        return (
            f"{p.prediction.name} {params}".rstrip(),
            *ms,
            f"{p.prediction.tflops:.4g}",
            p.prediction.bottleneck,
            show_config(p.config) if p.config else "-",
            *over,
        )


def predict_versus(
    attention: Attention,
    others: Sequence[Attention],
    shape: Mapping[str, int],
    setup: Setup,
    tensors: Mapping[str, object],
) -> Versus:
    """Predict several specs at one shape: each takes the extents of the ranks that it has.

    Raises AttncError what `predict_attention` raises for any of them.
    """
    names = {r.extent_name for other in others for r in other.cascade.ranks}
    own = {r.extent_name for r in attention.cascade.ranks}
    # What only another spec has, a plane's sides for example, is no mistake.
    mine = {n: x for n, x in shape.items() if n in own or n not in names}
    first = predict_attention(attention, mine, setup, tensors)
    # What follows from the shape counts, too: the tokens of a plane are a length elsewhere.
    known = {**{n: x for n, x in first.prediction.shape.items()}, **shape}
    found = [
        predict_attention(
            other,
            _extents(other.plan.cascade, known),
            setup,
            {n: x for n, x in tensors.items() if n in other.cascade.input_names},
        )
        for other in others
    ]
    return Versus(first, tuple(found))


def _extents(cascade: Cascade, known: Mapping[str, int]) -> dict[str, int]:
    """The extents of a spec's ranks that another one's shape gives.

    Components count before the rank that they make up.
    """
    names = {r.extent_name for r in cascade.ranks}
    inner = {n: x for n, x in known.items() if n in names and cascade.rank(n.lower()).parent}
    extents = named_extents(cascade, inner)
    complete_extents(cascade, extents)
    for name, x in known.items():
        # A grid's sides may follow from those of the other grid; its length alone says nothing.
        if (
            name in names
            and name.lower() not in extents
            and not cascade.rank(name.lower()).components
        ):
            extents[name.lower()] = x
    return {name.upper(): x for name, x in extents.items()}
