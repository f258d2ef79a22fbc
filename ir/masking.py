"""Place masks: an absent point must leave a reduction unchanged.

The cheap way sets the score to -inf once and lets it run through what follows (exp(-inf) = 0, which
a sum ignores). `mask_body` finds such a place by evaluating the body at -inf; where none exists the
body itself is replaced by the reduction's identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Literal, TypeAlias

from attnc.ir.expr import Apply, Expr, Number
from attnc.ir.facts import nonzero, positive
from attnc.ir.nonfinite import nonfinite
from attnc.ir.ops import REDUCTIONS
from attnc.ir.walk import subexprs, substitute

# What becomes of an expression when a part of it goes to -inf.
Limit: TypeAlias = Literal["-inf", "0", "finite", "unknown"]
MINUS_INF = Number(-inf)

# Pointwise functions with f(-inf) = 0, evaluated without NaN by every backend.
_VANISHING = frozenset({"exp", "exp2", "sigmoid", "softplus", "relu"})


def mask_body(op: str, body: Expr, present: Expr, candidates: Iterable[Expr]) -> Expr:
    """`body` where `present`, else something that `op` ignores.

    `candidates` are subexpressions to prefer as the place of the mask, best first.
    """
    identity = float(REDUCTIONS[op].identity)
    inside = set(subexprs(body))
    for place in candidates:
        if place in inside and _reaches(body, place, identity):
            return substitute(body, {place: masked(place, present, MINUS_INF)})
    return masked(body, present, Number(REDUCTIONS[op].identity))


def masked(e: Expr, present: Expr, otherwise: Expr) -> Expr:
    """`e` where `present`, else `otherwise`."""
    return Apply("select", (present, e, otherwise))


def _reaches(body: Expr, place: Expr, identity: float) -> bool:
    limit = limit_at(body, place)
    return (limit == "-inf" and identity == -inf) or (limit == "0" and identity == 0.0)


def limit_at(e: Expr, place: Expr) -> Limit:
    """What `e` becomes where `place` is -inf and all that `e` reads is finite."""
    found = _limit(e, place)
    return _elsewhere(e) if found is None else found


def _elsewhere(e: Expr) -> Limit:
    """An expression without the place: a point that is hidden may be one where it has no value."""
    if isinstance(e, Number) and e.value == 0:
        return "0"
    divides = (x for x in subexprs(e) if isinstance(x, Apply) and x.op == "div")
    defined = all(nonzero(x.args[1], {}) for x in divides) and not nonfinite(e, {}, {})
    return "finite" if defined else "unknown"


def _limit(e: Expr, place: Expr) -> Limit | None:
    """The limit; None if the place is not inside."""
    if e == place:
        return "-inf"
    if not isinstance(e, Apply):
        return None
    inside = tuple(_limit(a, place) for a in e.args)
    if all(x is None for x in inside):
        return None
    parts = tuple(_elsewhere(a) if x is None else x for a, x in zip(e.args, inside, strict=True))
    match e.op, parts:
        case ("add", ("-inf", "finite" | "0" | "-inf") | ("finite" | "0", "-inf")):
            return "-inf"
        case ("sub", ("-inf", "finite" | "0")):
            return "-inf"
        case ("mul", ("0", "finite" | "0") | ("finite", "0")):
            return "0"
        case ("mul", ("-inf", _)) if positive(e.args[1], {}):
            return "-inf"
        case ("mul", (_, "-inf")) if positive(e.args[0], {}):
            return "-inf"
        case ("div", ("-inf" | "0" as kept, _)) if positive(e.args[1], {}):
            return kept
        case (op, ("-inf",)) if op in _VANISHING:
            return "0"
        case ("relu" | "sqrt" | "abs" | "stopgrad" | "float", ("0",)):
            return "0"
        case ("pow", ("0", _)) if positive(e.args[1], {}):
            return "0"
        case _:
            return "unknown"
