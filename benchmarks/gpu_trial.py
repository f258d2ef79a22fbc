"""The cost model tried against the GPU: its parameters fitted, its choice of tiles beside all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import gpu_model
from child_process import ChildProcess
from gpu_contestants import measure_tiles, prepare_tiles
from gpu_model import Configs, Timed, calibrate
from gpu_problems import SWEPT, TINY
from gpu_run import Run, skipping, taken

# Of timing per configuration.
_SECONDS = 0.08
# Below this, a sweep would not be exhaustive.
_LEAST = 40.0


def fit_model(run: Run, child: ChildProcess, keep: Path | None) -> None:
    """Fit the model to the declared rows; print and write its errors on these and on the others."""
    if run.target is None:
        print("no fit: the model knows no such device", file=sys.stderr)
        return
    measured = tuple(
        Timed(r["problem"], r["impl"], r["ms"])
        for r in run.result["rows"]
        if r["impl"].startswith("attnc")
    )
    with skipping("fit"):
        left = run.until()
        found = child.run(calibrate, measured, run.tiny, run.target, keep, timeout=left)
        run.result["fit"] = found
        run.write()
        for tier in ("specs only", "one sweep"):
            for part in ("fitted", "held_out"):
                print(f"{tier}, {part} rows: {_errors(found[tier][part])}")


def _errors(e: dict[str, Any] | None) -> str:
    if e is None:
        return "none"
    rank = "-" if e["rank_correlation"] is None else f"{e['rank_correlation']:.3f}"
    return f"MAPE {e['mape']:.1%}, rank {rank}, worst {e['worst']:.1%} ({e['rows']} rows)"


def sweep_tiles(run: Run, workers: int) -> None:
    """Time every configuration of a few problems beside the one that the model chose unmeasured."""
    run.result["sweeps"] = []
    if run.target is None:
        print("no sweep: the model knows no such device", file=sys.stderr)
        return
    children = [ChildProcess() for _ in range(workers)]
    try:
        for name in TINY[-1:] if run.tiny else SWEPT:
            if not run.tiny and run.left() < _LEAST:
                print(f"{name}: no time left for a sweep", file=sys.stderr)
                continue
            with skipping(f"{name}: sweep"):
                found = _sweep(run, name, children)
                run.result["sweeps"].append(found)
                run.write()
                print(_line(found), flush=True)
    finally:
        for child in children:
            child.stop()


def _sweep(run: Run, name: str, children: Sequence[ChildProcess]) -> dict[str, Any]:
    first, free = children[0], SimpleQueue[ChildProcess]()
    for child in children:
        free.put(child)
    about = (name, run.tiny, run.target)
    choice: Configs = first.run(gpu_model.chosen, *about, timeout=run.until())
    tried: list[Configs] = [
        choice,
        *(c for c in first.run(gpu_model.sweep, *about, timeout=run.until()) if c != choice),
    ]

    def compiled(configs: Configs) -> bool:
        try:
            with taken(free) as child:
                child.run(prepare_tiles, name, configs, run.tiny, timeout=run.until())
        except (RuntimeError, TimeoutError):
            return False  # too large for the device, or no time left
        return True

    with ThreadPoolExecutor(len(children)) as threads:
        good = list(threads.map(compiled, tried))
    ms: list[float | None] = [None] * len(tried)
    for i, configs in enumerate(tried):
        if good[i]:
            with skipping(f"{name}: {_tiles(configs)}"):
                seconds = 0.0 if run.tiny else _SECONDS
                left = run.until()
                ms[i] = first.run(measure_tiles, name, configs, run.tiny, seconds, timeout=left)
    timed = [(t, c) for t, c in zip(ms, tried, strict=True) if t is not None]
    best, of = min(timed, key=lambda x: x[0])
    return {
        "problem": name,
        "choice": {s: asdict(c) for s, c in choice.items()},
        "choice_ms": ms[0],
        "best": {s: asdict(c) for s, c in of.items()},
        "best_ms": best,
        "over_best": None if ms[0] is None else ms[0] / best,
        "timed": len(timed),
        "tried": len(tried),
        "all": [{"config": _tiles(c), "ms": t} for t, c in sorted(timed, key=lambda x: x[0])],
    }


def _tiles(configs: Configs) -> str:
    return ", ".join(
        f"{c.block_m}x{c.block_n} {c.num_warps}w {c.num_stages}s{' tma' * c.descriptors}"
        for c in configs.values()
    )


def _line(found: dict[str, Any]) -> str:
    best = found["all"][0]
    text = f"{found['problem']}: {found['timed']} of {found['tried']} configurations timed"
    if found["over_best"] is None:
        return f"{text}; the model's choice could not be"
    return (
        f"{text}; the model's choice takes {found['choice_ms']:.3f} ms, {found['over_best']:.3f} "
        f"times the best, {best['config']}"
    )
