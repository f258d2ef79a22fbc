"""Print expressions, statements and cascades in the spec language, as a paper would."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from attnc.ir.cascade import Cascade, Concat, Einsum, Select, Statement
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read

# operator -> (its sign in a spec, how tightly it binds). `exactdiv` is how `/` of integers lowers.
_INFIX: Final = {
    "or": ("or", 1),
    "and": ("and", 2),
    **{op: (sign, 4) for op, sign in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="))},
    "eq": ("==", 4),
    "ne": ("!=", 4),
    "add": ("+", 5),
    "sub": ("-", 5),
    "mul": ("*", 6),
    "div": ("/", 6),
    "exactdiv": ("/", 6),
    "floordiv": ("//", 6),
    "mod": ("%", 6),
}
_SELECT, _NOT, _COMPARE, _NEGATE, _POWER, _ATOM = 0, 3, 4, 7, 8, 9


def show_expr(expr: Expr, hide: Collection[str] = ()) -> str:
    """The expression in spec syntax with no parenthesis too many; `hide` drops plain indices.

    A `float` cast is not printed: lowering puts it wherever an int meets a float.
    """
    return _show(expr, frozenset(hide))[0]


def show_statement(statement: Statement, hide: Collection[str] = ()) -> str:
    """`G[b, h, m] = max(n) S[b, h, m, n]  where n <= m`, on one line."""
    return " = ".join(_sides(statement, frozenset(hide)))


def show_cascade(cascade: Cascade, hide: Collection[str] = ()) -> str:
    """The statements, one per line, their `=` aligned; `hide` drops ranks like batch and head."""
    sides = [_sides(s, frozenset(hide)) for s in cascade.statements]
    width = max((len(left) for left, _ in sides), default=0)
    return "".join(f"{left:{width}} = {right}\n" for left, right in sides)


def _sides(s: Statement, hide: frozenset[str]) -> tuple[str, str]:
    match s:
        case Einsum(expr=expr, reduce=reduce):
            right = show_expr(expr, hide)
            if reduce is not None:
                right = f"{reduce.op}({', '.join(reduce.ranks)}) {_taken(expr, hide)}"
        case Select():
            right = f"{s.op}({s.rank}, {show_expr(s.amount, hide)}) {_taken(s.expr, hide)}"
        case Concat():
            parts = ", ".join(show_expr(p, hide) for p in s.parts)
            right = f"concat({s.rank}) {parts}"
    where = "" if s.where is None else f"  where {show_expr(s.where, hide)}"
    return _access(s.tensor, s.indices, hide), right + where


def _taken(e: Expr, hide: frozenset[str]) -> str:
    """What a reduction takes: `max(n) -x` would be the maximum of one argument, minus x."""
    text = show_expr(e, hide)
    return f"({text})" if text.startswith("-") else text


def _access(tensor: str, indices: tuple[Expr, ...], hide: frozenset[str]) -> str:
    shown = (i for i in indices if not (isinstance(i, Index) and i.rank in hide))
    return f"{tensor}[{', '.join(show_expr(i, hide) for i in shown)}]"


def _show(e: Expr, hide: frozenset[str]) -> tuple[str, int]:
    """The text and how tightly its outermost operator binds."""
    match e:
        case Number(value):
            return _number(value)
        case Index(rank):
            return rank, _ATOM
        case Extent(rank):
            return rank.upper(), _ATOM
        case Param(name, item):
            return name if item is None else f"{name}[{item}]", _ATOM
        case Read(tensor, indices):
            return _access(tensor, indices, hide), _ATOM
        case Apply("float", (x,)):
            return _show(x, hide)
        case Apply("neg", (x,)):
            return f"-{_inside(x, hide, _NEGATE)}", _NEGATE
        case Apply("not", (x,)):
            return f"not {_inside(x, hide, _NOT)}", _NOT
        case Apply("select", (c, a, b)):
            test, then = _inside(c, hide, _SELECT + 1), _inside(a, hide, _SELECT + 1)
            return f"if {test} then {then} else {_inside(b, hide, _SELECT)}", _SELECT
        case Apply("pow", (a, b)):
            return f"{_inside(a, hide, _ATOM)} ** {_inside(b, hide, _NEGATE)}", _POWER
        case Apply(op, (a, b)) if op in _INFIX:
            sign, binds = _INFIX[op]
            # Comparisons do not chain; the others group to the left.
            left = _inside(a, hide, binds + (binds == _COMPARE))
            return f"{left} {sign} {_inside(b, hide, binds + 1)}", binds
        case Apply(op, args):
            return f"{op}({', '.join(show_expr(a, hide) for a in args)})", _ATOM


def _inside(e: Expr, hide: frozenset[str], least: int) -> str:
    text, binds = _show(e, hide)
    return text if binds >= least else f"({text})"


def _number(value: bool | int | float) -> tuple[str, int]:
    if isinstance(value, bool):
        return str(value).lower(), _ATOM
    text = repr(value)
    return text, _NEGATE if text.startswith("-") else _ATOM
