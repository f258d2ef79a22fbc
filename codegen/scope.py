"""What a kernel calls everything, and which ranks are tiles, grid coordinates or loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attnc.codegen.code import CONSTANTS, Code
from attnc.codegen.names import LAUNCH, Namer
from attnc.ir.cascade import Cascade, DType
from attnc.ir.expr import Expr, Extent, Param
from attnc.ir.geometry.layout import Layout
from attnc.ir.plan import Fold, Let, Serial, SweepStage
from attnc.ir.walk import output_ranks


@dataclass(slots=True)
class Scope:
    """Names of one kernel.

    `helpers` names the functions of the module; `layouts` shapes the tiles of ranks; without one
    they are runs of coordinates. `permuted` are the axes of tensors whose tokens stand in the order
    of tiles. `boxes`: tiles are loaded as boxes of tensors, whose coordinates have 32 bits.
    Just now, `serial` are the ranks walked one coordinate at a time, `whole` those whose tiles have
    no coordinate beyond the extent, and `narrow` says that 32 bits are asked for.
    """

    cascade: Cascade
    stage: SweepStage
    helpers: Mapping[str, str]
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    permuted: frozenset[tuple[str, int]] = frozenset()
    namer: Namer = field(default_factory=Namer)
    serial: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    boxes: bool = False
    narrow: bool = False

    def __post_init__(self) -> None:
        self.namer.reserve((*self.helpers.values(), *CONSTANTS.values(), *LAUNCH))
        # The order decides who gets a name that several want.
        for r in self.cascade.ranks:
            self.extent(r.name)
        for r_name in self.tile_ranks:
            self.block(r_name)
        for t in self.cascade.inputs:
            self.pointer(t.name)
        for p in self.cascade.params:
            for item in range(p.length) if p.length else (None,):
                self.param(p.name, item)
        for r_name in self.stage.grid:
            self.place(r_name)

    # ranks -----------------------------------------------------------------------------------

    @property
    def tile_ranks(self) -> tuple[str, ...]:
        """The ranks that have an axis in tiles, in the order of the axes."""
        s = self.stage
        order = (s.row, *s.inner, s.swept, *s.columns)
        return tuple(dict.fromkeys(r for r in order if r is not None))

    @property
    def feature_ranks(self) -> tuple[str, ...]:
        """Tile ranks whose extent is fixed when the kernel is compiled."""
        streamed = (self.stage.row, self.stage.swept)
        return tuple(r for r in self.tile_ranks if r not in streamed)

    @property
    def split(self) -> str | None:
        """The column rank whose tiles go to different programs; None if rows need all of it."""
        s = self.stage
        if len(s.columns) != 1 or s.columns[0] in s.inner:
            return None
        lets = (*s.resident, *(x for p in s.passes for x in (*p.body, *p.after)))
        return None if any(_folds(x, s.columns[0]) for x in lets) else s.columns[0]

    def axes_of(self, tensor: str) -> tuple[str, ...]:
        """The ranks of a tensor's axes."""
        for t in self.cascade.inputs:
            if t.name == tensor:
                return t.ranks
        for store in self.stage.stores:
            if store.tensor == tensor:
                return store.axes
        return output_ranks(self.cascade.producers(tensor)[0])

    def tensor_dtype(self, tensor: str) -> DType:
        for t in self.cascade.inputs:
            if t.name == tensor:
                return t.dtype
        producers = self.cascade.producers(tensor)
        return getattr(producers[0], "dtype", "bool") if producers else "float"

    def ordered(self, ranks: frozenset[str] | set[str]) -> tuple[str, ...]:
        """Axes of a tile in canonical order."""
        return tuple(r for r in self.tile_ranks if r in ranks)

    # names -----------------------------------------------------------------------------------

    def pointer(self, tensor: str) -> str:
        return self.namer.name(("tensor", tensor), tensor, f"{tensor}_ptr")

    def stride(self, tensor: str, axis: int) -> str:
        rank = self.axes_of(tensor)[axis]
        short = f"stride_{tensor.lower()}{rank}"
        long = f"stride_{tensor.lower()}_{rank}"
        wishes = (short, long) if len(tensor) == len(rank) == 1 else (long,)
        return self.namer.name(("stride", tensor, axis), *wishes)

    def extent(self, rank: str) -> str:
        return self.namer.name(("extent", rank), rank.upper(), f"{rank.upper()}_extent")

    def param(self, name: str, item: int | None = None) -> str:
        suffix = "" if item is None else f"_{item}"
        return self.namer.name(("param", name, item), f"{name}{suffix}")

    def block(self, rank: str) -> str:
        return self.namer.name(("block", rank), f"BLOCK_{rank.upper()}")

    def step(self, coordinate: str) -> str:
        """How far apart the places of a tile are."""
        return self.namer.name(("step", coordinate), f"step_{coordinate}")

    @property
    def wide_offsets(self) -> str:
        """The flag of a call whose tensors need 64-bit offsets inside a tile."""
        return self.namer.name(("wide offsets",), "WIDE")

    def arange(self, block: str) -> str:
        """The places within a tile."""
        return f"tl.arange(0, {block})" + ("" if self.boxes else f".to({self.wide_dtype})")

    @property
    def wide_dtype(self) -> str:
        """The type of coordinates: 64 bits where the call needs them."""
        return "tl.int32" if self.boxes else f"tl.int64 if {self.wide_offsets} else tl.int32"

    def let(self, name: str) -> str:
        return self.namer.name(("let", name), name)

    def place(self, rank: str) -> str:
        """The coordinate of a grid rank, or of one walked serially."""
        return self.namer.name(("place", rank), rank, f"at_{rank}")

    def wide_place(self, rank: str) -> str:
        """The coordinate of a grid rank as a 64-bit integer."""
        if not self.boxes:
            return self.place(rank)
        return self.namer.name(("wide place", rank), f"{rank}_wide", f"wide_at_{rank}")

    def start(self, rank: str) -> str:
        """The first coordinate of a tile."""
        return self.namer.name(("start", rank), f"{rank}0", f"start_{rank}")

    def wide(self, rank: str) -> str:
        """The first coordinate of a tile as a 64-bit integer."""
        return self.namer.name(("wide", rank), f"{rank}0_wide", f"wide_{rank}")

    def local(self, rank: str) -> str:
        """Coordinates counted from the start of the tile."""
        return self.namer.name(("local", rank), f"tile_{rank}")

    def inner_place(self, rank: str) -> str:
        """Places of a tile, counted from 0."""
        return self.namer.name(("place in tile", rank), f"place_{rank}")

    def outer_place(self, rank: str) -> str:
        """Where a tile begins in the order of tiles."""
        return self.namer.name(("place of tile", rank), f"{rank}_place")

    def places(self, rank: str) -> str:
        """Of each token of a rank, where it stands in the order of tiles: a tensor."""
        return self.namer.name(("places", rank), f"places_{rank}")

    def offsets(self, rank: str) -> str:
        """All coordinates of a tile."""
        return self.namer.name(("offsets", rank), f"offs_{rank}")

    def inside(self, rank: str) -> str:
        """Which coordinates of a tile exist."""
        return self.namer.name(("inside", rank), f"in_{rank}")

    def scalar(self, e: Expr) -> str:
        """An extent or a parameter."""
        match e:
            case Extent(rank):
                return self.extent(rank)
            case Param(name, item):
                return self.param(name, item)
        raise AssertionError(e)

    def coordinate(self, rank: str) -> tuple[str, bool]:
        """How the kernel calls a coordinate ("" if it has none) and whether it is a tile."""
        if rank in self.serial or (rank in self.stage.grid and self.narrow):
            return self.place(rank), False
        if rank in self.stage.grid:
            return self.wide_place(rank), False
        if rank in self.tile_ranks:
            return self.offsets(rank), True
        return "", False

    def param_code(self, e: Param) -> Code:
        declared = next(p for p in self.cascade.params if p.name == e.name)
        name = self.scalar(e)
        # Triton's interpreter takes no bool arguments: they are passed as ints.
        return Code(f"({name} != 0)") if declared.dtype == "bool" else Code(name)


def _folds(let: Let, rank: str) -> bool:
    return isinstance(let.value, Fold | Serial) and let.value.over == rank
