"""Fix the const params of a cascade and fold what becomes constant.

A `const param` chooses between forms of a mechanism (normalised or not): once it is known, the form
that was not chosen must not cost a pass.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from attnc.errors import AttncError
from attnc.ir.cascade import Cascade, Einsum, ParamDecl, Statement
from attnc.ir.expr import Apply, Expr, Extent, Number, Param
from attnc.ir.walk import map_statement, rewrite, subexprs

_FOLD: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
    "min": min,
    "max": max,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "not": operator.not_,
    "float": float,
}
_TRUE, _FALSE = Number(True), Number(False)
_DIVISIONS = frozenset({"div", "floordiv", "mod", "exactdiv"})


def specialise(cascade: Cascade, values: Mapping[str, object] | None = None) -> Cascade:
    """Substitute const params by `values` (default: their own) and fold.

    Other params stay. AttncError E507 if a const param has neither a value nor a default.
    """
    given = values or {}
    consts = {p.name: _value(p, given) for p in cascade.params if p.const}
    if not consts:
        return cascade

    def fix(e: Expr) -> Expr | None:
        if isinstance(e, Param) and e.name in consts:
            value = consts[e.name]
            return Number(value[e.item or 0] if isinstance(value, tuple) else value)
        return fold_constants(e)

    def fix_statement(s: Statement) -> Statement:
        mapped = map_statement(s, lambda e: rewrite(e, fix))
        drop = isinstance(mapped, Einsum) and mapped.where == _TRUE
        return replace(mapped, where=None) if drop else mapped

    return replace(
        cascade,
        params=tuple(p for p in cascade.params if not p.const),
        statements=tuple(fix_statement(s) for s in cascade.statements),
    )


def _value(p: ParamDecl, given: Mapping[str, object]) -> bool | int | float | tuple[float, ...]:
    value = given.get(p.name, p.default)
    if value is None:
        hint = f"pass {p.name}=.. when loading it"
        raise AttncError("E507", f"const param `{p.name}` has no value", span=p.span, hint=hint)
    assert isinstance(value, bool | int | float | tuple)
    return value


def fold_constants(e: Expr) -> Expr | None:
    """One step of folding; None where there is nothing to fold."""
    match e:
        case Apply("select", (Number(test), a, b)):
            return a if test else b
        case Apply("and", (a, b)) if a == _TRUE or b == _TRUE:
            return b if a == _TRUE else a
        case Apply("and", (a, b)) if _settles(_FALSE, a, b):
            return _FALSE
        case Apply("or", (a, b)) if a == _FALSE or b == _FALSE:
            return b if a == _FALSE else a
        case Apply("or", (a, b)) if _settles(_TRUE, a, b):
            return _TRUE
        case Apply(op, args) if op in _FOLD and all(isinstance(a, Number) for a in args):
            return Number(_FOLD[op](*(a.value for a in args if isinstance(a, Number))))
        case _:
            return None


def _settles(value: Number, a: Expr, b: Expr) -> bool:
    """Whether one side alone decides. A division by 0 on the other would make the whole absent."""
    other = b if a == value else a
    divides = (x for x in subexprs(other) if isinstance(x, Apply) and x.op in _DIVISIONS)
    return value in (a, b) and all(_is_nonzero(x.args[1]) for x in divides)


def _is_nonzero(e: Expr) -> bool:
    return isinstance(e, Extent) or (isinstance(e, Number) and e.value != 0)
