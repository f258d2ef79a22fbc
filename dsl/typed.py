"""Cascade expressions with their type, and the conversions that make a cascade explicitly typed."""

from __future__ import annotations

from dataclasses import dataclass

from attnc.ir.cascade import DType
from attnc.ir.expr import Apply, Expr, Extent, Index, Number
from attnc.ir.ops import OPS


@dataclass(frozen=True, slots=True)
class Typed:
    """An expression and its type; type None: a mistake in it was reported, say no more.

    `size` and `depth` count the expression as a tree: by-name macro arguments share their parts, so
    a short spec can stand for an expression too large to walk. `ranks` are those whose coordinate
    it depends on.
    """

    expr: Expr
    dtype: DType | None
    size: int = 1
    depth: int = 1
    ranks: frozenset[str] = frozenset()


UNKNOWN = Typed(Number(0), None)


def constant(value: bool | int | float) -> Typed:
    """A literal."""
    dtype: DType = "float"
    if isinstance(value, bool):
        dtype = "bool"
    elif isinstance(value, int):
        dtype = "int"
    return Typed(Number(value), dtype)


def coordinate(rank: str) -> Typed:
    """The coordinate of a rank."""
    return Typed(Index(rank), "int", ranks=frozenset((rank,)))


def extent(rank: str) -> Typed:
    """The length of a rank."""
    return Typed(Extent(rank), "int")


def node(expr: Expr, dtype: DType | None, *parts: Typed) -> Typed:
    """An expression made of parts; of unknown type if one of them is."""
    if any(p.dtype is None for p in parts):
        dtype = None
    size = 1 + sum(p.size for p in parts)
    depth = 1 + max((p.depth for p in parts), default=0)
    return Typed(expr, dtype, size, depth, frozenset().union(*(p.ranks for p in parts)))


def apply(op: str, *args: Typed) -> Typed:
    """An operator on arguments that already have the types it wants."""
    result = OPS[op].result
    dtype = args[-1].dtype if result == "same" else result
    return node(Apply(op, tuple(a.expr for a in args)), dtype, *args)


def as_float(t: Typed) -> Typed:
    """The same number as a float."""
    match t.expr:
        case Number(value) if t.dtype == "int":
            return constant(float(value))
        case _:
            return apply("float", t) if t.dtype == "int" else t


def alike(*args: Typed) -> tuple[Typed, ...]:
    """Numbers of one type: all int, or all float."""
    if all(a.dtype == "int" for a in args):
        return args
    return tuple(as_float(a) for a in args)


def negate(t: Typed) -> Typed:
    """`-t`; the sign of a literal goes into the literal."""
    match t.expr:
        case Number(value) if t.dtype in ("int", "float"):
            return constant(-value)
        case _:
            return apply("neg", t)
