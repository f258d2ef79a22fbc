"""Statements: a right side is one Einsum; what is reduced inside it becomes one of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Literal

from attnc.dsl import tree
from attnc.dsl.expression import REDUCERS, SELECTORS, Expressions
from attnc.dsl.report import Report
from attnc.dsl.scope import Scope, Symbols
from attnc.dsl.typed import UNKNOWN, Typed, apply, as_float, constant, coordinate, extent, node
from attnc.errors import Span
from attnc.ir.cascade import DType, Einsum, Reduction, Select, Statement
from attnc.ir.expr import Expr, Index, Read


@dataclass(frozen=True, slots=True)
class Right:
    """A right side: what the statement that holds it computes.

    `where` is what is left to restrict the statement itself. `select` is set for a selection:
    which, along which rank, how much.
    """

    value: Typed
    where: Typed | None = None
    reduce: Reduction | None = None
    select: tuple[Literal["topk", "topp"], str, Typed] | None = None

    @property
    def dtype(self) -> DType | None:
        """The type of the tensor it defines."""
        return "bool" if self.select and self.value.dtype else self.value.dtype

    @property
    def plain(self) -> bool:
        """Whether it is only an expression, to be used where it stands."""
        return self.where is None and self.reduce is None and self.select is None

    @property
    def parts(self) -> tuple[Typed, ...]:
        """Its expressions."""
        extra = [] if self.where is None else [self.where]
        extra += [self.select[2]] if self.select else []
        return (self.value, *extra)


class Statements(Expressions):
    """Collects the statements of the cascade while right sides are read."""

    def __init__(self, symbols: Symbols, report: Report, taken: Iterable[str]) -> None:
        super().__init__(symbols, report)
        self.statements: list[Statement] = []
        self._taken = set(taken)
        self._copies: dict[str, int] = {}

    @abstractmethod
    def expand(self, e: tree.Over | tree.Call, scope: Scope, top: bool) -> Right:
        """The right side that a macro call stands for."""

    # Right sides.

    def right(self, e: tree.Expr, scope: Scope, top: bool) -> Right:
        """A right side; `top`: the whole right side of a statement, which `where` restricts."""
        match e:
            case tree.Over(fn) if fn == "mean":
                return self._mean(e, scope, top)
            case tree.Over(fn) if fn in REDUCERS:
                return self._reduction(e, scope, top)
            case tree.Over(fn) if fn in SELECTORS:
                return self._selection(e, scope, top)
            case tree.Over(fn) | tree.Call(fn) if fn in self.symbols.macros:
                return self.expand(e, scope, top)
            case tree.Over(fn):
                known = (*REDUCERS, *SELECTORS, *self.symbols.macros)
                near = self.report.nearest(fn, known)
                message = f"unknown reduction or macro `{fn}`"
                return Right(self.fail("E103", message, e.span, scope, near))
            case _:
                made = self.value(e, scope)
                return Right(made, self.outer_where(scope) if top else None)

    def outer_where(self, scope: Scope) -> Typed | None:
        """The statement's `where`, unless it is about ranks that only nested reductions bind."""
        if scope.where is None:
            return None
        nested = scope.mentioned() & scope.inner
        if any(self.coordinate(rank, scope) is None for rank in nested):
            return None
        return self.predicate(scope.where, scope)

    def inner_where(self, ranks: Iterable[str], scope: Scope, top: bool) -> Typed | None:
        """The `where` as far as it restricts something that binds `ranks`, in their scope."""
        if scope.where is None:
            return None
        bound = set(ranks)
        for rank in ranks:
            bound.update(self.symbols.ranks[rank].components)
        scope.inner.update(bound)
        concerned = top or bound & scope.mentioned()
        return self.predicate(scope.where, scope) if concerned else None

    def rank_names(self, args: Iterable[tree.Expr], scope: Scope, of: str) -> tuple[str, ...]:
        """The ranks that a reduction, a selection or a macro is over."""
        found = []
        for arg in args:
            name = arg.name if isinstance(arg, tree.Name) else ""
            rank = scope.actual.get(name, "" if scope.macro else name)
            if rank not in self.symbols.ranks:
                message = f"`{of}` is over ranks, this is not one"
                self.fail("E406", message, arg.span, scope, f"write a rank's name: `{of}(n)`")
            elif rank in found:
                self.fail("E205", f"rank `{name}` is given twice", arg.span, scope)
            else:
                found.append(rank)
        return tuple(found)

    def _reduction(self, e: tree.Over, scope: Scope, top: bool) -> Right:
        ranks = self.rank_names(e.args, scope, e.fn)
        if not ranks:
            return Right(UNKNOWN if e.args else self._over_nothing(e, scope))
        inside = scope.bind(ranks)
        where = self.inner_where(ranks, inside, top)
        made = self._reduced(e, inside)
        self._used(ranks, Right(made, where), e, scope)
        return Right(made, where, Reduction(e.fn, ranks))

    def _over_nothing(self, e: tree.Over, scope: Scope) -> Typed:
        hint = f"write `{e.fn}(n)` to reduce over `n`"
        return self.fail("E406", f"`{e.fn}` names no rank", e.span, scope, hint)

    def _reduced(self, e: tree.Over, inside: Scope) -> Typed:
        """What a reduction reduces; max and min over nothing are infinite, so not ints."""
        if e.fn in ("any", "all"):
            return self.boolean(e.body, inside)
        made = self.number(e.body, inside)
        return as_float(made) if e.fn in ("max", "min") else made

    def _used(self, ranks: Iterable[str], right: Right, e: tree.Over, scope: Scope) -> None:
        free = self.free(right.parts, scope.bind(ranks))
        for rank in ranks:
            if right.dtype and rank not in free:
                message = f"`{e.fn}` is over `{rank}`, but nothing to its right varies along it"
                hint = f"the number of points is `{rank.upper()}`"
                self.fail("E204", message, e.span, scope, hint)

    def _mean(self, e: tree.Over, scope: Scope, top: bool) -> Right:
        """`mean` is the sum over the number of points that are present; over nothing, absent."""
        ranks = self.rank_names(e.args, scope, e.fn)
        if not ranks:
            return Right(UNKNOWN if e.args else self._over_nothing(e, scope))
        inside = scope.bind(ranks)
        where = self.inner_where(ranks, inside, top)
        body = as_float(self.number(e.body, inside))
        self._used(ranks, Right(body, where), e, scope)
        if not isinstance(body.expr, Read):
            body = self.read_of(Right(body, where), "X", inside, e.span)
            where = None
        total = self._total(body, where, ranks, f"sum_{scope.target}", inside, e.span)
        if where is None and body.dtype and self._is_input(body.expr):
            count = as_float(_product(map(extent, ranks)))
            return Right(apply("div", total, count))
        # One wherever the body is present: `x == x` is absent where x is.
        present = apply("select", apply("eq", body, body), constant(1.0), constant(1.0))
        count = self._total(present, where, ranks, f"count_{scope.target}", inside, e.span)
        return Right(apply("div", total, count))

    def _total(
        self,
        of: Typed,
        where: Typed | None,
        ranks: tuple[str, ...],
        name: str,
        scope: Scope,
        span: Span,
    ) -> Typed:
        return self.read_of(Right(of, where, Reduction("sum", ranks)), name, scope, span)

    def _is_input(self, e: Expr) -> bool:
        inputs = self.symbols.tensors.keys() - self.symbols.bracketed
        return isinstance(e, Read) and e.tensor in inputs

    def _selection(self, e: tree.Over, scope: Scope, top: bool) -> Right:
        if len(e.args) != 2:
            hint = f"`{e.fn}(n, {'8' if e.fn == 'topk' else '0.9'}) X[n]`"
            message = f"`{e.fn}` takes a rank and how much to choose"
            return Right(self.fail("E212", message, e.span, scope, hint))
        ranks = self.rank_names(e.args[:1], scope, e.fn)
        if e.fn == "topk":
            amount = self.integer(e.args[1], scope, "how many `topk` chooses")
        else:
            amount = as_float(self.number(e.args[1], scope))
        if ranks and not self.coordinate(ranks[0], scope):
            message = f"rank `{ranks[0]}` is not bound here"
            hint = f"`{e.fn}` says of each `{ranks[0]}` whether it is chosen: add it on the left"
            self.fail("E104", message, e.span, scope, hint)
        where = self.inner_where(ranks, scope, top)
        made = as_float(self.number(e.body, scope))
        if not ranks or amount.dtype is None:
            return Right(UNKNOWN)
        return Right(made, where, select=("topk" if e.fn == "topk" else "topp", ranks[0], amount))

    # Inside larger expressions.

    def over(self, e: tree.Over, scope: Scope) -> Typed:
        return self.inline(self.right(e, scope, top=False), e, scope)

    def call_macro(self, e: tree.Call, scope: Scope) -> Typed:
        return self.inline(self.right(e, scope, top=False), e, scope)

    def inline(self, right: Right, e: tree.Over | tree.Call, scope: Scope) -> Typed:
        if right.plain:
            return right.value
        name = f"{right.reduce.op if right.reduce else e.fn}_{scope.target}"
        return self.read_of(right, name, scope, e.span)

    def read_of(self, right: Right, name: str, scope: Scope, span: Span) -> Typed:
        """Define a new tensor as `right` over the ranks it varies along; a read of it."""
        if right.dtype is None:
            return UNKNOWN
        ranks = right.reduce.ranks if right.reduce else ()
        free = self.free(right.parts, scope.bind(ranks))
        dims = tuple(r for r in free if r not in ranks)
        indices = tuple(Index(r) for r in dims)
        fresh = self.fresh(name, span, scope)
        self.emit(fresh, indices, right, scope.place(span))
        return node(Read(fresh, indices), right.dtype, *map(coordinate, dims))

    def free(self, parts: Iterable[Typed], scope: Scope) -> tuple[str, ...]:
        """The bound ranks along which expressions vary, in the order of the scope."""
        ranks = self.symbols.ranks
        found = set().union(*(p.ranks for p in parts))
        found |= {ranks[r].parent or r for r in found if r not in scope.ranks}
        return tuple(r for r in scope.ranks if r in found)

    def fresh(self, name: str, span: Span, scope: Scope) -> str:
        """A name that the spec does not use: `name`, or `name` with the tensor being defined."""
        if not scope.target:
            hint = "define a tensor with it and read that tensor in the mask"
            self.fail("E311", "a mask only compares: it cannot reduce", span, scope, hint)
        made = name
        if made in self._taken and not name.endswith(f"_{scope.target}"):
            made = name = f"{name}_{scope.target}"
        while made in self._taken:
            self._copies[name] = self._copies.get(name, 1) + 1
            made = f"{name}{self._copies[name]}"
        self._taken.add(made)
        return made

    def emit(self, name: str, indices: tuple[Expr, ...], right: Right, span: Span) -> None:
        """Add a statement to the cascade; nothing if it has a mistake."""
        if right.dtype is None:
            return
        made, where = right.value.expr, right.where.expr if right.where else None
        if right.select:
            op, rank, amount = right.select
            self.statements.append(Select(name, indices, op, rank, amount.expr, made, where, span))
            return
        self.statements.append(Einsum(name, indices, made, right.reduce, where, right.dtype, span))


def _product(factors: Iterable[Typed]) -> Typed:
    return reduce(lambda a, b: apply("mul", a, b), factors)
