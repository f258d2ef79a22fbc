"""Everything that only a GPU can show, in one command: correctness of all specs, then speed.

    python benchmarks/gpu.py --json benchmarks/results/h200.json     # on a GPU, within 9 minutes
    python benchmarks/gpu.py --tiny                                   # a test of itself, anywhere

1. What is timed later is compiled, by several processes at once.
2. Every library spec is verified on the device in fp32, bf16 and fp16 (`attnc verify`), as far as
   `--budget` seconds suffice.
3. attnc's kernels are timed beside attention without the mask (`dense`, torch's flash and cuDNN
   backends), compiled FlexAttention and, where a mask is causal, torch's own causal attention: same
   tensors, same run. Outputs are compared at sampled elements.

Times are medians of CUDA events over warm, repeated calls on random data with the lists of tiles
kept from an earlier call; `spread` is the distance of the quartiles over the median. `lists` is
what the first call takes longer, or the making of FlexAttention's block mask, its compilation left
out. `x dense` is the speed-up over the faster dense backend, `bound` what it would be if time went
by visited tiles, from the census in the tiles of attnc's kernel. TFLOP/s count visible scores only:
4 D operations per score.

One JSON file holds the device, versions, clocks and rows. It is written after each step, so that a
failure or a timeout costs only what comes after it; what cannot run, or no longer has time to,
says so on stderr. `--tiny` runs a few problems on small CPU tensors, the kernels in Triton's
interpreter; its times mean nothing and are marked so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import torch
import triton
from child_process import ChildProcess
from gpu_contestants import (
    Bound,
    Timing,
    bound,
    contestants,
    distance,
    first_line,
    measure,
    prepare,
)
from gpu_problems import PROBLEMS, TINY, Problem, problem

import attnc
from attnc.files import replace_text
from attnc.library import names

# Seconds that a single step may take.
_STEP = 90.0
# Of the largest output; inputs are rounded to bf16, and sums are in another order.
_CLOSE = 0.03


@dataclass(slots=True)
class Run:
    """The state of a run: results so far, and when it has to end (of `time.monotonic`)."""

    tiny: bool
    seconds: float
    end: float
    verify_end: float
    json: Path | None
    result: dict[str, Any] = field(default_factory=dict)

    def left(self, end: float | None = None) -> float:
        """Seconds that the next step may take; 0 or less: none."""
        return min(_STEP, (self.end if end is None else end) - time.monotonic())

    def write(self) -> None:
        """Replace the JSON file by the results so far."""
        if self.json is not None:
            replace_text(self.json, json.dumps(self.result, indent=1) + "\n")


# verification ------------------------------------------------------------------------------------


def check(spec: str, dtype: str) -> str:
    """`ok` or `WRONG`."""
    return "ok" if attnc.load(spec).verify(dtype=dtype).ok else "WRONG"


def prepare_and_verify(run: Run, wanted: Sequence[Problem], workers: int) -> ChildProcess:
    """Compile for the timings, then verify, in several processes; gives one that is free."""
    specs = ("causal",) if run.tiny else names()
    first, last = (("fp32",), ()) if run.tiny else (("fp32", "bf16"), ("fp16",))
    verified: dict[str, dict[str, str]] = {s: {} for s in specs}
    run.result["verified"] = verified
    children: SimpleQueue[ChildProcess] = SimpleQueue()
    for _ in range(workers):
        children.put(ChildProcess())
    lock = Lock()

    def compile_one(p: Problem, impl: str) -> None:
        with _skipping(f"{p.name}: {impl}: compiling"), _taken(children) as child:
            child.run(prepare, p.name, impl, run.tiny, timeout=_until(run.verify_end, run))

    def check_one(spec: str, dtype: str) -> None:
        with _taken(children) as child:
            try:
                left = _until(run.verify_end, run)
                answer = child.run(check, spec, dtype, timeout=left)
            except TimeoutError as e:
                answer = str(e)
                if run.left(run.verify_end) <= 0:
                    print(f"{spec} in {dtype}: no time left to verify", file=sys.stderr)
                    return
            except RuntimeError as e:
                answer = str(e)
        with lock:
            verified[spec][dtype] = answer
            run.write()

    with ThreadPoolExecutor(workers) as threads:
        compiled = [
            threads.submit(compile_one, p, impl)
            for p in wanted
            for impl in contestants(p, not run.tiny)
            if impl == "flex, our lists" or impl.startswith("attnc")
        ]
        checked = [
            threads.submit(check_one, spec, dtype)
            for dtypes in (first, last)
            for spec in specs
            for dtype in dtypes
        ]
    for done in (*compiled, *checked):
        done.result()
    for _ in range(workers - 1):
        children.get().stop()
    for spec, found in verified.items():
        print(f"{spec:28s} {found}", flush=True)
    return children.get()


def _until(end: float, run: Run) -> float:
    """Seconds for a step. Raises TimeoutError if there are none."""
    left = run.left(end)
    if left <= 0:
        raise TimeoutError("no time left")
    return left


@contextmanager
def _taken(children: SimpleQueue[ChildProcess]) -> Iterator[ChildProcess]:
    child = children.get()
    try:
        yield child
    finally:
        children.put(child)


@contextmanager
def _skipping(what: str) -> Iterator[None]:
    """An error becomes a line on stderr."""
    try:
        yield
    except Exception as e:
        text = first_line(e).removeprefix("RuntimeError: ")
        print(f"{what}: cannot run here: {text}", file=sys.stderr, flush=True)


# timing ------------------------------------------------------------------------------------------


def bench(run: Run, wanted: Sequence[Problem], child: ChildProcess) -> None:
    """Time every problem, print its part of the table and write it."""
    rows: list[dict[str, object]] = []
    run.result["rows"] = rows
    dense: dict[object, Timing] = {}
    titles = zip(("ms", "TFLOP/s", "x dense", "bound", "lists"), _WIDTHS, strict=True)
    print(f"\n{'problem':24s} {'':16s}" + "".join(f"{t:>{w}s}" for t, w in titles))
    for p in wanted:
        if run.left() <= 0:
            print(f"{p.name}: no time left", file=sys.stderr)
            continue
        census: Bound | None = None
        with _skipping(f"{p.name}: census"):
            census = child.run(bound, p.name, run.tiny, timeout=_until(run.end, run))
        found: list[Timing] = []
        for impl in contestants(p, not run.tiny):
            # attention without a mask is the same for all that have the shape
            known = (p.shape, impl)
            if known in dense:
                found.append(dense[known])
                continue
            with _skipping(f"{p.name}: {impl}"):
                left = _until(run.end, run)
                timing = child.run(measure, p.name, impl, run.tiny, run.seconds, timeout=left)
                found.append(timing)
                if impl.startswith("dense"):
                    dense[known] = timing
        for row in _rows(p, census, found):
            rows.append(row)
            print(_line(row), flush=True)
        run.write()


def _rows(p: Problem, census: Bound | None, found: Sequence[Timing]) -> Iterator[dict[str, object]]:
    """Figures of each contestant of a problem, for the table and the file."""
    s = p.shape
    about = {"problem": p.name, "spec": p.spec, "shape": asdict(s)}
    settings = {"params": dict(p.params), "extents": dict(p.extents)}
    least = min((t.ms for t in found if _is_dense(t)), default=None)
    ours = next((t for t in found if t.impl.startswith("attnc")), None)
    for t in found:
        visible = None if census is None else census.visible
        scores = s.b * s.h * s.m * s.n if _is_dense(t) else visible
        alike = ours is not None and ours is not t and not _is_dense(t)
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
        }


def _is_dense(t: Timing) -> bool:
    return t.impl.startswith("dense")


_WIDTHS = (10, 9, 9, 8, 10)


def _line(row: dict[str, Any]) -> str:
    ours = row["impl"].startswith("attnc")
    numbers = (
        (row["ms"], 3),
        (row["tflops"], 1),
        (row["over_dense"], 2),
        (row["bound"]["tile_mean"] if ours and row["bound"] else None, 2),
        (row["lists_ms"], 2),
    )
    cells = (
        f"{'' if x is None else f'{x:.{digits}f}':>{width}s}"
        for (x, digits), width in zip(numbers, _WIDTHS, strict=True)
    )
    wrong = "  DIFFERS" if _differs(row) else ""
    return f"{row['problem']:24s} {row['impl']:16s}{''.join(cells)}{wrong}"


def _differs(row: dict[str, Any]) -> bool:
    far: float | None = row["differs"]
    return far is not None and not far <= _CLOSE


# the run -----------------------------------------------------------------------------------------


def machine(tiny: bool) -> dict[str, object]:
    """Device, versions and clocks: what a reader needs to repeat the run."""
    about: dict[str, object] = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "attnc": _version(),
        "device": "Triton's interpreter; times mean nothing" if tiny else "",
        "dtype": "float32" if tiny else "bfloat16",
    }
    if not tiny:
        about["device"] = torch.cuda.get_device_name()
        query = "clocks.sm,clocks.max.sm,clocks.mem,power.limit,driver_version"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        with _skipping("nvidia-smi"):
            about["clocks"] = subprocess.check_output(command, text=True).strip()
    return about


def _version() -> str:
    try:
        return version("attnc")
    except PackageNotFoundError:
        return "a checkout"


def _workers() -> int:
    """Processes that compile and verify: fewer than processors, not more than a GPU holds."""
    return max(1, min(12, (os.cpu_count() or 1) * 3 // 4))


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="small CPU tensors, interpreter")
    parser.add_argument("--only", metavar="TEXT", help="problems whose name or spec contains it")
    parser.add_argument("--seconds", type=float, default=0.4, help="of timing per row")
    parser.add_argument("--budget", type=float, default=200, help="seconds to compile and verify")
    parser.add_argument("--limit", type=float, default=520, help="seconds for everything")
    parser.add_argument("--workers", type=int, default=_workers())
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> int:
    """Compile, verify, time, print, write; 1 if a spec or an output is wrong."""
    args = arguments()
    if not args.tiny and not torch.cuda.is_available():
        print("no GPU here; `--tiny` tests the script itself", file=sys.stderr)
        return 1
    # the children share the processors
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    start = time.monotonic()
    chosen = [problem(p.name, args.tiny) for p in PROBLEMS if not args.tiny or p.name in TINY]
    wanted = [p for p in chosen if not args.only or args.only in f"{p.name} {p.spec}"]
    seconds = 0.0 if args.tiny else args.seconds
    run = Run(args.tiny, seconds, start + args.limit, start + args.budget, args.json)
    run.result["machine"] = machine(args.tiny)
    child = ChildProcess()
    try:
        child = prepare_and_verify(run, wanted, 1 if args.tiny else args.workers)
        bench(run, wanted, child)
    finally:
        child.stop()
        run.result["seconds"] = round(time.monotonic() - start, 1)
        run.write()
    return report(run.result)


def report(result: dict[str, Any]) -> int:
    """Print what is wrong; 1 if anything is."""
    checks = result["verified"]
    wrong = [s for s, by in checks.items() if any(x != "ok" for x in by.values())]
    differ = [
        f"{r['problem']}: {r['impl']}" for r in result["rows"] if (r["differs"] or 0) > _CLOSE
    ]
    done = sum(map(len, checks.values()))
    print(f"{len(checks)} specs, {done} checks; {len(wrong)} specs wrong {wrong or ''}")
    if differ:
        print(f"outputs differ: {'; '.join(differ)}")
    return 1 if wrong or differ else 0


if __name__ == "__main__":
    sys.exit(main())
