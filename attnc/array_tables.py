"""Tables of modelled spatial arrays: a line per model and length, and means over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean

from attnc.runtime.spatial.designs import load_design
from attnc.runtime.spatial.models import show_length
from attnc.runtime.spatial.simulate import Prediction

# What the others are compared with, where it is among them.
BASELINES = ("flat", "unfused")


def row_lines(design: str, rows: Sequence[Prediction], *, linear: bool = True) -> Iterator[str]:
    """One line per model and length; `linear`: what is around attention is known."""
    yield f"{design}: {load_design(design).title}"
    around = "  + linear ms" if linear else ""
    yield f"model  length  attention ms{around}  traffic GB  2d used  1d used  limited by"
    for p in rows:
        around = f" {p.end_to_end_ms:12.6g}" if linear else ""
        yield (
            f"{p.model:6s} {show_length(p.length):>6s} {p.ms:13.6g}{around} "
            f"{p.traffic_bytes / 1e9:11.6g} {p.utilisation['2d']:8.1%} {p.utilisation['1d']:8.1%}"
            f"  {p.bottleneck}"
        )


def mean_lines(rows: Mapping[str, Sequence[Prediction]], *, linear: bool = True) -> Iterator[str]:
    """Arithmetic means: utilisation, and speedup over each baseline row by row."""
    against = [b for b in BASELINES if b in rows]
    titles = "".join(f"  over {b:8s}{' + linear' if linear else ''}" for b in against)
    yield f"design           passes  2d used  1d used{titles}"
    for design, own in rows.items():
        used = [mean(p.utilisation[unit] for p in own) for unit in ("2d", "1d")]
        line = f"{design:16s} {own[0].passes:6d} {used[0]:8.1%} {used[1]:8.1%}"
        for base in against:
            attention, whole = mean_speedups(rows[base], own)
            line += f"  {attention:12.2f}x" + (f" {whole:7.2f}x" if linear else "")
        yield line


def mean_speedups(base: Sequence[Prediction], own: Sequence[Prediction]) -> tuple[float, float]:
    """Of attention, and with the linear layers around it: means over rows of the same shapes."""
    pairs = list(zip(base, own, strict=True))
    return (
        mean(b.ms / p.ms for b, p in pairs),
        mean(b.end_to_end_ms / p.end_to_end_ms for b, p in pairs),
    )
