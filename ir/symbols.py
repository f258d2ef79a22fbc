"""Expressions as sympy sees them. The only module that imports sympy: it takes a second to load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isinf
from typing import Any, TypeAlias

import sympy

from attnc.ir.cascade import Cascade
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.facts import Interval, bounds
from attnc.ir.types import dtype_of

# A sympy expression; sympy has no types of its own.
Symbolic: TypeAlias = Any

_LARGEST = 400  # operations; simplification takes time that grows fast with size

_OPERATORS: dict[str, Callable[..., Symbolic]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "min": sympy.Min,
    "max": sympy.Max,
    "pow": lambda a, b: a**b,
    "exp": sympy.exp,
    "exp2": lambda a: sympy.Integer(2) ** a,
    "log": sympy.log,
    "log2": lambda a: sympy.log(a) / sympy.log(2),
    "log1p": lambda a: sympy.log(1 + a),
    "sqrt": sympy.sqrt,
    "rsqrt": lambda a: 1 / sympy.sqrt(a),
    "abs": sympy.Abs,
    "sign": sympy.sign,
    "tanh": sympy.tanh,
    "sigmoid": lambda a: 1 / (1 + sympy.exp(-a)),
    "softplus": lambda a: sympy.log(1 + sympy.exp(a)),
    "relu": lambda a: (a + sympy.Abs(a)) / 2,
    "silu": lambda a: a / (1 + sympy.exp(-a)),
    "erf": sympy.erf,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "clamp": lambda x, low, high: sympy.Min(sympy.Max(x, low), high),
    "float": lambda a: a,
    "stopgrad": lambda a: a,
}


@dataclass(frozen=True, slots=True)
class Symbols:
    """Translates expressions; equal leaves become the same symbol, assumed real and within bounds.

    What sympy has no counterpart for (comparisons, choices) becomes an unknown function.
    """

    cascade: Cascade
    tensors: Mapping[str, Interval]
    known: dict[Expr, Symbolic] = field(default_factory=dict)

    def of(self, e: Expr) -> Symbolic:
        """The sympy expression of `e`."""
        found = self.known.get(e)
        if found is None:
            found = self.known[e] = self._make(e)
        return found

    def _make(self, e: Expr) -> Symbolic:
        match e:
            case Number(value):
                if isinstance(value, float) and not isinf(value):
                    return sympy.nsimplify(value, rational=True)
                return sympy.sympify(value)
            case Apply(op, args):
                inner = tuple(map(self.of, args))
                known = _OPERATORS.get(op)
                if known is None:
                    return sympy.Function(op, real=True)(*map(_as_term, inner))
                return known(*map(_as_term, inner))
            case Index() | Extent() | Param() | Read():
                return self._leaf(e)

    def _leaf(self, e: Expr) -> Symbolic:
        low, _ = bounds(e, self.tensors)
        assumed = {"real": True}
        if low >= 0:
            assumed["positive" if low > 0 else "nonnegative"] = True
        if dtype_of(e, self.cascade) == "int":
            assumed["integer"] = True
        return sympy.Symbol(f"x{len(self.known)}", **assumed)


def _as_term(x: Symbolic) -> Symbolic:
    """sympy keeps truth values apart from numbers."""
    return sympy.Integer(int(bool(x))) if x in (sympy.true, sympy.false) else x


def is_zero(difference: Symbolic) -> bool | None:
    """Whether an expression is 0 whatever its symbols are; None if sympy does not find out."""
    if difference == 0:
        return True
    if sympy.count_ops(difference) > _LARGEST:
        return None
    for step in (sympy.expand, sympy.powsimp, sympy.simplify):
        difference = step(difference)
        if difference == 0:
            return True
    return False if difference.is_number else None


def free_of(e: Symbolic, symbols: tuple[Symbolic, ...]) -> bool | None:
    """Whether `e`, simplified, mentions none of the symbols."""
    if sympy.count_ops(e) > _LARGEST:
        return None
    for step in (sympy.powsimp, sympy.simplify):
        e = step(e)
        if not e.has(*symbols):
            return True
    return None


def keeps_sign(e: Symbolic, by: Symbolic) -> bool | None:
    """Whether the derivative of `e` by a symbol never changes its sign."""
    slope = sympy.simplify(sympy.diff(e, by))
    return True if slope.is_nonnegative or slope.is_nonpositive else None
