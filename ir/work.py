"""What a plan computes and moves, as formulas in the extents: every point of every map is counted.

Once-per-tile arithmetic (moving a state to a new base) is left out: it is a tile length less than
what is done per point. Tensors count as read or written once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from attnc.ir.cascade import Cascade, Einsum, Reduction
from attnc.ir.expr import Apply, Expr
from attnc.ir.ops import OPS, Pipe
from attnc.ir.plan import Dot, Fold, Let, Load, Plan, Serial, SweepStage, TorchStage
from attnc.ir.walk import index_ranks, iteration_ranks, output_ranks, subexprs


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
    pipes:  instructions per hardware unit for everything else (`ir.ops`: what each operator costs)
    moved:  elements of inputs read and of outputs written, each once
    """

    tensor: Formula
    pipes: Mapping[Pipe, Formula]
    moved: Formula

    def to_dict(self) -> dict[str, str]:
        """`{tensor_flops, fma, alu, sfu, elements_moved}` as formulas in the extents."""
        pipes = {str(pipe): str(f) for pipe, f in self.pipes.items()}
        return {"tensor_flops": str(self.tensor), **pipes, "elements_moved": str(self.moved)}


_Count = Counter[tuple[str, ...]]


def count_work(plan: Plan) -> Work:
    """The work of all stages of a plan."""
    tensor: _Count = Counter()
    pipes: dict[Pipe, _Count] = {"fma": Counter(), "alu": Counter(), "sfu": Counter()}
    for stage in plan.stages:
        match stage:
            case SweepStage():
                for let in _per_point(stage):
                    _count_let(let, stage.grid, tensor, pipes)
            case TorchStage(_, s):
                _count_statement(s, tensor, pipes)
    order = [r.name for r in plan.cascade.ranks]
    return Work(
        _formula(tensor, order),
        {pipe: _formula(count, order) for pipe, count in pipes.items()},
        _formula(_moved(plan.cascade), order),
    )


def _per_point(stage: SweepStage) -> Iterator[Let]:
    """The lets that are computed once per point of a row or of a map, not once per tile."""
    yield from stage.resident
    for each in stage.passes:
        yield from (let for let in each.body if stage.swept in _ranks(let))
        yield from each.after


def _ranks(let: Let) -> tuple[str, ...]:
    """Those of the result and the one that is reduced on the way."""
    match let.value:
        case Dot(_, _, over) | Fold(_, _, over) | Serial(_, _, over):
            return (*let.ranks, over)
        case _:
            return let.ranks


def _count_statement(s: Einsum, tensor: _Count, pipes: Mapping[Pipe, _Count]) -> None:
    ranks = iteration_ranks(s)
    match s.reduce, s.expr:
        case Reduction("sum"), Apply("mul", (a, b)):
            tensor[_key(ranks)] += 2
            operands: tuple[Expr, ...] = (a, b)
        case reduce, e:
            pipes["alu"][_key(ranks)] += reduce is not None
            operands = (e,)
    for e in operands:
        _count_expr(e, ranks, pipes)


def _count_let(
    let: Let, grid: tuple[str, ...], tensor: _Count, pipes: Mapping[Pipe, _Count]
) -> None:
    ranks = (*grid, *_ranks(let))
    match let.value:
        case Load():
            pass
        case Dot(left, right):
            tensor[_key(ranks)] += 2
            for side in (left, right):
                _count_expr(side, (*grid, *index_ranks(side)), pipes)
        case Fold(_, body, _) | Serial(_, body, _):
            pipes["alu"][_key(ranks)] += 1
            _count_expr(body, ranks, pipes)
        case e:
            _count_expr(e, ranks, pipes)


def _count_expr(e: Expr, ranks: tuple[str, ...], pipes: Mapping[Pipe, _Count]) -> None:
    for x in subexprs(e):
        if isinstance(x, Apply):
            pipe, instructions = OPS[x.op].cost
            if pipe in pipes:
                pipes[pipe][_key(ranks)] += instructions


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
