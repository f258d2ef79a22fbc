"""What a plan computes and moves, as formulas in the extents: every point of every map is counted.

What rows or keys share in a tile (moving a state to a new base) is left out: it is a tile length
less than what is done per point. So is the arithmetic of masks, which only tiles at a border do:
`codegen.tile_demand` counts all that a tile asks for. Tensors count as read or written once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from attnc.ir.cascade import Cascade, Einsum, Reduction
from attnc.ir.expr import Apply, Expr
from attnc.ir.let_work import PIPES, Pipe, expression_cost, reduced_ranks, section_work
from attnc.ir.ops import REDUCTIONS
from attnc.ir.plan import Dot, Let, Plan, SweepStage, TorchStage
from attnc.ir.types import dtype_of
from attnc.ir.walk import iteration_ranks, output_ranks, subexprs


@dataclass(frozen=True, slots=True)
class Formula:
    """A sum of products of extents: `(coefficient, ranks)` per term, ranks sorted."""

    terms: tuple[tuple[int, tuple[str, ...]], ...] = ()

    def at(self, extents: Mapping[str, int]) -> int:
        """Its value for extents by rank name."""
        return sum(n * prod(extents[r] for r in ranks) for n, ranks in self.terms)

    def __str__(self) -> str:
        if not self.terms:
            return "0"
        shared = [r for r in self.terms[0][1] if all(r in ranks for _, ranks in self.terms)]
        common = [r.upper() for r in shared]
        inner = [_product(n, [r for r in ranks if r not in shared]) for n, ranks in self.terms]
        if len(inner) == 1:
            return _product(self.terms[0][0], self.terms[0][1])
        total = " + ".join(inner)
        return "*".join([*common, f"({total})"]) if common else total


def _product(n: int, ranks: Iterable[str]) -> str:
    extents = [r.upper() for r in ranks]
    return "*".join(extents if n == 1 and extents else [str(n), *extents])


@dataclass(frozen=True, slots=True)
class Work:
    """Totals over all stages.

    tensor: floating-point operations in matrix products, two per multiply-add
    pipes:  instructions per hardware unit for everything else (`ir.ops`: what each operator costs);
            conversions of integers to floats count as alu
    moved:  elements of inputs read and of outputs written, each once
    """

    tensor: Formula
    pipes: Mapping[Pipe, Formula]
    moved: Formula

    def to_dict(self) -> dict[str, str]:
        """`{tensor_flops, fma, alu, sfu, elements_moved}` as formulas in the extents."""
        pipes = {str(pipe): str(f) for pipe, f in self.pipes.items()}
        return {"tensor_flops": str(self.tensor), **pipes, "elements_moved": str(self.moved)}


_Count: TypeAlias = Counter[tuple[str, ...]]
_Pipes: TypeAlias = dict[Pipe, _Count]


def count_work(plan: Plan) -> Work:
    """The work of all stages of a plan."""
    tensor: _Count = Counter()
    pipes: _Pipes = {pipe: Counter() for pipe in PIPES}
    for stage in plan.stages:
        match stage:
            case SweepStage():
                _count_sweep(stage, plan.cascade, tensor, pipes)
            case TorchStage(_, s):
                _count_statement(s, plan.cascade, tensor, pipes)
    pipes["alu"] += pipes.pop("casts")
    order = [r.name for r in plan.cascade.ranks]
    return Work(
        _formula(tensor, order),
        {pipe: _formula(count, order) for pipe, count in pipes.items()},
        _formula(_moved(plan.cascade), order),
    )


def _count_sweep(stage: SweepStage, cascade: Cascade, tensor: _Count, pipes: _Pipes) -> None:
    """What is computed once per row or per point of a map: not what a whole tile shares."""
    rows = frozenset((stage.row,)) if stage.row is not None else frozenset()
    for p in stage.passes:
        _count_lets(stage, cascade, p.full, rows | {stage.swept}, tensor, pipes)
        _count_lets(stage, cascade, p.after, rows, tensor, pipes)
    _count_lets(stage, cascade, stage.resident, rows, tensor, pipes)


def _count_lets(
    stage: SweepStage,
    cascade: Cascade,
    lets: tuple[Let, ...],
    least: frozenset[str],
    tensor: _Count,
    pipes: _Pipes,
) -> None:
    for work in section_work(stage, cascade, lets):
        ranks = reduced_ranks(work.let)
        if isinstance(work.let.value, Dot) and ranks >= least:
            tensor[_key((*stage.grid, *ranks))] += 2
        for term in work.terms:
            whole = {cascade.rank(r).parent or r for r in term.ranks}
            if whole >= least:
                pipes[term.pipe][_key((*stage.grid, *whole))] += term.count


def _count_statement(s: Einsum, cascade: Cascade, tensor: _Count, pipes: _Pipes) -> None:
    ranks = iteration_ranks(s)
    match s.reduce, s.expr:
        case Reduction("sum"), Apply("mul", (a, b)):
            tensor[_key(ranks)] += 2
            operands: tuple[Expr, ...] = (a, b)
        case None, e:
            operands = (e,)
        case Reduction(op), e:
            combine = Apply(REDUCTIONS[op].combine, (e, e))
            for pipe, count in expression_cost(combine, lambda _: False):
                pipes[pipe][_key(ranks)] += count
            operands = (e,)
    for e in operands:
        _count_expr(e, ranks, cascade, pipes)


def _count_expr(e: Expr, ranks: tuple[str, ...], cascade: Cascade, pipes: _Pipes) -> None:
    """Torch computes every operation at every point."""
    for x in subexprs(e):
        for pipe, count in expression_cost(x, lambda y: dtype_of(y, cascade) == "int"):
            pipes[pipe][_key(ranks)] += count


def _moved(cascade: Cascade) -> _Count:
    count: _Count = Counter(_key(t.ranks) for t in cascade.inputs)
    for name in cascade.outputs:
        count[_key(output_ranks(cascade.producers(name)[0]))] += 1
    return count


def _key(ranks: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(ranks) - {""}))


def _formula(count: _Count, order: list[str]) -> Formula:
    place = {r: i for i, r in enumerate(order)}
    terms = [(n, tuple(sorted(ranks, key=lambda r: place[r]))) for ranks, n in count.items() if n]
    return Formula(tuple(sorted(terms, key=lambda t: (-len(t[1]), t[1]))))
