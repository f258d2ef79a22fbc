"""Put the values of params and extents into a predicate, and fold what becomes constant.

What then looks the same is the same: axes, dilation groups and settings of a sweep that differ only
in what no longer matters share one classification.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache

from attnc.ir.expr import Apply, Expr, Extent, Number, Param
from attnc.ir.geometry.tiling import Bound
from attnc.ir.presence import conjunction, conjuncts
from attnc.ir.specialise import fold_constants
from attnc.ir.walk import rewrite, subexprs

_DIVISIONS: dict[str, Callable[[int, int], int]] = {
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "exactdiv": operator.floordiv,
}
_INT64 = 1 << 63


def put_in_numbers(e: Expr, bound: Bound) -> Expr:
    """The predicate without params and extents; indices and reads of tensors stay."""
    folded = (
        _put(part, tuple(_value(x, bound) for x in numbers_of(part))) for part in conjuncts(e)
    )
    return conjunction(tuple(c for part in folded for c in conjuncts(part)))


@lru_cache(maxsize=4096)
def numbers_of(e: Expr) -> tuple[Param | Extent, ...]:
    """The params and extents that an expression depends on."""
    return tuple(dict.fromkeys(x for x in subexprs(e) if isinstance(x, Param | Extent)))


def _value(x: Param | Extent, bound: Bound) -> Number:
    if isinstance(x, Extent):
        return Number(bound.extents[x.rank])
    value = bound.params[x.name]
    return Number(value[x.item or 0] if isinstance(value, tuple) else value)


@lru_cache(maxsize=4096)
def _put(e: Expr, values: tuple[Number, ...]) -> Expr:
    known = dict(zip(numbers_of(e), values, strict=True))

    def put(part: Expr) -> Expr | None:
        if isinstance(part, Param | Extent):
            return known[part]
        return fold_numbers(part)

    return rewrite(e, put)


def fold_numbers(e: Expr) -> Expr | None:
    """One step of folding, integer division included; None where there is nothing to fold."""
    match e:
        case Apply("floordiv" | "mod" | "exactdiv" as op, (Number(int(a)), Number(int(b)))):
            # An inexact division is an error and a division by 0 absent: both when evaluated.
            exact = b != 0 and (op != "exactdiv" or a % b == 0)
            return Number(_DIVISIONS[op](a, b)) if exact else None
        case Apply("clamp", (Number(x), Number(low), Number(high))):
            return Number(min(max(x, low), high))
        case (
            Apply("add", (a, Number(int(0))))
            | Apply("add", (Number(int(0)), a))
            | Apply("sub", (a, Number(int(0))))
        ):
            return a
        case Apply("mul" | "floordiv", (a, Number(int(1)))) | Apply("mul", (Number(int(1)), a)):
            return a
        case Apply("and" | "or", (a, b)) if a == b:
            return a
    folded = fold_constants(e)
    # Past 64 bits the evaluator decides, as it does for coordinates.
    huge = (
        isinstance(folded, Number) and isinstance(folded.value, int) and abs(folded.value) >= _INT64
    )
    return None if huge else folded
