"""Tile sizes and warps: the largest tiles whose registers and buffers are estimated to fit.

The estimates are bounds found by compiling the library for sm_80, sm_90, sm_100 and gfx942; what
they admit was seen not to spill there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from attnc.codegen.identity import Same
from attnc.codegen.mask_parts import name_mask_parts
from attnc.codegen.prune import all_lets, operands, prune, used_names
from attnc.codegen.tile_lists import listed_visibility
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Apply, Read
from attnc.ir.geometry.layout import tile_shape
from attnc.ir.ops import OPS
from attnc.ir.plan import Dot, Let, Load, Pass, SweepStage, value_exprs
from attnc.ir.presence import TRUE
from attnc.ir.walk import subexprs


@dataclass(frozen=True, slots=True)
class Config:
    """Rows and swept coordinates per tile, warps (of 32 lanes), depth of the load pipeline.

    permuted: whether tokens whose tiles have several axes, or gaps, are put in the order of tiles
    before the kernel and back after it; None: where `permutes_tokens` says so.
    descriptors: whether tiles are loaded by tensor descriptors where that is possible.
    splits: programs that share the swept tiles of one row tile; their states are merged afterwards.
    shape_m, shape_n: sides of a tile over the components of its rank, where a tile has several;
    None: as equal as they can be.
    """

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    permuted: bool | None = None
    descriptors: bool = False
    splits: int = 1
    shape_m: tuple[int, ...] | None = None
    shape_n: tuple[int, ...] | None = None


def tile_sides(c: Config, of_rows: bool, extents: Sequence[int]) -> tuple[int, ...]:
    """The sides of a tile of rows, or of swept coordinates, over components of these extents."""
    given = c.shape_m if of_rows else c.shape_n
    return given or tile_shape(c.block_m if of_rows else c.block_n, extents)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A configuration that was chosen for one stage, on one GPU, for calls of one kind.

    gpu:       NVIDIA's compute capability (90), AMD's architecture ("gfx942")
    itemsize:  bytes of an element of the inputs
    width:     the widest feature block
    few:       whether there are at most `FEW_ROWS` rows
    """

    stage: str
    gpu: int | str
    itemsize: int
    width: int
    few: bool
    config: Config


# Largest first. Exact products of float32 use no matrix instructions, and many registers.
_HALF = tuple(
    Config(m, n, 8, 2)
    for m, n in ((128, 64), (128, 32), (64, 64), (64, 32), (32, 32), (32, 16), (16, 16))
)
_SINGLE = (Config(32, 32, 4, 2), Config(32, 32, 8, 2), Config(16, 32, 8, 2), Config(16, 16, 8, 2))
_ONE_ROW = (Config(1, 128, 4, 2), Config(1, 64, 4, 2), Config(1, 32, 4, 2), Config(1, 16, 4, 2))
_WIDTHS = (64, 128, 256, 512, 1024)
# Fewer rows than this get tiles of as many; configurations are chosen for them apart.
FEW_ROWS = 16
# A column rank wider than this is split over programs.
MAX_COLUMNS = 256
MAX_WIDTH = _WIDTHS[-1]
_REGISTERS = 270
# What kernels that load which tiles they visit need besides; and those with a mask in which two
# loops carry several accumulators.
_LISTED = 64
_SEVERAL = 100
_SHARED_BYTES = 100_000


def default_config(
    stage: SweepStage, cascade: Cascade, dims: Mapping[str, int], itemsize: int
) -> Config:
    """The configuration that the launcher picks: `dims` has the extent of each feature rank.

    `itemsize`: bytes of an element of the inputs.
    """
    width = max((padded(dims[r]) for r in (*stage.inner, *stage.columns)), default=16)
    table = config_table(stage, cascade)[itemsize]
    return table[min(w for w in table if w >= min(width, max(table)))]


def config_table(stage: SweepStage, cascade: Cascade) -> dict[int, dict[int, Config]]:
    """By bytes of an element, by the widest block of a feature rank up to which it applies."""
    known = registers_of(stage, cascade)
    found: dict[int, dict[int, Config]] = {}
    for itemsize, candidates in ((2, _HALF), (4, _SINGLE)):
        candidates = candidates if stage.row is not None else _ONE_ROW
        found[itemsize] = {w: _first(known, candidates, w, itemsize) for w in _WIDTHS}
    return found


def widest(stage: SweepStage, dims: Mapping[str, int]) -> int:
    """The widest block of a feature rank, as the launcher finds it: `dims` has their extents."""
    inner = (padded(dims[r]) for r in stage.inner)
    columns = (padded(dims[r]) for r in stage.columns)
    return max((*inner, *(min(w, MAX_COLUMNS) for w in columns)), default=16)


def permutes_tokens(stage: SweepStage) -> bool:
    """Whether a pass that makes tiles contiguous pays: where a token alone is no whole sector.

    A tensor with a feature rank has its features side by side, at least 32 bytes of them: loading
    tokens from anywhere then moves no byte in vain, and permuting them would move all twice more.
    """
    return not {*stage.inner, *stage.columns}


def _besides(stage: SweepStage, cascade: Cascade) -> int:
    """Registers that the estimate does not count."""
    if listed_visibility(stage, cascade) is not None:
        return _LISTED
    several = any(_accumulators(stage, p) > 1 and p.visibility.every != TRUE for p in stage.passes)
    return _SEVERAL if several else 0


def padded(extent: int) -> int:
    """A block's length: a power of two, and no less than tl.dot takes."""
    return max(16, 1 << (max(extent, 1) - 1).bit_length())


def _first(
    known: StageRegisters, candidates: tuple[Config, ...], width: int, itemsize: int
) -> Config:
    for c in candidates:
        shared = c.num_stages * known.streamed * c.block_n * width * itemsize
        if known.estimate(c, width, itemsize) <= _REGISTERS and shared <= _SHARED_BYTES:
            return c
    return candidates[-1]


@dataclass(frozen=True, slots=True)
class StageRegisters:
    """What a thread of a stage's kernel keeps in registers, whatever the tiles.

    besides:   registers that do not depend on the tiles
    streamed:  tiles with a feature rank that each step of a sweep loads
    sums:      accumulators over row and columns, in those of one column rank
    operands:  blocks of row and feature rank that go into matrix products as they are
    computed:  those that are calculated with, in float32
    live:      tiles over row and swept rank that exist at once
    """

    besides: int
    streamed: int
    sums: float
    operands: int
    computed: int
    live: int

    def estimate(self, c: Config, width: int, itemsize: int) -> float:
        """32-bit registers per thread. `width`: of the widest feature block."""
        row = (
            self.sums * min(width, MAX_COLUMNS)
            + self.operands * width * itemsize / 4
            + self.computed * width
            + self.live * c.block_n
        )
        return self.besides + 8 * self.streamed + row * c.block_m / (32 * c.num_warps)


def registers_of(stage: SweepStage, cascade: Cascade) -> StageRegisters:
    """What a stage keeps in registers, read off its plan; quick when asked again."""
    return _registers_of(Same(stage), Same(cascade))


@lru_cache(maxsize=64)
def _registers_of(of: Same[SweepStage], within: Same[Cascade]) -> StageRegisters:
    stage, cascade = of.value, within.value
    besides = 48 + _besides(stage, cascade)
    stage = name_mask_parts(prune(stage), cascade).stage
    native = operands(all_lets(stage))
    held = [x.name in native for x in stage.resident if set(x.ranks) & set(stage.inner)]
    calculated = any(
        isinstance(x.value, Dot) and x.value.over in stage.inner and not _is_plain(x.value, native)
        for x in all_lets(stage)
    )
    carries = max(_accumulators(stage, p) for p in stage.passes)
    return StageRegisters(
        besides,
        _streamed(stage),
        _accumulated(carries, len(stage.columns)),
        held.count(True) + calculated,
        held.count(False),
        max(_live_tiles(stage, p) for p in stage.passes),
    )


def _accumulated(carries: int, columns: int) -> float:
    """What accumulators need, in accumulators: several were seen to need more than their size."""
    if columns > 1:
        return carries * (1.5 * columns - 0.5)
    return carries if carries < 2 else 1.15 * carries


def _accumulators(stage: SweepStage, p: Pass) -> int:
    """How many states of a pass have a column rank."""
    return sum(1 for x in p.carries if not set(stage.columns).isdisjoint(x.ranks))


def _is_plain(dot: Dot, native: Mapping[str, object]) -> bool:
    """Both sides are loaded and multiplied as they are."""
    return all(isinstance(e, Read) and e.tensor in native for e in (dot.left, dot.right))


def _streamed(stage: SweepStage) -> int:
    """How many tiles with a feature rank each step of a sweep loads."""
    features = {*stage.inner, *stage.columns}
    return max(
        sum(1 for x in p.body if isinstance(x.value, Load) and set(x.ranks) & features)
        for p in stage.passes
    )


def _live_tiles(stage: SweepStage, p: Pass) -> int:
    """How many tiles over row and swept rank exist at once, the one being computed included."""
    whole = {stage.row, stage.swept} - {None}
    # a mask takes a bit per point
    tiles = [x for x in p.body if whole <= set(x.ranks) and x.dtype != "bool"]
    last = {x.name: max(_positions(p, x.name), default=-1) for x in tiles}
    most = 1
    for i, let in enumerate(p.body):
        alive = [t for t in tiles[: _before(tiles, p, i)] if last[t.name] >= i]
        most = max(most, len(alive) + _temporaries(let, whole))
    return most


def _positions(p: Pass, name: str) -> list[int]:
    return [i for i, x in enumerate(p.body) if name in used_names(x)]


def _before(tiles: list[Let], p: Pass, i: int) -> int:
    done = {x.name for x in p.body[:i]}
    return sum(1 for t in tiles if t.name in done)


def _temporaries(let: Let, whole: set[str | None]) -> int:
    """Tiles needed to compute one: its result, and some for every long computation in it."""
    if let.dtype == "bool" or not whole <= set(let.ranks) or isinstance(let.value, Load | Dot):
        return 1
    found = [x.op for e in value_exprs(let.value) for x in subexprs(e) if isinstance(x, Apply)]
    # what a comparison gives takes a bit per point
    found = [op for op in found if OPS[op].kind not in ("compare", "logic")]
    helped = max((_HELPER_TILES.get(op, 0) for op in found), default=0)
    return 1 + helped + len(found) // 6


# Tiles that a helper function needs besides its argument and result.
_HELPER_TILES = {"pow": 3, "sin": 2, "cos": 2, "gelu": 1, "softplus": 1, "log1p": 1, "tanh": 1}
