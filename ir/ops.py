"""The operators and their declared algebra: all that the compiler knows about attention.

No derivation looks at an operator's name. It asks what is declared here: identity, what distributes
over what, which maps turn sums into products, which are monotone, homogeneous, bounded or odd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

inf = float("inf")

Kind: TypeAlias = Literal["arith", "compare", "logic", "function", "select", "cast", "meta"]


class Cost(NamedTuple):
    """Instructions that evaluate one point, by hardware unit: see `ir.demand.Demand`.

    casts: conversions of integers to floats, which are no work for the same unit on all GPUs
    """

    fma: int = 0
    alu: int = 0
    sfu: int = 0
    casts: int = 0

    @property
    def is_heavy(self) -> bool:
        """Whether keeping the result pays: more than plain arithmetic."""
        return self.sfu > 0 or self.fma > 8

    def less(self, other: Cost) -> Cost:
        """What is left of it."""
        return Cost(*(a - b for a, b in zip(self, other, strict=True)))


_CHOICE = Cost(alu=1)


@dataclass(frozen=True, slots=True)
class Op:
    """A pointwise operator.

    range:        closed bounds of the result for any real arguments
    rising:       non-decreasing in every argument (bool: in all; tuple: +1, -1 or 0 per argument)
    homogeneous:  f(y*u, ..) = y*f(u, ..) for every y >= 0, in all arguments at once
    maps:         (from, to): f turns the first operation into the second, f(u + v) = f(u) f(v)
    identity:     neutral element, for the associative and commutative binary operators
    cost:         what the simulator and the planner charge: counted in the machine code that
                  sm_90 runs for it, helper functions included. Signs are operands' modifiers.
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
    cost: Cost = _CHOICE


_POSITIVE = (0.0, inf)

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        # arithmetic
        Op("add", 2, "arith", identity=0, rising=(1, 1), homogeneous=True, cost=Cost(fma=1)),
        Op("sub", 2, "arith", rising=(1, -1), homogeneous=True, cost=Cost(fma=1)),
        Op("mul", 2, "arith", identity=1, cost=Cost(fma=1)),
        Op("div", 2, "arith", result="float", cost=Cost(5, 2, 1)),
        Op("neg", 1, "arith", rising=(-1,), homogeneous=True, cost=Cost()),
        Op("min", 2, "arith", identity=inf, rising=(1, 1), homogeneous=True),
        Op("max", 2, "arith", identity=-inf, rising=(1, 1), homogeneous=True),
        Op("pow", 2, "arith", result="float", cost=Cost(32, 35, 6)),
        # integers only: floor division and its remainder; exactdiv is checked to leave none
        Op("floordiv", 2, "arith", result="int", cost=Cost(6, 8)),
        Op("mod", 2, "arith", result="int", cost=Cost(6, 8)),
        Op("exactdiv", 2, "arith", result="int", cost=Cost(6, 8)),
        # comparisons and logic
        Op("lt", 2, "compare", result="bool"),
        Op("le", 2, "compare", result="bool"),
        Op("gt", 2, "compare", result="bool"),
        Op("ge", 2, "compare", result="bool"),
        Op("eq", 2, "compare", result="bool"),
        Op("ne", 2, "compare", result="bool"),
        Op("and", 2, "logic", result="bool", identity=True),
        Op("or", 2, "logic", result="bool", identity=False),
        Op("not", 1, "logic", result="bool", cost=Cost()),
        # pointwise functions
        Op("exp", 1, "function", "float", _POSITIVE, (1,), maps=("add", "mul"), cost=Cost(3, 1, 1)),
        Op("exp2", 1, "function", "float", _POSITIVE, (1,), maps=("add", "mul"), cost=Cost(sfu=1)),
        Op("log", 1, "function", "float", rising=(1,), maps=("mul", "add"), cost=Cost(15, 10)),
        Op("log2", 1, "function", "float", rising=(1,), maps=("mul", "add"), cost=Cost(17, 10)),
        Op("log1p", 1, "function", "float", rising=(1,), cost=Cost(23, 21, 1)),
        Op("sqrt", 1, "function", "float", _POSITIVE, (1,), maps=("mul", "mul"), cost=Cost(sfu=1)),
        Op(
            "rsqrt", 1, "function", "float", _POSITIVE, (-1,), maps=("mul", "mul"), cost=Cost(sfu=1)
        ),
        Op("abs", 1, "function", "same", _POSITIVE, homogeneous=True, maps=("mul", "mul")),
        Op("sign", 1, "function", "same", (-1, 1), (1,), maps=("mul", "mul"), cost=Cost(alu=4)),
        Op("tanh", 1, "function", "float", (-1, 1), (1,), cost=Cost(15, 5, 2)),
        Op("sigmoid", 1, "function", "float", (0, 1), (1,), cost=Cost(7, 3, 2)),
        Op("softplus", 1, "function", "float", _POSITIVE, (1,), cost=Cost(27, 21, 2)),
        Op("relu", 1, "function", "float", _POSITIVE, (1,), homogeneous=True),
        Op("silu", 1, "function", "float", (-0.2785, inf), cost=Cost(8, 5, 2)),
        Op("gelu", 1, "function", "float", (-0.17, inf), cost=Cost(21, 12, 1)),
        Op("erf", 1, "function", "float", (-1, 1), (1,), cost=Cost(17, 10, 1)),
        Op("sin", 1, "function", "float", (-1, 1), cost=Cost(15, 3, 4)),
        Op("cos", 1, "function", "float", (-1, 1), cost=Cost(15, 4, 4)),
        # clamp(x, low, high)
        Op("clamp", 3, "function", rising=(1, 1, 1), homogeneous=True, cost=Cost(alu=2)),
        # if c then a else b
        Op("select", 3, "select"),
        Op("float", 1, "cast", "float", rising=(1,), cost=Cost(casts=1)),
        # meaning, not arithmetic: the value alone differs from the argument's in neither case
        Op("stopgrad", 1, "meta", cost=Cost()),
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
