"""A sweep in parts: the second stage merges what the first one stores, as the algebra says."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from math import inf, log, log2
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc import library
from attnc.dsl import load_text
from attnc.ir.build_plan import sweeps
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.merge_states import merge_states
from attnc.ir.pipeline import plan
from attnc.ir.plan import Fold, Load, SweepStage
from attnc.ir.split_sweep import SplitSweep, split_sweep
from tests.ir.derived import planned

OPERATORS: Mapping[str, Any] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": lambda a, b: a / b if b else inf,
    "max": max,
    "min": min,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "abs": abs,
    "exp": np.exp,
    "exp2": np.exp2,
    "log": lambda x: log(x) if x else -inf,
    "log2": lambda x: log2(x) if x else -inf,
    "sqrt": np.sqrt,
    "float": float,
    "select": lambda test, a, b: a if test else b,
}
GATHER: Mapping[str, Callable[[float, float], float]] = {
    "sum": operator.add,
    "prod": operator.mul,
    "max": max,
    "min": min,
    "any": lambda a, b: a or b,
    "all": lambda a, b: a and b,
}
LOGSUMEXP = """
L[b, m] = logsumexp(n) S[b, m, n]
O[b, m, e] = sum(n) exp(S[b, m, n] - L[b, m]) * V[b, n, e]
"""
LEAST = "O[b, m] = min(n) S[b, m, n]"
FLAGS = """
A[b, m] = any(n) S[b, m, n] > 2.0
C[b, m] = all(n) S[b, m, n] > -2.0
O[b, m] = max(n) (if n > m then S[b, m, n] else 0.0)
X[b, m] = if A[b, m] and C[b, m] then O[b, m] else 1.0
"""


def _examples() -> dict[str, tuple[SweepStage, SplitSweep]]:
    made = {n: plan(load_text(library.text(n))) for n in ("sdpa", "sink_logit", "differential")}
    made["logsumexp"] = planned(LOGSUMEXP, "O[b, m, e], L[b, m]")
    made["least"] = planned(LEAST, "O[b, m]")
    made["flags"] = planned(FLAGS, "X[b, m]")
    found = {}
    for name, p in made.items():
        (stage,) = sweeps(p)
        split = split_sweep(stage, p.cascade)
        assert split is not None
        found[name] = (stage, split)
    return found


EXAMPLES = _examples()


Known: TypeAlias = dict[str, float | list[float]]


def _value(e: Expr, known: Known, part: int) -> float:
    """A number, where a tensor that is not known is 0.75 everywhere."""
    match e:
        case Number(value):
            return value
        case Index():
            return part
        case Extent() | Param():
            return 16
        case Read(name):
            found = known.get(name, 0.75)
            return found[part] if isinstance(found, list) else found
        case Apply(op, args):
            result: float = OPERATORS[op](*(_value(a, known, part) for a in args))
            return result


def _merged(merge: SweepStage, parts: dict[str, list[float]]) -> list[float]:
    """The states after the merge's sweep; `parts`: tensors, a number per part."""
    numbers = range(len(next(iter(parts.values()))))
    (sweep,) = merge.passes
    known: Known = {c.name: c.init for c in sweep.carries}
    for let in (*merge.host, *merge.resident, *sweep.body):
        match let.value:
            case Load(Read(tensor)):
                known[let.name] = parts.get(tensor, 0.75)
            case Fold(op, body, over):
                assert over == merge.swept
                known[let.name] = reduce(GATHER[op], (_value(body, known, i) for i in numbers))
            case Apply() as e:
                each = [_value(e, known, i) for i in numbers]
                known[let.name] = each if merge.swept in let.ranks else each[0]
    return [_value(Read(c.update, ()), known, 0) for c in sweep.carries]


def _pairwise(stage: SweepStage, states: list[list[float]]) -> list[float]:
    """The same by the merges of two partial results, one part after another."""
    assert stage.derived is not None
    merges = merge_states(stage.derived)

    def both(one: list[float], two: list[float]) -> list[float]:
        known: Known = {f"{n}_1": x for n, x in zip(merges, one, strict=True)}
        known |= {f"{n}_2": x for n, x in zip(merges, two, strict=True)}
        return [_value(e, known, 0) for e in merges.values()]

    return reduce(both, states)


@pytest.mark.parametrize("name", EXAMPLES)
@settings(max_examples=40)
@given(data=st.data())
def test_parts_merge_as_the_derived_law_says(name: str, data: st.DataObject) -> None:
    """A part that has seen nothing, whose states are the initial ones, changes nothing."""
    stage, split = EXAMPLES[name]
    nothing = [c.init for c in stage.passes[0].carries]
    state = st.tuples(
        *(st.booleans() if isinstance(x, bool) else st.floats(0.1, 8.0) for x in nothing)
    )
    seen = data.draw(st.lists(st.none() | state, min_size=1, max_size=5))
    states = [nothing if x is None else [*x] for x in seen]
    tensors = [s.tensor for s in split.partial.stores]
    parts = {t: [s[i] for s in states] for i, t in enumerate(tensors)}
    with np.errstate(all="ignore"):
        got = _merged(split.merge, parts)
        wanted = _pairwise(stage, [[*x] for x in seen if x is not None] or [nothing])
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


def test_a_part_stores_its_states_and_the_merge_what_the_sweep_did() -> None:
    stage, split = EXAMPLES["sdpa"]
    assert split.partial.grid == ("part", *stage.grid) and split.partial.part == "part"
    assert not split.partial.passes[0].after
    assert split.merge.outputs == stage.outputs and split.merge.swept == "part"
    # a program per row: rows are few
    assert split.merge.grid == (*stage.grid, "m") and split.merge.row is None


def test_several_passes_are_not_split() -> None:
    """A later pass waits for the final statistics of an earlier one."""
    made = plan(load_text(library.text("clipped_softmax")))
    (stage,) = sweeps(made)
    assert len(stage.passes) == 2 and split_sweep(stage, made.cascade) is None


def test_names_of_the_spec_are_left_alone() -> None:
    text = """attention example
input Q[part, m, d]
input K[part, n, d]
input o_parts[part, n, e]
O[part, m, e] = sum(n) sigmoid(sum(d) Q[part, m, d] * K[part, n, d]) * o_parts[part, n, e]
output O[part, m, e]
"""
    made = plan(load_text(text))
    (stage,) = sweeps(made)
    split = split_sweep(stage, made.cascade)
    assert split is not None and split.partial.grid == ("part_2", "part")
    assert split.partial.outputs == ("o_parts_2",)
