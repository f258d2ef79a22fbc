"""Draw a sweep of predictions: the time with its interval, and what it gains over the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from attnc.figure import BLUE, GREEN, INK, MARK, ORANGE, PURPLE, RED, new_figure, write_figure
from attnc.predict_sweep import PredictedSweep, SweepRow
from attnc.tiles import show_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED)
# Inches.
_WIDTH, _HEIGHT = 7.2, 6.4
# Settings that have a label of their own on the axis.
_LABELS = 26
# A range is drawn in logarithms where its ends are so far apart.
_WIDE = 8
# Characters of a line of text.
_LINE = 105


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture of a sweep that was written; pixels, of an SVG points."""

    file: str
    width: int
    height: int
    sweep: PredictedSweep

    def to_dict(self) -> dict[str, object]:
        """The command's JSON."""
        picture = {"file": self.file, "width": self.width, "height": self.height}
        return {**self.sweep.to_dict(), "picture": picture}

    def __str__(self) -> str:
        return f"{self.sweep}\n\n{self.file}: {self.width} x {self.height}"


def draw_sweep(sweep: PredictedSweep, path: Path) -> Plot:
    """Write the picture in one step. Raises E713 if it cannot be written, E714 for its suffix."""
    width, height = write_figure(lambda: _figure(sweep), path)
    return Plot(str(path), width, height, sweep)


@dataclass(frozen=True, slots=True)
class _Curve:
    """The rows of one GPU that were predicted, and where they are on the axis."""

    target: str
    places: tuple[float, ...]
    rows: tuple[SweepRow, ...]


def _figure(sweep: PredictedSweep) -> Figure:
    figure = new_figure(_WIDTH, _HEIGHT)
    targets = [s.target.name for s in sweep.setups]
    labels, places = _axis(sweep, len(targets))
    curves = []
    for i, target in enumerate(targets):
        own = sweep.rows[i * len(places) : (i + 1) * len(places)]
        known = [(x, r) for x, r in zip(places, own, strict=True) if r.predicted is not None]
        curves.append(_Curve(target, tuple(x for x, _ in known), tuple(r for _, r in known)))
    time = figure.add_axes((0.11, 0.43, 0.86, 0.45))
    gain = figure.add_axes((0.11, 0.15, 0.86, 0.24), sharex=time)
    _draw_times(time, curves, sweep)
    _draw_gains(gain, curves)
    _set_axis(time, gain, labels, places)
    names = ", ".join(n for n in sweep.rows[0].values if n != "target")
    gain.set_xlabel(names)
    _texts(figure, sweep, targets)
    return figure


def _draw_times(axes: Axes, curves: Sequence[_Curve], sweep: PredictedSweep) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    drawn: list[float] = []
    for colour, c in zip(_cycle(len(curves)), curves, strict=True):
        ms = [r.predicted.ms for r in c.rows if r.predicted]
        base = [r.predicted.baseline for r in c.rows if r.predicted]
        low, high = [x.low for x in ms], [x.high for x in ms]
        axes.fill_between(c.places, low, high, color=colour, alpha=0.22, linewidth=0)
        style: Any = {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1.4}
        axes.plot(c.places, [x.mid for x in ms], label=_label(c, sweep, curves), **style)
        dashed: Any = {"color": colour, "linewidth": 1, "linestyle": (0, (4, 2))}
        of = f", {c.target}" if len(curves) > 1 else ""
        if base:
            axes.plot(c.places, [x.mid for _, x in base], label=f"{base[0][0]}{of}", **dashed)
        drawn += [*low, *high, *(x.mid for _, x in base)]
    if sweep.budget is not None:
        axes.axhline(sweep.budget, color=MARK, linewidth=1, label=f"{sweep.budget:g} ms")
    if drawn and max(drawn) > _WIDE * min(drawn) > 0:
        axes.set_yscale("log")
        # 0.1, 0.2, 0.5, 1: plain numbers, as in the table.
        subs = (1.0, 2.0, 5.0) if max(drawn) < 1e3 * min(drawn) else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.set_ylabel("ms")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    axes.tick_params(labelbottom=False, color=INK)


def _label(c: _Curve, sweep: PredictedSweep, curves: Sequence[_Curve]) -> str:
    return c.target if len(curves) > 1 else sweep.name


def _draw_gains(axes: Axes, curves: Sequence[_Curve]) -> None:
    highest = 1.0
    for colour, c in zip(_cycle(len(curves)), curves, strict=True):
        over = [r.predicted.speedup for r in c.rows if r.predicted]
        axes.plot(c.places, over, color=colour, marker="o", markersize=3, linewidth=1.4)
        highest = max([highest, *(x for x in over if isfinite(x))])
    axes.set_ylim(0, 1.08 * highest)
    names = dict.fromkeys(r.predicted.baseline[0] for c in curves for r in c.rows if r.predicted)
    axes.set_ylabel("\n".join(["times as fast", *(f"as {name}" for name in names)]))
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    axes.tick_params(color=INK)


def _axis(sweep: PredictedSweep, targets: int) -> tuple[list[str], list[float]]:
    """A label and a place per setting: its value if there is one number, else its number."""
    rows = sweep.rows[: len(sweep.rows) // targets]
    swept = [[v for n, v in r.values.items() if n != "target"] for r in rows]
    labels = [
        ", ".join(v if isinstance(v, str) else show_value(v) for v in values) for values in swept
    ]
    numbers = [v[0] if len(v) == 1 and isinstance(v[0], int | float) else inf for v in swept]
    rising = all(a < b for a, b in pairwise(numbers))
    if inf in numbers or not rising:
        return labels, [float(i) for i in range(len(rows))]
    return labels, [float(x) for x in numbers]


def _set_axis(time: Axes, gain: Axes, labels: Sequence[str], places: Sequence[float]) -> None:
    doubling = len(places) > 2 and places[-1] - places[-2] > 2 * (places[1] - places[0])
    if min(places) > 0 and doubling:
        time.set_xscale("log", base=2)
    step = -(-len(places) // _LABELS)
    shown = range(0, len(places), step)
    crowded = max(map(len, labels)) * len(shown) > 80
    gain.set_xticks(
        [places[i] for i in shown],
        [labels[i] for i in shown],
        rotation=30 if crowded else 0,
        ha="right" if crowded else "center",
    )
    gain.set_xticks([], minor=True)


def _texts(figure: Figure, sweep: PredictedSweep, targets: Sequence[str]) -> None:
    title = f"{sweep.name} on {', '.join(targets)}, {sweep.dtype}"
    figure.text(0.03, 0.955, title, weight="bold", size=12, color=INK, va="center")
    tiers = ", ".join(dict.fromkeys(sweep.tiers.values()))
    shape = ", ".join(f"{n}={v}" for n, v in sweep.shared_shape().items())
    about = f"{shape};  {sweep.fidelity}, calibration: {tiers}"
    for i, line in enumerate(wrap(about, _LINE)[:2]):
        figure.text(0.03, 0.925 - 0.022 * i, line, size=8, color=INK, va="center")


def _cycle(count: int) -> tuple[str, ...]:
    return tuple(_COLOURS[i % len(_COLOURS)] for i in range(count))
