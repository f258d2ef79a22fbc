"""Lay a derived sweep out as tiles: loads, products, pointwise tiles, states, epilogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from attnc.errors import AttncError, Span
from attnc.ir.cascade import Cascade, DType, Einsum
from attnc.ir.derived import Derived, State, Statistic
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.facts import Interval, may_be_minus_inf
from attnc.ir.masking import MINUS_INF, mask_body
from attnc.ir.ops import OPS, REDUCTIONS
from attnc.ir.plan import (
    Carry,
    Dot,
    Fold,
    Let,
    Load,
    Pass,
    Serial,
    Store,
    SweepStage,
    Value,
    drop_unread,
)
from attnc.ir.presence import TRUE, conjunction, split_presence
from attnc.ir.region import Region, Scope
from attnc.ir.separate import ONE, add_up, factors, multiply, separate, terms
from attnc.ir.types import dtype_of
from attnc.ir.walk import children, reads, subexprs, substitute, with_children


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
    return _Builder(scope, region, derived, outputs, tensors, finite).stage()


@dataclass(slots=True)
class _Names:
    """Readable, unique names for tiles: the spec's tensor in lower case when there is one."""

    reserved: frozenset[str] = frozenset()
    taken: set[str] = field(default_factory=set)

    def fresh(self, wish: str, axes: Iterable[str] = ()) -> str:
        """`wish`, or `wish_mn` after the axes where a tensor has that name, or numbered."""
        name, n = wish, 2
        if name in self.reserved:
            wish = name = "_".join([wish, "".join(axes) or "value"])
        while name in self.taken | self.reserved:
            name, n = f"{wish}_{n}", n + 1
        self.taken.add(name)
        return name


@dataclass(slots=True)
class _Block:
    """A sequence of lets under construction; `outer` is computed before it."""

    lets: list[Let] = field(default_factory=list)
    known: dict[Expr, Expr] = field(default_factory=dict)
    outer: _Block | None = None

    def find(self, e: Expr) -> Expr | None:
        found = self.known.get(e)
        return found if found is not None or self.outer is None else self.outer.find(e)


@dataclass(frozen=True, slots=True)
class _Body:
    """What a state gathers: `left` alone, or `left` times the value tile `right`."""

    left: Expr
    right: Expr


@dataclass(slots=True)
class _Builder:
    scope: Scope
    region: Region
    derived: Derived
    outputs: tuple[Output, ...]
    tensors: dict[str, Interval]
    finite: frozenset[str]
    names: _Names = field(default_factory=_Names)
    host: _Block = field(default_factory=_Block)
    resident: _Block = field(default_factory=_Block)
    ready: _Block = field(default_factory=_Block)
    titles: dict[Expr, tuple[str, Span | None]] = field(default_factory=dict)
    shared: frozenset[Expr] = frozenset()
    grid: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    stats: dict[str, Expr] = field(default_factory=dict)

    # layout ----------------------------------------------------------------------------------

    def stage(self) -> SweepStage:
        self.names.reserved = _tensor_names(self.scope.cascade)
        self.resident.outer = self.host
        self.ready = self.resident
        self._lay_out_ranks()
        self._collect_titles()
        sweeps = [self._pass(i) for i in range(self.derived.sweeps)]
        stores = tuple(self._store(o) for o in self.outputs)
        passes = tuple(Pass(c, tuple(body.lets), tuple(after.lets)) for c, body, after in sweeps)
        stage = SweepStage(
            self.scope.cascade.name,
            self.grid,
            self.region.row,
            self.region.rank,
            self.columns,
            self._inner_ranks(),
            tuple(self.host.lets),
            tuple(self.resident.lets),
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
        self.grid = tuple(r for r in dict.fromkeys(order) if r in everywhere and r not in fixed)

    def _only_right(self, s: State, rank: str) -> bool:
        """A value rank: factors of the body have it, and none of those has the row too."""
        row = self.region.row
        if rank == row:
            return False
        having = [f for f in factors(s.body) if rank in self.scope.ranks(f)]
        plain = all(isinstance(f, Read) or not self._crosses(f) for f in having)
        others = [f for f in factors(s.body) if rank not in self.scope.ranks(f)]
        varying = any(self.varies(f) for f in others) or self.varies(s.present)
        return bool(having) and plain and varying and rank not in self.scope.ranks(s.present)

    def _crosses(self, f: Expr) -> bool:
        ranks = self.scope.ranks(f)
        if self.region.row is not None and self.region.row in ranks:
            return True
        return any(r.tensor in self._contracted() for r in reads(f))

    def _contracted(self) -> dict[str, Einsum]:
        return {c.tensor: c for c in self.region.contractions}

    def _inner_ranks(self) -> tuple[str, ...]:
        found = [r for c in self.region.contractions if c.reduce for r in c.reduce.ranks]
        return tuple(dict.fromkeys(found))

    def _collect_titles(self) -> None:
        """Name tiles after the spec's pointwise tensors that they equal."""
        for s in self.scope.definitions.values():
            full = self.scope.body(s)
            value, _ = split_presence(full, self.tensors, self.finite)
            if isinstance(value, Apply):
                self.titles.setdefault(value, (s.tensor.lower(), s.span))
        for new, old in self.derived.aliases:
            if old in self.titles:
                self.titles.setdefault(new, self.titles[old])

    def varies(self, e: Expr) -> bool:
        """Whether a tile changes from one step of the sweep to the next."""
        return self.region.rank in self.scope.ranks(e)

    def tile_ranks(self, e: Expr) -> tuple[str, ...]:
        """The axes of a tile, in canonical order: row or contracted, then swept, then column."""
        found = self.scope.ranks(e)
        order = (self.region.row, *self._inner_ranks(), self.region.rank, *self.columns)
        return tuple(r for r in dict.fromkeys(order) if r is not None and r in found)

    # one pass ----------------------------------------------------------------------------------

    def _pass(self, sweep: int) -> tuple[tuple[Carry, ...], _Block, _Block]:
        """Carries, the tiles of one step of the sweep, and what follows the sweep."""
        block, after = _Block(outer=self.ready), _Block(outer=self.ready)
        states = [s for s in self.derived.states if s.sweep == sweep]
        bodies = self._masked_bodies(states)
        roots = [x for b in bodies for x in (b.left, b.right)]
        self.shared = _shared([*roots, *(s.base for s in states if s.base is not None)])
        new: dict[str, Expr] = {}
        carries = tuple(
            self._carry(s, body, block, new) for s, body in zip(states, bodies, strict=True)
        )
        self._finish(sweep, after)
        self.ready = after
        # The next pass may call its tiles by the same names.
        self.names.taken -= {x.name for x in block.lets}
        return carries, block, after

    def _masked_bodies(self, states: list[State]) -> list[_Body]:
        inside = Apply("lt", (Index(self.region.rank), Extent(self.region.rank)))
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
            if place in self.titles:
                name, span = self.titles[place]
                self.titles.setdefault(hidden, (f"{name}_visible", span))
            for known, title in list(self.titles.items()):
                if known != place and place in set(subexprs(known)):
                    self.titles.setdefault(substitute(known, {place: hidden}), title)

    def _is_score(self, e: Expr) -> bool:
        is_float = dtype_of(e, self.scope.cascade) == "float"
        plain_input = isinstance(e, Read) and e.tensor not in self._contracted()
        return is_float and self.varies(e) and not plain_input

    def _carry(self, s: State, body: _Body, block: _Block, new: dict[str, Expr]) -> Carry:
        """Emit the lets that move one state on by a tile; returns the carried variable."""
        name = self.names.fresh(_state_name(s, self.derived), self._state_tile(s))
        ref = _ref(name, self._state_tile(s))
        self.stats[s.name] = ref
        identity = REDUCTIONS[s.op].identity
        previous: Expr = ref
        if s.base is not None:
            previous = Apply("mul", (ref, self._rebase(s, block, new)))
        value = self._gather(s, name, body, previous, block)
        after = self._let(block, f"{name}_new", self._state_tile(s), value, span=s.span)
        new[s.name] = after
        assert isinstance(after, Read)
        return Carry(name, self._state_tile(s), identity, after.tensor, _note(s), s.span)

    def _rebase(self, s: State, block: _Block, new: dict[str, Expr]) -> Expr:
        """Make `s.base` mean its value after this tile; what the state so far is multiplied by."""
        assert s.base is not None
        key = Apply("stopgrad", (s.base,))  # the base's tile is found again under this key
        found = block.find(key)
        if found is None:
            before = self._at(s.base, self.stats, self.ready)
            now = self._at(s.base, new, self.ready)
            safe = self._safe(now)
            low = self._lower(safe, block)
            base = self._let(block, f"{_short(s.base)}_base", self._tile(safe), low)
            ratio = Apply(s.map, (Apply("sub", (self._lower(before, block), base)),))
            rescale = self._let(block, "rescale", self._tile(safe), ratio)
            block.known[key] = base
            block.known[Apply(s.map, (key,))] = rescale
            found = base
        rescale = block.find(Apply(s.map, (key,)))
        assert rescale is not None
        block.known[s.base] = found
        return rescale

    def _safe(self, base: Expr) -> Expr:
        """-inf (nothing seen yet) replaced by 0, so that -inf - base stays -inf and never NaN."""
        if not may_be_minus_inf(base, self.finite):
            return base
        nothing = Apply("eq", (base, Number(-inf)))
        return Apply("select", (nothing, Number(0.0), base))

    def _at(self, e: Expr, states: dict[str, Expr], known: _Block) -> Expr:
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

    def _gather(self, s: State, name: str, body: _Body, previous: Expr, block: _Block) -> Value:
        left = self._lower(body.left, block)
        if body.right != ONE:
            row = self.region.row
            if row is not None and row not in self.scope.ranks(body.left):
                left = self._let(block, f"{name}_rows", (row, self.region.rank), left)
            return Dot(left, self._lower(body.right, block), self.region.rank, previous)
        tile = Fold(s.op, left, self.region.rank)
        gathered = self._let(block, f"{name}_tile", self._state_tile(s), tile)
        return Apply(REDUCTIONS[s.op].combine, (previous, gathered))

    def _state_tile(self, s: State) -> tuple[str, ...]:
        return tuple(r for r in s.ranks if r == self.region.row or r in self.columns)

    def _finish(self, sweep: int, after: _Block) -> None:
        """After a pass its statistics are final: readers find the tile that holds them."""
        for t in self.derived.statistics:
            if t.sweep != sweep:
                continue
            own = Read(t.tensor, tuple(Index(r) for r in t.ranks))
            value = self._at(guarded(t), self.stats, after)
            ranks = tuple(r for r in t.ranks if r == self.region.row or r in self.columns)
            if not isinstance(value, Read):
                low = self._lower(value, after)
                value = self._let(after, t.tensor.lower(), ranks, low, span=t.span)
            after.known[own] = value

    def _store(self, o: Output) -> Store:
        value = self._lower(o.value, self.ready)
        ranks = tuple(r for r in o.axes if r == self.region.row or r in self.columns)
        if not isinstance(value, Read):
            value = self._let(self.ready, o.tensor.lower(), ranks, value, span=o.span)
        return Store(o.tensor, o.axes, value, o.span)

    # expressions -------------------------------------------------------------------------------

    def _lower(self, e: Expr, block: _Block) -> Expr:
        """`e` as an expression of lets; makes the lets it needs."""
        found = block.find(e)
        if found is not None:
            return found
        if isinstance(e, Read):
            return e if e.tensor in self.names.taken else self._lower_read(e, block)
        if not isinstance(e, Apply):
            return e
        if not reads(e) and not self.scope.ranks(e):
            return self._host_scalar(e)
        home = self._home(e, block)
        if home is not block and self._worth_hoisting(e):
            return self._named(e, home)
        if e in self.titles or e in self.shared:
            return self._named(e, block)
        if e.op == "div" and self._is_scalar(e.args[1]) and not self._is_scalar(e.args[0]):
            # Division by a scalar of the call: its reciprocal is computed once.
            e = Apply("mul", (e.args[0], Apply("div", (ONE, e.args[1]))))
        return with_children(e, tuple(self._lower(a, block) for a in e.args))

    def _named(self, e: Expr, block: _Block) -> Expr:
        assert isinstance(e, Apply)
        wish, span = self.titles.get(e, (_describe(e), None))
        value = with_children(e, tuple(self._lower(a, block) for a in e.args))
        ref = self._let(block, wish, self._tile(e), value, dtype_of(e, self.scope.cascade), span)
        block.known[e] = ref
        return ref

    def _home(self, e: Expr, block: _Block) -> _Block:
        """The outermost block in which `e` can be computed."""
        moving = self.varies(e) or any(r.tensor in self.names.taken for r in reads(e))
        waits = any(self._statistic(r.tensor) is not None for r in reads(e))
        return block if moving or waits or block is self.ready else self.resident

    def _worth_hoisting(self, e: Expr) -> bool:
        return any(isinstance(x, Apply) and OPS[x.op].cost[0] == "sfu" for x in subexprs(e))

    def _host_scalar(self, e: Expr) -> Expr:
        """Scalars of extents and params are computed once, by the caller."""
        if not isinstance(e, Apply) or not self._costly(e):
            return e
        found = self.host.known.get(e)
        if found is None:
            dtype = dtype_of(e, self.scope.cascade)
            wish = "scale" if dtype == "float" else _describe(e)
            found = self.host.known[e] = self._let(self.host, wish, (), e, dtype)
        return found

    def _is_scalar(self, e: Expr) -> bool:
        return not reads(e) and not self.scope.ranks(e)

    def _costly(self, e: Expr) -> bool:
        """Divisions and functions are worth a scalar of their own; `m - window` is not."""
        cheap = {"add", "sub", "neg", "min", "max", "float"}
        kind = {x.op for x in subexprs(e) if isinstance(x, Apply)}
        return any(OPS[o].kind in ("arith", "function") and o not in cheap for o in kind)

    def _lower_read(self, e: Read, block: _Block) -> Expr:
        contraction = self._contracted().get(e.tensor)
        if contraction is not None:
            return self._contraction(contraction, e, block)
        if e.tensor in self.stats:
            return self.stats[e.tensor]
        if self._statistic(e.tensor) is not None:
            raise AssertionError(f"statistic {e.tensor} is read before its pass ends")
        home = block if self.varies(e) or block is self.ready else self.resident
        indices = tuple(self._lower_index(i, home) for i in e.indices)
        load = Load(Read(e.tensor, indices))
        dtype = dtype_of(e, self.scope.cascade)
        ref = self._let(home, e.tensor.lower(), self._tile(e), load, dtype)
        home.known[e] = ref
        return ref

    def _lower_index(self, e: Expr, block: _Block) -> Expr:
        if isinstance(e, Read):
            return self._lower(e, block)
        if isinstance(e, Apply) and not self.scope.ranks(e) and not reads(e):
            return self._host_scalar(e)
        return with_children(e, tuple(self._lower_index(c, block) for c in children(e)))

    def _contraction(self, c: Einsum, read: Read, block: _Block) -> Expr:
        """A product inside the map, as one tl.dot per term (or a serial loop)."""
        assert c.reduce is not None
        if len(c.reduce.ranks) != 1:
            raise not_lowered("a product inside the map over several ranks at once", c.span)
        (over,) = c.reduce.ranks
        mapping = {
            i.rank: x for i, x in zip(c.indices, read.indices, strict=True) if isinstance(i, Index)
        }
        full = substitute(self.scope.body(c), {Index(r): x for r, x in mapping.items()})
        value, conditions = split_presence(full, self.tensors, self.finite)
        inner = tuple(x.holds for x in conditions if over in self.scope.ranks(x.holds))
        outer = tuple(x.holds for x in conditions if x.holds not in inner)
        whole = self._contract(c, value, inner, over, block)
        if outer:
            empty = Number(REDUCTIONS[c.reduce.op].identity)
            whole = Apply("select", (self._lower(conjunction(outer), block), whole, empty))
        if not isinstance(whole, Read):
            ranks = self.tile_ranks(read)
            whole = self._let(block, c.tensor.lower(), ranks, whole, span=c.span)
        block.known[read] = whole
        return whole

    def _contract(
        self, c: Einsum, value: Expr, inner: tuple[Expr, ...], over: str, block: _Block
    ) -> Expr:
        assert c.reduce is not None
        ranks = tuple(r for r in (self.region.row, self.region.rank) if r is not None)
        name = c.tensor.lower()
        if c.reduce.op != "sum" or inner:
            body = value
            if inner:
                empty = Number(REDUCTIONS[c.reduce.op].identity)
                body = Apply("select", (conjunction(inner), value, empty))
            serial = Serial(c.reduce.op, self._scalars(body, block), over)
            return self._let(block, name, ranks, serial, span=c.span)
        split = separate(value, lambda e: over in self.scope.ranks(e), self.tensors)
        dots = [self._dot(t, over, name, c.span, block) for t in terms(split.dependent)]
        free = tuple(self._lower(multiply(split.free), block) for _ in split.free[:1])
        return multiply((add_up(tuple(dots)), *free))

    def _dot(self, term: Expr, over: str, name: str, span: Span | None, block: _Block) -> Expr:
        split = separate(term, lambda e: over in self.scope.ranks(e), self.tensors)
        fs = factors(split.dependent)
        right = tuple(f for f in fs if self.varies(f))
        left = tuple(f for f in fs if f not in right)
        row, swept = self.region.row, self.region.rank
        ranks = tuple(r for r in (row, swept) if r is not None)
        if not right or (row is not None and any(row in self.scope.ranks(f) for f in right)):
            serial = Serial("sum", self._scalars(multiply(fs), block), over)
            dot = self._let(block, name, ranks, serial, span=span)
        else:
            product = Dot(
                self._lower(multiply(left), block), self._lower(multiply(right), block), over
            )
            dot = self._let(block, name, ranks, product, span=span)
        free = tuple(self._lower(f, block) for f in split.free)
        return multiply((dot, *free))

    def _scalars(self, e: Expr, block: _Block) -> Expr:
        """Leave loads to the serial loop, but take scalars of the caller out of it."""
        if isinstance(e, Apply) and not self.scope.ranks(e) and not reads(e):
            return self._host_scalar(e)
        return with_children(e, tuple(self._scalars(c, block) for c in children(e)))

    def _tile(self, e: Expr) -> tuple[str, ...]:
        return self.tile_ranks(e)

    def _let(
        self,
        block: _Block,
        wish: str,
        ranks: tuple[str, ...],
        value: Value,
        dtype: DType = "float",
        span: Span | None = None,
    ) -> Expr:
        name = self.names.fresh(wish, ranks)
        block.lets.append(Let(name, ranks, value, dtype, "", span))
        return _ref(name, ranks)


def _tensor_names(cascade: Cascade) -> frozenset[str]:
    """Lets are read like tensors, so no let may be called like one."""
    return cascade.input_names | {s.tensor for s in cascade.statements}


def guarded(t: Statistic) -> Expr:
    """A statistic's value, with the identity where nothing is present."""
    if t.present == TRUE:
        return t.value
    return Apply("select", (t.present, t.value, Number(t.identity)))


def not_lowered(what: str, span: Span | None, source: str = "") -> AttncError:
    """The error for what the language can say and the planner cannot run yet."""
    return AttncError("E901", f"{what} is not lowered yet", span=span, source=source)


def _ref(name: str, ranks: tuple[str, ...]) -> Read:
    return Read(name, tuple(Index(r) for r in ranks))


def _shared(roots: Iterable[Expr]) -> frozenset[Expr]:
    """Subexpressions with several distinct parents: computed once."""
    uses: Counter[Expr] = Counter()
    seen: set[Expr] = set()
    waiting = list(roots)
    uses.update(waiting)
    while waiting:
        e = waiting.pop()
        if e in seen:
            continue
        seen.add(e)
        below = children(e)
        uses.update(below)
        waiting.extend(below)
    return frozenset(e for e, n in uses.items() if n > 1 and isinstance(e, Apply) and _is_work(e))


def _is_work(e: Apply) -> bool:
    """More than index arithmetic or a cast of a scalar."""
    return bool(reads(e)) or OPS[e.op].kind in ("logic", "compare")


def _state_name(s: State, derived: Derived) -> str:
    own = tuple(t for t in derived.statistics if any(r.tensor == s.name for r in reads(t.value)))
    if own and isinstance(own[0].value, Read) and own[0].present == TRUE:
        return own[0].tensor.lower()
    return s.name.lower()


def _short(base: Expr) -> str:
    found = reads(base)
    return found[0].tensor.lower().removesuffix("_max") if found else "base"


def _describe(e: Apply) -> str:
    """A name for an intermediate: what it was made from, or the operator that made it."""
    if e.op == "exactdiv" and all(isinstance(a, Extent) for a in e.args):
        a, b = e.args
        assert isinstance(a, Extent) and isinstance(b, Extent)
        return f"{a.rank}_per_{b.rank}"
    kind = OPS[e.op].kind
    return "visible" if kind in ("logic", "compare") else f"{e.op}_tile"


def _note(s: State) -> str:
    return f"{s.op} so far"
