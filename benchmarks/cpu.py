"""The CPU engine beside torch: `python benchmarks/cpu.py`, times in ms, best of several.

FlexAttention is compiled for the CPU here, which needs gcc; its block mask is made outside the
timing. `plain` is a loop over row tiles with a whole row of scores each, as one would write it.
Contestants take turns, so that a busy machine slows all of them.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from attnc.api import load

ROUNDS = 7
ROWS = 64

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Problem:
    """One comparison: `window` None sees all keys, or all past ones if `causal`."""

    name: str
    spec: str
    heads: tuple[int, int]
    rows: int
    keys: int
    d: int
    causal: bool = False
    window: int | None = None

    @property
    def params(self) -> dict[str, int]:
        return {} if self.window is None else {"window": self.window}

    def first(self, row: int) -> int:
        """The first key that a row sees."""
        return 0 if self.window is None else max(0, row - self.window + 1)


def best(contestants: Mapping[str, Run], rounds: int = ROUNDS) -> dict[str, float]:
    """Milliseconds of the fastest run of each; they take turns."""
    for f in contestants.values():
        f()
    found = dict.fromkeys(contestants, math.inf)
    for _ in range(rounds):
        for name, f in contestants.items():
            start = time.perf_counter()
            f()
            found[name] = min(found[name], 1e3 * (time.perf_counter() - start))
    return found


def plain(p: Problem, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Row tiles of softmax attention, keys that no row of a tile sees left out."""
    out = torch.empty(*q.shape[:-1], v.shape[-1])
    for start in range(0, p.rows, ROWS):
        rows = q[:, :, start : start + ROWS]
        low, high = p.first(start), start + rows.shape[2] if p.causal else p.keys
        scores = rows @ k[:, :, low:high].transpose(2, 3) / math.sqrt(p.d)
        if p.causal:
            m = torch.arange(start, start + rows.shape[2])[:, None]
            n = torch.arange(low, high)
            hidden = n > m if p.window is None else (n > m) | (m - n >= p.window)
            scores.masked_fill_(hidden, -math.inf)
        out[:, :, start : start + ROWS] = scores.softmax(-1) @ v[:, :, low:high]
    return out


def flex(p: Problem, q: Tensor, k: Tensor, v: Tensor) -> Run:
    """FlexAttention, compiled, with a block mask where there is a mask."""

    def visible(b: Tensor, h: Tensor, m: Tensor, n: Tensor) -> Tensor:
        return (n <= m) & (m - n < (p.window or p.keys))

    mask = None
    if p.causal:
        mask = create_block_mask(visible, None, None, p.rows, p.keys, device="cpu")
    compiled = torch.compile(flex_attention)
    return lambda: compiled(q, k, v, block_mask=mask, enable_gqa=p.heads[0] != p.heads[1])


def compare(p: Problem) -> None:
    """Print one row: our time, and how many times as long the others take."""
    random = torch.Generator().manual_seed(0)
    shapes = ((1, p.heads[0], p.rows, p.d), *[(1, p.heads[1], p.keys, p.d)] * 2)
    q, k, v = (torch.randn(shape, generator=random) for shape in shapes)
    gqa = p.heads[0] != p.heads[1]
    runs: dict[str, Run] = {
        "attnc": partial(load(p.spec, **p.params), q, k, v),
        "flex": flex(p, q, k, v),
    }
    if p.window is None:
        sdpa = partial(scaled_dot_product_attention, is_causal=p.causal, enable_gqa=gqa)
        runs["sdpa"] = partial(sdpa, q, k, v)
    if not gqa:
        runs["plain"] = partial(plain, p, q, k, v)
    times = best(runs)
    ours = times.pop("attnc")
    ratios = "  ".join(f"{other} {ms:8.1f} ({ms / ours:4.2f}x)" for other, ms in times.items())
    print(f"{p.name:34s} attnc {ours:8.1f}  {ratios}", flush=True)


PROBLEMS = (
    Problem("window 256, 8 heads, 8192, d 64", "sliding_window", (8, 8), 8192, 8192, 64, True, 256),
    Problem("causal, 8 heads, 2048, d 64", "causal", (8, 8), 2048, 2048, 64, True),
    Problem("full, 8 heads, 2048, d 64", "sdpa", (8, 8), 2048, 2048, 64),
    Problem("full, 8 heads of 2, 1024, d 128", "sdpa", (8, 2), 1024, 1024, 128),
    Problem("one query, 32 heads of 8, 16384", "sdpa", (32, 8), 1, 16384, 128),
)


def main() -> None:
    """All comparisons without gradients, or those whose names contain an argument."""
    warnings.filterwarnings("ignore")
    wanted = sys.argv[1:]
    print(f"fp32, {torch.get_num_threads()} threads; in brackets how much faster attnc is")
    with torch.no_grad():
        for p in PROBLEMS:
            if not wanted or any(name in p.name for name in wanted):
                compare(p)


if __name__ == "__main__":
    main()
