"""Turn expressions of a derived sweep into lets: loads, products, named tiles, scalars.

A let is made where a value is loaded, multiplied, shared, or named by the spec; what lies between
stays an expression. Each let goes to the outermost place where it can be computed: the caller
(`host`), before the sweeps (`resident`), or inside a sweep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from attnc.errors import AttncError, Span
from attnc.ir.cascade import Cascade, DType, Einsum
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.facts import Interval
from attnc.ir.ops import OPS, REDUCTIONS
from attnc.ir.plan import Dot, Let, Load, Serial, Value
from attnc.ir.presence import conjunction, split_presence
from attnc.ir.region import Region, Scope
from attnc.ir.separate import add_up, factors, inverse, multiply, separate, terms
from attnc.ir.types import dtype_of
from attnc.ir.walk import children, reads, subexprs, substitute, with_children


@dataclass(slots=True)
class Names:
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
class Block:
    """A sequence of lets under construction; `outer` is computed before it."""

    lets: list[Let] = field(default_factory=list)
    known: dict[Expr, Expr] = field(default_factory=dict)
    outer: Block | None = None

    def find(self, e: Expr) -> Expr | None:
        found = self.known.get(e)
        return found if found is not None or self.outer is None else self.outer.find(e)


@dataclass(slots=True)
class TileWriter:
    """Makes the lets of one sweep stage. `waiting` names the statistics that the stage gathers."""

    scope: Scope
    region: Region
    tensors: dict[str, Interval]
    finite: frozenset[str]
    waiting: frozenset[str]
    columns: tuple[str, ...] = ()
    names: Names = field(default_factory=Names)
    host: Block = field(default_factory=Block)
    resident: Block = field(default_factory=Block)
    ready: Block = field(default_factory=Block)
    titles: dict[Expr, tuple[str, Span | None]] = field(default_factory=dict)
    shared: frozenset[Expr] = frozenset()
    stats: dict[str, Expr] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names.reserved = _tensor_names(self.scope.cascade)
        self.resident.outer = self.host
        self.ready = self.resident

    def varies(self, e: Expr) -> bool:
        """Whether a tile changes from one step of the sweep to the next."""
        return self.region.rank in self.scope.ranks(e)

    def tile_ranks(self, e: Expr) -> tuple[str, ...]:
        """The axes of a tile, in canonical order: row or contracted, then swept, then column."""
        found = self.scope.ranks(e)
        order = (self.region.row, *self.inner_ranks(), self.region.rank, *self.columns)
        return tuple(r for r in dict.fromkeys(order) if r is not None and r in found)

    def contracted(self) -> dict[str, Einsum]:
        return {c.tensor: c for c in self.region.contractions}

    def inner_ranks(self) -> tuple[str, ...]:
        found = [r for c in self.region.contractions if c.reduce for r in c.reduce.ranks]
        return tuple(dict.fromkeys(found))

    def lower(self, e: Expr, block: Block) -> Expr:
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
        return self._lower_operands(e, block)

    def _named(self, e: Expr, block: Block) -> Expr:
        assert isinstance(e, Apply)
        wish, span = self.titles.get(e, (_describe(e), None))
        value = self._lower_operands(e, block)
        made = self.let(
            block, wish, self.tile_ranks(e), value, dtype_of(e, self.scope.cascade), span
        )
        block.known[e] = made
        return made

    def _lower_operands(self, e: Apply, block: Block) -> Expr:
        if e.op == "div" and self._is_scalar(e.args[1]) and not self._is_scalar(e.args[0]):
            # Division by a scalar of the call: its reciprocal is computed once.
            e = Apply("mul", (e.args[0], inverse(e.args[1])))
        elif e.op == "div" and self.varies(e.args[0]) and not self.varies(e.args[1]):
            # Likewise for a divisor that stays the same during the sweep.
            e = Apply("mul", (e.args[0], self._inverse(e.args[1])))
        return with_children(e, tuple(self.lower(a, block) for a in e.args))

    def _inverse(self, divisor: Expr) -> Expr:
        """1 / divisor, computed before the sweep that divides by it."""
        whole = inverse(divisor)
        found = self.ready.find(whole)
        if found is None:
            value = self.lower(divisor, self.ready)
            wish = f"inv_{value.tensor}" if isinstance(value, Read) else "inv"
            ranks = self.tile_ranks(divisor)
            found = self.ready.known[whole] = self.let(self.ready, wish, ranks, inverse(value))
        return found

    def _home(self, e: Expr, block: Block) -> Block:
        """The outermost block in which `e` can be computed."""
        moving = self.varies(e) or any(r.tensor in self.names.taken for r in reads(e))
        waits = any(r.tensor in self.waiting for r in reads(e))
        return block if moving or waits or block is self.ready else self.resident

    def _worth_hoisting(self, e: Expr) -> bool:
        return any(isinstance(x, Apply) and OPS[x.op].cost.is_heavy for x in subexprs(e))

    def _host_scalar(self, e: Expr) -> Expr:
        """Scalars of extents and params are computed once, by the caller."""
        if not isinstance(e, Apply) or not self._costly(e):
            return e
        found = self.host.known.get(e)
        if found is None:
            dtype = dtype_of(e, self.scope.cascade)
            wish = "scale" if dtype == "float" else _describe(e)
            found = self.host.known[e] = self.let(self.host, wish, (), e, dtype)
        return found

    def _is_scalar(self, e: Expr) -> bool:
        return not reads(e) and not self.scope.ranks(e)

    def _costly(self, e: Expr) -> bool:
        """Divisions and functions are worth a scalar of their own; `m - window` is not."""
        cheap = {"add", "sub", "neg", "min", "max", "float"}
        kind = {x.op for x in subexprs(e) if isinstance(x, Apply)}
        return any(OPS[o].kind in ("arith", "function") and o not in cheap for o in kind)

    def _lower_read(self, e: Read, block: Block) -> Expr:
        contraction = self.contracted().get(e.tensor)
        if contraction is not None:
            return self._contraction(contraction, e, block)
        if e.tensor in self.stats:
            return self.stats[e.tensor]
        assert e.tensor not in self.waiting, f"statistic {e.tensor} is read before its pass ends"
        home = block if self.varies(e) or block is self.ready else self.resident
        indices = tuple(self._lower_index(i, home) for i in e.indices)
        load = Load(Read(e.tensor, indices))
        dtype = dtype_of(e, self.scope.cascade)
        made = self.let(home, e.tensor.lower(), self.tile_ranks(e), load, dtype)
        home.known[e] = made
        return made

    def _lower_index(self, e: Expr, block: Block) -> Expr:
        if isinstance(e, Read):
            return self.lower(e, block)
        if isinstance(e, Apply) and not self.scope.ranks(e) and not reads(e):
            return self._host_scalar(e)
        return with_children(e, tuple(self._lower_index(c, block) for c in children(e)))

    def _contraction(self, c: Einsum, read: Read, block: Block) -> Expr:
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
            whole = Apply("select", (self.lower(conjunction(outer), block), whole, empty))
        if not isinstance(whole, Read):
            ranks = self.tile_ranks(read)
            whole = self.let(block, c.tensor.lower(), ranks, whole, span=c.span)
        block.known[read] = whole
        return whole

    def _contract(
        self, c: Einsum, value: Expr, inner: tuple[Expr, ...], over: str, block: Block
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
            return self.let(block, name, ranks, serial, span=c.span)
        split = separate(value, lambda e: over in self.scope.ranks(e), self.tensors)
        dots = [self._dot(t, over, name, c.span, block) for t in terms(split.dependent)]
        free = tuple(self.lower(multiply(split.free), block) for _ in split.free[:1])
        return multiply((add_up(tuple(dots)), *free))

    def _dot(self, term: Expr, over: str, name: str, span: Span | None, block: Block) -> Expr:
        split = separate(term, lambda e: over in self.scope.ranks(e), self.tensors)
        fs = factors(split.dependent)
        right = tuple(f for f in fs if self.varies(f))
        left = tuple(f for f in fs if f not in right)
        row, swept = self.region.row, self.region.rank
        ranks = tuple(r for r in (row, swept) if r is not None)
        dot: Expr
        if not fs:
            # A term that the sum repeats.
            dot = self._host_scalar(Apply("float", (Extent(over),)))
        elif not right or (row is not None and any(row in self.scope.ranks(f) for f in right)):
            serial = Serial("sum", self._scalars(multiply(fs), block), over)
            dot = self.let(block, name, ranks, serial, span=span)
        else:
            product = Dot(
                self.lower(multiply(left), block), self.lower(multiply(right), block), over
            )
            dot = self.let(block, name, ranks, product, span=span)
        free = tuple(self.lower(f, block) for f in split.free)
        return multiply((dot, *free))

    def _scalars(self, e: Expr, block: Block) -> Expr:
        """Leave loads to the serial loop, but take scalars of the caller out of it."""
        if isinstance(e, Apply) and not self.scope.ranks(e) and not reads(e):
            return self._host_scalar(e)
        return with_children(e, tuple(self._scalars(c, block) for c in children(e)))

    def let(
        self,
        block: Block,
        wish: str,
        ranks: tuple[str, ...],
        value: Value,
        dtype: DType = "float",
        span: Span | None = None,
    ) -> Expr:
        name = self.names.fresh(wish, ranks)
        block.lets.append(Let(name, ranks, value, dtype, span))
        return ref(name, ranks)


def not_lowered(what: str, span: Span | None, source: str = "") -> AttncError:
    """The error for what the language can say and the planner cannot run yet."""
    return AttncError("E901", f"{what} is not lowered yet", span=span, source=source)


def ref(name: str, ranks: tuple[str, ...]) -> Read:
    return Read(name, tuple(Index(r) for r in ranks))


def shared_subexpressions(roots: Iterable[Expr]) -> frozenset[Expr]:
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


def _describe(e: Apply) -> str:
    """A name for an intermediate: what it was made from, or the operator that made it."""
    if e.op == "exactdiv" and all(isinstance(a, Extent) for a in e.args):
        a, b = e.args
        assert isinstance(a, Extent) and isinstance(b, Extent)
        return f"{a.rank}_per_{b.rank}"
    kind = OPS[e.op].kind
    return "visible" if kind in ("logic", "compare") else f"{e.op}_tile"


def _tensor_names(cascade: Cascade) -> frozenset[str]:
    """Lets are read like tensors, so no let may be called like one."""
    return cascade.input_names | {s.tensor for s in cascade.statements}
