"""How an integer expression changes along a coordinate, from what operators declare."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from attnc.ir.expr import Apply, Expr, Index
from attnc.ir.geometry.integers import Integers
from attnc.ir.geometry.polynomial import Monomial, TooManyTerms
from attnc.ir.ops import OPS
from attnc.ir.walk import index_ranks

# Never down, never up, or constant; None: not known.
Direction: TypeAlias = Literal[-1, 0, 1] | None


def direction(e: Expr, rank: str, known: Integers) -> Direction:
    """1 if `e` never falls as the coordinate of `rank` grows, -1 if it never rises, 0: constant."""
    try:
        return _direction(e, rank, known)
    except TooManyTerms:
        return None


def _direction(e: Expr, rank: str, known: Integers) -> Direction:
    if rank not in index_ranks(e):
        return 0
    match e:
        case Index():
            return 1
        case Apply("add" | "sub" | "mul" | "neg", _):
            terms = known.polynomial(e).terms.items()
            return _joined(_times(k, _product(m, rank, known)) for m, k in terms)
        case Apply("floordiv" | "exactdiv", (a, by)):
            fixed = rank not in index_ranks(by) and known.bounds(by)[0] > 0
            return _direction(a, rank, known) if fixed else None
        case Apply("select", (test, a, b)):
            return _select(test, a, b, rank, known)
        case Apply(op, args) if OPS[op].rising:
            pairs = zip(OPS[op].rising, args, strict=True)
            return _joined(_times(sign, _direction(a, rank, known)) for sign, a in pairs)
        case _:
            return None


def _joined(parts: Iterable[Direction]) -> Direction:
    """Of a function that never falls in any of its arguments."""
    found = set(parts) - {0}
    return found.pop() if len(found) == 1 else None if found else 0


def _times(sign: float, along: Direction) -> Direction:
    if along is None or sign == 0:
        return along if along is None else 0
    return along if sign > 0 else -1 if along == 1 else 1 if along == -1 else 0


def _product(monomial: Monomial, rank: str, known: Integers) -> Direction:
    """Non-negative factors that move the same way, times what stays."""
    moving = tuple(a for a in monomial if rank in index_ranks(a))
    if not moving:
        return 0
    low, high = known.product_bounds(tuple(a for a in monomial if a not in moving))
    if (len(moving) > 1 and any(known.bounds(a)[0] < 0 for a in moving)) or low < 0 < high:
        return None
    return _times(1 if low >= 0 else -1, _joined(_direction(a, rank, known) for a in moving))


def _select(test: Expr, a: Expr, b: Expr, rank: str, known: Integers) -> Direction:
    along = _joined((_direction(a, rank, known), _direction(b, rank, known)))
    turn = _turn(test, rank, known)
    if turn is None or along is None or turn == 0:
        return along if turn == 0 else None
    # The value jumps once, between the two expressions at the same coordinate.
    before, after = (b, a) if turn > 0 else (a, b)
    jump = known.polynomial(after) - known.polynomial(before)
    if along >= 0 and known.nonnegative(jump):
        return 1
    return -1 if along <= 0 and known.nonnegative(-jump) else None


def _turn(test: Expr, rank: str, known: Integers) -> Direction:
    """1 if a condition, once true, stays true as the coordinate grows; -1 if, once false, false."""
    if rank not in index_ranks(test):
        return 0
    match test:
        case Apply("ge" | "gt" | "le" | "lt" as op, (a, b)) if known.is_int(a) and known.is_int(b):
            more, less = (a, b) if op in ("ge", "gt") else (b, a)
            return _direction(Apply("sub", (more, less)), rank, known)
        case Apply("and" | "or", parts):
            return _joined(_turn(p, rank, known) for p in parts)
        case Apply("not", (p,)):
            return _times(-1, _turn(p, rank, known))
        case _:
            return None
