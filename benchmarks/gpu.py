"""Everything that only a GPU can show, in one command: correctness of all specs, then speed.

    python benchmarks/gpu.py --json benchmarks/results/h200.json     # on a GPU, within 9 minutes
    python benchmarks/gpu.py --tiny                                   # a test of itself, anywhere

1. What is timed later is compiled, by several processes at once.
2. Every library spec is verified on the device in fp32, bf16 and fp16 (`attnc verify`), as far as
   `--budget` seconds suffice.
3. attnc's kernels, with tiles that a module picks by itself and with those that the cost model
   chooses (`attnc chosen`, as `attnc compile` has it), are timed beside attention without the mask
   (`dense`, torch's flash and cuDNN backends), compiled FlexAttention and, where a mask is causal,
   torch's own causal attention: same tensors, same run. Outputs are compared at sampled elements.
4. What the cost model predicted of attnc's kernels from the target's figures alone is printed
   beside (`model`, and how far it is `off`). Its parameters are then fitted to the rows that
   `gpu_problems.py` declares; errors are given on these and on the others, which the fit has not
   seen. The tiles that it chooses without measuring are timed beside all that may fit.

Times are medians of CUDA events over warm, repeated calls on random data with the lists of tiles
kept from an earlier call, L2 cleared before each; `spread` is the distance of the quartiles over
the median. `lists` is what the first call takes longer, or the making of FlexAttention's block
mask, its compilation left out. `x dense` is the speed-up over the faster dense backend, `bound`
what it would be if time went by visited tiles, from the census in the tiles of attnc's kernel.
TFLOP/s count visible scores only: 4 D operations per score.

One JSON file holds the device, versions, clocks and rows. It is written after each step, so that a
failure or a timeout costs only what comes after it; what cannot run, or no longer has time to,
says so on stderr. `--tiny` runs a few problems on small CPU tensors, the kernels in Triton's
interpreter, against the model of an H200; its times mean nothing and are marked so.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import torch
import triton
from child_process import ChildProcess
from gpu_contestants import Bound, Timing, bound, contestants, first_line, measure, prepare
from gpu_model import Forecast, device_name, forecast
from gpu_problems import PROBLEMS, TINY, Problem, problem
from gpu_run import Run, skipping, taken
from gpu_table import differs, header, line, rows
from gpu_trial import fit_model, sweep_tiles

import attnc
from attnc.library import names

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
        with skipping(f"{p.name}: {impl}: compiling"), taken(children) as child:
            child.run(prepare, p.name, impl, run.tiny, timeout=run.until(run.verify_end))
            if impl.startswith("attnc") and run.target is not None:
                # what the model reads is compiled apart, and kept on disk
                left = run.until(run.verify_end)
                child.run(forecast, p.name, impl, run.tiny, run.target, timeout=left)

    def check_one(spec: str, dtype: str) -> None:
        with taken(children) as child:
            try:
                left = run.until(run.verify_end)
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


# timing ------------------------------------------------------------------------------------------


def bench(run: Run, wanted: Sequence[Problem], child: ChildProcess) -> None:
    """Time every problem, print its part of the table and write it."""
    found_rows: list[dict[str, object]] = []
    run.result["rows"] = found_rows
    dense: dict[object, Timing] = {}
    print(header())
    for p in wanted:
        if run.left() <= 0:
            print(f"{p.name}: no time left", file=sys.stderr)
            continue
        census: Bound | None = None
        with skipping(f"{p.name}: census"):
            census = child.run(bound, p.name, run.tiny, timeout=run.until())
        found: list[Timing] = []
        for impl in contestants(p, not run.tiny):
            # attention without a mask is the same for all that have the shape
            known = (p.shape, impl)
            if known in dense:
                found.append(dense[known])
                continue
            with skipping(f"{p.name}: {impl}"):
                left = run.until()
                timing = child.run(measure, p.name, impl, run.tiny, run.seconds, timeout=left)
                found.append(timing)
                if impl.startswith("dense"):
                    dense[known] = timing
        for row in rows(p, census, found, _forecasts(run, p, found, child)):
            found_rows.append(row)
            print(line(row), flush=True)
        run.write()


def _forecasts(
    run: Run, p: Problem, found: Sequence[Timing], child: ChildProcess
) -> dict[str, Forecast | str]:
    """What the model says of attnc's kernels, or why it cannot."""
    said: dict[str, Forecast | str] = {}
    for impl in (t.impl for t in found if t.impl.startswith("attnc")):
        if run.target is None:
            said[impl] = "no target is known for this device"
            continue
        try:
            about = (p.name, impl, run.tiny, run.target)
            said[impl] = child.run(forecast, *about, timeout=run.until())
        except (RuntimeError, TimeoutError) as e:
            said[impl] = first_line(e)
    return said


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
        with skipping("nvidia-smi"):
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
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="where to write the fitted calibration"
    )
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
    workers = 1 if args.tiny else args.workers
    try:
        with skipping("target"):
            run.target = "h200" if args.tiny else child.run(device_name, timeout=run.until())
        child.stop()
        run.result["target"] = run.target
        child = prepare_and_verify(run, wanted, workers)
        bench(run, wanted, child)
        fit_model(run, child, args.calibration)
        sweep_tiles(run, workers)
    finally:
        child.stop()
        run.result["seconds"] = round(time.monotonic() - start, 1)
        run.write()
    return report(run.result)


def report(result: dict[str, Any]) -> int:
    """Print what is wrong; 1 if anything is."""
    checks = result["verified"]
    wrong = [s for s, by in checks.items() if any(x != "ok" for x in by.values())]
    differ = [f"{r['problem']}: {r['impl']}" for r in result["rows"] if differs(r)]
    done = sum(map(len, checks.values()))
    print(f"{len(checks)} specs, {done} checks; {len(wrong)} specs wrong {wrong or ''}")
    if differ:
        print(f"outputs differ: {'; '.join(differ)}")
    return 1 if wrong or differ else 0


if __name__ == "__main__":
    sys.exit(main())
