"""What one program of an emitted kernel asks of each hardware unit, from its plan alone.

The lets that the kernel computes are counted once, as instructions per point of a tile's axes; the
tile sizes and their layout in registers (`codegen.spread`) are put in for each configuration.
What only the compiler knows is left out: addresses, moves, instructions that it could not share.

Shared memory: operands of matrix products are stored there once and read by each unit that
multiplies with them; a map that enters a second product stays in registers where one warp has whole
rows of it; other tiles pass through to get from the layout of loads to that of products.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeAlias, TypeVar

from attnc.codegen.config import MAX_COLUMNS, Config, padded
from attnc.codegen.mask_parts import name_mask_parts
from attnc.codegen.prune import all_lets, operands, prune
from attnc.codegen.scope import Scope
from attnc.codegen.spread import MatrixUnit, Spread, spread
from attnc.codegen.visits import VisitKind, visit_kinds
from attnc.ir.cascade import Cascade
from attnc.ir.demand import Demand, KernelDemand, PassDemand
from attnc.ir.expr import Expr, Index, Read
from attnc.ir.let_work import LetWork, Pipe, section_work
from attnc.ir.plan import Dot, Fold, Let, Load, Pass, SweepStage, let_reads, value_exprs
from attnc.ir.walk import children

T = TypeVar("T")
Ranks: TypeAlias = frozenset[str]

# Bytes of an element of captured data, as torch makes it.
_BYTES = {"int": 8, "bool": 1}


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
    form = _form(_Same(stage), _Same(cascade))
    return _Evaluation(form, config, dims, itemsize, unit).demand()


@dataclass(frozen=True, slots=True, eq=False)
class _Same(Generic[T]):
    """A value compared by identity: stages are large, and made once."""

    value: T

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


@dataclass(frozen=True, slots=True)
class _Tile:
    """A tile that is loaded. operand: it enters products as it is; size: fixed bytes, or 0."""

    ranks: Ranks
    operand: bool
    size: int


@dataclass(frozen=True, slots=True)
class _Product:
    """A contraction over `over`; rows and columns of the result; what is made in registers."""

    rows: Ranks
    columns: Ranks
    over: str
    matrix: bool
    made: tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class _Section:
    """What some lets ask for: instructions by unit and ranks, tiles, products, folds along rows.

    depth: the longest chain of loads of which one gives the address of the next
    """

    terms: tuple[tuple[Pipe, Ranks, int], ...]
    tiles: tuple[_Tile, ...]
    products: tuple[_Product, ...]
    folds: tuple[tuple[Pipe, Ranks], ...]
    depth: int


@dataclass(frozen=True, slots=True)
class _Sweep:
    """One pass; `hoisted` is what its tiles share."""

    full: _Section
    partial: _Section
    hoisted: _Section
    after: _Section
    kind: VisitKind
    chained: bool


@dataclass(frozen=True, slots=True)
class _Form:
    """A kernel; `stores` has the axes of what it writes."""

    stage: SweepStage
    split: str | None
    resident: _Section
    sweeps: tuple[_Sweep, ...]
    stores: tuple[_Tile, ...]


@lru_cache(maxsize=256)
def _form(stage: _Same[SweepStage], cascade: _Same[Cascade]) -> _Form:
    return _Reader(prune(stage.value), cascade.value).form()


class _Reader:
    """Reads a pruned stage, with its masks as they are emitted."""

    def __init__(self, stage: SweepStage, cascade: Cascade) -> None:
        self.kinds = visit_kinds(stage, cascade)
        self.stage = name_mask_parts(stage, cascade).stage
        self.cascade = cascade
        self.native = operands(all_lets(self.stage))
        self.scope = Scope(cascade, self.stage, {})

    def form(self) -> _Form:
        sweeps = tuple(
            self._sweep(p, k) for p, k in zip(self.stage.passes, self.kinds, strict=True)
        )
        stores = tuple(
            _Tile(frozenset(s.axes) - {*self.stage.grid}, False, self._size(s.tensor))
            for s in self.stage.stores
        )
        resident = self._section(self.stage.resident)[0]
        return _Form(self.stage, self.scope.split, resident, sweeps, stores)

    def _sweep(self, p: Pass, kind: VisitKind) -> _Sweep:
        partial, hoisted = self._section(p.body)
        full = partial if kind == "all" else self._section(p.full)[0]
        chained = any(x.matrix and x.over == self.stage.swept for x in partial.products)
        return _Sweep(full, partial, hoisted, self._section(p.after)[0], kind, chained)

    def _section(self, lets: tuple[Let, ...]) -> tuple[_Section, _Section]:
        """What a section asks for each time, and what of it the compiler moves out of the loop."""
        work = section_work(self.stage, self.cascade, lets)
        looping = lets and any(lets == b for p in self.stage.passes for b in (p.body, p.full))
        counts: dict[bool, Counter[tuple[Pipe, Ranks]]] = {True: Counter(), False: Counter()}
        for w in work:
            for t in w.terms:
                counts[t.moves or not looping][t.pipe, t.ranks] += t.count
        if looping:
            counts[True]["alu", frozenset((self.stage.swept,))] += self._coordinates(lets)
        each = _Section(
            _terms(counts[True]),
            tuple(self._tile(x) for x in lets if isinstance(x.value, Load)),
            tuple(self._product(w) for w in work if isinstance(w.let.value, Dot)),
            tuple(x for w in work for x in self._fold(w)),
            _depth(lets),
        )
        return each, _Section(_terms(counts[False]), (), (), (), 0)

    def _coordinates(self, lets: Iterable[Let]) -> int:
        """How many coordinates of keys are computed per tile: the start added to the places."""
        values = (let.value for let in lets if not isinstance(let.value, Load))
        found = {r for v in values for e in value_exprs(v) for r in _coordinates(e)}
        return sum((self.cascade.rank(r).parent or r) == self.stage.swept for r in found)

    def _tile(self, let: Let) -> _Tile:
        assert isinstance(let.value, Load)
        size = self._size(let.value.read.tensor)
        return _Tile(frozenset(let.ranks), let.name in self.native, size)

    def _size(self, tensor: str) -> int:
        """Bytes of an element; 0 for that of the inputs."""
        declared = next((t for t in self.cascade.inputs if t.name == tensor), None)
        if declared is not None:
            return _BYTES.get(declared.dtype, 0)
        features = {*self.stage.inner, *self.stage.columns}
        return 0 if features & {*self.scope.axes_of(tensor)} else 4

    def _product(self, w: LetWork) -> _Product:
        dot, axes = w.let.value, frozenset(w.let.ranks)
        assert isinstance(dot, Dot)
        left, right = w.sides[0], w.sides[1]
        rows, columns = axes & left, axes & right
        matrix = len(rows) == len(columns) == 1 and not rows & columns and dot.over in left | right
        loaded = [isinstance(e, Read) and e.tensor in self.native for e in (dot.left, dot.right)]
        if not matrix:
            rows, columns = left | right, frozenset()
        return _Product(rows, columns, dot.over, matrix, (not loaded[0], not loaded[1]))

    def _fold(self, w: LetWork) -> Iterable[tuple[Pipe, Ranks]]:
        """A map reduced along its rows, by the unit that combines."""
        fold = w.let.value
        if isinstance(fold, Fold) and fold.over == self.stage.swept:
            yield ("fma" if fold.op in ("sum", "prod") else "alu"), frozenset(w.let.ranks)


def _coordinates(e: Expr) -> frozenset[str]:
    """The coordinates that a value is computed from: not those at which it reads something."""
    match e:
        case Index(rank):
            return frozenset({rank})
        case Read():
            return frozenset()
        case _:
            return frozenset().union(*map(_coordinates, children(e)))


def _terms(counts: Counter[tuple[Pipe, Ranks]]) -> tuple[tuple[Pipe, Ranks, int], ...]:
    return tuple((pipe, ranks, n) for (pipe, ranks), n in counts.items() if n)


def _depth(lets: Iterable[Let]) -> int:
    depths: dict[str, int] = {}
    for let in lets:
        below = max((depths.get(name, 0) for name in let_reads(let)), default=0)
        depths[let.name] = below + isinstance(let.value, Load)
    loads = [depths[x.name] for x in lets if isinstance(x.value, Load)]
    # what a computed value is compared with may be loaded with the rest
    return min(max(loads, default=0), 2)


class _Evaluation:
    """A kernel's form at one configuration."""

    def __init__(
        self,
        form: _Form,
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
            block = padded(dims[r])
            programs = -(-dims[r] // MAX_COLUMNS) if r == form.split else 1
            self.blocks[r] = block if r != form.split else min(block, MAX_COLUMNS)
            self.extents[r] = max(1, dims[r] // max(1, programs))
        self.columns = max((self.blocks[c] for c in s.columns), default=16)
        self.unit: MatrixUnit | None = unit if itemsize < 4 else None

    def demand(self) -> KernelDemand:
        once, passes = Demand(waits=1), []
        for sweep in self.form.sweeps:
            lay = spread(self.config, self.columns, sweep.chained, self.unit)
            once += self._section(sweep.hoisted, lay) + self._section(sweep.after, lay)
            # the first tiles of a pipeline, and the list that tells of them
            once += Demand(waits=1 + 2 * (sweep.kind == "lists"))
            passes.append(self._pass(sweep, lay))
        once += self._section(self.form.resident, lay)
        for tile in self.form.stores:
            once += self._store(tile, lay)
        return KernelDemand(once, tuple(passes))

    def _pass(self, sweep: _Sweep, lay: Spread) -> PassDemand:
        full, partial = self._section(sweep.full, lay), self._section(sweep.partial, lay)
        lone = self.config.num_stages == 1
        depth = sweep.partial.depth
        late = depth if lone else max(0, depth - self.config.num_stages)
        border = depth if sweep.kind == "range" else late
        return PassDemand(full + Demand(waits=late), partial + Demand(waits=border))

    def _section(self, section: _Section, lay: Spread) -> Demand:
        units: dict[str, float] = defaultdict(float)
        for pipe, ranks, count in section.terms:
            units[pipe] += count * self._values(ranks, lay)
        for tile in section.tiles:
            self._load(tile, units)
        for product in section.products:
            self._multiply(product, lay, units)
        for pipe, ranks in section.folds:
            values = self._values(ranks, lay)
            units[pipe] += (lay.exchanges - 1) * values
            units["shared"] += 4 * lay.exchanges * values
        return Demand(**units)

    def _values(self, ranks: Ranks, lay: Spread) -> float:
        """What all threads compute of a tile over these axes, the repeated included."""
        points = 1.0
        for r in ranks:
            points *= self.blocks[r]
        if not ranks or self.row is None:
            return max(points, lay.threads)
        if len(ranks) == 1:
            (rank,) = ranks
            return lay.row_values if rank == self.row else lay.column_values(self.blocks[rank])
        if self.row not in ranks:
            return points
        if self.swept in ranks:
            return points * lay.map_repeats
        return points * lay.sum_repeats(self.columns)

    def _load(self, tile: _Tile, units: dict[str, float]) -> None:
        size = tile.size or self.itemsize
        moved = stored = size
        for r in tile.ranks:
            moved *= self.extents[r]
            stored *= self.blocks[r]
        units["l2"] += moved
        if len(tile.ranks) > 1 and (self.row is not None or tile.operand):
            units["shared"] += stored if tile.operand else 2 * stored
        if not tile.operand and not tile.size and self.itemsize < 4:
            units["alu"] += stored / size

    def _multiply(self, p: _Product, lay: Spread, units: dict[str, float]) -> None:
        depth = self.blocks[p.over]
        if not p.matrix:
            points = 1.0
            for r in p.rows:
                points *= self.blocks[r]
            units["fma"] += points
            return
        result = self._values(p.rows | p.columns, lay)
        if self.unit is None:
            units["fma"] += result * depth
        else:
            units["tensor"] += 2 * result * depth
        a, b = (self._values(side | {p.over}, lay) for side in (p.rows, p.columns))
        if self.itemsize < 4:
            units["alu"] += (p.made[0] * a + p.made[1] * b) / 2
        units["shared"] += self._operands(p, lay)

    def _operands(self, p: _Product, lay: Spread) -> float:
        """Bytes that the matrix units read of both sides, and that computed sides pass through."""
        (row,), (column,) = p.rows, p.columns
        rows, columns, depth = self.blocks[row], self.blocks[column], self.blocks[p.over]
        along = lay.map_warps if p.over != self.swept else lay.sum_warps
        across = lay.warps // along
        match lay.unit:
            case "block":
                groups_along, groups_across, rows_held = 1, 1, rows
            case "warpgroup":
                groups_along, groups_across = along // 4, across
                rows_held = max(rows, 64 * groups_along)
            case _:
                groups_along, groups_across = along, across
                rows_held = max(rows, 16 * along)
        read = groups_along * columns * depth
        if not p.made[0]:
            read += groups_across * rows_held * depth
        elif across > 1 and lay.unit != "warpgroup":
            read += (1 + across) * rows * depth
        if p.made[1]:
            read += columns * depth
        return read * self.itemsize

    def _store(self, tile: _Tile, lay: Spread) -> Demand:
        size = tile.size or self.itemsize
        moved, points = float(size), self._values(tile.ranks, lay)
        for r in tile.ranks:
            moved *= self.extents[r]
        convert = points / 2 if self.itemsize < 4 and not tile.size else 0.0
        through = 2 * points * size if len(tile.ranks) > 1 else 0.0
        return Demand(l2=moved, alu=convert, shared=through)
