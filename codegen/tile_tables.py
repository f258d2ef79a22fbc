"""The tables of a module by which its launcher picks tile sizes."""

from __future__ import annotations

from collections.abc import Sequence

from attnc.codegen.config import Chosen, Config, config_table
from attnc.ir.cascade import Cascade
from attnc.ir.plan import SweepStage


def rule_table(name: str, stage: SweepStage, cascade: Cascade) -> list[str]:
    """The stage's default configurations as a dictionary."""
    entries = []
    for itemsize, by_width in config_table(stage, cascade).items():
        widest = {c: w for w, c in by_width.items()}
        rows = (f"{w}: {entry(c)}" for c, w in widest.items())
        entries.append(f"{itemsize}: {{{', '.join(rows)}}}")
    return [f"{name} = {{{', '.join(entries)}}}"]


def chosen_table(
    name: str,
    chosen: Sequence[Chosen],
    has_rows: bool,
    more: Sequence[str] = (),
) -> list[str]:
    """What was chosen for a stage, by GPU and kind of call; of equal keys the first counts.

    `more`: other fields of a configuration that the launcher has to know.
    """
    entries: dict[str, str] = {}
    for x in chosen:
        gpu = f'"{x.gpu}"' if isinstance(x.gpu, str) else x.gpu
        few = f", {x.few}" if has_rows else ""
        own = ", ".join([entry(x.config)[1:-1], *(repr(getattr(x.config, f)) for f in more)])
        entries.setdefault(f"({gpu}, {x.itemsize}, {x.width}{few})", f"({own})")
    return [f"{name} = {{{', '.join(f'{k}: {v}' for k, v in entries.items())}}}"]


def entry(c: Config) -> str:
    """Rows, swept coordinates, threads (whose warps are wider on AMD), stages of loads."""
    return f"({c.block_m}, {c.block_n}, {32 * c.num_warps}, {c.num_stages})"
