"""Choose the tiles of every library spec for every GPU, at head dimensions 64 and 128, and prove by
compiling that nothing spills.

    python benchmarks/targets.py [--specs sdpa] [--targets a100,h100] [--dims 64,128] [--json FILE]

No GPU is needed. Prints a line per kernel: the configuration that the cost model chose, registers,
spilled bytes per thread, shared bytes. Exits with 1 if a kernel spills or could not be launched.
FILE is written as rows come, and what is in it is not done again: a run may be interrupted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import attnc
from attnc.errors import AttncError
from attnc.library import names

TARGETS = "a100,h100,b200"

Row: TypeAlias = dict[str, Any]
# Spec, target, head dimension, dtype.
Task: TypeAlias = tuple[str, str, int, str]


def rows_of(task: Task) -> list[Row]:
    """One row per kernel; a spec that cannot be compiled says why."""
    spec, target, dim, dtype = task
    of: Row = {"spec": spec, "target": target, "dim": dim, "dtype": dtype}
    try:
        attn = attnc.load(spec)
        told = {r for t in attn.cascade.inputs for r in t.ranks}
        features = [r for s in attn.plan.stages for r in _features(s) if r in told]
        shape = {r.upper(): dim for r in features}
        with tempfile.TemporaryDirectory() as folder:
            made = attn.compile(shape, target=target, dtype=dtype, to=folder)
    except AttncError as e:
        return [{**of, "error": f"{e.code}: {e.message}"}]
    return [
        {
            **of,
            "kernel": k.name,
            "registers": k.registers,
            "spills": k.spills,
            "shared_bytes": k.shared_bytes,
            "fits": k.fits,
            "config": dict(k.config),
            "choice": None if k.choice is None else asdict(k.choice),
            "seconds": made.seconds,
        }
        for k in made.kernels
    ]


def _features(stage: object) -> tuple[str, ...]:
    return (*getattr(stage, "inner", ()), *getattr(stage, "columns", ()))


def line(row: Row) -> str:
    """A row for people."""
    if "error" in row:
        return f"{row['spec']:28s} {row['target']:7s} d={row['dim']:<4d} {row['error']}"
    note = "" if row["fits"] and not row["spills"] else "   <-- spills or does not fit"
    c = row["config"]
    tile = "x".join(str(c[b]) for b in ("BLOCK_M", "BLOCK_N") if b in c)
    return (
        f"{row['spec']:28s} {row['target']:7s} d={row['dim']:<4d} {tile:8s} "
        f"{c['num_warps']:2d} warps {c['num_stages']} stages {row['registers']:4d} registers "
        f"{row['spills']:5d} spilled {row['shared_bytes']:7d} shared "
        f"{row['choice']['compiled'] if row['choice'] else 1:2d} compiled{note}"
    )


def compile_all(tasks: list[Task], workers: int, done: list[Row], out: Path | None) -> list[Row]:
    """The rows of all tasks, those in `done` first; `out` has them at any time."""
    known = {(r["spec"], r["target"], r["dim"], r["dtype"]) for r in done if "error" not in r}
    rows = [r for r in done if "error" not in r]
    waiting = [t for t in tasks if t not in known]
    context = multiprocessing.get_context("spawn")
    cpus = itertools.cycle(sorted(os.sched_getaffinity(0)))
    places = context.SimpleQueue()
    for _ in range(workers):
        places.put(next(cpus))
    with ProcessPoolExecutor(workers, context, _stay, (places,)) as pool:
        for future in as_completed([pool.submit(rows_of, t) for t in waiting]):
            found = future.result()
            rows += found
            for row in found:
                print(line(row), flush=True)
            if out is not None:
                out.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def _stay(places: Any) -> None:
    """Keep to one CPU: a worker then compiles one kernel at a time, and there are many workers."""
    os.sched_setaffinity(0, {places.get()})


def main() -> int:
    """Print the table; 1 if anything spills or does not fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--specs", default=",".join(names()))
    parser.add_argument("--targets", default=TARGETS)
    parser.add_argument("--dims", default="64,128")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    dims = [int(d) for d in args.dims.split(",")]
    # the widest first: they are the ones that may spill
    tasks = [
        (spec, target, dim, args.dtype)
        for dim in sorted(dims, reverse=True)
        for spec in args.specs.split(",")
        for target in args.targets.split(",")
    ]
    out: Path | None = args.json
    done = json.loads(out.read_text()) if out is not None and out.exists() else []
    rows = compile_all(tasks, args.workers, done, out)
    bad = [r for r in rows if r.get("spills") or r.get("fits") is False or "error" in r]
    print(f"\n{len(rows)} rows, {len(bad)} that spill, do not fit, or failed")
    for row in bad:
        print(line(row))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
