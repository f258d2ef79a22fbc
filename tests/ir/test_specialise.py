"""Const params are put in, and what they decide is decided."""

from __future__ import annotations

import pytest

from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.expr import Apply, Number, Param
from attnc.ir.specialise import fold_constants, specialise
from attnc.ir.walk import operands, subexprs
from tests.ir.derived import spec, sweep_counts
from tests.ir.written import expression

LINES = """P[b, m, n] = softmax(n) S[b, m, n]
T[b, m, n] = if clip then clamp(P[b, m, n], 0.1, 0.9) else P[b, m, n]
O[b, m, e] = sum(n) T[b, m, n] * V[b, n, e]"""


def text(default: str) -> str:
    return spec(LINES).replace("input Q", f"const param clip: bool = {default}\ninput Q", 1)


def test_the_form_that_was_not_chosen_costs_no_pass() -> None:
    assert sweep_counts(text("false")) == (1,)
    assert sweep_counts(text("true")) == (2,)


def test_a_given_value_replaces_the_default() -> None:
    made = specialise(load_text(text("false")), {"clip": True})
    ops = [
        x.op
        for s in made.statements
        for e in operands(s)
        for x in subexprs(e)
        if isinstance(x, Apply)
    ]
    assert "clamp" in ops and "select" not in ops and not made.params


def test_other_params_stay() -> None:
    whole = spec(LINES.replace("if clip", "if scale > 1.0"))
    cascade = load_text(whole.replace("input Q", "param scale: float = 2.0\ninput Q", 1))
    made = specialise(cascade)
    assert any(
        isinstance(x, Param) for s in made.statements for e in operands(s) for x in subexprs(e)
    )


def test_a_const_param_needs_a_value() -> None:
    with pytest.raises(AttncError, match="clip"):
        specialise(load_text(text("false").replace(" = false", "", 1)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("2 + 3", Number(5)),
        ("2.0 * 3.0", Number(6.0)),
        ("1 < 2", Number(True)),
        ("S[n] + 2.0", None),
    ],
)
def test_folding(before: str, after: Number | None) -> None:
    assert fold_constants(expression(before)) == after


def test_what_may_be_absent_is_not_folded_away() -> None:
    folded = ("False and m % 2 == 0", "True or m % 2 == 0", "False and m // M == 0")
    kept = ("False and m % n == 0", "True or m // n == 0")
    assert all(isinstance(fold_constants(expression(e)), Number) for e in folded)
    assert all(fold_constants(expression(e)) is None for e in kept)
