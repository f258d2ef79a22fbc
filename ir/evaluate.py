"""Evaluate an expression at every point of a box of coordinates, over any array library.

Expressions are compiled to closures once and cached: evaluating one then costs little more than its
array operations.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.frame import Code, Frame, Pair, Scope, Value, meet
from attnc.ir.gather import read
from attnc.ir.operators import RULES
from attnc.ir.walk import subexprs


def evaluate(expr: Expr, scope: Scope, where: Expr | None = None) -> Value:
    """The value at every point of `scope.box`, one axis per rank of it, in its order.

    Points where the predicate `where` is false or absent are absent.
    Raises AttncError E601 (an index leaves its tensor), E602 (`/` of integers leaves a remainder).
    """
    frame = Frame(scope, scope.box)
    with scope.arrays.quiet():
        if where is not None:
            frame.admit(compile_expr(where)(frame))
        data, present = compile_expr(expr)(frame)
        data = scope.arrays.broadcast(frame.lift(data), frame.shape)
        return Value(
            data,
            tuple(scope.box),
            meet(present, frame.guard),
            tuple(span.start for span in scope.box.values()),
        )


@lru_cache(maxsize=4096)
def compile_expr(expr: Expr) -> Code:
    """The closure that evaluates an expression in a frame; what occurs twice is computed once."""
    times = Counter[Expr](e for e in subexprs(expr) if isinstance(e, Apply | Read))
    built: dict[Expr, Code] = {}

    def build(e: Expr) -> Code:
        code = built.get(e)
        if code is None:
            code = node(e)
            if times[e] > 1:
                code = _memoised(len(built), code)
            built[e] = code
        return code

    def node(e: Expr) -> Code:
        match e:
            case Number(value):
                return lambda frame: (value, None)
            case Index(rank):
                return lambda frame: (frame.coordinate(rank), None)
            case Extent(rank):
                return lambda frame: (frame.scope.extents[rank], None)
            case Param(name, item):
                return lambda frame: (frame.scope.param(name, item), None)
            case Read():
                return read(e, build)
            case Apply(op, args):
                return RULES[op](e, tuple(map(build, args)))

    return build(expr)


def _memoised(slot: int, code: Code) -> Code:
    def run(frame: Frame) -> Pair:
        known = frame.memo.get(slot)
        # A value computed under another guard was checked, and made safe, at other points.
        if known is None or known[0] is not frame.guard:
            known = frame.memo[slot] = (frame.guard, code(frame))
        return known[1]

    return run
