"""Lowering: what each construct means as a cascade."""

from __future__ import annotations

import pytest

from attnc.dsl import load_text
from attnc.ir.cascade import Concat, Einsum, ParamDecl, Rank, Reduction, Select, TensorDecl
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read, call
from attnc.ir.show import show_cascade
from tests.dsl.specs import SLIDING_WINDOW, spec

M, N = Index("m"), Index("n")


def lines(text: str) -> list[str]:
    """The statements of a spec, as they are shown, spaces evened out."""
    return [" ".join(line.split()) for line in show_cascade(load_text(text)).strip().splitlines()]


def body(statements: str, output: str) -> list[str]:
    """The statements that a few lines of a small spec become (the last one only reads inputs)."""
    return lines(spec(statements, output))[:-1]


def expr(text: str) -> Expr:
    """The expression that one right side over m becomes."""
    statement = load_text(spec(f"O[m] = {text}")).statements[-2]
    assert isinstance(statement, Einsum)
    return statement.expr


def test_sliding_window() -> None:
    assert lines(SLIDING_WINDOW) == [
        "S[b, h, m, n] = sum(d) Q[b, h, m, d] * K[b, h // (H / G), n, d] / sqrt(D)",
        "X[b, h, m, n] = S[b, h, m, n] where n <= m and m - n < window",
        "G_P[b, h, m] = max(n) X[b, h, m, n]",
        "W[b, h, m, n] = exp(X[b, h, m, n] - G_P[b, h, m])",
        "Z[b, h, m] = sum(n) W[b, h, m, n]",
        "P[b, h, m, n] = W[b, h, m, n] / Z[b, h, m]",
        "O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h // (H / G), n, e]",
    ]


def test_declarations() -> None:
    cascade = load_text(SLIDING_WINDOW, "w.attn")
    assert cascade.name == "sliding_window" and cascade.outputs == ("O",)
    assert cascade.doc.startswith("Causal") and cascade.file == "w.attn"
    assert cascade.params == (
        ParamDecl(
            "window",
            "int",
            4096,
            low=1,
            high=float("inf"),
            high_open=True,
            doc="how many keys a query sees",
        ),
    )
    assert cascade.inputs[1] == TensorDecl("K", ("b", "g", "n", "d"))
    assert [r.name for r in cascade.ranks] == ["b", "h", "m", "d", "g", "n", "e"]


def test_expanded_statements_cite_the_line_of_the_call() -> None:
    cascade = load_text(SLIDING_WINDOW)
    softmax = [s for s in cascade.statements if s.tensor in ("X", "G_P", "W", "Z", "P")]
    assert {cascade.line(s) for s in softmax} == {SLIDING_WINDOW.splitlines()[13]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 * T[m]", call("mul", Number(2.0), Read("T", (M,)))),
        ("m * T[m]", call("mul", call("float", M), Read("T", (M,)))),
        (
            "sqrt(M) + T[m]",
            call("add", Apply("sqrt", (call("float", Extent("m")),)), Read("T", (M,))),
        ),
        ("m / M", call("div", call("float", M), call("float", Extent("m")))),
        (
            "T[m // (M / 2)]",
            Read("T", (call("floordiv", M, call("exactdiv", Extent("m"), Number(2))),)),
        ),
        ("-2 * m", call("mul", Number(-2), M)),
        ("-T[m]", call("neg", Read("T", (M,)))),
        ("max(m, 1, 2)", call("max", call("max", M, Number(1)), Number(2))),
        (
            "tau * window[1] * m",
            call(
                "mul",
                call("mul", Param("tau"), call("float", Param("window", 1))),
                call("float", M),
            ),
        ),
        (
            "if causal then T[m] else 0",
            call("select", Param("causal"), Read("T", (M,)), Number(0.0)),
        ),
        ("if true then T[m] else 0", Read("T", (M,))),
        ("T[m] ** 2", call("pow", Read("T", (M,)), Number(2.0))),
        ("0 <= m < M", call("and", call("le", Number(0), M), call("lt", M, Extent("m")))),
        ("m > tau", call("gt", call("float", M), Param("tau"))),
        ("or_else(T[m], 0)", call("or_else", Read("T", (M,)), Number(0.0))),
    ],
)
def test_expressions_are_explicitly_typed(text: str, expected: Expr) -> None:
    assert expr(text) == expected


def test_types_of_statements() -> None:
    text = spec(
        "A[m] = m // 2\nB[m] = m > 2\nC[m] = m / 2\nO[b] = sum(n) 1 where n < doc[b, n]",
        "O[b]",
    )
    dtypes = {s.tensor: s.dtype for s in load_text(text).statements if isinstance(s, Einsum)}
    assert (dtypes["A"], dtypes["B"], dtypes["C"], dtypes["O"]) == ("int", "bool", "float", "int")


def test_max_of_ints_is_a_float_because_over_nothing_it_is_infinite() -> None:
    statement = load_text(spec("O[b] = max(n) doc[b, n]", "O[b]")).statements[0]
    assert isinstance(statement, Einsum) and statement.dtype == "float"
    assert statement.expr == call("float", Read("doc", (Index("b"), N)))


def test_division_in_a_mask_is_exact() -> None:
    text = spec(
        "mask half[m, n] = n < M / 2\nO[b, m, n] = S[b, m, n] where half[m, n]", "O[b, m, n]"
    )
    statement = load_text(text).statements[0]
    assert isinstance(statement, Einsum)
    assert statement.where == call("lt", N, call("exactdiv", Extent("m"), Number(2)))


def test_a_mask_is_inlined_at_the_indices_it_is_read_at() -> None:
    assert body("O[b, m, n] = S[b, m, n] where near[m // 2, n + 1]", "O[b, m, n]") == [
        "O[b, m, n] = S[b, m, n] where n + 1 <= m // 2 and m // 2 - (n + 1) < window[0]"
    ]


def test_nested_reductions_are_statements_of_their_own() -> None:
    assert body(
        "O[b, m, n] = S[b, m, n] - (max(n) S[b, m, n])  where near[m, n]", "O[b, m, n]"
    ) == [
        "max_O[b, m] = max(n) S[b, m, n] where n <= m and m - n < window[0]",
        "O[b, m, n] = S[b, m, n] - max_O[b, m] where n <= m and m - n < window[0]",
    ]


def test_where_about_a_rank_that_only_a_nested_reduction_binds_restricts_it_alone() -> None:
    assert body("O[b, m] = T[m] + (sum(n) S[b, m, n])  where near[m, n]", "O[b, m]") == [
        "sum_O[b, m] = sum(n) S[b, m, n] where n <= m and m - n < window[0]",
        "O[b, m] = T[m] + sum_O[b, m]",
    ]


def test_mean_over_an_input_divides_by_the_extent() -> None:
    assert body("O[b, m] = mean(n) S[b, m, n]", "O[b, m]") == [
        "sum_O[b, m] = sum(n) S[b, m, n]",
        "O[b, m] = sum_O[b, m] / N",
    ]


def test_mean_counts_the_points_that_are_present() -> None:
    made = body("O[b, m] = mean(n) S[b, m, n] / T[m]  where near[m, n]", "O[b, m]")
    assert [line.split(" = ")[0] for line in made] == [
        "X[b, m, n]",
        "sum_O[b, m]",
        "count_O[b, m]",
        "O[b, m]",
    ]
    assert made[0].endswith("where n <= m and m - n < window[0]")
    assert made[3] == "O[b, m] = sum_O[b, m] / count_O[b, m]"


GRID = """attention grid
rank m = (my, mx)
rank n = (ny, nx)
input S[m, n]
input B[my, mx]
mask near[m, n] = my - ny < 3 and mx - nx < 3
{}
output O[m, n]
"""


def test_components_of_a_grid() -> None:
    text = GRID.format("O[m, n] = S[m, n] + B[my, mx]  where near[m, n]")
    assert lines(text) == ["O[m, n] = S[m, n] + B[my, mx] where my - ny < 3 and mx - nx < 3"]
    ranks = load_text(text).ranks
    assert ranks[0] == Rank("m", ("my", "mx")) and ranks[1] == Rank("my", parent="m")


def test_a_mask_over_a_grid_read_at_other_coordinates_splits_them() -> None:
    text = GRID.format("O[m, n] = S[m, n] + B[my, mx]  where near[m // 2, n]")
    assert lines(text)[0].endswith("where m // 2 // MX - ny < 3 and m // 2 % MX - nx < 3")


def test_a_grid_rank_is_its_components_where_they_are_the_axes() -> None:
    text = GRID.format("A[my, mx, n] = S[m, n] + B[my, mx]\nO[m, n] = A[my, mx, n] + S[m, n]")
    assert lines(text)[0] == "A[my, mx, n] = S[my * MX + mx, n] + B[my, mx]"


def test_iteration() -> None:
    text = spec("H[b, 0] = 0\nH[b, n + 1] = H[b, n] + S[b, 0, n]\nO[b] = H[b, N]", "O[b]")
    cascade = load_text(text)
    assert cascade.rank("n").iterative
    first, step, _, _ = cascade.statements
    assert first == Einsum("H", (Index("b"), Number(0)), Number(0.0))
    assert step.indices == (Index("b"), call("add", N, Number(1)))
    assert [s.tensor for s in cascade.producers("H")] == ["H", "H"]


def test_selection_gather_and_concat() -> None:
    text = spec(
        "sel[b, m, n] = topk(n, 8) S[b, m, n]  where near[m, n]\n"
        "P[b, m, n] = S[b, m, n]  where sel[b, m, n]\n"
        "C[b, m, j] = concat(j) P[b, m, n], S[b, x, doc[b, m]]\n"
        "Y[x] = x",
        "C[b, m, j]",
    )
    sel, _, concat, _, _ = load_text(text).statements
    assert isinstance(sel, Select) and (sel.op, sel.rank, sel.amount) == ("topk", "n", Number(8))
    assert isinstance(concat, Concat) and concat.ranks == ("n", "x") and concat.rank == "j"
    assert concat.parts[1] == Read("S", (Index("b"), Index("x"), Read("doc", (Index("b"), M))))


def test_a_selection_inside_an_expression_is_a_statement_of_its_own() -> None:
    made = body("O[b, m, n] = if (topp(n, 0.9) S[b, m, n]) then S[b, m, n] else 0", "O[b, m, n]")
    assert made[0] == "topp_O[b, m, n] = topp(n, 0.9) S[b, m, n]"


def test_reductions_over_several_ranks() -> None:
    statement = load_text(spec("O[b] = sum(m, n) S[b, m, n]", "O[b]")).statements[0]
    assert isinstance(statement, Einsum) and statement.reduce == Reduction("sum", ("m", "n"))
