"""The keys that a query sees as one range, in closed form: loop bounds are arithmetic, not lists.

A tile of queries first .. last visits [least low, greatest high) and sees all of
[greatest low, least high). Where the bounds never fall from one query to the next, these are the
bounds of its first and of its last query.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from attnc.ir.cascade import Cascade
from attnc.ir.expr import Apply, Expr, Index, Number, Param, Read
from attnc.ir.geometry.integers import Integers, family
from attnc.ir.geometry.monotone import direction
from attnc.ir.geometry.polynomial import TooManyTerms
from attnc.ir.geometry.solve_for import Unsolvable, solve_for
from attnc.ir.show import show_expr
from attnc.ir.types import dtype_of
from attnc.ir.visibility import Visibility
from attnc.ir.walk import index_ranks, subexprs

# Operators and operands of a predicate; a neighborhood along one axis has about 100.
_MOST_PARTS = 1000


@dataclass(frozen=True, slots=True)
class KeyRange:
    """A query sees the keys low <= n < high of the swept rank, and no others.

    Both are integers over the row's coordinate, those of grid ranks, extents, params and captured
    tensors read at these alone. Clipped: low >= 0 and high <= the extent, at any row >= 0, so for a
    tile's padding too; high may be below low. Evaluate in 64 bits: solving moves terms across a
    comparison (`n - m < window` becomes `n < m + window`). Where the swept rank is empty, its
    extent may be a divisor: then there is nothing to evaluate.

    rising:   whether low and high are proved never to fall as the row's coordinate grows
    growing:  whether high - low is: later queries see as many keys or more
    """

    low: Expr
    high: Expr
    rising: tuple[bool, bool]
    growing: bool


# Asked for again and again of the same plan, which is predicted at many shapes.
@lru_cache(maxsize=512)
def key_range(visibility: Visibility, cascade: Cascade) -> KeyRange | None:
    """The range of keys visible to each query; None where that is no single range, or not known
    to be: keys on both sides of a gap, congruences, tensors read at the key.
    """
    try:
        return find_range(visibility, cascade)
    except Unsolvable:
        return None


def find_range(visibility: Visibility, cascade: Cascade) -> KeyRange:
    """Like `key_range`. Raises Unsolvable, which says why there is none."""
    if visibility.every != visibility.some:
        raise Unsolvable("the reductions of one pass have different masks")
    known = Integers(cascade, visibility.swept, _may_be_empty(visibility, cascade))
    parts = tuple(islice(subexprs(visibility.some), _MOST_PARTS + 1))
    if len(parts) > _MOST_PARTS:
        raise Unsolvable("the mask is too long to solve")
    for x in dict.fromkeys(parts):
        if why := _obstacle(x, visibility, known):
            raise Unsolvable(why)
    low, high = solve_for(visibility.some, visibility.swept, known)
    row = visibility.row
    if row is None:
        return KeyRange(low, high, (True, True), True)
    along = direction(low, row, known), direction(high, row, known)
    longer = direction(Apply("sub", (high, low)), row, known)
    growing = longer in (0, 1) or (along[0] in (0, -1) and along[1] in (0, 1))
    return KeyRange(low, high, (along[0] in (0, 1), along[1] in (0, 1)), growing)


def _may_be_empty(visibility: Visibility, cascade: Cascade) -> frozenset[str]:
    """The swept rank, and those that have no part in a predicate."""
    related = {r for r in (visibility.row, *visibility.grid) if r is not None}
    there = {part for r in related for part in family(cascade, r)}
    return frozenset(r.name for r in cascade.ranks) - there


def _obstacle(x: Expr, visibility: Visibility, known: Integers) -> str | None:
    """Why a part of a predicate rules a closed form out, in words; None if it does not."""
    row, swept = visibility.row, visibility.swept
    match x:
        case Index(rank) if rank not in (row, swept, *visibility.grid):
            return f"`{rank}` is a component of a rank"
        case Read(tensor, indices) if any(swept in index_ranks(i) for i in indices):
            return f"`{tensor}` is data along `{swept}`"
        case Read(_, indices) if not all(isinstance(i, Index | Number) for i in indices):
            # The index may leave the tensor at rows where the rest of the predicate is false.
            return f"`{show_expr(x)}` is read at a computed index"
        case Apply("floordiv" | "mod" | "exactdiv", (_, by)) if not _is_positive(by, known):
            return f"`{show_expr(by)}` may be 0 or less"
        case Number() | Param() | Read() if dtype_of(x, known.cascade) == "float":
            return f"`{show_expr(x)}` is no integer"
        case Apply("float" | "div" | "pow" | "given" | "or_else", _):
            return f"`{show_expr(x)}` is no integer arithmetic"
        case _:
            return None


def _is_positive(e: Expr, known: Integers) -> bool:
    try:
        return known.positive(known.polynomial(e))
    except TooManyTerms:
        return False
