"""Write a sweep stage as a cascade again: the swept rank in tiles, the states as iterative Einsums.

This is the form in which papers give online algorithms (FuseMax, Einsums 39-56). It can be printed,
its passes can be counted like any cascade's, and the float64 interpreter can run it, which checks
the derivation without any kernel.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from attnc.ir.cascade import Cascade, Einsum, Rank, Reduction
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.plan import Dot, Fold, Let, Load, Pass, Plan, Serial, SweepStage, TorchStage
from attnc.ir.walk import reads, statement_reads, subexprs, substitute, substitute_indices


def as_cascade(plan: Plan) -> Cascade:
    """The whole plan as one cascade; a swept rank n becomes tiles (n1, n0) of extent N0."""
    statements: list[Einsum] = []
    ranks = {r.name: r for r in plan.cascade.ranks}
    reserved = {t for stage in plan.stages for t in stage.outputs} | plan.cascade.input_names
    for stage in plan.stages:
        match stage:
            case TorchStage(_, statement):
                statements.append(statement)
            case SweepStage():
                statements += _Writer(plan.cascade, stage, ranks, reserved).write()
    return replace(
        plan.cascade, ranks=tuple(ranks.values()), statements=tuple(statements), source="", file=""
    )


@dataclass(slots=True)
class _Writer:
    cascade: Cascade
    stage: SweepStage
    ranks: dict[str, Rank]
    reserved: set[str]
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    carried: set[str] = field(default_factory=set)
    updates: dict[str, str] = field(default_factory=dict)
    out: list[Einsum] = field(default_factory=list)

    def write(self) -> list[Einsum]:
        swept = self.stage.swept
        self._split_rank(swept)
        for let in (*self.stage.host, *self.stage.resident):
            self._let(let, looped=False)
        for number, p in enumerate(self.stage.passes):
            self._pass(p, number)
        for s in self.stage.stores:
            # What lacks a rank of the grid is the same at each of its points.
            first = {r: Number(0) for r in self.stage.grid if r not in s.axes}
            value = substitute_indices(self._expr(s.value, inside=False), first)
            indices = tuple(Index(r) for r in s.axes)
            self.out.append(Einsum(s.tensor, indices, value, span=s.span))
        return _without_copies(self.out)

    def _split_rank(self, swept: str) -> None:
        """`rank n = (n1, n0)`; n1 is iterative. A rank with components keeps them for its masks."""
        self.outer, self.inner = f"{swept}1", f"{swept}0"
        old = self.ranks[swept]
        self.ranks[swept] = replace(old, components=old.components or (self.outer, self.inner))
        parent = None if old.components else swept
        self.ranks[self.outer] = Rank(self.outer, parent=parent, iterative=True)
        self.ranks[self.inner] = Rank(self.inner, parent=parent)

    outer: str = ""
    inner: str = ""

    @property
    def point(self) -> Expr:
        """The coordinate along the swept rank: n1 * N0 + n0."""
        start = Apply("mul", (Index(self.outer), Extent(self.inner)))
        return Apply("add", (start, Index(self.inner)))

    def _pass(self, p: Pass, number: int) -> None:
        for c in p.carries:
            name = self._name(c.name, number)
            self.axes[c.name] = (*self.stage.grid, *c.ranks)
            self.carried.add(c.name)
            self.updates[c.update] = c.name
            indices = self._state_indices(c.name, Number(0))
            self.out.append(Einsum(name, indices, Number(c.init), span=c.span))
        for let in p.body:
            self._let(let, looped=True, number=number)
        self.updates.clear()
        for let in p.after:
            self._let(let, looped=False, number=number)

    def _state_indices(self, name: str, step: Expr) -> tuple[Expr, ...]:
        return (*(Index(r) for r in self.axes[name]), step)

    def _name(self, name: str, number: int = 0) -> str:
        """Two passes may call different tiles alike."""
        wish = name.upper() if name.upper() not in self.reserved else f"{name}_{number + 1}"
        while wish in self.reserved:
            wish += "_"
        self.names[name] = wish
        self.reserved.add(wish)
        return wish

    def _let(self, let: Let, looped: bool, number: int = 0) -> None:
        body, reduce, where, used = self._value(let, looped)
        tile = tuple(r for r in let.ranks if r != self.stage.swept)
        stepped = looped and self._steps(let, body)
        swept = (self.outer, self.inner) if self.stage.swept in let.ranks else ()
        step = swept or ((self.outer,) if stepped else ())
        grid = tuple(r for r in self.stage.grid if r in used)
        updated = self.updates.get(let.name)
        if updated is not None:
            after = Apply("add", (Index(self.outer), Number(1)))
            indices = self._state_indices(updated, after)
            name = self.names[updated]
        else:
            self.axes[let.name] = (*grid, *tile, *step)
            indices = tuple(Index(r) for r in self.axes[let.name])
            name = self._name(let.name, number)
        self.out.append(Einsum(name, indices, body, reduce, where, let.dtype, let.span))

    def _steps(self, let: Let, body: Expr) -> bool:
        return any(x == Index(self.outer) for x in subexprs(body))

    def _value(
        self, let: Let, inside: bool
    ) -> tuple[Expr, Reduction | None, Expr | None, frozenset[str]]:
        reduce: Reduction | None = None
        where: Expr | None = None
        match let.value:
            case Load(read):
                body = self._expr(read, inside)
                if self.stage.swept in let.ranks:
                    where = Apply("lt", (self.point, Extent(self.stage.swept)))
            case Dot(left, right, over, plus):
                product = Apply("mul", (left, right))
                if plus is not None:
                    return self._accumulate(let, product, plus, inside)
                body = self._expr(product, inside)
                reduce = Reduction("sum", (over,))
            case Serial(op, serial, over):
                body = self._expr(serial, inside)
                reduce = Reduction(op, (over,))
                if self.stage.swept in let.ranks:
                    where = Apply("lt", (self.point, Extent(self.stage.swept)))
            case Fold(op, folded, _):
                body = self._expr(folded, inside)
                reduce = Reduction(op, (self.inner,))
            case e:
                body = self._expr(e, inside)
        ranks = {x.rank for x in subexprs(body) if isinstance(x, Index)}
        return body, reduce, where, frozenset(ranks)

    def _accumulate(
        self, let: Let, product: Expr, plus: Expr, inside: bool
    ) -> tuple[Expr, Reduction | None, Expr | None, frozenset[str]]:
        """state * rescale + (tile product): the product becomes an Einsum of its own."""
        tile = f"{let.name}_tile"
        made = Let(tile, let.ranks, Dot(*self._sides(product), self.stage.swept), span=let.span)
        body, _, _, used = self._value(made, inside)
        grid = tuple(r for r in self.stage.grid if r in used)
        self.axes[tile] = (*grid, *let.ranks, self.outer)
        indices = tuple(Index(r) for r in self.axes[tile])
        name = self._name(tile)
        self.out.append(Einsum(name, indices, body, Reduction("sum", (self.inner,)), span=let.span))
        total = Apply("add", (self._expr(plus, inside), Read(name, indices)))
        return total, None, None, frozenset()

    def _sides(self, product: Expr) -> tuple[Expr, Expr]:
        assert isinstance(product, Apply)
        return product.args[0], product.args[1]

    def _expr(self, e: Expr, inside: bool) -> Expr:
        """Reads of lets and states at the right step; the swept coordinate as a tile coordinate."""
        mapping: dict[Expr, Expr] = {Index(self.stage.swept): self.point}
        for part in self.cascade.rank(self.stage.swept).components:
            mapping[Index(part)] = self.cascade.coordinate(part, self.point)
        for r in reads(e):
            if r.tensor in self.carried and r.tensor not in self.updates:
                step: Expr = (
                    Index(self.outer) if inside and self._running(r.tensor) else Extent(self.outer)
                )
                mapping[r] = Read(self.names[r.tensor], self._state_indices(r.tensor, step))
            elif r.tensor in self.updates:
                carried = self.updates[r.tensor]
                after = Apply("add", (Index(self.outer), Number(1)))
                mapping[r] = Read(self.names[carried], self._state_indices(carried, after))
            elif r.tensor in self.axes:
                indices = tuple(Index(x) for x in self.axes[r.tensor])
                mapping[r] = Read(self.names[r.tensor], indices)
        return substitute(e, mapping)

    def _running(self, name: str) -> bool:
        return name in self.updates.values()


def _without_copies(statements: list[Einsum]) -> list[Einsum]:
    """Let a tensor that is only stored be defined under the name it is stored under."""
    readers = Counter(r.tensor for s in statements for r in statement_reads(s))
    copies = {
        s.expr.tensor: s
        for s in statements
        if s.reduce is None
        and isinstance(s.expr, Read)
        and readers[s.expr.tensor] == 1
        and set(s.expr.indices) == set(s.indices)
    }
    made = {s.tensor for s in statements}
    renamed = {t: c for t, c in copies.items() if t in made}
    result = []
    for s in statements:
        if any(s is c for c in renamed.values()):
            continue
        copy = renamed.get(s.tensor)
        same = copy is not None and set(copy.indices) == set(s.indices)
        result.append(replace(s, tensor=copy.tensor, indices=copy.indices) if copy and same else s)
    return result
