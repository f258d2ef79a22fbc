"""Bounds are never wrong: sampled against the oracle; what may start infinite is known."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Apply, Expr, Index, Number, Read
from attnc.ir.facts import bounds, may_be_minus_inf, nonnegative, nonzero, reduced_bounds
from attnc.ir.frame import Scope, Value
from attnc.ir.nonfinite import nonfinite
from attnc.ir.ops import OPS
from tests.ir.written import expression

RNG = np.random.default_rng(3)
TENSORS = {
    "x": Value(RNG.normal(size=64) * 3, ("p",)),
    "y": Value(np.abs(RNG.normal(size=64)), ("p",)),
    "z": Value(1 + np.abs(RNG.normal(size=64)), ("p",)),
}
KNOWN = {"y": (0.0, inf), "z": (1.0, inf)}
NAMES = sorted(
    o.name
    for o in OPS.values()
    if o.kind in ("arith", "function") and o.name not in ("floordiv", "mod", "exactdiv")
)


def trees() -> st.SearchStrategy[Expr]:
    leaves: st.SearchStrategy[Expr] = st.one_of(
        st.sampled_from([Read(t, (Index("p"),)) for t in TENSORS]),
        st.sampled_from([Number(v) for v in (-2.0, -0.5, 0.0, 1.0, 3.0)]),
    )

    def node(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        return st.sampled_from(NAMES).flatmap(
            lambda name: st.tuples(*[inner] * OPS[name].arity).map(lambda a: Apply(name, a))
        )

    return st.recursive(leaves, node, max_leaves=8)


@given(trees())
def test_values_lie_within_bounds(e: Expr) -> None:
    found = evaluate(e, Scope(tensors=TENSORS, box={"p": range(64)}))
    data = np.broadcast_to(found.data, (64,))
    present = np.ones(64, bool) if found.present is None else np.broadcast_to(found.present, (64,))
    data = data[present & ~np.isnan(data)]
    low, high = bounds(e, KNOWN)
    slack = 1e-9 * np.maximum(1.0, np.abs(data))
    assert (data >= low - slack).all() and (data <= high + slack).all()


@given(trees())
def test_finite_inputs_give_what_nonfinite_says(e: Expr) -> None:
    found = evaluate(e, Scope(tensors=TENSORS, box={"p": range(64)}))
    data = np.broadcast_to(found.data, (64,))
    present = np.ones(64, bool) if found.present is None else np.broadcast_to(found.present, (64,))
    kinds = nonfinite(e, {}, KNOWN)
    # Overflow of large finite values is another matter.
    if not any(isinstance(x, Apply) and x.op in ("exp", "exp2", "pow", "div") for x in _nodes(e)):
        seen = data[present]
        assert kinds >= ({"inf"} if (seen == inf).any() else set())
        assert kinds >= ({"-inf"} if (seen == -inf).any() else set())
        assert kinds >= ({"nan"} if np.isnan(seen).any() else set())


def _nodes(e: Expr) -> list[Expr]:
    return [e, *(x for a in e.args for x in _nodes(a))] if isinstance(e, Apply) else [e]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("G[m]", {"-inf"}),
        ("G[m] + log(Z[m])", {"-inf"}),
        ("0.0 - G[m]", {"inf"}),
        ("t[m] * G[m]", {"inf", "-inf", "nan"}),
        ("2.0 * G[m]", {"-inf"}),
        ("max(G[m], 0.0)", set()),
        ("exp(G[m])", set()),
        ("exp(0.0 - G[m])", {"inf"}),
        ("sigmoid(G[m])", set()),
        ("log(1.0 + Z[m])", set()),
        ("log(t[m])", {"-inf", "nan"}),
    ],
)
def test_what_a_value_is_before_anything_was_seen(text: str, kinds: set[str]) -> None:
    assert nonfinite(expression(text), {"G": -inf}, {"Z": (0.0, inf)}) == kinds


def test_signs_that_laws_ask_for() -> None:
    assert nonnegative(expression("x[n] * x[n]"), {})
    assert nonnegative(expression("exp(x[n]) / softplus(x[n])"), {})
    assert not nonnegative(expression("x[n] * y[n]"), KNOWN)
    assert nonzero(expression("1.0 + exp(x[n])"), {}) and not nonzero(expression("exp(x[n])"), {})


def test_minus_inf_is_expected_of_inputs_but_not_of_products() -> None:
    assert may_be_minus_inf(expression("S[n] + bias[n]"), frozenset({"S"}))
    assert not may_be_minus_inf(expression("S[n] * 2.0"), frozenset({"S"}))
    assert not may_be_minus_inf(expression("sigmoid(bias[n])"), frozenset())


def test_reductions_keep_bounds_and_their_identity() -> None:
    assert reduced_bounds("sum", (2.0, 3.0)) == (0.0, inf)
    assert reduced_bounds("max", (2.0, 3.0)) == (-inf, 3.0)
    assert reduced_bounds("prod", (0.0, 3.0)) == (0.0, inf)
    assert reduced_bounds("prod", (-1.0, 3.0)) == (-inf, inf)
