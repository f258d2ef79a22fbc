"""Compile every library spec for every GPU, at head dimensions 64 and 128; nothing may spill.

    python benchmarks/targets.py [--specs sdpa] [--targets a100,h100] [--dims 64,128] [--json FILE]

No GPU is needed. Prints a line per kernel (registers, spilled bytes per thread, shared bytes) and
exits with 1 if a kernel spills or could not be launched.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import attnc
from attnc.errors import AttncError
from attnc.library import names

TARGETS = "a100,h100,b200,mi300x"


def compile_all(
    specs: list[str], targets: list[str], dims: list[int], dtype: str
) -> list[dict[str, object]]:
    """One row per kernel, target and head dimension; a spec that is not lowered says so."""
    rows: list[dict[str, object]] = []
    for spec in specs:
        try:
            attn = attnc.load(spec)
            told = {r for t in attn.cascade.inputs for r in t.ranks}
            features = [r for s in attn.plan.stages for r in _features(s) if r in told]
        except AttncError as e:
            rows.append({"spec": spec, "error": f"{e.code}: {e.message}"})
            print(f"{spec:20s} {e.code}: {e.message}")
            continue
        for dim in dims:
            shape = {r.upper(): dim for r in features}
            try:
                with tempfile.TemporaryDirectory() as folder:
                    made = attn.compile(shape, target=targets, dtype=dtype, to=folder)
            except AttncError as e:
                rows.append({"spec": spec, "error": f"{e.code}: {e.message}"})
                print(f"{spec:20s} {e.code}: {e.message}")
                break
            for k in made.kernels:
                row: dict[str, object] = {
                    "spec": spec,
                    "kernel": k.name,
                    "target": k.target,
                    "dim": dim,
                    "registers": k.registers,
                    "spills": k.spills,
                    "shared_bytes": k.shared_bytes,
                    "fits": k.fits,
                    "config": dict(k.config),
                }
                rows.append(row)
                note = (
                    ""
                    if k.fits and not k.spills
                    else "   <-- " + ("spills" if k.fits else "too large")
                )
                print(
                    f"{spec:20s} {k.target:7s} d={dim:<4d} {k.registers:4d} registers "
                    f"{k.spills:6d} spilled {k.shared_bytes:7d} shared{note}",
                    flush=True,
                )
    return rows


def _features(stage: object) -> tuple[str, ...]:
    return (*getattr(stage, "inner", ()), *getattr(stage, "columns", ()))


def main() -> int:
    """Print the table; 1 if anything spills or does not fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--specs", default=",".join(names()))
    parser.add_argument("--targets", default=TARGETS)
    parser.add_argument("--dims", default="64,128")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    dims = [int(d) for d in args.dims.split(",")]
    rows = compile_all(args.specs.split(","), args.targets.split(","), dims, args.dtype)
    bad = [r for r in rows if r.get("spills") or r.get("fits") is False]
    print(f"\n{len(rows)} rows, {len(bad)} that spill or do not fit")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
