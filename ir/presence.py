"""Make absence explicit: split an expression into its value and the conditions for being present.

The rules are the language's: a point is absent outside `where`, where a divisor is 0, and where
-inf is subtracted from -inf. After this pass an expression holds no `given` and no `or_else`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce as fold
from math import inf

from attnc.ir.expr import Apply, Expr, Number
from attnc.ir.facts import Interval, may_be_minus_inf, nonzero
from attnc.ir.ops import OPS
from attnc.ir.walk import with_children

TRUE = Number(True)
_INTEGER_DIVISIONS = frozenset({"floordiv", "mod", "exactdiv"})


@dataclass(frozen=True, slots=True)
class Condition:
    """The point is present only if `holds`.

    `vanishing` names a map from sums to products (`exp`) inside which the -inf - -inf happens:
    where that map is a factor of a sum's body, the point adds exp(-inf) = 0 and needs no test.
    """

    holds: Expr
    vanishing: Expr | None = None


def conjunction(conditions: tuple[Expr, ...]) -> Expr:
    """All of them; `true` for none."""
    kept = tuple(dict.fromkeys(c for c in conditions if c != TRUE))
    return fold(lambda a, b: Apply("and", (a, b)), kept) if kept else TRUE


def conjuncts(e: Expr) -> tuple[Expr, ...]:
    """The operands of a conjunction, flattened."""
    match e:
        case Apply("and", (a, b)):
            return conjuncts(a) + conjuncts(b)
        case _:
            return () if e == TRUE else (e,)


def split_presence(
    e: Expr, tensors: Mapping[str, Interval], finite: frozenset[str]
) -> tuple[Expr, tuple[Condition, ...]]:
    """`(value, conditions)`: equal to `e` where all conditions hold, absent elsewhere."""
    if not isinstance(e, Apply):
        return _split_children(e, tensors, finite)
    match e.op:
        case "given":
            value, inner = split_presence(e.args[0], tensors, finite)
            holds, outer = split_presence(e.args[1], tensors, finite)
            where = tuple(Condition(c) for c in conjuncts(holds))
            return value, _unique((*where, *outer, *inner))
        case "or_else":
            value, inner = split_presence(e.args[0], tensors, finite)
            other, outer = split_presence(e.args[1], tensors, finite)
            if not inner:
                return value, ()
            return Apply("select", (_all(inner), value, other)), outer
        case "select":
            return _split_select(e, tensors, finite)
        case _:
            value, inner = _split_children(e, tensors, finite)
            assert isinstance(value, Apply)
            return value, _unique((*inner, *_own(value, tensors, finite)))


def _own(
    e: Apply, tensors: Mapping[str, Interval], finite: frozenset[str]
) -> tuple[Condition, ...]:
    """The conditions of one node, given present operands."""
    if e.op == "div" and not nonzero(e.args[1], tensors):
        return (Condition(Apply("ne", (e.args[1], Number(0.0)))),)
    if e.op in _INTEGER_DIVISIONS and not nonzero(e.args[1], tensors):
        return (Condition(Apply("ne", (e.args[1], Number(0)))),)
    if e.op == "sub" and all(may_be_minus_inf(a, finite) for a in e.args):
        lowest = tuple(Apply("eq", (a, Number(-inf))) for a in e.args)
        return (Condition(Apply("not", (Apply("and", lowest),))),)
    return ()


def _split_children(
    e: Expr, tensors: Mapping[str, Interval], finite: frozenset[str]
) -> tuple[Expr, tuple[Condition, ...]]:
    if not isinstance(e, Apply):
        return e, ()
    split = [split_presence(a, tensors, finite) for a in e.args]
    value = with_children(e, tuple(v for v, _ in split))
    conditions = tuple(c for _, cs in split for c in cs)
    if OPS[e.op].maps == ("add", "mul"):
        conditions = _vanishing(conditions, value, tensors, finite)
    return value, _unique(conditions)


def _vanishing(
    conditions: tuple[Condition, ...],
    whole: Expr,
    tensors: Mapping[str, Interval],
    finite: frozenset[str],
) -> tuple[Condition, ...]:
    """Mark the -inf - -inf of the exponent itself: it makes the whole map 0."""
    assert isinstance(whole, Apply)
    exponent = whole.args[0]
    difference = isinstance(exponent, Apply) and exponent.op == "sub"
    own = _own(exponent, tensors, finite) if isinstance(exponent, Apply) and difference else ()
    return tuple(Condition(c.holds, whole) if c in own else c for c in conditions)


def _split_select(
    e: Apply, tensors: Mapping[str, Interval], finite: frozenset[str]
) -> tuple[Expr, tuple[Condition, ...]]:
    (test, c0), (a, ca), (b, cb) = (split_presence(x, tensors, finite) for x in e.args)
    # What the choice itself needs is tested already.
    ca, cb = (tuple(c for c in cs if c not in c0) for cs in (ca, cb))
    value = a if a == b else Apply("select", (test, a, b))
    if not ca and not cb:
        return value, c0
    chosen = Apply("and", (test, _all(ca)))
    other = Apply("and", (Apply("not", (test,)), _all(cb)))
    return value, (*c0, Condition(Apply("or", (chosen, other))))


def _all(conditions: tuple[Condition, ...]) -> Expr:
    return conjunction(tuple(c.holds for c in conditions))


def _unique(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    return tuple(dict.fromkeys(conditions))
