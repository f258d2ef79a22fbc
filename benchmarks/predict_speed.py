"""How fast predictions are: a cold command, further questions in a process, roofline evaluations.

    python benchmarks/predict_speed.py [--spec sliding_window] [--target h200] [--json FILE]

The kernel's counts are on disk when the cold command is timed: its first run, which compiles, is
not counted. Times are the least of several; CPU time is printed beside the elapsed one, which other
work on the machine lengthens. Needs no GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

ROOT = Path(__file__).parents[1]
SHAPE = {"B": 1, "H": 32, "G": 8, "M": 32768, "N": 32768, "D": 128, "E": 128}
QUERIES, TRIES = 8, 5


@dataclass(frozen=True)
class Speed:
    """Milliseconds of one thing, elapsed and of the processor; the least of several tries."""

    what: str
    elapsed_ms: float
    cpu_ms: float

    def __str__(self) -> str:
        return f"{self.what:44s} {self.elapsed_ms:9.2f} ms  {self.cpu_ms:9.2f} ms of the processor"


def timed(what: str, work: Callable[[int], object], tries: int, *, child: bool = False) -> Speed:
    """The least time of `work(0)`, `work(1)`, ..; `child`: the processor time of a process."""
    found = []
    for i in range(tries):
        cpu, start = _cpu(child), time.perf_counter()
        work(i)
        found.append((time.perf_counter() - start, _cpu(child) - cpu))
    return Speed(what, *(1e3 * min(x) for x in zip(*found, strict=True)))


def _cpu(child: bool) -> float:
    if not child:
        return time.process_time()
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cold(spec: str, target: str) -> Speed:
    """`attnc predict` in a process of its own, its kernel's counts on disk."""
    shape = ",".join(f"{n}={x}" for n, x in SHAPE.items())
    command = [sys.executable, "-m", "attnc", "predict", spec, "--shape", shape]
    command += ["--target", target, "--json"]

    def run(_: int) -> None:
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    run(0)
    return timed("attnc predict, cold", run, TRIES, child=True)


def further(spec: str, target: str) -> list[Speed]:
    """Another length, and another window, in a process that has predicted before."""
    from attnc.api import load
    from attnc.predict import predict_attention, predict_call
    from attnc.predict_setup import chosen_configs, make_call, make_setup

    attention, setup = load(spec), make_setup(target)
    predict_attention(attention, SHAPE, setup, {})
    chosen = chosen_configs(make_call(attention, SHAPE, setup.dtype, {}), setup)

    def ask(i: int) -> None:
        length = 32768 - 1024 * (i + 1)
        call = make_call(attention, {**SHAPE, "M": length, "N": length}, setup.dtype, {})
        predict_call(attention, call, setup, chosen)

    ask(-2)
    return [timed("another length, in process, machine code", ask, QUERIES)]


def rooflines(spec: str, target: str) -> Speed:
    """One evaluation of a kernel's roofline, with a configuration that was not seen before."""
    from attnc.api import load
    from attnc.codegen.config import Config
    from attnc.predict_setup import make_call, make_setup
    from attnc.runtime.cost.predict import predict

    attention, setup = load(spec), make_setup(target, fidelity="roofline")
    call = make_call(attention, SHAPE, setup.dtype, {})
    (stage,) = call.sweeps
    sides = (16, 32, 64, 128)
    configs = [Config(m, n, w, s) for m in sides for n in sides for w in (4, 8) for s in (2, 3)]

    def evaluate(_: int) -> None:
        for c in configs:
            predict(
                call,
                setup.target,
                fidelity="roofline",
                configs={stage.name: c},
                calibration=setup.calibration,
            )

    evaluate(0)
    whole = timed("", evaluate, TRIES)
    return Speed(
        "a roofline, in process", whole.elapsed_ms / len(configs), whole.cpu_ms / len(configs)
    )


def main() -> None:
    """Print the three speeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", default="sliding_window", help="of one kernel")
    parser.add_argument("--target", default="h200")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = [cold(args.spec, args.target), *further(args.spec, args.target)]
    found.append(rooflines(args.spec, args.target))
    for speed in found:
        print(speed)
    roofline = found[-1]
    print(f"rooflines per second: {1e3 / roofline.elapsed_ms:.0f}")
    if args.json:
        args.json.write_text(json.dumps([asdict(x) for x in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
