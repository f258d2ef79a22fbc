"""Where a predicate reads captured tensors: wrong places are found before any tile is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

from attnc.errors import AttncError
from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Apply, Expr, Read
from attnc.ir.frame import Scope
from attnc.ir.show import show_expr
from attnc.ir.walk import children, index_ranks

# More places than that are as many as there are points of a map: these are left to the predicate.
_MOST_PLACES = 1 << 24


def check_places(predicates: Iterable[Expr], scope: Scope) -> None:
    """Look at each index of each read that no condition before it decides, along its own ranks.

    Raises AttncError E601 where one leaves its tensor. Every rank must have points.
    """
    for read in dict.fromkeys(r for p in predicates for r in unguarded(p)):
        for axis, index in enumerate(read.indices):
            size = scope.tensors[read.tensor].data.shape[axis]
            wrong = _outside(index, size, scope)
            if wrong is not None:
                raise AttncError(
                    "E601",
                    f"`{show_expr(read)}` is read at {show_expr(index)} = {wrong}, "
                    f"but the axis has length {size}",
                    hint="restrict the mask with a condition before it, or the index with `clamp`",
                )


def unguarded(e: Expr) -> Iterator[Read]:
    """The reads that happen at every point: no condition before them decides."""
    match e:
        case Apply("and" | "or", (a, _)):
            yield from unguarded(a)
        case Apply("select", (test, _, _)):
            yield from unguarded(test)
        case _:
            if isinstance(e, Read):
                yield e
            for child in children(e):
                yield from unguarded(child)


def _outside(index: Expr, size: int, scope: Scope) -> int | None:
    """A value of the index that is no place of an axis."""
    ranks = index_ranks(index)
    whole = [r for r in sorted(ranks) if r not in scope.ranks or scope.ranks[r].parent not in ranks]
    if prod(scope.extents[r] for r in whole) > _MOST_PLACES:
        return None
    found = evaluate(index, scope.at({r: range(scope.extents[r]) for r in whole})).data
    low, high = int(found.min()), int(found.max())
    return low if low < 0 else high if high >= size else None
