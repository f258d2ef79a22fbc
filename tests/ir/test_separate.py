"""What leaves a reduction, through which operators, and on which condition."""

from __future__ import annotations

import pytest

from attnc.ir.expr import Apply, Expr, Number
from attnc.ir.separate import cancel, factors, multiply, negate, separate, summands, terms
from attnc.ir.walk import index_ranks
from tests.ir.written import expression

POSITIVE = {"z": (0.0, float("inf")), "a": (0.0, float("inf"))}


def varies(e: Expr) -> bool:
    return "n" in index_ranks(e)


def free(text: str) -> tuple[Expr, ...]:
    return separate(expression(text), varies, POSITIVE).free


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("y[m] * x[n]", ("y[m]",)),
        ("x[n] / y[m] * z[m]", ("1.0 / y[m]", "z[m]")),
        ("y[m] * x[n] - y[m] * a[n]", ("y[m]",)),
        ("abs(z[m] * x[n])", ("abs(z[m])",)),
        ("relu(z[m] * x[n])", ("z[m]",)),
        ("sqrt(z[m] * a[n])", ("sqrt(z[m])",)),
        ("(z[m] * a[n]) ** p[m]", ("z[m] ** p[m]",)),
        ("(y[m] * x[n]) ** 2", ("y[m] ** 2",)),
    ],
)
def test_factors_leave(text: str, left: tuple[str, ...]) -> None:
    assert free(text) == tuple(map(expression, left))


@pytest.mark.parametrize(
    "text",
    [
        "relu(y[m] * x[n])",  # y may be negative
        "sqrt(y[m] * x[n])",
        "(y[m] * x[n]) ** p[m]",
        "y[m] * x[n] + x[n]",
        "tanh(z[m] * x[n])",
        "relu(z[m] * x[n] - 1.0)",
    ],
)
def test_what_stays(text: str) -> None:
    whole = separate(expression(text), varies, POSITIVE)
    assert multiply((*whole.free, whole.dependent)) == expression(text) and not whole.free


def test_powers_of_exponentials_scale_the_exponent() -> None:
    split = separate(expression("exp(x[n]) ** p[m]"), varies, POSITIVE)
    assert split.dependent == expression("exp(p[m] * x[n])")


def test_products_and_sums_are_taken_apart_and_put_together() -> None:
    e = expression("a[n] * b[n] / c[n]")
    assert multiply(factors(e)) == e
    assert terms(expression("(a[n] - b[n]) * c[n]")) == (
        expression("a[n] * c[n]"),
        negate(expression("b[n] * c[n]")),
    )
    assert summands(expression("(a[n] - b[n]) * c[n]")) == (expression("(a[n] - b[n]) * c[n]"),)
    assert cancel(terms(expression("a[n] - b[n] + (b[n] - a[n])"))) == ()


def test_a_product_of_too_many_sums_is_one_term() -> None:
    two = expression("a[n] + b[n]")
    wide: Expr = two
    for _ in range(7):
        wide = Apply("mul", (wide, two))
    assert terms(wide) == (wide,)
    assert multiply(()) == Number(1.0)
