"""Counts per tile from the plan beside those from machine code: what the roofline does not see.

For each spec, head dimension and GPU: plan / machine of every unit, for a full tile and for one at
a border. No GPU is needed; compiled kernels are kept on disk.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from attnc import library
from attnc.codegen.config import default_config
from attnc.codegen.prune import needed_stages
from attnc.codegen.tile_demand import kernel_demand
from attnc.compilation import complete_shape
from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.demand import Demand, KernelDemand, Unit
from attnc.ir.pipeline import plan
from attnc.ir.plan import SweepStage
from attnc.runtime.cost.differences import explain_difference
from attnc.runtime.cost.machine_demand import MachineKernel, Request, compiled_kernels
from attnc.runtime.dtypes import element_bytes
from attnc.runtime.targets import load_target

SPECS = (
    "causal", "sliding_window", "sdpa", "gqa", "softcap", "alibi", "sigmoid", "document",
    "clipped_softmax", "additive_bias", "na2d", "titans_mac",
)  # fmt: skip
SHOWN: tuple[Unit, ...] = ("tensor", "fma", "alu", "sfu", "shared", "l2", "waits")


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel on one GPU, counted both ways; `error` where it was not compiled."""

    spec: str
    stage: str
    target: str
    dtype: str
    width: int
    config: str
    plan: KernelDemand
    machine: KernelDemand | None
    why: tuple[str, ...]
    error: str = ""


def rows(spec: str, targets: Iterable[str], widths: Iterable[int], dtype: str) -> list[Row]:
    """All kernels of a spec; its feature ranks get the extents in `widths`."""
    made = plan(load_text(*library.resolve(spec)))
    cascade = made.cascade
    stages = [s for s in needed_stages(made) if isinstance(s, SweepStage)]
    params = {p.name: p.default for p in cascade.params if p.default is not None}
    known = {r.name.upper() for r in cascade.ranks}
    requests, counted = [], []
    for target in map(load_target, targets):
        for width in widths:
            extents = complete_shape(made, {r: width for r in ("D", "E") if r in known})
            for s in stages:
                dims = {r: extents[r] for r in (*s.inner, *s.columns)}
                size = element_bytes(dtype)
                config = default_config(s, cascade, dims, size)
                counted.append(
                    (width, kernel_demand(s, cascade, config, dims, size, target.matrix_unit))
                )
                requests.append(Request(made, s.name, extents, params, dtype, target, config))
    found = []
    for r, (width, demand), kernel in zip(
        requests, counted, compiled_kernels(requests), strict=True
    ):
        c = r.config
        shape = f"{c.block_m}x{c.block_n}, {c.num_warps} warps"
        machine = kernel.demand if isinstance(kernel, MachineKernel) else None
        why = explain_difference(demand, machine) if machine else ()
        error = str(kernel) if isinstance(kernel, AttncError) else ""
        found.append(
            Row(spec, r.stage, r.target.name, dtype, width, shape, demand, machine, why, error)
        )
    return found


def table(found: Iterable[Row], explain: bool) -> str:
    """Ratios plan / machine; a dash where both are 0."""
    lines = [f"{'':34}" + "".join(f"{u:>8}" for u in SHOWN)]
    for row in found:
        lines.append(
            f"{row.spec} {row.stage}, {row.width}, {row.dtype}, {row.target}: {row.config}"
        )
        if row.machine is None:
            lines.append(f"  {row.error}")
            continue
        for i, (a, b) in enumerate(zip(row.plan.passes, row.machine.passes, strict=True), 1):
            lines.append(f"  {f'pass {i}, full tile':32}{_ratios(a.full, b.full)}")
            if a.full != a.partial:
                lines.append(f"  {f'pass {i}, border tile':32}{_ratios(a.partial, b.partial)}")
        lines.append(f"  {'once per program':32}{_ratios(row.plan.once, row.machine.once)}")
        lines += [f"    {x}" for x in row.why if explain]
    return "\n".join(lines)


def _ratios(plan: Demand, machine: Demand) -> str:
    return "".join(f"{_ratio(getattr(plan, u), getattr(machine, u)):>8}" for u in SHOWN)


def _ratio(a: float, b: float) -> str:
    if a == b:
        return "-" if a == 0 else "1"
    return f"{a / b:.2f}" if b else f"+{a:.0f}"


def main() -> None:
    """Print the table; with --explain, why the counts differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("specs", nargs="*", default=SPECS, help="library names")
    parser.add_argument("--target", action="append", help="default: h100, a100")
    parser.add_argument("--width", action="append", type=int, help="default: 64, 128")
    parser.add_argument("--dtype", default="bf16", choices=("bf16", "fp16", "fp32"))
    parser.add_argument("--explain", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    found = [
        row
        for spec in given.specs
        for row in rows(
            spec, given.target or ("h100", "a100"), given.width or (64, 128), given.dtype
        )
    ]
    print(table(found, given.explain))
    if given.json:
        data: list[Mapping[str, object]] = [asdict(row) for row in found]
        given.json.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
