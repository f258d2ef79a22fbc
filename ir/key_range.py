"""The keys that a query sees as one range, in closed form: loop bounds are arithmetic, not lists.

A tile of queries first .. last visits [least low, greatest high) and sees all of
[greatest low, least high). Where the bounds never fall from one query to the next, these are the
bounds of its first and of its last query.
"""

from __future__ import annotations

from dataclasses import dataclass

from attnc.ir.cascade import Cascade
from attnc.ir.expr import Apply, Expr, Index, Number, Param, Read
from attnc.ir.integers import Integers
from attnc.ir.monotone import direction
from attnc.ir.polynomial import TooManyTerms
from attnc.ir.solve_for import solve_for
from attnc.ir.types import dtype_of
from attnc.ir.visibility import Visibility
from attnc.ir.walk import index_ranks, subexprs


@dataclass(frozen=True, slots=True)
class KeyRange:
    """A query sees the keys low <= n < high of the swept rank, and no others.

    Both are integers over the row's coordinate, those of grid ranks, extents, params and captured
    tensors read at these alone. Clipped: low >= 0 and high <= the extent, at any row >= 0, so for a
    tile's padding too; high may be below low. Evaluate in 64 bits: solving moves terms across a
    comparison (`n - m < window` becomes `n < m + window`).

    rising:   whether low and high are proved never to fall as the row's coordinate grows
    growing:  whether high - low is: later queries see as many keys or more
    """

    low: Expr
    high: Expr
    rising: tuple[bool, bool]
    growing: bool


def key_range(visibility: Visibility, cascade: Cascade) -> KeyRange | None:
    """The range of keys visible to each query; None where that is no single range, or not known
    to be: keys on both sides of a gap, congruences, tensors read at the key.
    """
    predicate = visibility.some
    known = Integers(cascade, visibility.swept)
    if visibility.every != predicate or not _is_plain(predicate, visibility, known):
        return None
    found = solve_for(predicate, visibility.swept, known)
    if found is None:
        return None
    low, high = found
    row = visibility.row
    if row is None:
        return KeyRange(low, high, (True, True), True)
    along = direction(low, row, known), direction(high, row, known)
    longer = direction(Apply("sub", (high, low)), row, known)
    growing = longer in (0, 1) or (along[0] in (0, -1) and along[1] in (0, 1))
    return KeyRange(low, high, (along[0] in (0, 1), along[1] in (0, 1)), growing)


def _is_plain(e: Expr, visibility: Visibility, known: Integers) -> bool:
    """Whether a predicate is integer arithmetic that is defined for every row, on its own.

    Coordinates of the row, the swept and the grid ranks; no division that may be by 0; no read at
    the key or at an index that is computed, which may leave the tensor where the rest does not
    hold.
    """
    ranks = {visibility.row, visibility.swept, *visibility.grid}
    if not index_ranks(e) <= ranks:
        return False
    for x in subexprs(e):
        match x:
            case Number(value):
                plain = not isinstance(value, float)
            case Param():
                plain = dtype_of(x, known.cascade) != "float"
            case Read(_, indices):
                at = (i.rank for i in indices if isinstance(i, Index))
                plain = all(isinstance(i, Index | Number) for i in indices)
                plain = plain and visibility.swept not in at
            case Apply("floordiv" | "mod" | "exactdiv", (_, by)):
                plain = _is_positive(by, known)
            case Apply("float" | "div" | "pow" | "given" | "or_else", _):
                plain = False
            case _:
                plain = True
        if not plain:
            return False
    return True


def _is_positive(e: Expr, known: Integers) -> bool:
    try:
        return known.positive(known.polynomial(e))
    except TooManyTerms:
        return False
