"""What `benchmarks/gpu.py` computes: specs with their settings, shapes and captured tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

import attnc
from attnc.codegen.config import Config, default_config
from attnc.codegen.prune import needed_stages
from attnc.ir.cascade import Cascade
from attnc.ir.frame import ParamValue
from attnc.ir.geometry.census import Census
from attnc.ir.geometry.layout import tile_shape
from attnc.ir.plan import SweepStage


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
class Problem:
    """A spec with its settings on tensors of a shape.

    extents: those of components, by upper-case name; captured: makes the int and bool tensors that
    the mask reads, by name, on the CPU
    """

    name: str
    spec: str
    shape: Shape
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    extents: Mapping[str, int] = field(default_factory=dict)
    captured: Callable[[Problem], dict[str, Tensor]] | None = None

    @property
    def attention(self) -> attnc.Attention:
        return attnc.load(self.spec, **self.params)

    @property
    def sizes(self) -> dict[str, int]:
        """All extents by upper-case name."""
        s = self.shape
        whole = {"B": s.b, "H": s.h, "G": s.g, "M": s.m, "N": s.n, "D": s.d, "E": s.d}
        return {**whole, **self.extents}

    def number(self, param: str) -> int:
        """An int param; the first item of a tuple."""
        value = self.attention.params[param]
        return int(value[0] if isinstance(value, tuple) else value)

    # Of `Any`, since they are passed beside keyword arguments of other types.
    def data(self) -> dict[str, Any]:
        """The captured tensors, the same at every call."""
        return {} if self.captured is None else self.captured(self)


def tiny(p: Problem) -> Problem:
    """The same spec on a few tokens, its lengths short enough for masks to matter."""
    sides = (3, 4, 5)[-(len(p.extents) // 2) :] if p.extents else ()
    extents = dict(zip(p.extents, 2 * sides, strict=True))
    tokens = (20, 24)
    if extents:
        whole = int(torch.tensor(sides).prod())
        tokens = (whole, whole)
    params = {name: _at_most(4, value) for name, value in p.params.items()}
    return replace(p, shape=Shape(1, 2, 1, *tokens, 16), params=params, extents=extents)


def _at_most(most: int, value: ParamValue) -> ParamValue:
    if isinstance(value, tuple):
        return tuple(min(most, x) for x in value)
    return min(most, value)


# captured tensors --------------------------------------------------------------------------------


def documents(p: Problem) -> dict[str, Tensor]:
    """32 documents of random lengths, one after the other; all batches alike."""
    cuts = 1 + torch.randperm(p.shape.n - 1, generator=_seeded())[: min(31, p.shape.n // 4)]
    ids = torch.searchsorted(cuts.sort().values, torch.arange(p.shape.n), right=True)
    return {"doc": ids.expand(p.shape.b, -1).contiguous()}


def prefixes(p: Problem) -> dict[str, Tensor]:
    """A prefix of a quarter of the keys."""
    return {"prefix": torch.full((p.shape.b,), p.shape.n // 4)}


def random_blocks(p: Problem) -> dict[str, Tensor]:
    """Three random blocks of keys per head and block of queries."""
    scores = torch.rand(_block_counts(p), generator=_seeded())
    chosen = scores.argsort(-1)[..., :3]
    return {"random": torch.zeros(scores.shape, dtype=torch.bool).scatter_(-1, chosen, True)}


def selected_blocks(p: Problem) -> dict[str, Tensor]:
    """Every eighth block or so."""
    return {"select": torch.rand(_block_counts(p), generator=_seeded()) < 1 / 8}


def _block_counts(p: Problem) -> tuple[int, int, int]:
    block = p.number("block")
    return p.shape.h, -(-p.shape.m // block), -(-p.shape.n // block)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# problems ----------------------------------------------------------------------------------------

_SHORT = Shape(4, 16, 16, 4096, 4096, 128)
_NARROW = Shape(4, 32, 32, 4096, 4096, 64)
_LONG = Shape(1, 16, 16, 16384, 16384, 128)
_LINE = Shape(1, 24, 24, 32768, 32768, 128)
_PLANE = Shape(1, 24, 24, 65536, 65536, 128)
_VOLUME = Shape(1, 24, 24, 115200, 115200, 128)
_CANVAS = {"MY": 256, "MX": 256, "NY": 256, "NX": 256}
_VIDEO = {"MT": 30, "MY": 48, "MX": 80, "NT": 30, "NY": 48, "NX": 80}


def _line(stride: int) -> Problem:
    params = {"window": 2048, "stride": stride}
    return Problem(f"1-D 32K w 2048 s {stride}", "na1d", _LINE, params)


def _plane(*stride: int) -> Problem:
    params = {"window": (80, 80), "stride": stride}
    name = f"FLUX w 80x80 s {'x'.join(map(str, stride))}"
    return Problem(name, "na2d", _PLANE, params, _CANVAS)


def _volume(*stride: int) -> Problem:
    params = {"window": (18, 24, 24), "stride": stride}
    name = f"Hunyuan s {'x'.join(map(str, stride))}"
    return Problem(name, "na3d", _VOLUME, params, _VIDEO)


# In this order, should the time not suffice for all.
PROBLEMS = (
    Problem("causal, d 128", "causal", _SHORT),
    Problem("full, d 128", "sdpa", _SHORT),
    Problem("window 1024 of 16K", "sliding_window", replace(_LONG, g=4), {"window": 1024}),
    _plane(1, 1),
    _plane(16, 16),
    _volume(1, 1, 1),
    _volume(16, 8, 8),
    Problem("32 documents in 16K", "document", _LONG, captured=documents),
    _line(1),
    _line(256),
    _line(2048),
    Problem("blocks 16K", "block_sparse", _LONG, {"block": (128, 128)}, captured=selected_blocks),
    Problem("sinks and window 16K", "streaming_llm", _LONG, {"sink": 4, "window": 1024}),
    Problem("prefix 4K of 16K", "prefix_lm", _LONG, captured=prefixes),
    Problem("bigbird 16K", "bigbird", _LONG, {"block": 64, "window": 3}, captured=random_blocks),
    Problem("softcap, d 128", "softcap", _SHORT),
    Problem("grouped heads, d 128", "gqa", replace(_SHORT, h=32, g=8)),
    Problem("decode, 16K keys", "gqa", Shape(16, 32, 8, 1, 16384, 128)),
    Problem("decode, ungrouped", "gqa", Shape(64, 8, 8, 1, 16384, 128)),
    Problem("causal, d 64", "causal", _NARROW),
    Problem("full, d 64", "sdpa", _NARROW),
    Problem("causal 16K, d 128", "causal", _LONG),
    Problem("sigmoid, d 128", "sigmoid", _SHORT),
)
# The model's parameters are fitted to these and tried on all others: each unit and the memory
# limits one of them, tiles are full in some and at borders in others, one is a matter of waiting.
FITTED = (
    ("full, d 128", "attnc"),
    ("causal, d 64", "attnc"),
    ("window 1024 of 16K", "attnc"),
    ("FLUX w 80x80 s 1x1", "attnc gather"),
    ("1-D 32K w 2048 s 256", "attnc"),
    ("decode, ungrouped", "attnc"),
    ("32 documents in 16K", "attnc"),
)
# Of these the tiles that the model chooses are timed, too: compiling them takes its time.
CHOSEN = (
    "causal, d 128",
    "full, d 128",
    "window 1024 of 16K",
    "FLUX w 80x80 s 1x1",
    "FLUX w 80x80 s 16x16",
    "Hunyuan s 1x1x1",
    "Hunyuan s 16x8x8",
    "32 documents in 16K",
    "decode, 16K keys",
    "causal, d 64",
    "full, d 64",
)
# Every configuration of these is timed beside the model's choice.
SWEPT = ("causal, d 128", "full, d 64", "window 1024 of 16K")
# Lists from data, several axes, a closed form with a score_mod.
TINY = ("32 documents in 16K", "FLUX w 80x80 s 1x1", "softcap, d 128")


@lru_cache(maxsize=1)
def problem(name: str, small: bool) -> Problem:
    """A problem by its name, `small`: on a few tokens."""
    found = next(p for p in PROBLEMS if p.name == name)
    return tiny(found) if small else found


# tiles -------------------------------------------------------------------------------------------


def kernels(p: Problem, itemsize: int) -> dict[str, Config]:
    """The tiles that each kernel gets by default, by its stage; `itemsize`: bytes per element."""
    plan = p.attention.plan
    dims = {name.lower(): n for name, n in p.sizes.items()}
    return {
        s.name: default_config(s, plan.cascade, dims, itemsize)
        for s in needed_stages(plan)
        if isinstance(s, SweepStage)
    }


def count_tiles(p: Problem, itemsize: int) -> Census:
    """The exact census of the mask, in the tiles of the kernel."""
    attn = p.attention
    found = kernels(p, itemsize)
    stage = next(s for s in attn.plan.stages if isinstance(s, SweepStage) and s.name in found)
    config = found[stage.name]
    blocks = {stage.row: config.block_m, stage.swept: config.block_n}
    tile = {r: _sides(p, attn.plan.cascade, r, n) for r, n in blocks.items() if r is not None}
    return attn.tiles(p.sizes, tile=tile, flat=not p.extents, **p.data()).main.census


def _sides(p: Problem, cascade: Cascade, rank: str, block: int) -> int | tuple[int, ...]:
    if not p.extents:
        return block
    return tile_shape(block, [p.extents[c.upper()] for c in cascade.rank(rank).components])


def visible_scores(p: Problem, census: Census) -> int:
    """How many scores the mask leaves, over all batches and heads."""
    s = p.shape
    return s.b * s.h * s.m * s.n * census.visible // census.points
