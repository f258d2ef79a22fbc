"""The operators and their declared algebra: all that the compiler knows about attention.

No derivation looks at an operator's name. It asks what is declared here: identity, what distributes
over what, which maps turn sums into products, which are monotone, homogeneous, bounded or odd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

inf = float("inf")

Kind: TypeAlias = Literal["arith", "compare", "logic", "function", "select", "cast", "meta"]
# Which hardware unit evaluates one point: multiply-add, arithmetic-logic, special function, none.
Pipe: TypeAlias = Literal["fma", "alu", "sfu", "none"]


@dataclass(frozen=True, slots=True)
class Op:
    """A pointwise operator.

    range:        closed bounds of the result for any real arguments
    rising:       non-decreasing in every argument (bool: in all; tuple: +1, -1 or 0 per argument)
    homogeneous:  f(y*u, ..) = y*f(u, ..) for every y >= 0, in all arguments at once
    maps:         (from, to): f turns the first operation into the second, f(u + v) = f(u) f(v)
    identity:     neutral element, for the associative and commutative binary operators
    cost:         (pipe, instructions per point), what the simulator and the planner charge
    """

    name: str
    arity: int
    kind: Kind
    result: Literal["same", "float", "int", "bool"] = "same"
    range: tuple[float, float] = (-inf, inf)
    rising: tuple[int, ...] = ()
    homogeneous: bool = False
    maps: tuple[str, str] | None = None
    identity: float | bool | None = None
    cost: tuple[Pipe, int] = ("alu", 1)


_POSITIVE = (0.0, inf)

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        # arithmetic
        Op("add", 2, "arith", identity=0, rising=(1, 1), homogeneous=True, cost=("fma", 1)),
        Op("sub", 2, "arith", rising=(1, -1), homogeneous=True, cost=("fma", 1)),
        Op("mul", 2, "arith", identity=1, cost=("fma", 1)),
        Op("div", 2, "arith", result="float", cost=("sfu", 2)),
        Op("neg", 1, "arith", rising=(-1,), homogeneous=True, cost=("fma", 1)),
        Op("min", 2, "arith", identity=inf, rising=(1, 1), homogeneous=True),
        Op("max", 2, "arith", identity=-inf, rising=(1, 1), homogeneous=True),
        Op("pow", 2, "arith", result="float", cost=("sfu", 3)),
        # integers only: floor division and its remainder; exactdiv is checked to leave none
        Op("floordiv", 2, "arith", result="int"),
        Op("mod", 2, "arith", result="int"),
        Op("exactdiv", 2, "arith", result="int"),
        # comparisons and logic
        Op("lt", 2, "compare", result="bool"),
        Op("le", 2, "compare", result="bool"),
        Op("gt", 2, "compare", result="bool"),
        Op("ge", 2, "compare", result="bool"),
        Op("eq", 2, "compare", result="bool"),
        Op("ne", 2, "compare", result="bool"),
        Op("and", 2, "logic", result="bool", identity=True),
        Op("or", 2, "logic", result="bool", identity=False),
        Op("not", 1, "logic", result="bool"),
        # pointwise functions
        Op("exp", 1, "function", "float", _POSITIVE, (1,), maps=("add", "mul"), cost=("sfu", 2)),
        Op("exp2", 1, "function", "float", _POSITIVE, (1,), maps=("add", "mul"), cost=("sfu", 1)),
        Op("log", 1, "function", "float", rising=(1,), maps=("mul", "add"), cost=("sfu", 2)),
        Op("log2", 1, "function", "float", rising=(1,), maps=("mul", "add"), cost=("sfu", 1)),
        Op("log1p", 1, "function", "float", rising=(1,), cost=("sfu", 4)),
        Op("sqrt", 1, "function", "float", _POSITIVE, (1,), maps=("mul", "mul"), cost=("sfu", 1)),
        Op("rsqrt", 1, "function", "float", _POSITIVE, (-1,), maps=("mul", "mul"), cost=("sfu", 1)),
        Op("abs", 1, "function", "same", _POSITIVE, homogeneous=True, maps=("mul", "mul")),
        Op("sign", 1, "function", "same", (-1, 1), (1,), maps=("mul", "mul")),
        Op("tanh", 1, "function", "float", (-1, 1), (1,), cost=("sfu", 2)),
        Op("sigmoid", 1, "function", "float", (0, 1), (1,), cost=("sfu", 3)),
        Op("softplus", 1, "function", "float", _POSITIVE, (1,), cost=("sfu", 6)),
        Op("relu", 1, "function", "float", _POSITIVE, (1,), homogeneous=True),
        Op("silu", 1, "function", "float", (-0.2785, inf), cost=("sfu", 4)),
        Op("gelu", 1, "function", "float", (-0.17, inf), cost=("sfu", 8)),
        Op("erf", 1, "function", "float", (-1, 1), (1,), cost=("sfu", 8)),
        Op("sin", 1, "function", "float", (-1, 1), cost=("sfu", 4)),
        Op("cos", 1, "function", "float", (-1, 1), cost=("sfu", 4)),
        # clamp(x, low, high)
        Op("clamp", 3, "function", rising=(1, 1, 1), homogeneous=True),
        # if c then a else b
        Op("select", 3, "select"),
        Op("float", 1, "cast", "float", rising=(1,)),
        # meaning, not arithmetic: the value alone differs from the argument's in neither case
        Op("stopgrad", 1, "meta", cost=("none", 0)),
        # or_else(x, y): x where x is present, y where it is absent
        Op("or_else", 2, "meta"),
        # given(x, p): x where p holds, absent elsewhere (`where` on a single expression)
        Op("given", 2, "meta"),
    )
}


@dataclass(frozen=True, slots=True)
class ReduceOp:
    """A reduction: an associative, commutative operation with its identity (its value over
    nothing).

    combine:     the binary operator of `OPS` that merges two partial results
    distributed: operators x for which (y x a) combine (y x b) = y x (a combine b), y constant along
                 the reduced rank; a trailing "+" asks y >= 0
    idempotent:  combining a value with itself changes nothing
    """

    name: str
    combine: str
    identity: float | bool
    distributed: tuple[str, ...] = ()
    idempotent: bool = False


REDUCTIONS: dict[str, ReduceOp] = {
    r.name: r
    for r in (
        ReduceOp("sum", "add", 0.0, ("mul",)),
        ReduceOp("max", "max", -inf, ("add", "mul+", "min"), True),
        ReduceOp("min", "min", inf, ("add", "mul+", "max"), True),
        ReduceOp("prod", "mul", 1.0),
        ReduceOp("any", "or", False, ("and",), True),
        ReduceOp("all", "and", True, ("or",), True),
    )
}
