"""An index predicate that is defined everywhere: false where the language makes it absent."""

from __future__ import annotations

from collections.abc import Callable

from attnc.ir.expr import Apply, Expr, Number
from attnc.ir.presence import TRUE
from attnc.ir.walk import children, with_children

_DIVISIONS = ("floordiv", "mod", "div")


def defined(predicate: Expr, nonzero: Callable[[Expr], bool]) -> Expr:
    """The predicate, false where a divisor is 0; its divisors, 1 for 0.

    `nonzero` tells which divisors are known never to be 0.
    """
    value, present = _split(predicate, nonzero)
    return _both(present, value)


def _split(e: Expr, nonzero: Callable[[Expr], bool]) -> tuple[Expr, Expr]:
    """A value that can always be computed, and where it is the expression's."""
    parts = [_split(c, nonzero) for c in children(e)]
    value = with_children(e, tuple(v for v, _ in parts))
    present: Expr = TRUE
    for _, there in parts:
        present = _both(present, there)
    if not isinstance(value, Apply):
        return value, present
    if value.op == "select" and present != TRUE:
        (test, known_test), (_, first), (_, second) = parts
        return value, _both(known_test, Apply("select", (test, first, second)))
    if value.op in _DIVISIONS and not nonzero(value.args[1]):
        a, b = value.args
        zero = Apply("eq", (b, Number(0)))
        safe = Apply("select", (zero, Number(1), b))
        return Apply(value.op, (a, safe)), _both(present, Apply("not", (zero,)))
    return value, present


def _both(a: Expr, b: Expr) -> Expr:
    if a == TRUE or b == TRUE:
        return b if a == TRUE else a
    return Apply("and", (a, b))
