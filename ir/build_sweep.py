"""Lay a derived sweep out as tiles: loads, products, pointwise tiles, states, epilogue."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf

from attnc.errors import Span
from attnc.ir.derived import Derived, State, Statistic
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.facts import Interval, may_be_minus_inf
from attnc.ir.full_tiles import full_body
from attnc.ir.masking import MINUS_INF, mask_body
from attnc.ir.nonfinite import nonfinite
from attnc.ir.ops import REDUCTIONS
from attnc.ir.plan import (
    Carry,
    Dot,
    Fold,
    Let,
    Pass,
    Store,
    SweepStage,
    Value,
    drop_unread,
)
from attnc.ir.presence import TRUE, split_presence
from attnc.ir.region import Region, Scope
from attnc.ir.separate import ONE, factors, multiply
from attnc.ir.tiles import Block, TileWriter, not_lowered, ref, shared_subexpressions
from attnc.ir.types import dtype_of
from attnc.ir.visibility import Visibility, mask_conjuncts, visibility
from attnc.ir.walk import reads, subexprs, substitute


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor that the stage stores: `value` in terms of statistics and stored tensors."""

    tensor: str
    axes: tuple[str, ...]
    value: Expr
    span: Span | None = None


def build_sweep(
    scope: Scope,
    region: Region,
    derived: Derived,
    outputs: tuple[Output, ...],
    tensors: dict[str, Interval],
    finite: frozenset[str],
) -> SweepStage:
    """The stage that gathers `derived` and stores `outputs` from its statistics."""
    waiting = frozenset(t.tensor for t in derived.statistics)
    tiles = TileWriter(scope, region, tensors, finite, waiting)
    return _Builder(scope, region, derived, outputs, tiles).stage()


@dataclass(frozen=True, slots=True)
class _Body:
    """What a state gathers: `left` alone, or `left` times the value tile `right`."""

    left: Expr
    right: Expr


@dataclass(slots=True)
class _Sweep:
    """A pass whose last block may still grow: the stores that follow add to it."""

    carries: tuple[Carry, ...]
    body: Block
    full: tuple[Let, ...]
    after: Block
    visibility: Visibility

    def done(self) -> Pass:
        body, after = tuple(self.body.lets), tuple(self.after.lets)
        return Pass(self.carries, body, self.full, after, self.visibility)


@dataclass(slots=True)
class _Builder:
    scope: Scope
    region: Region
    derived: Derived
    outputs: tuple[Output, ...]
    tiles: TileWriter
    grid: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    # layout ----------------------------------------------------------------------------------

    def stage(self) -> SweepStage:
        self._lay_out_ranks()
        self._collect_titles()
        sweeps = [self._sweep(i) for i in range(self.derived.sweeps)]
        stores = tuple(self._store(o) for o in self.outputs)
        passes = tuple(s.done() for s in sweeps)
        stage = SweepStage(
            self.scope.cascade.name,
            self.grid,
            self.region.row,
            self.region.rank,
            self.columns,
            self.tiles.inner_ranks(),
            tuple(self.tiles.host.lets),
            tuple(self.tiles.resident.lets),
            passes,
            stores,
            self.derived,
        )
        return drop_unread(stage)

    def _lay_out_ranks(self) -> None:
        columns: list[str] = []
        kept: list[str] = []
        for s in self.derived.states:
            own = [r for r in s.ranks if self._only_right(s, r)]
            columns += own[-1:]
            kept += [r for r in s.ranks if r not in own[-1:]]
        self.columns = tuple(r for r in dict.fromkeys(columns) if r not in kept)
        fixed = (*self.columns, self.region.row)
        everywhere = (*kept, *columns)
        order = [r for s in self.derived.states for r in s.ranks]
        self.tiles.columns = self.columns
        self.grid = tuple(r for r in dict.fromkeys(order) if r in everywhere and r not in fixed)

    def _only_right(self, s: State, rank: str) -> bool:
        """A value rank: factors of the body have it, and none of those has the row too."""
        row = self.region.row
        if rank == row:
            return False
        having = [f for f in factors(s.body) if rank in self.scope.ranks(f)]
        plain = all(isinstance(f, Read) or not self._crosses(f) for f in having)
        others = [f for f in factors(s.body) if rank not in self.scope.ranks(f)]
        varying = any(self.tiles.varies(f) for f in others) or self.tiles.varies(s.present)
        return bool(having) and plain and varying and rank not in self.scope.ranks(s.present)

    def _crosses(self, f: Expr) -> bool:
        ranks = self.scope.ranks(f)
        if self.region.row is not None and self.region.row in ranks:
            return True
        return any(r.tensor in self.tiles.contracted() for r in reads(f))

    def _collect_titles(self) -> None:
        """Name tiles after the spec's pointwise tensors that they equal."""
        for s in self.scope.definitions.values():
            full = self.scope.body(s)
            value, _ = split_presence(full, self.tiles.tensors, self.tiles.finite)
            if isinstance(value, Apply):
                self.tiles.titles.setdefault(value, (s.tensor.lower(), s.span))
        for new, old in self.derived.aliases:
            if old in self.tiles.titles:
                self.tiles.titles.setdefault(new, self.tiles.titles[old])

    # one pass ----------------------------------------------------------------------------------

    def _sweep(self, sweep: int) -> _Sweep:
        """Carries, the tiles of one step of the sweep, and what follows the sweep."""
        block, after = Block(outer=self.tiles.ready), Block(outer=self.tiles.ready)
        states = [s for s in self.derived.states if s.sweep == sweep]
        bodies = self._masked_bodies(states)
        roots = [x for b in bodies for x in (b.left, b.right)]
        self.tiles.shared = shared_subexpressions(
            [*roots, *(s.base for s in states if s.base is not None)]
        )
        new: dict[str, Expr] = {}
        carries = tuple(
            self._carry(s, body, block, new) for s, body in zip(states, bodies, strict=True)
        )
        holding = self._holding(states, block)
        full = full_body(block.lets, holding, (c.update for c in carries))
        self._finish(sweep, after)
        self.tiles.ready = after
        # The next pass may call its tiles by the same names.
        self.tiles.names.taken -= {x.name for x in block.lets}
        seen = visibility(self.derived, sweep, self.region.row, self.grid)
        return _Sweep(carries, block, full, after, seen)

    def _inside(self) -> Expr:
        return Apply("lt", (Index(self.region.rank), Extent(self.region.rank)))

    def _holding(self, states: list[State], block: Block) -> tuple[Expr, ...]:
        """What is true in a full tile, as the lets say it: it has no edge, the masks hold."""
        masks = [c for s in states for c in mask_conjuncts(s.present, self.scope.cascade)]
        return tuple(self.tiles.lower(e, block) for e in (self._inside(), *masks))

    def _masked_bodies(self, states: list[State]) -> list[_Body]:
        inside = self._inside()
        bodies = [self._sides(s) for s in states]
        counts: Counter[Expr] = Counter()
        for b in bodies:
            counts.update({x for x in set(subexprs(b.left)) if self._is_score(x)})
        size = {x: sum(1 for _ in subexprs(x)) for x in counts}
        places = sorted(counts, key=lambda x: (-counts[x], -size[x], repr(x)))
        result = []
        for s, b in zip(states, bodies, strict=True):
            present = inside if s.present == TRUE else Apply("and", (inside, s.present))
            masked = mask_body(s.op, b.left, present, places)
            self._title_masked(masked, places, present)
            result.append(_Body(masked, b.right))
        return result

    def _sides(self, s: State) -> _Body:
        """A state with a column is a product of a map and a value tile."""
        column = next((r for r in s.ranks if r in self.columns), None)
        if column is None:
            return _Body(s.body, ONE)
        right = tuple(f for f in factors(s.body) if column in self.scope.ranks(f))
        left = tuple(f for f in factors(s.body) if f not in right)
        row = self.region.row
        if row is not None and any(row in self.scope.ranks(f) for f in right):
            source = self.scope.cascade.source
            raise not_lowered("a value of row, key and value rank at once", s.span, source)
        return _Body(multiply(left), multiply(right))

    def _title_masked(self, masked: Expr, places: list[Expr], present: Expr) -> None:
        """Tiles keep the name of the spec's tensor when a mask is put into them."""
        for place in places:
            hidden = Apply("select", (present, place, MINUS_INF))
            if hidden not in set(subexprs(masked)):
                continue
            title = self.tiles.titles.get(place)
            if title is None and isinstance(place, Read):
                title = (place.tensor.lower(), None)
            if title is not None:
                self.tiles.titles.setdefault(hidden, (f"{title[0]}_visible", title[1]))
            for known, title in list(self.tiles.titles.items()):
                if known != place and place in set(subexprs(known)):
                    self.tiles.titles.setdefault(substitute(known, {place: hidden}), title)

    def _is_score(self, e: Expr) -> bool:
        is_float = dtype_of(e, self.scope.cascade) == "float"
        plain_input = isinstance(e, Read) and e.tensor not in self.tiles.contracted()
        return is_float and self.tiles.varies(e) and not plain_input

    def _carry(self, s: State, body: _Body, block: Block, new: dict[str, Expr]) -> Carry:
        """Emit the lets that move one state on by a tile; returns the carried variable."""
        name = self.tiles.names.fresh(_state_name(s, self.derived), self._state_tile(s))
        carried = ref(name, self._state_tile(s))
        self.tiles.stats[s.name] = carried
        identity = REDUCTIONS[s.op].identity
        previous: Expr = carried
        if s.base is not None:
            previous = Apply("mul", (carried, self._rebase(s, block, new)))
        value = self._gather(s, name, body, previous, block)
        after = self.tiles.let(block, f"{name}_new", self._state_tile(s), value, span=s.span)
        new[s.name] = after
        assert isinstance(after, Read)
        return Carry(name, self._state_tile(s), identity, after.tensor, _note(s), s.span)

    def _rebase(self, s: State, block: Block, new: dict[str, Expr]) -> Expr:
        """Make `s.base` mean its value after this tile; what the state so far is multiplied by."""
        assert s.base is not None
        # A second state over the same base finds what the first one made under these keys.
        base_key = Apply("stopgrad", (s.base,))
        rescale_key = Apply(s.map, (base_key,))
        if block.find(base_key) is None:
            before = self._at(s.base, self.tiles.stats, self.tiles.ready)
            safe = self._at(self._safe(s.base), new, self.tiles.ready)
            ranks = self.tiles.tile_ranks(safe)
            low = self.tiles.lower(safe, block)
            base = self.tiles.let(block, f"{_short(s.base)}_base", ranks, low)
            before = self.tiles.lower(before, block)
            ratio: Expr = Apply(s.map, (self._in_units(s, Apply("sub", (before, base)), block),))
            if not self._starts_low(s.base):
                ratio = Apply("select", (_is_finite(before), ratio, Number(0.0)))
            block.known[base_key] = base
            block.known[rescale_key] = self.tiles.let(block, "rescale", ranks, ratio)
        block.known[s.base] = block.known[base_key]
        return block.known[rescale_key]

    def _in_units(self, s: State, difference: Expr, block: Block) -> Expr:
        if s.unit is None:
            return difference
        return Apply("mul", (difference, self.tiles.lower(s.unit, block)))

    def _safe(self, base: Expr) -> Expr:
        """A base without a value (nothing seen yet) is 0: -inf - base stays -inf, never NaN."""
        if not self._starts_low(base):
            return Apply("select", (_is_finite(base), base, Number(0.0)))
        if not may_be_minus_inf(base, self.tiles.finite):
            return base
        nothing = Apply("eq", (base, Number(-inf)))
        return Apply("select", (nothing, Number(0.0), base))

    def _starts_low(self, base: Expr) -> bool:
        """Where nothing was seen yet the base is finite or -inf."""
        empty = {s.name: float(REDUCTIONS[s.op].identity) for s in self.derived.states}
        empty |= {t.tensor: float(t.identity) for t in self.derived.statistics}
        return nonfinite(base, empty, self.tiles.tensors) <= {"-inf"}

    def _at(self, e: Expr, states: dict[str, Expr], known: Block) -> Expr:
        """An expression of statistics with every state read at the given values."""
        for _ in range(len(self.derived.statistics) + 1):
            mapping: dict[Expr, Expr] = {}
            for r in reads(e):
                statistic = self._statistic(r.tensor)
                if statistic is not None and known.find(r) is None:
                    mapping[r] = guarded(statistic)
            if not mapping:
                break
            e = substitute(e, mapping)
        return substitute(e, {r: states[r.tensor] for r in reads(e) if r.tensor in states})

    def _statistic(self, tensor: str) -> Statistic | None:
        return next((t for t in self.derived.statistics if t.tensor == tensor), None)

    def _gather(self, s: State, name: str, body: _Body, previous: Expr, block: Block) -> Value:
        left = self.tiles.lower(body.left, block)
        if body.right != ONE:
            row = self.region.row
            if row is not None and row not in self.scope.ranks(body.left):
                left = self.tiles.let(block, f"{name}_rows", (row, self.region.rank), left)
            return Dot(left, self.tiles.lower(body.right, block), self.region.rank, previous)
        tile = Fold(s.op, left, self.region.rank)
        gathered = self.tiles.let(block, f"{name}_tile", self._state_tile(s), tile)
        return Apply(REDUCTIONS[s.op].combine, (previous, gathered))

    def _state_tile(self, s: State) -> tuple[str, ...]:
        return tuple(r for r in s.ranks if r == self.region.row or r in self.columns)

    def _finish(self, sweep: int, after: Block) -> None:
        """After a pass its statistics are final: readers find the tile that holds them."""
        for t in self.derived.statistics:
            if t.sweep != sweep:
                continue
            own = Read(t.tensor, tuple(Index(r) for r in t.ranks))
            value = self._at(guarded(t), self.tiles.stats, after)
            ranks = tuple(r for r in t.ranks if r == self.region.row or r in self.columns)
            if not isinstance(value, Read):
                low = self.tiles.lower(value, after)
                value = self.tiles.let(after, t.tensor.lower(), ranks, low, span=t.span)
            after.known[own] = value

    def _store(self, o: Output) -> Store:
        value = self.tiles.lower(o.value, self.tiles.ready)
        ranks = tuple(r for r in o.axes if r == self.region.row or r in self.columns)
        if not isinstance(value, Read):
            value = self.tiles.let(self.tiles.ready, o.tensor.lower(), ranks, value, span=o.span)
        return Store(o.tensor, o.axes, value, o.span)


def _is_finite(e: Expr) -> Expr:
    return Apply("lt", (Apply("abs", (e,)), Number(inf)))


def guarded(t: Statistic) -> Expr:
    """A statistic's value, with the identity where nothing is present."""
    if t.present == TRUE:
        return t.value
    return Apply("select", (t.present, t.value, Number(t.identity)))


def _state_name(s: State, derived: Derived) -> str:
    own = tuple(t for t in derived.statistics if any(r.tensor == s.name for r in reads(t.value)))
    if own and isinstance(own[0].value, Read) and own[0].present == TRUE:
        return own[0].tensor.lower()
    return s.name.lower()


def _short(base: Expr) -> str:
    found = reads(base)
    return found[0].tensor.lower().removesuffix("_max") if found else "base"


def _note(s: State) -> str:
    return f"{s.op} so far"
