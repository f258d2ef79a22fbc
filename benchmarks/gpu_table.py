"""The rows of `gpu.py`: figures of each contestant, for the JSON file and for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gpu_contestants import Bound, Timing, distance
from gpu_model import Forecast
from gpu_problems import Problem

# Of the largest output; inputs are rounded to bf16, and sums are in another order.
_CLOSE = 0.03
_WIDTHS = (10, 9, 9, 8, 10, 10, 8)
_TITLES = ("ms", "TFLOP/s", "x dense", "bound", "lists", "model", "off")


def rows(
    p: Problem,
    census: Bound | None,
    found: Sequence[Timing],
    forecasts: Mapping[str, Forecast | str],
) -> Iterator[dict[str, object]]:
    """Figures of each contestant of a problem.

    forecasts: by implementation, or why there is none; `off` is the likely time that was predicted
    over the measured one, less 1
    """
    s = p.shape
    about = {"problem": p.name, "spec": p.spec, "shape": asdict(s)}
    settings = {"params": dict(p.params), "extents": dict(p.extents)}
    least = min((t.ms for t in found if _is_dense(t)), default=None)
    ours = next((t for t in found if t.impl.startswith("attnc")), None)
    for t in found:
        visible = None if census is None else census.visible
        scores = s.b * s.h * s.m * s.n if _is_dense(t) else visible
        alike = ours is not None and ours is not t and not _is_dense(t)
        said = forecasts.get(t.impl)
        yield {
            **about,
            **settings,
            "impl": t.impl,
            "ms": t.ms,
            "spread": t.spread,
            "lists_ms": t.lists_ms,
            "tflops": None if scores is None else 4 * s.d * scores / t.ms / 1e9,
            "over_dense": None if least is None else least / t.ms,
            "bound": None if census is None else asdict(census),
            "differs": distance(t.sample, ours.sample) if ours is not None and alike else None,
            "predicted": asdict(said) if isinstance(said, Forecast) else None,
            "not_predicted": said if isinstance(said, str) else None,
            "off": said.likely / t.ms - 1 if isinstance(said, Forecast) else None,
        }


def _is_dense(t: Timing) -> bool:
    return t.impl.startswith("dense")


def header() -> str:
    """The titles of the columns."""
    titles = zip(_TITLES, _WIDTHS, strict=True)
    return f"\n{'problem':24s} {'':16s}" + "".join(f"{t:>{w}s}" for t, w in titles)


def line(row: Mapping[str, Any]) -> str:
    """A row for people."""
    ours = row["impl"].startswith("attnc")
    said = row["predicted"]
    numbers = (
        (row["ms"], ".3f"),
        (row["tflops"], ".1f"),
        (row["over_dense"], ".2f"),
        (row["bound"]["tile_mean"] if ours and row["bound"] else None, ".2f"),
        (row["lists_ms"], ".2f"),
        (None if said is None else said["likely"], ".3f"),
        (row["off"], "+.0%"),
    )
    cells = (
        f"{'' if x is None else format(x, form):>{width}s}"
        for (x, form), width in zip(numbers, _WIDTHS, strict=True)
    )
    wrong = "  DIFFERS" if differs(row) else ""
    limit = f"  {said['limit']}" if said is not None else ""
    silent = f"  no prediction: {row['not_predicted']}" if row["not_predicted"] else ""
    return f"{row['problem']:24s} {row['impl']:16s}{''.join(cells)}{limit}{wrong}{silent}"


def differs(row: Mapping[str, Any]) -> bool:
    """Whether an output is not that of attnc's kernel."""
    far: float | None = row["differs"]
    return far is not None and not far <= _CLOSE
