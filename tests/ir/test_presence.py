"""Absence becomes conditions: at `where`, at a zero divisor, at -inf - -inf."""

from __future__ import annotations

from attnc.ir.cascade import ParamDecl
from attnc.ir.expr import Apply, Expr, Param
from attnc.ir.facts import param_bounds, param_key
from attnc.ir.presence import TRUE, conjunction, conjuncts, split_presence
from tests.ir.written import expression

NOTHING: frozenset[str] = frozenset()


def conditions(e: Expr, finite: frozenset[str] = NOTHING) -> tuple[Expr, ...]:
    return tuple(c.holds for c in split_presence(e, {"Z": (1.0, 9.0)}, finite)[1])


def test_where_holds_and_the_value_stays() -> None:
    value, found = split_presence(
        Apply("given", (expression("S[n]"), expression("n < 3"))), {}, NOTHING
    )
    assert value == expression("S[n]") and [c.holds for c in found] == [expression("n < 3")]


def test_a_divisor_must_not_be_zero_unless_it_cannot_be() -> None:
    assert conditions(expression("S[n] / Y[m]")) == (expression("Y[m] != 0.0"),)
    assert conditions(expression("S[n] / Z[m]")) == ()


def test_integer_divisors_must_not_be_zero_either() -> None:
    assert conditions(expression("m % n == 0")) == (expression("n != 0"),)
    assert conditions(expression("m // (h // 2) == 0")) == (expression("h // 2 != 0"),)
    assert conditions(expression("m // 4 + m % N + H @ G == 0")) == ()


def test_a_param_is_as_its_declaration_says() -> None:
    known = {param_key("w"): param_bounds(ParamDecl("w", "int", low=0, low_open=True))}
    e = Apply("mod", (expression("m"), Param("w")))
    assert split_presence(e, known, NOTHING)[1] == ()
    assert len(split_presence(e, {}, NOTHING)[1]) == 1


def test_minus_inf_from_minus_inf() -> None:
    assert len(conditions(expression("S[n] - G[m]"))) == 1
    assert conditions(expression("S[n] - G[m]"), frozenset({"S"})) == ()
    assert conditions(expression("S[n] - sigmoid(G[m])")) == ()


def test_an_exponential_says_where_it_vanishes() -> None:
    e = expression("exp(S[n] - G[m])")
    (found,) = split_presence(e, {}, NOTHING)[1]
    assert found.vanishing == e


def test_or_else_fills_in() -> None:
    given = Apply("given", (expression("S[n]"), expression("n < 3")))
    value, found = split_presence(Apply("or_else", (given, expression("7.0"))), {}, NOTHING)
    assert found == ()
    assert value == Apply("select", (expression("n < 3"), expression("S[n]"), expression("7.0")))


def test_a_choice_is_absent_where_the_chosen_branch_is() -> None:
    e = Apply("select", (expression("n < 3"), expression("S[n] / Y[m]"), expression("S[n]")))
    (found,) = conditions(e)
    assert isinstance(found, Apply) and found.op == "or"


def test_conjunctions() -> None:
    a, b = expression("n < 3"), expression("m < 3")
    assert conjuncts(conjunction((a, TRUE, b, a))) == (a, b)
    assert conjunction(()) == TRUE and conjuncts(TRUE) == ()
