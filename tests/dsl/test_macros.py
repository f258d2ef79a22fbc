"""Macros: what calls become, hygiene, the prelude."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from attnc.dsl import load_text
from attnc.dsl.macro_check import check_macros
from attnc.dsl.macros import prelude
from attnc.dsl.report import Report
from attnc.dsl.scope import Symbols
from attnc.ir.interpret import interpret
from tests.dsl.specs import spec
from tests.dsl.test_lower import body, lines


def test_a_plain_argument_needs_no_copy() -> None:
    assert body("P[b, m, n] = softmax(n) S[b, m, n]", "P[b, m, n]") == [
        "G[b, m] = max(n) S[b, m, n]",
        "W[b, m, n] = exp(S[b, m, n] - G[b, m])",
        "Z[b, m] = sum(n) W[b, m, n]",
        "P[b, m, n] = W[b, m, n] / Z[b, m]",
    ]


def test_a_macro_may_stand_inside_an_expression_over_any_argument() -> None:
    made = body(
        "P[b, m, n] = T[m] * (l1norm(n) exp(S[b, m, n]) * tau)  where near[m, n]", "P[b, m, n]"
    )
    assert made == [
        "X[b, m, n] = exp(S[b, m, n]) * tau where n <= m and m - n < window[0]",
        "Z[b, m] = sum(n) X[b, m, n]",
        "P[b, m, n] = T[m] * (X[b, m, n] / Z[b, m]) where n <= m and m - n < window[0]",
    ]


def test_a_second_call_takes_other_names() -> None:
    made = body(
        "P[b, m, n] = softmax(n) S[b, m, n]\nR[b, m, n] = softmax(m) P[b, m, n]", "R[b, m, n]"
    )
    assert made[4:6] == [
        "G_R[b, n] = max(m) P[b, m, n]",
        "W_R[b, m, n] = exp(P[b, m, n] - G_R[b, n])",
    ]


def test_calls_in_one_statement_get_numbers() -> None:
    made = body(
        "R[b, m, n] = (softmax(m) S[b, m, n]) + (softmax(n) S[b, m, n]) + (softmax(n) T[n])",
        "R[b, m, n]",
    )
    assert made[-1] == (
        "R[b, m, n] = W[b, m, n] / Z[b, n] + W_R[b, m, n] / Z_R[b, m] + W_R2[n] / Z_R2[]"
    )


def test_names_of_the_spec_are_not_captured() -> None:
    text = "W[m] = T[m]\nP[b, m, n] = (softmax(n) S[b, m, n]) * W[m]"
    made = body(text, "P[b, m, n]")
    assert made[-1] == "P[b, m, n] = W_P[b, m, n] / Z[b, m] * W[m]"


def test_only_the_ranks_of_the_argument_are_carried() -> None:
    made = body("P[b, m, n] = (softmax(n) T[n]) * S[b, m, n]", "P[b, m, n]")
    assert made[:3] == ["G[] = max(n) T[n]", "W[n] = exp(T[n] - G[])", "Z[] = sum(n) W[n]"]


def test_a_mask_brings_its_ranks_along() -> None:
    made = body("P[m, n] = softmax(n) T[n]  where near[m, n]", "P[m, n]")
    assert made[:2] == [
        "X[m, n] = T[n] where n <= m and m - n < window[0]",
        "G[m] = max(n) X[m, n]",
    ]


def test_macros_call_macros_with_their_own_names_for_ranks() -> None:
    made = body(
        "def warm(k, t) X[k]:\n    Y[k] = X[k] / t\n    return softmax(k) Y[k]\n"
        "P[b, m, n] = warm(n, T[m]) S[b, m, n]",
        "P[b, m, n]",
    )
    assert made[0] == "Y[b, m, n] = S[b, m, n] / T[m]"
    assert made[-1] == "P[b, m, n] = W[b, m, n] / Z[b, m]"


def test_a_macro_reads_its_argument_at_any_index() -> None:
    made = body(
        "def backwards(k) X[k]: return X[K - 1 - k]\nP[b, m, n] = backwards(n) S[b, m, n]",
        "P[b, m, n]",
    )
    assert made == ["P[b, m, n] = S[b, m, N - 1 - n]"]


def test_a_scalar_macro_is_an_expression() -> None:
    made = body("def gate(x, by = 1.0): return x * sigmoid(x * by)\nP[m] = gate(T[m])", "P[m]")
    assert made == ["P[m] = T[m] * sigmoid(T[m] * 1.0)"]


def test_a_reducing_result_is_the_statement_itself() -> None:
    made = body("def total(k) X[k]: return sum(k) X[k]\nP[b, m] = total(n) S[b, m, n]", "P[b, m]")
    assert made == ["P[b, m] = sum(n) S[b, m, n]"]


def test_where_inside_a_macro_restricts_its_own_statement() -> None:
    made = body(
        "def later(k) X[k]:\n    Y[k] = X[k]  where k > 0\n    return sum(k) Y[k]\n"
        "P[b, m] = later(n) S[b, m, n]",
        "P[b, m]",
    )
    assert made == ["Y[b, m, n] = S[b, m, n] where n > 0", "P[b, m] = sum(n) Y[b, m, n]"]


def test_where_inside_a_macro_reaches_its_nested_reductions() -> None:
    made = body(
        "def later(k) X[k]:\n    Y[k] = X[k] - (max(k) X[k])  where k > 0\n    return sum(k) Y[k]\n"
        "P[b, m] = later(n) S[b, m, n]",
        "P[b, m]",
    )
    assert made[0] == "max_P[b, m] = max(n) S[b, m, n] where n > 0"


def test_a_grid_argument_with_components_as_axes_is_indexed_by_the_grid() -> None:
    text = """attention grid
rank m = (my, mx)
input S[my, mx]
def backwards(k) X[k]: return X[K - 1 - k]
O[m] = backwards(m) S[my, mx]
output O[m]
"""
    assert lines(text) == ["X[m] = S[my, mx]", "O[m] = X[M - 1 - m]"]


def test_the_prelude_is_sound() -> None:
    symbols, report = Symbols(), Report("")
    symbols.macros.update((m.name.name, m) for m in prelude())
    check_macros(symbols, report)
    assert report.errors == () and not symbols.broken_macros


def evaluate(statement: str, x: np.ndarray) -> np.ndarray:
    """A statement over x[m, n] in float64."""
    text = f"attention one\ninput X[m, n]\n{statement}\n"
    text += "output O[m, n]" if statement.startswith("O[m, n]") else "output O[m]"
    return np.asarray(interpret(load_text(text), {"X": x})["O"])


def test_the_prelude_computes_its_formulas() -> None:
    x = np.random.default_rng(0).normal(size=(3, 5))
    e = np.exp(x)
    expected = {
        "O[m, n] = softmax(n) X[m, n]": e / e.sum(1, keepdims=True),
        "O[m, n] = softmax1(n) X[m, n]": e / (1 + e.sum(1, keepdims=True)),
        "O[m] = logsumexp(n) X[m, n]": np.log(e.sum(1)),
        "O[m, n] = l1norm(n) X[m, n]": x / x.sum(1, keepdims=True),
        "O[m, n] = l2norm(n, 0.5) X[m, n]": x / np.sqrt((x * x).sum(1, keepdims=True) + 0.5),
        "O[m, n] = rmsnorm(n, 0.5) X[m, n]": x / np.sqrt((x * x).mean(1, keepdims=True) + 0.5),
    }
    for statement, value in expected.items():
        np.testing.assert_allclose(evaluate(statement, x), value, rtol=1e-12, err_msg=statement)


def test_rows_with_nothing_to_see() -> None:
    x = np.full((1, 3), -np.inf)
    assert not evaluate("O[m, n] = softmax(n) X[m, n]", x).any()
    assert not evaluate("O[m, n] = softmax1(n) X[m, n]", x).any()
    assert (evaluate("O[m] = logsumexp(n) X[m, n]", x) == -np.inf).all()


def neighbors(i: int, length: int, w: int, s: int, d: int, causal: bool) -> set[int]:
    """The keys of query i, from the definition: leader, window, dilation group."""
    group = range(i % d, length, d)
    u, last = i // d, len(group) - 1
    if causal:
        leader = min(s * (u // s) + s - 1, last)
        return {group[v] for v in range(max(leader - w + 1, 0), u + 1)}
    leader = min(s * (u // s) + s // 2, last)
    start = min(max(leader - w // 2, 0), len(group) - w)
    return {group[v] for v in range(start, start + w)}


@pytest.mark.parametrize("causal", [False, True])
def test_neighborhood(causal: bool) -> None:
    text = """attention one
param p: int[3]
param causal: bool
input X[m, n]
mask near[m, n] = neighborhood(m, n, M, p[0], p[1], p[2], causal)
O[m, n] = if near[m, n] then X[m, n] else 0
output O[m, n]
"""
    cascade = load_text(text)
    for length, w, s, d in itertools.product((7, 12), (2, 3), (1, 2, 3), (1, 2)):
        if w * d > length or s > w:
            continue
        ones = np.ones((length, length))
        params = {"p": (w, s, d), "causal": causal}
        seen = np.asarray(interpret(cascade, {"X": ones}, params=params)["O"])
        for i in range(length):
            expected = neighbors(i, length, w, s, d, causal)
            assert set(np.flatnonzero(seen[i])) == expected, (length, w, s, d, i)


def test_spec_helper_is_itself_a_spec() -> None:
    load_text(spec("O[m] = T[m]"))
