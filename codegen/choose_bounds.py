"""Choose between bounds, not between masks: `x <= n if c else y <= n` is `(x if c else y) <= n`.

A choice that the key takes no part in is then made once per row, not once per point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from attnc.ir.cascade import Cascade
from attnc.ir.expr import Apply, Expr, Number, Read
from attnc.ir.plan import Dot, Fold, Let, Load, Pass, Serial, SweepStage, map_value
from attnc.ir.presence import conjunction, conjuncts
from attnc.ir.types import dtype_of
from attnc.ir.walk import index_ranks, rewrite, substitute

# With the operands in the other order.
_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


def choose_bounds(stage: SweepStage, cascade: Cascade) -> SweepStage:
    """The stage with choices between masks of single keys' ranges made of their bounds."""
    swept = cascade.rank(stage.swept)
    keys = frozenset((swept.name, *swept.components))
    host: dict[Expr, Expr] = {
        Read(let.name, ()): Number(0) for let in stage.host if let.dtype == "int"
    }

    def is_int(e: Expr) -> bool:
        return dtype_of(substitute(e, host), cascade) == "int"

    def change(e: Expr) -> Expr | None:
        match e:
            case Apply("select", (test, a, b)) if not index_ranks(test) & keys:
                return _chosen(test, *(_bounds(x, keys, is_int) for x in (a, b)))
            case _:
                return None

    def body(p: Pass) -> tuple[Let, ...]:
        return tuple(
            let
            if isinstance(let.value, Load | Dot | Fold | Serial)
            else replace(let, value=map_value(let.value, lambda e: rewrite(e, change)))
            for let in p.body
        )

    return replace(stage, passes=tuple(replace(p, body=body(p)) for p in stage.passes))


def _chosen(
    test: Expr, a: Mapping[tuple[str, Expr], Expr], b: Mapping[tuple[str, Expr], Expr]
) -> Expr | None:
    """`a` where the test holds, else `b`, if they bound the same integers of the key."""
    if not a or a.keys() != b.keys():
        return None
    chosen = ((op, x, Apply("select", (test, y, b[op, x]))) for (op, x), y in a.items())
    return conjunction(tuple(Apply(op, (x, y)) for op, x, y in chosen))


def _bounds(
    condition: Expr, keys: frozenset[str], is_int: Callable[[Expr], bool]
) -> dict[tuple[str, Expr], Expr]:
    """A conjunction as bounds {(`ge` or `lt`, integer of the key): of the row}; else none."""
    found: dict[tuple[str, Expr], Expr] = {}
    for part in conjuncts(condition):
        match part:
            case Apply(op, (x, y)) if op in _MIRRORED:
                if index_ranks(y) & keys:
                    op, x, y = _MIRRORED[op], y, x
                if index_ranks(y) & keys or not index_ranks(x) & keys:
                    return {}
                place = "ge" if op in ("gt", "ge") else "lt", x
                if place in found or not (is_int(x) and is_int(y)):
                    return {}
                found[place] = Apply("add", (y, Number(1))) if op in ("gt", "le") else y
            case _:
                return {}
    return found
