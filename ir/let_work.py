"""The arithmetic of lets, each operation at the ranks over which it varies.

What repeats inside a section is computed once; a product that is added to something is one
instruction with the sum. Signs, loads and copies cost nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from attnc.ir.cascade import Cascade
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.ops import OPS, REDUCTIONS, Cost
from attnc.ir.plan import Dot, Fold, Let, Serial, SweepStage, let_reads, value_exprs
from attnc.ir.types import dtype_of
from attnc.ir.walk import children, reads

# The fields of `ir.ops.Cost`.
Pipe: TypeAlias = Literal["fma", "alu", "sfu", "casts"]
PIPES: tuple[Pipe, ...] = ("fma", "alu", "sfu", "casts")

# In floating point; of integers it is no work for the same unit.
_ARITHMETIC = Cost(fma=1)
# What divisions by the same number share: its reciprocal, of an integer by way of a float.
RECIPROCAL = Cost(2, 2, 1)
DIVISOR = Cost(sfu=3)
# Quotient and remainder of the same numbers: the second follows from the first.
_SECOND = Cost(fma=1)
_DIVISIONS = ("floordiv", "mod", "exactdiv")


@dataclass(frozen=True, slots=True)
class Term:
    """`count` instructions at each point of `ranks`.

    A component of a rank stands for itself: what depends on a token's column alone is computed once
    per column. moves: whether the result differs from one tile of the swept rank to the next
    """

    pipe: Pipe
    ranks: frozenset[str]
    count: int
    moves: bool = True


@dataclass(frozen=True, slots=True)
class LetWork:
    """What a let computes besides the products of a `Dot`.

    sides: the ranks of the expressions that it evaluates, in order
    """

    let: Let
    terms: tuple[Term, ...]
    sides: tuple[frozenset[str], ...]


def section_work(stage: SweepStage, cascade: Cascade, section: Iterable[Let]) -> list[LetWork]:
    """The work of some lets that are computed one after the other: `resident`, a body, `after`."""
    lets = tuple(section)
    moving = {x.name for x in lets} | {c.name for p in stage.passes for c in p.carries}
    counter = _Counter(stage, cascade, frozenset(moving), _fusable(lets))
    return [
        LetWork(let, tuple(counter.let(let)), tuple(map(counter.ranks, value_exprs(let.value))))
        for let in lets
    ]


def reduced_ranks(let: Let) -> frozenset[str]:
    """The ranks of a let, and the one that is reduced on the way."""
    match let.value:
        case Dot(_, _, over) | Fold(_, _, over) | Serial(_, _, over):
            return frozenset((*let.ranks, over))
        case _:
            return frozenset(let.ranks)


def expression_cost(e: Expr, is_int: Callable[[Expr], bool]) -> Iterator[tuple[Pipe, int]]:
    """What one evaluation of the outermost operator costs."""
    if not isinstance(e, Apply):
        return
    op = OPS[e.op]
    if op.cost == _ARITHMETIC and is_int(e):
        yield "alu", 1
        return
    if op.kind == "cast" and not is_int(e.args[0]):
        return
    yield from _instructions(op.cost)


def _instructions(cost: Cost) -> Iterator[tuple[Pipe, int]]:
    for pipe in PIPES:
        if count := getattr(cost, pipe):
            yield pipe, count


def _fusable(lets: tuple[Let, ...]) -> frozenset[str]:
    """Products with a name that are used once: they may become part of a multiply-add."""
    uses = Counter(name for x in lets for name in let_reads(x))
    products = {x.name for x in lets if isinstance(x.value, Apply) and x.value.op == "mul"}
    return frozenset(name for name in products if uses[name] == 1)


@dataclass(slots=True)
class _Counter:
    """Counts a section; `seen`: the operations that it has computed, and what they shared."""

    stage: SweepStage
    cascade: Cascade
    moving: frozenset[str]
    fusable: frozenset[str]
    seen: set[object] = field(default_factory=set)
    types: Mapping[str, str] = field(default_factory=dict)
    bodies: dict[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s = self.stage
        lets = (*s.host, *s.resident, *(x for p in s.passes for x in (*p.body, *p.after)))
        self.types = {x.name: x.dtype for x in lets}
        self.bodies = {x.name: frozenset(x.ranks) for x in lets}
        for x in lets:
            if isinstance(x.value, Apply) and x.dtype == "int":
                self.bodies[x.name] = self.ranks(x.value)

    def let(self, let: Let) -> Iterator[Term]:
        for e in value_exprs(let.value):
            yield from self._expr(e)
        if isinstance(let.value, Fold | Serial):
            body = let.value.body
            combine = Apply(REDUCTIONS[let.value.op].combine, (body, body))
            for pipe, count in expression_cost(combine, self._is_int):
                yield Term(pipe, reduced_ranks(let), count, self._moves(body))

    def _expr(self, e: Expr) -> Iterator[Term]:
        if e in self.seen or not isinstance(e, Apply):
            if isinstance(e, Read) and e.tensor not in self.types:
                for i in e.indices:
                    yield from self._expr(i)
            return
        self.seen.add(e)
        for c in children(e):
            yield from self._expr(c)
        ranks, moves = self.ranks(e), self._moves(e)
        for pipe, count in self._cost(e, ranks):
            yield Term(pipe, ranks, count, moves)
        if e.op == "div" or e.op in _DIVISIONS:
            yield from self._divisor(e.args[1], moves, RECIPROCAL if e.op == "div" else DIVISOR)

    def _divisor(self, e: Expr, moves: bool, cost: Cost) -> Iterator[Term]:
        if self._is_new(("divisor", e, moves)):
            for pipe, count in _instructions(cost):
                yield Term(pipe, self.ranks(e), count, moves)

    def _cost(self, e: Apply, ranks: frozenset[str]) -> Iterable[tuple[Pipe, int]]:
        """What is left to compute, given what else is."""
        if e.op in ("add", "sub") and not self._is_int(e) and self._fuses(e, ranks):
            return ()
        if e.op in ("and", "or") and all(self._is_test(a, ranks) for a in e.args):
            return ()
        if e.op in _DIVISIONS and not self._is_new(("division", *e.args)):
            return _instructions(_SECOND)
        if e.op == "div":
            return _instructions(OPS[e.op].cost.less(RECIPROCAL))
        return expression_cost(e, self._is_int)

    def _is_new(self, key: object) -> bool:
        found = key not in self.seen
        self.seen.add(key)
        return found

    def _is_test(self, e: Expr, ranks: frozenset[str]) -> bool:
        """Whether it is a comparison at these points: one takes in what another found."""
        compares = isinstance(e, Apply) and OPS[e.op].kind == "compare"
        return compares and self.ranks(e) == ranks

    def _fuses(self, e: Apply, ranks: frozenset[str]) -> bool:
        """Whether one side is a product that becomes a multiply-add with this sum."""
        return any(self._is_product(a) and self.ranks(a) == ranks for a in e.args)

    def _is_product(self, e: Expr) -> bool:
        named = isinstance(e, Read) and e.tensor in self.fusable
        return named or (isinstance(e, Apply) and e.op == "mul")

    def ranks(self, e: Expr) -> frozenset[str]:
        """The axes of a value inside a tile: none for what a whole program shares."""
        match e:
            case Index(rank):
                shared = {rank, self.cascade.rank(rank).parent} & {*self.stage.grid}
                return frozenset() if shared else frozenset({rank})
            case Read(name) if name in self.bodies:
                return self.bodies[name]
            case _:
                return frozenset().union(*map(self.ranks, children(e)))

    def _moves(self, e: Expr) -> bool:
        axes = {self.cascade.rank(r).parent or r for r in self.ranks(e)}
        return self.stage.swept in axes or any(r.tensor in self.moving for r in reads(e))

    def _is_int(self, e: Expr) -> bool:
        match e:
            case Number() | Param() | Index() | Extent():
                return dtype_of(e, self.cascade) == "int"
            case Read(name) if name in self.types:
                return self.types[name] == "int"
            case Read():
                return dtype_of(e, self.cascade) == "int"
            case Apply(op, args):
                declared = OPS[op].result
                if declared != "same":
                    return declared == "int"
                return all(map(self._is_int, args[1:] if op == "select" else args))
