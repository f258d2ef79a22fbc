"""The printer: what it prints is what a paper would, and parses to what it printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.dsl import load_text
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Expr, Extent, Index, Number, Param, Read, call
from attnc.ir.show import show_cascade, show_expr, show_statement

ROOT = Path(__file__).parents[2]
SPECS = sorted([*ROOT.glob("tests/cascades/*.attn"), *ROOT.glob("library/**/*.attn")])

a, b, c = Read("a", (Index("n"),)), Read("b", (Index("n"),)), Read("c", ())


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (call("sub", a, call("sub", b, c)), "a[n] - (b[n] - c[])"),
        (call("sub", call("sub", a, b), c), "a[n] - b[n] - c[]"),
        (call("div", call("mul", a, b), c), "a[n] * b[n] / c[]"),
        (call("mul", a, call("div", b, c)), "a[n] * (b[n] / c[])"),
        (call("mul", call("add", a, b), c), "(a[n] + b[n]) * c[]"),
        (call("pow", call("neg", a), Number(2)), "(-a[n]) ** 2"),
        (call("neg", call("pow", a, Number(2))), "-a[n] ** 2"),
        (call("pow", a, call("neg", b)), "a[n] ** -b[n]"),
        (call("mul", a, Number(-1.5)), "a[n] * -1.5"),
        (call("exp", call("add", a, b)), "exp(a[n] + b[n])"),
        (call("div", a, call("sqrt", call("float", Extent("d")))), "a[n] / sqrt(D)"),
        (call("lt", call("lt", Index("m"), Index("n")), Index("k")), "(m < n) < k"),
        (call("not", call("and", call("not", a), b)), "not (not a[n] and b[n])"),
        (call("add", call("select", a, b, c), c), "(if a[n] then b[n] else c[]) + c[]"),
        (call("select", a, b, call("select", b, a, c)),
            "if a[n] then b[n] else if b[n] then a[n] else c[]"),
        (call("le", Index("n"), call("add", Index("m"), Param("w", 1))), "n <= m + w[1]"),
        (Number(float("-inf")), "-inf"),
        (Number(True), "true"),
        (Read("V", (call("floordiv", Index("h"), Number(4)), Index("n"))), "V[h // 4, n]"),
    ],
)  # fmt: skip
def test_no_parenthesis_too_many(expr: Expr, text: str) -> None:
    assert show_expr(expr) == text


def test_a_cascade_as_in_its_paper() -> None:
    cascade = load_text(
        """attention t
input Q[b, h, m, d]
input K[b, h, n, d]
S[b, h, m, n] = sum(d) Q[b, h, m, d] * K[b, h, n, d] / sqrt(D)
G[b, h, m] = max(n) S[b, h, m, n] where n <= m
output G[b, h, m]
"""
    )
    assert show_cascade(cascade, hide=("b", "h")) == (
        "S[m, n] = sum(d) Q[m, d] * K[n, d] / sqrt(D)\nG[m]    = max(n) S[m, n]  where n <= m\n"
    )
    assert show_statement(cascade.statements[1]) == (
        "G[b, h, m] = max(n) S[b, h, m, n]  where n <= m"
    )


def declarations(source: str) -> tuple[list[str], list[str]]:
    """The lines before and after the statements; their masks and macros are expanded by now."""
    lines = source.splitlines()
    before = [
        x for x in lines if x.split(" ")[0] in ("attention", "param", "const", "rank", "input")
    ]
    return before, [x for x in lines if x.startswith("output ")]


def again(cascade: Cascade) -> Cascade:
    before, after = declarations(cascade.source)
    return load_text("\n".join([*before, show_cascade(cascade), *after]), cascade.file)


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_parses_to_what_was_printed(path: Path) -> None:
    cascade = load_text(path.read_text(), path.name)
    assert again(cascade).statements == cascade.statements


INFIX = ("add", "sub", "mul", "div", "pow", "min", "max")
EXPRS = st.recursive(
    st.sampled_from([a, b, c, Number(2.0), Number(0.5)]),
    lambda inner: st.one_of(
        st.builds(call, st.sampled_from(("exp", "tanh", "abs")), inner),
        # A minus before a number is part of the number.
        st.builds(call, st.just("neg"), inner.filter(lambda e: not isinstance(e, Number))),
        st.builds(call, st.sampled_from(INFIX), inner, inner),
        st.builds(
            call,
            st.just("select"),
            st.builds(call, st.sampled_from(("lt", "ge", "eq")), inner, inner),
            inner,
            inner,
        ),
    ),
    max_leaves=12,
)


@given(EXPRS, st.sampled_from(["", "sum(n) ", "max(n) "]))
def test_any_expression_parses_to_what_was_printed(expr: Expr, reduction: str) -> None:
    source = "attention t\ninput a[n]\ninput b[n]\ninput c[]\noutput O[n]"
    whole = call("add", call("add", a, b), call("mul", c, expr))
    if reduction:
        source = source.replace("O[n]", "O[]")
    target = "O[]" if reduction else "O[n]"
    text = source.replace("output", f"{target} = {reduction}{show_expr(whole)}\noutput")
    cascade = load_text(text)
    assert cascade.statements[-1].expr == whole  # type: ignore[union-attr]
    assert again(cascade).statements == cascade.statements
