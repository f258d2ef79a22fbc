"""The CPU engine beside torch: `python benchmarks/cpu.py`, times in ms, best of several.

FlexAttention is compiled for the CPU here, which needs gcc. `plain` is a loop over row tiles with a
whole row of scores each, as one would write it.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from attnc.api import load

ROUNDS = 5
ROWS = 128


def best(f: Callable[[], object]) -> float:
    """Milliseconds of the fastest of some runs."""
    f()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def plain(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Row tiles of softmax attention, future keys left out."""
    out = torch.empty(*q.shape[:-1], v.shape[-1])
    for start in range(0, q.shape[2], ROWS):
        rows = q[:, :, start : start + ROWS]
        end = start + rows.shape[2] if causal else k.shape[2]
        scores = rows @ k[:, :, :end].transpose(2, 3) / math.sqrt(q.shape[-1])
        if causal:
            place = torch.arange(start, start + rows.shape[2])
            scores.masked_fill_(torch.arange(end) > place[:, None], -math.inf)
        out[:, :, start : start + ROWS] = scores.softmax(-1) @ v[:, :, :end]
    return out


def flex(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Callable[[], Tensor]:
    mask = None
    if causal:
        m, n = q.shape[2], k.shape[2]
        mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, m, n, device="cpu")
    compiled = torch.compile(flex_attention)
    gqa = q.shape[1] != k.shape[1]
    return lambda: compiled(q, k, v, block_mask=mask, enable_gqa=gqa)


def compare(name: str, spec: str, heads: tuple[int, int], rows: int, keys: int, d: int) -> None:
    """Print one row: our time, and how many times as long the others take."""
    random = torch.Generator().manual_seed(0)
    shapes = ((1, heads[0], rows, d), (1, heads[1], keys, d), (1, heads[1], keys, d))
    q, k, v = (torch.randn(shape, generator=random) for shape in shapes)
    causal = spec == "causal"
    attention = load(spec)
    ours = best(lambda: attention(q, k, v))
    gqa = heads[0] != heads[1]
    others = {
        "sdpa": best(
            lambda: scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=gqa)
        ),
        "flex": best(flex(q, k, v, causal)),
    }
    if not gqa:
        others["plain"] = best(lambda: plain(q, k, v, causal))
    ratios = "  ".join(f"{other} {ms:8.1f} ({ms / ours:4.2f}x)" for other, ms in others.items())
    print(f"{name:34s} attnc {ours:8.1f}  {ratios}", flush=True)


def main() -> None:
    """All comparisons, without gradients."""
    warnings.filterwarnings("ignore")
    print(f"fp32, {torch.get_num_threads()} threads; in brackets how much faster attnc is")
    with torch.no_grad():
        compare("causal, 8 heads, 2048, d 64", "causal", (8, 8), 2048, 2048, 64)
        compare("full, 8 heads, 2048, d 64", "sdpa", (8, 8), 2048, 2048, 64)
        compare("full, 8 heads of 2, 1024, d 128", "sdpa", (8, 2), 1024, 1024, 128)
        compare("one query, 32 heads of 8, 16384", "sdpa", (32, 8), 1, 16384, 128)


if __name__ == "__main__":
    main()
