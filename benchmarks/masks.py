"""How fast masks become lists of tiles, beside FlexAttention's `create_block_mask` in the same run.

    python benchmarks/masks.py [--json FILE] [--repeats 7] [--tiny]

`lists`: from a loaded spec and a shape to the exact class of every tile, as runs; `block mask`:
from the same to a `BlockMask`. FlexAttention evaluates every point, compiled (warm) or not; where
its points cannot be held in memory it is not run. Each time is the least of several; peak memory is
that of numpy's arrays and Python's objects while the lists are made, in a run of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention.flex_attention import create_block_mask

from attnc.api import Attention, load
from attnc.files import replace_text
from attnc.ir.geometry.tile_classes import tile_classes
from attnc.ir.geometry.tile_runs import Runs
from attnc.ir.geometry.tiling import Axis
from attnc.masks import masks

BLOCK = 128


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement; times in ms, memory in MB. What was not run is None.

    goals: the least ratios to reach, or the most ms and MB to take, by the name of the figure
    """

    name: str
    size: str
    ours: float
    goals: Mapping[str, float]
    block_mask: float | None = None
    peak_mb: float | None = None
    flex_compiled: float | None = None
    flex_eager: float | None = None

    @property
    def over_compiled(self) -> float | None:
        return None if self.flex_compiled is None else self.flex_compiled / self.ours

    @property
    def over_eager(self) -> float | None:
        return None if self.flex_eager is None else self.flex_eager / self.ours

    def to_dict(self) -> dict[str, object]:
        ratios = {"over_compiled": self.over_compiled, "over_eager": self.over_eager}
        return {**asdict(self), **ratios, "met": self.met}

    @property
    def met(self) -> bool:
        """Whether every goal is reached."""
        least = {"over_compiled": self.over_compiled, "over_eager": self.over_eager}
        most = {"ours": self.ours, "peak_mb": self.peak_mb}
        return all(
            (least[name] or 0) >= goal if name in least else (most[name] or 0) <= goal
            for name, goal in self.goals.items()
        )


def lists(attention: Attention, shape: Mapping[str, int], data: Mapping[str, Any]) -> Runs:
    """The classes of all tiles of a spec's mask, batches and heads included."""
    mask = masks(attention.plan, attention.run_time_params, shape, data)[0]
    seen = mask.visibility
    assert seen.row is not None
    grid = [Axis(rank, mask.extent(rank), 1) for rank in seen.grid]
    rows = (*grid, Axis(seen.row, mask.extent(seen.row), BLOCK))
    keys = (Axis(seen.swept, mask.extent(seen.swept), BLOCK),)
    return tile_classes(seen.some, rows, keys, mask.bound).runs()


def least(run: Callable[[], object], repeats: int) -> float:
    """Milliseconds of the fastest of warm runs: so many at least, and half a second of them."""
    run()
    times: list[float] = []
    stop = time.perf_counter() + 0.5
    while len(times) < repeats or time.perf_counter() < stop:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def peak(run: Callable[[], object]) -> float:
    """The most memory that is held while it runs, in MB."""
    tracemalloc.start()
    run()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 1e6


def beside_flex(name: str, tokens: int, repeats: int, **params: Any) -> Row:
    """Our lists and FlexAttention's, of the same mask, checked to be equal."""
    attention, shape = load(name, **params), {"M": tokens, "N": tokens}
    ours = attention.block_mask(shape, BLOCK, "cpu")

    def flex(create: Callable[..., Any]) -> Any:
        sizes = (None, None, tokens, tokens)
        return create(ours.mask_mod, *sizes, device="cpu", BLOCK_SIZE=BLOCK)

    # What `_compile=True` does, without its warning and its wrapper in every call.
    compiled = torch.compile(create_block_mask)
    theirs = flex(compiled)
    for counts in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(theirs, counts), getattr(ours, counts))
    return Row(
        name,
        f"{tokens} x {tokens}, blocks of {BLOCK}",
        least(lambda: lists(attention, shape, {}), 3 * repeats),
        {"over_compiled": 100, "over_eager": 1000},
        block_mask=least(lambda: attention.block_mask(shape, BLOCK, "cpu"), 3 * repeats),
        flex_compiled=least(lambda: flex(compiled), repeats),
        flex_eager=least(lambda: flex(create_block_mask), max(1, repeats // 3)),
    )


def alone(
    name: str,
    size: str,
    run: Callable[[], object],
    goals: Mapping[str, float],
    repeats: int,
) -> Row:
    """A mask whose points FlexAttention cannot hold."""
    return Row(name, size, least(run, repeats), goals, peak_mb=peak(run))


def measure(repeats: int, tiny: bool) -> list[Row]:
    """Every row; `tiny` ones are for trying the script out."""
    flex, long, side, documents = (1024, 4096, 16, 40) if tiny else (16384, 1 << 20, 128, 10_000)
    rows = [
        beside_flex("causal", flex, repeats),
        beside_flex("sliding_window", flex, repeats, window=1024),
    ]
    for name, params in (("causal", {}), ("sliding_window", {"window": 4096})):
        spec, size = load(name, **params), f"{long} x {long}, blocks of {BLOCK}"
        shape = {"M": long, "N": long}
        goals = {"ours": 50.0, "peak_mb": 50.0}
        rows.append(alone(name, size, lambda s=spec, x=shape: lists(s, x, {}), goals, repeats))
    ids = np.sort(np.random.default_rng(0).integers(0, documents, long))[None]
    spec = load("document")
    size = f"{long} tokens, {documents} documents"
    rows.append(
        alone("document", size, lambda: lists(spec, {}, {"doc": ids}), {"ours": 200.0}, repeats)
    )
    volume, shape = load("na3d", window=(6, 6, 6) if tiny else (18, 24, 24)), {}
    shape = {"MT": side, "MY": side, "MX": side}
    tile = {"m": (4, 8, 8), "n": (2, 8, 8)}
    census = alone(
        "na3d",
        f"census of {side} x {side} x {side} tokens",
        lambda: volume.tiles(shape, tile=tile),
        {"ours": 100.0},
        repeats,
    )
    return [*rows, census]


def _text(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.3g}{unit}" if value < 1e3 else f"{value:,.0f}{unit}"


def show(rows: list[Row]) -> None:
    """A line per mask, what was reached beside what was to be reached."""
    titles = ("lists", "block mask", "memory", "flex compiled", "flex eager")
    print(f"{'':50s}" + "".join(f"{t:>20s}" for t in titles))
    for r in rows:
        figures = [
            _text(r.ours, " ms"),
            _text(r.block_mask, " ms"),
            _text(r.peak_mb, " MB"),
            *(
                f"{_text(t, ' ms')}  {_text(x, 'x')}"
                for t, x in ((r.flex_compiled, r.over_compiled), (r.flex_eager, r.over_eager))
            ),
        ]
        print(f"{f'{r.name}, {r.size}':50s}" + "".join(f"{x:>20s}" for x in figures))
        if not r.met:
            print(f"    misses {dict(r.goals)}")


def main() -> None:
    """Print the table; write it as JSON where asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tiny", action="store_true", help="small sizes: does the script run?")
    args = parser.parse_args()
    rows = measure(args.repeats, args.tiny)
    show(rows)
    if args.json:
        about = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "numpy": np.__version__,
            "threads": torch.get_num_threads(),
            "times": f"ms, the least of {args.repeats} or more",
        }
        result = {**about, "rows": [row.to_dict() for row in rows]}
        replace_text(args.json, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
