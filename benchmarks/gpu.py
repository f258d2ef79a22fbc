"""Everything that only a GPU can show, in one command: correctness of all specs, then speed.

    python benchmarks/gpu.py --json benchmarks/results/h200.json     # on a GPU, about five minutes
    python benchmarks/gpu.py --tiny                                   # a test of itself, anywhere

1. Every library spec is verified on the device in fp32, fp16 and bf16 (`attnc verify`).
2. attnc's kernels are timed beside torch's scaled_dot_product_attention (its flash and its cuDNN
   backend) and compiled FlexAttention (block mask made outside the timing): same tensors, same run.

Times are medians of CUDA events over warm, repeated calls on random data; `spread` is the distance
of the quartiles over the median. TFLOP/s count visible scores only: 4 D operations per score. One
JSON file holds the device, versions, clocks and rows. `--tiny` runs the same code on small CPU
tensors, the kernels in Triton's interpreter; its times mean nothing and are marked so.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

import attnc
from attnc.errors import AttncError
from attnc.library import names
from attnc.runtime.modules import load_source

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Shape:
    """Batch, query heads, key heads, queries, keys, head dimension."""

    b: int
    h: int
    g: int
    m: int
    n: int
    d: int


@dataclass(frozen=True, slots=True)
class Row:
    """One implementation on one problem: milliseconds (median), spread, TFLOP/s."""

    problem: str
    shape: Shape
    dtype: str
    impl: str
    ms: float
    spread: float
    tflops: float


PROBLEMS: dict[str, tuple[str, dict[str, int], Shape]] = {
    "full, d 64": ("sdpa", {}, Shape(4, 32, 32, 4096, 4096, 64)),
    "full, d 128": ("sdpa", {}, Shape(4, 16, 16, 4096, 4096, 128)),
    "causal, d 64": ("causal", {}, Shape(4, 32, 32, 4096, 4096, 64)),
    "causal, d 128": ("causal", {}, Shape(4, 16, 16, 4096, 4096, 128)),
    "causal 16K, d 128": ("causal", {}, Shape(1, 16, 16, 16384, 16384, 128)),
    "grouped heads, d 128": ("gqa", {}, Shape(4, 32, 8, 4096, 4096, 128)),
    "window 1024 of 16K": ("sliding_window", {"window": 1024}, Shape(1, 16, 4, 16384, 16384, 128)),
    "softcap, d 128": ("softcap", {}, Shape(4, 16, 16, 4096, 4096, 128)),
    "sigmoid, d 128": ("sigmoid", {}, Shape(4, 16, 16, 4096, 4096, 128)),
    "decode, 16K keys": ("gqa", {}, Shape(16, 32, 8, 1, 16384, 128)),
}
TINY = Shape(1, 2, 1, 20, 24, 16)


def visible(spec: str, s: Shape, params: dict[str, int]) -> int:
    """How many of the M x N scores a mask leaves (per batch and head)."""
    window = params.get("window", s.n)
    if spec in ("causal", "sliding_window"):
        return sum(min(i + 1, window, s.n) for i in range(s.m))
    if spec == "gqa":
        return sum(min(max(i + 1 + s.n - s.m, 0), s.n) for i in range(s.m))
    return s.m * s.n


def timed(call: Call, device: str, seconds: float) -> tuple[float, float]:
    """(median ms, quartile distance / median) of repeated warm calls within about `seconds`."""
    for _ in range(3):
        call()
    samples: list[float] = []
    stop = time.perf_counter() + seconds
    while len(samples) < 5 or (time.perf_counter() < stop and len(samples) < 200):
        samples.append(_once(call, device))
    quarters = statistics.quantiles(samples, n=4)
    median = statistics.median(samples)
    return median, (quarters[2] - quarters[0]) / median


def _once(call: Call, device: str) -> float:
    if device == "cpu":
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    event: Any = torch.cuda.Event
    begin, end = event(enable_timing=True), event(enable_timing=True)
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))


def attnc_call(spec: str, params: dict[str, int], tensors: tuple[Tensor, ...]) -> Call:
    """Our kernel on these tensors; interpreted where they are on the CPU."""
    attn = attnc.load(spec, **params)
    if tensors[0].device.type != "cpu":
        return lambda: attn(*tensors)
    from attnc.codegen import emit
    from attnc.runtime.launch import public_function

    function = public_function(load_source(emit(attn.plan), spec, interpret=True))
    return lambda: function(*tensors, **params)


def peers(
    spec: str, params: dict[str, int], tensors: tuple[Tensor, ...]
) -> Iterator[tuple[str, Call]]:
    """What else computes this: SDPA by backend where it can, compiled FlexAttention."""
    q, k, v = tensors
    grouped = q.shape[1] != k.shape[1]
    on_gpu = q.device.type != "cpu"
    if spec in ("sdpa", "causal", "gqa") and (spec != "gqa" or q.shape[2] == k.shape[2]):
        causal = spec != "sdpa"
        for name in ("flash", "cudnn") if on_gpu else ("math",):
            yield f"sdpa {name}", _sdpa(name, q, k, v, causal, grouped)
    if spec != "sigmoid" and on_gpu:
        yield "flex", _flex(spec, params, q, k, v, grouped)


def _sdpa(name: str, q: Tensor, k: Tensor, v: Tensor, causal: bool, grouped: bool) -> Call:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "math": "MATH"}
    backend = getattr(SDPBackend, backends[name])

    def call() -> object:
        with sdpa_kernel([backend]):
            return torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=causal, enable_gqa=grouped
            )

    return call


def _flex(
    spec: str, params: dict[str, int], q: Tensor, k: Tensor, v: Tensor, grouped: bool
) -> Call:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    window, shift = params.get("window", 1 << 30), k.shape[2] - q.shape[2]

    def near(b: Tensor, h: Tensor, m: Tensor, n: Tensor) -> Tensor:
        return (n <= m + shift) & (m + shift - n < window)

    def capped(s: Tensor, b: Tensor, h: Tensor, m: Tensor, n: Tensor) -> Tensor:
        return 50.0 * torch.tanh(s / 50.0)

    masked = spec in ("causal", "sliding_window", "gqa")
    mask = create_block_mask(near, None, None, q.shape[2], k.shape[2]) if masked else None
    compiled = torch.compile(flex_attention, dynamic=False)
    score = capped if spec == "softcap" else None
    return lambda: compiled(q, k, v, score_mod=score, block_mask=mask, enable_gqa=grouped)


def bench(tiny: bool, seconds: float) -> list[Row]:
    """Time every problem; a peer that cannot run says so on stderr and has no row."""
    rows: list[Row] = []
    device = "cpu" if tiny else "cuda"
    dtype = torch.float32 if tiny else torch.bfloat16
    for problem, (spec, params, wanted) in PROBLEMS.items():
        s = TINY if tiny else wanted
        g = s.g if spec in ("gqa", "sliding_window") else s.h
        make = torch.Generator(device).manual_seed(0)
        shapes = ((s.b, s.h, s.m, s.d), (s.b, g, s.n, s.d), (s.b, g, s.n, s.d))
        tensors = tuple(torch.randn(x, generator=make, device=device, dtype=dtype) for x in shapes)
        work = 4 * s.b * s.h * s.d * visible(spec, s, params)
        calls: list[tuple[str, Callable[[], Call]]] = [
            ("attnc", partial(attnc_call, spec, params, tensors)),
            *((name, partial(_itself, call)) for name, call in peers(spec, params, tensors)),
        ]
        for impl, prepare in calls:
            with _skipping(f"{problem}: {impl}"):
                ms, spread = timed(prepare(), device, seconds)
                kind = str(dtype).removeprefix("torch.")
                rows.append(Row(problem, s, kind, impl, ms, spread, work / ms / 1e9))
                print(f"{problem:24s} {impl:12s} {ms:9.3f} ms {work / ms / 1e9:8.1f} TFLOP/s")
    return rows


def _itself(call: Call) -> Call:
    return call


@contextmanager
def _skipping(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as e:
        print(f"{what}: cannot run here: {str(e).splitlines()[0]}", file=sys.stderr)


def verify(tiny: bool) -> dict[str, dict[str, str]]:
    """`ok`, `WRONG` or the error of each spec in each dtype."""
    found: dict[str, dict[str, str]] = {}
    for spec in ("causal", "clipped_softmax") if tiny else names():
        found[spec] = {}
        for dtype in ("fp32", "fp16", "bf16"):
            try:
                found[spec][dtype] = "ok" if attnc.load(spec).verify(dtype=dtype).ok else "WRONG"
            except AttncError as e:
                found[spec][dtype] = f"{e.code}: {e.message}"
            except Exception as e:
                found[spec][dtype] = f"{type(e).__name__}: {str(e).splitlines()[0]}"
        print(f"{spec:20s} {found[spec]}", flush=True)
    return found


def machine(tiny: bool) -> dict[str, object]:
    """Device, versions and clocks: what a reader needs to repeat the run."""
    about: dict[str, object] = {
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "attnc": _version(),
        "device": "Triton's interpreter; times mean nothing" if tiny else "",
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


def main() -> int:
    """Verify, time, print, write; 1 if a spec is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tiny", action="store_true", help="small CPU tensors, interpreter")
    parser.add_argument("--seconds", type=float, default=0.6, help="of timing per row")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        print("no GPU here; `--tiny` tests the script itself", file=sys.stderr)
        return 1
    start = time.perf_counter()
    checks = verify(args.tiny)
    rows = bench(args.tiny, 0.0 if args.tiny else args.seconds)
    result = {
        "machine": machine(args.tiny),
        "seconds": round(time.perf_counter() - start, 1),
        "verified": checks,
        "rows": [asdict(r) for r in rows],
    }
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    wrong = [s for s, by in checks.items() if "WRONG" in by.values()]
    print(f"{len(checks)} specs verified, {len(wrong)} wrong {wrong or ''}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
