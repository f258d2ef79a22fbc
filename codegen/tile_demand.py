"""What one program of an emitted kernel asks of each hardware unit, from its plan alone.

The lets that the kernel computes are counted once, as instructions per point of a tile's axes
(`codegen.demand_form`); tile sizes and the layout of tiles in registers (`codegen.spread`) are put
in for each configuration.

Shared memory: operands of matrix products are stored there once and read by each unit that
multiplies with them; a map that enters a second product stays in registers where one warp has whole
rows of it; other tiles pass through to get from the layout of loads to that of products.

Addresses are estimated: what the machine code has besides what is counted here was fitted, for 12
specs, 64 and 128 wide, on sm_80 and sm_90 (`benchmarks/demand.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import prod

from attnc.codegen.config import MAX_COLUMNS, Config, padded
from attnc.codegen.demand_form import Axes, Form, Moved, Product, Section, Sweep, kernel_form
from attnc.codegen.identity import Same
from attnc.codegen.spread import Layout, MatrixUnit, Spread, spread
from attnc.ir.cascade import Cascade
from attnc.ir.demand import Demand, KernelDemand, PassDemand
from attnc.ir.plan import SweepStage

# Instructions of a thread (fma, alu): per program, per visited tile, and per 16 bytes that it moves
# of tiles of rows, of tiles that are visited. Tensor descriptors need those per tile only.
_PER_PROGRAM, _PER_TILE = (145, 145), (13, 4)
_PER_PIECE_OF_ROWS, _PER_PIECE = (0, 12), (1, 2)
# What is left of registers for loads that start before the products of the loads before them.
_AHEAD = 32


def kernel_demand(
    stage: SweepStage,
    cascade: Cascade,
    config: Config,
    dims: Mapping[str, int],
    itemsize: int,
    unit: MatrixUnit = "warpgroup",
) -> KernelDemand:
    """Per program, and per visited tile of each pass; `issue` is not known and 0.

    `dims` has the extent of each feature rank, `itemsize` is bytes of an element of the inputs.
    `unit`: what the target multiplies matrices with. Cheap when asked again for the same stage.
    """
    widths = tuple((r, dims[r]) for r in (*stage.inner, *stage.columns))
    return _demand(Same(stage), Same(cascade), config, widths, itemsize, unit)


@lru_cache(maxsize=4096)
def _demand(
    stage: Same[SweepStage],
    cascade: Same[Cascade],
    config: Config,
    widths: tuple[tuple[str, int], ...],
    itemsize: int,
    unit: MatrixUnit,
) -> KernelDemand:
    return _Evaluation(_form(stage, cascade), config, dict(widths), itemsize, unit).demand()


@lru_cache(maxsize=256)
def _form(stage: Same[SweepStage], cascade: Same[Cascade]) -> Form:
    return kernel_form(stage.value, cascade.value)


class _Evaluation:
    """A kernel's form at one configuration."""

    def __init__(
        self,
        form: Form,
        config: Config,
        dims: Mapping[str, int],
        itemsize: int,
        unit: MatrixUnit,
    ) -> None:
        s = form.stage
        self.form, self.config, self.itemsize = form, config, itemsize
        self.row, self.swept = s.row, s.swept
        self.blocks = {s.swept: config.block_n}
        self.extents = {s.swept: config.block_n}
        if s.row is not None:
            self.blocks[s.row] = self.extents[s.row] = config.block_m
        for r in (*s.inner, *s.columns):
            self.blocks[r], self.extents[r] = padded(dims[r]), dims[r]
            if r == form.split:
                self.blocks[r] = min(self.blocks[r], MAX_COLUMNS)
                self.extents[r] = -(-dims[r] // max(1, -(-dims[r] // MAX_COLUMNS)))
        self.columns = max((self.blocks[c] for c in s.columns), default=16)
        self.unit: MatrixUnit = unit if itemsize < 4 else None
        # From sm_90 on integers are converted where they are added (I2FP).
        self.slow_casts = unit == "warp"

    def demand(self) -> KernelDemand:
        once: dict[str, float] = defaultdict(float, waits=1.0)
        passes = []
        for sweep in self.form.sweeps:
            values = self._values(sweep.chained)
            for section in (sweep.hoisted, sweep.after):
                values.add(section, once)
            # the first tiles of a pipeline, and the list that tells of them
            once["waits"] += 3 if sweep.kind == "lists" else 1
            passes.append(self._pass(sweep, values))
        values = self._values(self.form.sweeps[-1].chained)
        for section in self.form.before:
            values.add(section, once)
            values.address(section.tiles, (0, 0), _PER_PIECE_OF_ROWS, once)
        for tile in self.form.stores:
            values.store(tile, once)
        always = (0, 0) if self.config.descriptors else _PER_PROGRAM
        values.address(self.form.stores, always, _PER_PIECE_OF_ROWS, once)
        return KernelDemand(Demand(**once), tuple(passes))

    def _values(self, chained: bool) -> _Values:
        lay = spread(self.config, self.columns, chained, self.unit)
        return _Values(
            self.row,
            self.swept,
            self.blocks,
            self.extents,
            self.itemsize,
            lay,
            self.slow_casts,
            self.config.descriptors,
        )

    def _pass(self, sweep: Sweep, values: _Values) -> PassDemand:
        """A pipeline starts loads so many tiles ahead; the tiles at borders have none."""
        stages, depth = self.config.num_stages, sweep.partial.depth
        late = depth if stages == 1 else max(0, depth - stages)
        full: dict[str, float] = defaultdict(float, waits=float(late))
        border = depth if sweep.kind == "range" else late
        partial: dict[str, float] = defaultdict(float, waits=float(border))
        for section, units in ((sweep.full, full), (sweep.partial, partial)):
            values.add(section, units)
            values.address(section.tiles, _PER_TILE, _PER_PIECE, units)
            if sweep.kind == "range" and units is partial:
                units["waits"] += values.late_loads(section)
            elif any(len(x.ranks) > 1 and not x.operand for x in section.tiles):
                # only what products take is loaded ahead
                units["waits"] += 1
        return PassDemand(Demand(**full), Demand(**partial))


class _Values:
    """What sections ask for with these blocks: `extents` is what of them holds data."""

    def __init__(
        self,
        row: str | None,
        swept: str,
        blocks: Mapping[str, int],
        extents: Mapping[str, int],
        itemsize: int,
        lay: Spread,
        slow_casts: bool,
        descriptors: bool,
    ) -> None:
        self.slow_casts, self.descriptors = slow_casts, descriptors
        self.row, self.swept, self.blocks, self.extents = row, swept, blocks, extents
        self.itemsize, self.lay = itemsize, lay
        self.known: dict[Axes, float] = {}

    def add(self, section: Section, units: dict[str, float]) -> None:
        """The instructions of a section, its tiles, products and folds."""
        for axes, (fma, alu, sfu, casts) in section.terms:
            points = self.computed(axes)
            units["fma"] += fma * points
            units["alu"] += alu * points
            units["sfu"] += sfu * points
            units["sfu" if self.slow_casts else "alu"] += casts * points
        for tile in section.tiles:
            self._load(tile, units)
        for product in section.products:
            self._multiply(product, units)
        maps = self.lay.maps
        for pipe, axes in section.folds:
            points = self.computed(axes)
            units[pipe] += (maps.exchanges - 1) * points
            units["shared"] += 4 * maps.exchanges * points
            if pipe == "alu" and maps.unit == "block":
                # from there on a maximum takes three operands
                units[pipe] -= self.computed((*axes, (self.swept, 1.0))) / 2

    def computed(self, axes: Axes) -> float:
        """What all threads compute of a tile over these axes, the repeated included."""
        found = self.known.get(axes)
        if found is None:
            found = self.known[axes] = self._computed(axes)
        return found

    def _computed(self, axes: Axes) -> float:
        ranks = {r for r, _ in axes}
        layout = self._layout(ranks)
        if self.row is None or (len(ranks) > 1 and self.row not in ranks):
            return max(self._points(ranks), layout.threads)
        found = float(layout.threads)
        for rank, share in axes:
            if rank == self.row:
                held = layout.rows_per_thread
            else:
                held = layout.columns_per_thread(self.blocks[rank])
            found *= held**share
        return found

    def _layout(self, ranks: Iterable[str]) -> Layout:
        return self.lay.maps if {*ranks} <= {self.row, self.swept} else self.lay.sums

    def _points(self, ranks: Iterable[str]) -> int:
        return prod(self.blocks[r] for r in ranks)

    def _load(self, tile: Moved, units: dict[str, float]) -> None:
        size = tile.size or self.itemsize
        stored = size * self._points(tile.ranks)
        units["l2"] += size * prod(self.extents[r] for r in tile.ranks)
        if len(tile.ranks) > 1 and (self.row is not None or tile.operand):
            units["shared"] += stored if tile.operand else 2 * stored
        if not tile.operand and not tile.size and self.itemsize < 4:
            units["alu"] += stored / size

    def store(self, tile: Moved, units: dict[str, float]) -> None:
        """A result on its way to memory, by way of the layout in which that is contiguous."""
        size = tile.size or self.itemsize
        points = self.computed(tuple((r, 1.0) for r in tile.ranks))
        units["l2"] += size * prod(self.extents[r] for r in tile.ranks)
        units["alu"] += points / 2 if self.itemsize < 4 and not tile.size else 0
        units["shared"] += 2 * points * size if len(tile.ranks) > 1 else 0

    def address(
        self,
        tiles: Iterable[Moved],
        always: tuple[int, int],
        per_piece: tuple[int, int],
        units: dict[str, float],
    ) -> None:
        """The estimated instructions of addresses; a tensor descriptor has those of its pieces."""
        pieces = sum(self._bytes_per_thread(x) / 16 for x in tiles if len(x.ranks) > 1)
        pieces = 0 if self.descriptors else pieces
        for pipe, base, each in zip(("fma", "alu"), always, per_piece, strict=True):
            units[pipe] += self.lay.maps.threads * (base + each * pieces)

    def late_loads(self, section: Section) -> int:
        """Round trips besides the first of a tile without a pipeline: the loads for its second
        product start behind the first, unless there are registers for both."""
        chained = sum(p.matrix for p in section.products) > 1
        operands = [x for x in section.tiles if x.operand]
        late = chained and len(operands) > 1
        return int(late and self._bytes_per_thread(operands[-1]) > _AHEAD)

    def _bytes_per_thread(self, tile: Moved) -> float:
        size = tile.size or self.itemsize
        return self._points(tile.ranks) * size / self.lay.maps.threads

    # products --------------------------------------------------------------------------------

    def _multiply(self, p: Product, units: dict[str, float]) -> None:
        if not p.matrix:
            units["fma"] += self._points(p.rows)
            return
        layout = self._layout((*p.rows, *p.columns))
        done = self.computed(p.result) * self.blocks[p.over]
        if layout.unit is None:
            units["fma"] += done
        else:
            units["tensor"] += 2 * done
        if self.itemsize < 4:
            for side, made in zip(p.sides, p.made, strict=True):
                units["alu"] += self.computed(side) / 2 if made else 0
        units["shared"] += self._operands(p, layout) * self.itemsize

    def _operands(self, p: Product, lay: Layout) -> float:
        """Elements of both sides that pass through shared memory, as often as they do."""
        (row,), (column,) = p.rows, p.columns
        rows, columns, depth = self.blocks[row], self.blocks[column], self.blocks[p.over]
        match lay.unit:
            case "block":
                a, b = float(rows), float(columns)
            case "warpgroup":
                # warps without rows of their own take halves of the columns, one after the other
                a = max(rows, 16 * lay.along) * max(lay.across, 16 * lay.along / rows)
                b = columns * lay.along / 4
            case "wave":
                # rows that the whole sweep multiplies with stay in registers
                a, b = 0.0, columns * lay.along / 2
            case "warp":
                a, b = max(rows, 16 * lay.along) * lay.across, columns * lay.along
            case None:
                a = lay.threads * lay.rows_per_thread
                b = lay.threads * lay.columns_per_thread(columns)
        if p.made[0]:
            # stored before it is read again, unless a warp has whole rows of it
            a = rows + a if lay.unit is None or (lay.unit == "warp" and lay.across > 1) else 0
        return depth * (a + b + p.made[1] * columns)
