"""A kernel as instructions per point of its tiles: what `codegen.tile_demand` puts numbers into.

What only the compiler knows is left out: addresses, moves, instructions that it could not share.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from attnc.codegen.mask_parts import name_mask_parts
from attnc.codegen.prune import all_lets, operands, prune
from attnc.codegen.scope import Scope
from attnc.codegen.visits import VisitKind, visit_kinds
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Expr, Index, Read
from attnc.ir.let_work import DIVISOR, PIPES, LetWork, Pipe, section_work
from attnc.ir.ops import OPS, Cost
from attnc.ir.plan import (
    Dot,
    Fold,
    Let,
    Load,
    Pass,
    Serial,
    SweepStage,
    let_reads,
    value_exprs,
)
from attnc.ir.walk import children, index_ranks, reads

# The ranks of a tile in order, and to what power a thread's part of each counts: less than 1 for
# what depends only on some of a rank's components.
Axes: TypeAlias = tuple[tuple[str, float], ...]

# Bytes of an element of captured data, as torch makes it.
_BYTES = {"int": 8, "bool": 1}


@dataclass(frozen=True, slots=True)
class Moved:
    """A tile that is loaded or stored. operand: it enters products as it is; size: fixed bytes of
    an element, or 0 for that of the inputs."""

    ranks: tuple[str, ...]
    operand: bool
    size: int


@dataclass(frozen=True, slots=True)
class Product:
    """A contraction over `over`, of a side with `rows` and one with `columns` of its result.

    matrix: whether matrix units can do it; if not, `rows` are the ranks of both sides
    result, sides: the axes of the result, and of the sides
    made: which sides are computed, not loaded
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    over: str
    matrix: bool
    result: Axes
    sides: tuple[Axes, Axes]
    made: tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class Section:
    """What some lets ask for.

    terms:  instructions, as of `ir.ops.Cost`, at each point of some axes
    folds:  maps that are reduced along their rows, by unit, to values of these axes
    depth:  the longest chain of loads of which one gives the address of the next
    """

    terms: tuple[tuple[Axes, Cost], ...]
    tiles: tuple[Moved, ...] = ()
    products: tuple[Product, ...] = ()
    folds: tuple[tuple[Pipe, Axes], ...] = ()
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Sweep:
    """One pass. hoisted: what its tiles share; chained: whether its map enters a second product."""

    full: Section
    partial: Section
    hoisted: Section
    after: Section
    kind: VisitKind
    chained: bool


@dataclass(frozen=True, slots=True)
class Form:
    """A kernel. split: the column rank that programs share; before: what precedes the sweeps."""

    stage: SweepStage
    split: str | None
    before: tuple[Section, ...]
    sweeps: tuple[Sweep, ...]
    stores: tuple[Moved, ...]


def kernel_form(stage: SweepStage, cascade: Cascade) -> Form:
    """What the kernel of a stage asks for, whatever its configuration."""
    return _Reader(prune(stage), cascade).form()


class _Reader:
    """Reads a pruned stage, with its masks as they are emitted."""

    def __init__(self, stage: SweepStage, cascade: Cascade) -> None:
        self.kinds = visit_kinds(stage, cascade)
        self.stage = name_mask_parts(stage, cascade).stage
        self.cascade = cascade
        self.native = operands(all_lets(self.stage))
        self.names = {x.name for x in (*self.stage.host, *all_lets(self.stage))}
        self.scope = Scope(cascade, self.stage, {})

    def form(self) -> Form:
        s = self.stage
        sweeps = tuple(self._sweep(p, k) for p, k in zip(s.passes, self.kinds, strict=True))
        stores = tuple(
            Moved(tuple(r for r in x.axes if r not in s.grid), False, self._size(x.tensor))
            for x in s.stores
        )
        resident = self._section(s.resident)[0]
        return Form(s, self.scope.split, (resident, self._program()), sweeps, stores)

    def _program(self) -> Section:
        """A program finds its tile and its place in the grid by dividing its number."""
        divisions = len(self.stage.grid) - (self.stage.row is None)
        cost = OPS["floordiv"].cost
        each = Cost(*(max(0, divisions) * (a + b) for a, b in zip(cost, DIVISOR, strict=True)))
        return Section((((), each),))

    def _sweep(self, p: Pass, kind: VisitKind) -> Sweep:
        partial, hoisted = self._section(p.body, looping=True)
        full = partial if kind == "all" else self._section(p.full, looping=True)[0]
        chained = any(x.matrix and x.over == self.stage.swept for x in partial.products)
        return Sweep(full, partial, hoisted, self._section(p.after)[0], kind, chained)

    def _section(self, lets: tuple[Let, ...], looping: bool = False) -> tuple[Section, Section]:
        """What a section asks for each time, and what of it the compiler moves out of its loop."""
        work = section_work(self.stage, self.cascade, lets)
        each, hoisted = Counter[tuple[Pipe, Axes]](), Counter[tuple[Pipe, Axes]]()
        for t in (t for w in work for t in w.terms):
            (each if t.moves or not looping else hoisted)[t.pipe, self._axes(t.ranks)] += t.count
        if looping:
            each.update(self._coordinates(lets))
        made = Section(
            _terms(each),
            tuple(x for let in lets for x in self._loads(let)),
            tuple(self._product(w) for w in work if isinstance(w.let.value, Dot)),
            tuple(x for let in lets for x in self._folds(let)),
            _depth(lets),
        )
        return made, Section(_terms(hoisted))

    def _axes(self, ranks: Iterable[str]) -> Axes:
        shares: dict[str, float] = defaultdict(float)
        for r in ranks:
            known = self.cascade.rank(r)
            whole = r if known.parent is None else known.parent
            shares[whole] += 1 / max(1, len(self.cascade.rank(whole).components))
            if whole == r:
                shares[r] = 1.0
        return tuple(sorted((r, min(1.0, share)) for r, share in shares.items()))

    def _coordinates(self, lets: Iterable[Let]) -> Counter[tuple[Pipe, Axes]]:
        """Coordinates of keys, computed per tile: the start of the tile added to the places.

        The start of a component is what a division leaves.
        """
        values = (let.value for let in lets if not isinstance(let.value, Load))
        found = {r for v in values for e in value_exprs(v) for r in _coordinates(e)}
        swept = self.stage.swept
        parts = self.cascade.rank(swept).components
        own = found & {*parts} or found & {swept}
        counts = Counter[tuple[Pipe, Axes]](("alu", self._axes([r])) for r in own)
        if own and own <= {*parts}:
            counts["sfu", ()] += DIVISOR.sfu * (len(parts) - 1)
        return counts

    def _loads(self, let: Let) -> Iterable[Moved]:
        """The tiles that a let loads; a serial loop has them one coordinate at a time."""
        match let.value:
            case Load(read):
                yield Moved(let.ranks, let.name in self.native, self._size(read.tensor))
            case Serial(_, body, _):
                for read in reads(body):
                    if read.tensor in self.names:
                        continue
                    ranks = {self.cascade.rank(r).parent or r for r in index_ranks(read)}
                    ranks -= {*self.stage.grid}
                    yield Moved(tuple(sorted(ranks)), False, self._size(read.tensor))

    def _size(self, tensor: str) -> int:
        """Bytes of an element; 0 for that of the inputs. Between stages floats are single."""
        declared = next((t for t in self.cascade.inputs if t.name == tensor), None)
        if declared is not None:
            return _BYTES.get(declared.dtype, 0)
        features = {*self.stage.inner, *self.stage.columns}
        kept = tensor in self.cascade.outputs and features & {*self.scope.axes_of(tensor)}
        return 0 if kept else _BYTES.get(self.scope.tensor_dtype(tensor), 4)

    def _product(self, w: LetWork) -> Product:
        dot, axes = w.let.value, frozenset(w.let.ranks)
        assert isinstance(dot, Dot)
        left, right = w.sides[0], w.sides[1]
        rows, columns = tuple(sorted(axes & left)), tuple(sorted(axes & right))
        apart = len(rows) == len(columns) == 1 and rows != columns
        matrix = apart and dot.over in left | right
        computed = [
            not (isinstance(e, Read) and e.tensor in self.native) for e in (dot.left, dot.right)
        ]
        if not matrix:
            rows, columns = tuple(sorted(left | right)), ()
        return Product(
            rows,
            columns,
            dot.over,
            matrix,
            self._axes((*rows, *columns)),
            (self._axes((*rows, dot.over)), self._axes((*columns, dot.over))),
            (computed[0], computed[1]),
        )

    def _folds(self, let: Let) -> Iterable[tuple[Pipe, Axes]]:
        """A map reduced along its rows, by the unit that combines."""
        fold = let.value
        if isinstance(fold, Fold) and fold.over == self.stage.swept:
            yield "fma" if fold.op in ("sum", "prod") else "alu", self._axes(let.ranks)


def _coordinates(e: Expr) -> frozenset[str]:
    """The coordinates that a value is computed from: not those at which it reads something."""
    match e:
        case Index(rank):
            return frozenset({rank})
        case Read():
            return frozenset()
        case _:
            return frozenset().union(*map(_coordinates, children(e)))


def _terms(counts: Counter[tuple[Pipe, Axes]]) -> tuple[tuple[Axes, Cost], ...]:
    axes = dict.fromkeys(at for _, at in counts)
    return tuple((at, Cost(*(counts[pipe, at] for pipe in PIPES))) for at in axes)


def _depth(lets: Iterable[Let]) -> int:
    depths: dict[str, int] = {}
    for let in lets:
        below = max((depths.get(name, 0) for name in let_reads(let)), default=0)
        depths[let.name] = below + isinstance(let.value, Load)
    return max((depths[x.name] for x in lets if isinstance(x.value, Load)), default=0)
