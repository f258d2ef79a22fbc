"""How long a user waits: `attnc compile` of every library spec, beside FlexAttention's first call.

    python benchmarks/compile_time.py [--specs sdpa,causal] [--json FILE]

Each attnc figure is the wall time of a fresh process, start-up included, with an empty cache: to
source, and to sm_90 machine code of the tiles that the cost model chooses, for which it compiles a
few kernels (the GPU need not be there). FlexAttention's is the wall time of a fresh process that
imports torch and makes one compiled call of causal attention on the CPU, with an empty cache; there
it compiles C++, not Triton, so the ratio compares waits, not compilers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from attnc.library import names

FLEX = """
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
q = k = v = torch.randn(1, 2, 256, 64)
causal = lambda b, h, m, n: n <= m
mask = create_block_mask(causal, None, None, 256, 256, device="cpu")
torch.compile(flex_attention)(q, k, v, block_mask=mask)
"""


def seconds(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Wall time of a process; fails loudly if the process fails."""
    start = time.perf_counter()
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, **(environment or {})}
    )
    return time.perf_counter() - start


def measure(spec: str, folder: str) -> dict[str, float]:
    """Seconds to source and to sm_90 machine code of one spec."""
    attnc = [sys.executable, "-m", "attnc", "compile", spec, "-o", folder]
    cache = {"ATTNC_CACHE_DIR": f"{folder}/cache-{spec}"}
    return {
        "source": seconds([*attnc, "--source-only"]),
        "sm_90": seconds([*attnc, "--target", "sm_90"], cache),
    }


def main() -> None:
    """Print a line per spec, then medians, worst cases and the ratio to FlexAttention."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--specs", default=",".join(names()))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = {"TORCHINDUCTOR_CACHE_DIR": folder + "/inductor"}
        flex = seconds([sys.executable, "-c", FLEX], cache)
        for spec in args.specs.split(","):
            rows[spec] = measure(spec, folder)
            took = rows[spec]
            print(f"{spec:20s} source {took['source']:5.2f} s   sm_90 {took['sm_90']:5.2f} s")
    print(f"\nFlexAttention, first call: {flex:.2f} s")
    for step in ("source", "sm_90"):
        times = [row[step] for row in rows.values()]
        median, worst = statistics.median(times), max(times)
        print(
            f"attnc to {step}: median {median:.2f} s, worst {worst:.2f} s; "
            f"FlexAttention takes {flex / median:.1f} times the median"
        )
    if args.json:
        args.json.write_text(json.dumps({"flex": flex, "attnc": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
