"""The only module that knows where the children of an expression are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from attnc.ir.cascade import Cascade, Concat, Einsum, Select, Statement
from attnc.ir.expr import Apply, Expr, Index, Read


def children(e: Expr) -> tuple[Expr, ...]:
    """The direct operands: arguments of an `Apply`, indices of a `Read`."""
    match e:
        case Apply(_, args):
            return args
        case Read(_, indices):
            return indices
        case _:
            return ()


def with_children(e: Expr, new: tuple[Expr, ...]) -> Expr:
    """The same node over other operands."""
    match e:
        case Apply(op, args):
            return e if new == args else Apply(op, new)
        case Read(tensor, indices):
            return e if new == indices else Read(tensor, new)
        case _:
            return e


def subexprs(e: Expr) -> Iterator[Expr]:
    """The expression and everything inside it, outermost first."""
    stack = [e]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(reversed(children(top)))


def rewrite(e: Expr, rule: Callable[[Expr], Expr | None]) -> Expr:
    """Apply `rule` bottom-up, once per node; `None` leaves a node alone."""
    rebuilt = with_children(e, tuple(rewrite(c, rule) for c in children(e)))
    replaced = rule(rebuilt)
    return rebuilt if replaced is None else replaced


def substitute(e: Expr, mapping: Mapping[Expr, Expr]) -> Expr:
    """Replace the keys wherever they occur, outermost first; what is put in is not searched."""
    if e in mapping:
        return mapping[e]
    return with_children(e, tuple(substitute(c, mapping) for c in children(e)))


def substitute_indices(e: Expr, mapping: Mapping[str, Expr]) -> Expr:
    """Replace rank coordinates by expressions (`Index(r)` -> `mapping[r]`)."""
    return substitute(e, {Index(r): x for r, x in mapping.items()})


def reads(e: Expr) -> tuple[Read, ...]:
    """Every tensor read, those inside index expressions included, in order, without repeats."""
    return tuple(dict.fromkeys(s for s in subexprs(e) if isinstance(s, Read)))


def index_ranks(e: Expr) -> frozenset[str]:
    """The ranks (or components) whose coordinate the expression depends on directly."""
    return frozenset(s.rank for s in subexprs(e) if isinstance(s, Index))


def operands(s: Statement) -> tuple[Expr, ...]:
    """The expressions that a statement evaluates: value(s), then `where` if there is one."""
    where = () if s.where is None else (s.where,)
    match s:
        case Einsum():
            return (s.expr, *where)
        case Select():
            return (s.expr, s.amount, *where)
        case Concat():
            return (*s.parts, *where)


def statement_reads(s: Statement) -> tuple[Read, ...]:
    """Every tensor read of a statement, `where` included, in order, without repeats."""
    return tuple(dict.fromkeys(r for e in operands(s) for r in reads(e)))


def output_ranks(s: Statement) -> tuple[str, ...]:
    """The ranks of the defined tensor's axes; an axis written at a constant has none ("")."""
    return tuple(next(iter(sorted(index_ranks(i))), "") for i in s.indices)


def iteration_ranks(s: Statement) -> tuple[str, ...]:
    """The iteration space: output ranks in order, then the reduced ranks."""
    reduced: tuple[str, ...] = ()
    match s:
        case Einsum(reduce=r) if r is not None:
            reduced = r.ranks
        case Concat():
            reduced = s.ranks
        case _:
            pass
    return tuple(dict.fromkeys(r for r in (*output_ranks(s), *reduced) if r))


def map_statement(s: Statement, f: Callable[[Expr], Expr]) -> Statement:
    """Apply `f` to every expression of a statement, `where` and indices included."""
    where = None if s.where is None else f(s.where)
    indices = tuple(f(i) for i in s.indices)
    match s:
        case Einsum():
            return replace(s, indices=indices, expr=f(s.expr), where=where)
        case Select():
            return replace(s, indices=indices, expr=f(s.expr), amount=f(s.amount), where=where)
        case Concat():
            return replace(s, indices=indices, parts=tuple(map(f, s.parts)), where=where)


def map_cascade(c: Cascade, f: Callable[[Expr], Expr]) -> Cascade:
    """Apply `f` to every expression of a cascade."""
    return replace(c, statements=tuple(map_statement(s, f) for s in c.statements))
