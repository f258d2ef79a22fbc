"""The fewest passes are found, the forcing line is named, and nothing changes its value."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.build_plan import sweeps
from attnc.ir.pipeline import plan
from attnc.ir.recheck import recheck
from tests.ir.derived import SPECS, derived, planned, spec, sweep_counts

PASSES = {"two": 2, "three": 3}


@pytest.mark.parametrize("file", sorted(SPECS.glob("*.attn")), ids=lambda f: f.stem)
def test_passes_of(file: Path) -> None:
    """One pass, unless the file's name says otherwise; the derived cascade computes the same."""
    assert sweep_counts(file.read_text()) == (PASSES.get(file.stem.split("_")[0], 1),)


@pytest.mark.parametrize(
    ("name", "tensor", "operator"),
    [
        ("two_clipped", "C", "clamp"),
        ("two_threshold", "T", "gt"),
        ("two_nonlinear", "T", "tanh"),
        ("two_nested_norms", "R", "relu"),
        ("two_binary", "B", "ge"),
    ],
)
def test_the_forcing_line_is_named(name: str, tensor: str, operator: str) -> None:
    cascade = load_text((SPECS / f"{name}.attn").read_text())
    (stage,) = sweeps(plan(cascade))
    assert stage.derived is not None
    (barrier,) = stage.derived.barriers
    assert barrier.operator == operator and barrier.sweep == 1 and barrier.span is not None
    line = cascade.source.splitlines()[barrier.span.line - 1]
    assert line.startswith(f"{tensor}[b, h, m, n] =")


def test_three_passes_have_two_barriers() -> None:
    (stage,) = sweeps(plan(load_text((SPECS / "three_nested.attn").read_text())))
    assert stage.derived is not None
    assert [(b.operator, b.sweep) for b in stage.derived.barriers] == [("relu", 1), ("gt", 2)]


# where an infinity of the first tiles would survive --------------------------------------------


def test_a_base_over_other_points_than_the_sum_waits() -> None:
    """Points seen before the first point of the maximum would be gathered over no base."""
    lines = (
        "G[b, m] = max(n) S[b, m, n] where n > m\n"
        "O[b, m, e] = sum(n) exp(S[b, m, n] - G[b, m]) * V[b, n, e]"
    )
    assert sweep_counts(spec(lines)) == (2,)
    within = lines + " where n > m"
    assert sweep_counts(spec(within)) == (1,)


def test_a_log_of_what_may_be_negative_waits() -> None:
    lines = (
        "R[b, m] = sum(n) S[b, m, n]\n"
        "O[b, m, e] = sum(n) exp(S[b, m, n] - log(R[b, m])) * V[b, n, e]"
    )
    assert [x.operator for x in derived(lines).barriers] == ["log"]


def test_a_log_of_a_sum_that_may_be_zero_waits_unless_nothing_was_added() -> None:
    unrelated = (
        "Z[b, m] = sum(n) relu(S[b, m, n])\n"
        "O[b, m, e] = sum(n) exp(S[b, m, n] - log(Z[b, m])) * V[b, n, e]"
    )
    assert sweep_counts(spec(unrelated)) == (2,)
    own = (
        "L[b, m] = logsumexp(n) S[b, m, n]\n"
        "O[b, m, e] = sum(n) exp(S[b, m, n] - L[b, m]) * V[b, n, e]"
    )
    assert sweep_counts(spec(own)) == (1,)


@pytest.mark.parametrize("factor", ["G[b, m]", "exp(-G[b, m])", "log(1 + exp(-G[b, m]))"])
def test_a_factor_that_is_infinite_over_nothing_leaves_an_empty_row_zero(factor: str) -> None:
    lines = (
        "G[b, m] = max(n) S[b, m, n] where n < m\n"
        f"O[b, m, e] = sum(n) sigmoid(S[b, m, n]) * {factor} * V[b, n, e] where n < m"
    )
    assert sweep_counts(spec(lines)) == (1,)


@pytest.mark.parametrize("base", ["-G[b, m]", "tau[b] * G[b, m]", "1 - G[b, m] * w[m]"])
def test_bases_that_may_start_at_plus_infinity(base: str) -> None:
    lines = (
        "G[b, m] = max(n) S[b, m, n] where n < m\n"
        f"O[b, m, e] = sum(n) exp(S[b, m, n] - ({base})) * V[b, n, e] where n < m"
    )
    assert sweep_counts(spec(lines)) == (1,)


def test_a_base_that_is_absent_over_nothing_waits() -> None:
    lines = (
        "G[b, m] = max(n) S[b, m, n]\n"
        "O[b, m, e] = sum(n) exp(S[b, m, n] - (G[b, m] * w[m] - G[b, m])) * V[b, n, e]"
    )
    assert sweep_counts(spec(lines)) == (2,)


def test_one_score_of_minus_infinity_makes_a_sum_no_base() -> None:
    lines = "R[b, m] = {}(n) S[b, m, n]\nO[b, m, e] = sum(n) exp(S[b, m, n] - R[b, m]) * V[b, n, e]"
    found = [sweep_counts(spec(lines.format(op))) for op in ("max", "min", "sum")]
    assert found == [(1,), (2,), (2,)]
    finite = spec(lines.format("sum")).replace(" + bias[n]", "").replace("input bias[n]\n", "")
    assert sweep_counts(finite) == (1,)


def test_a_masked_point_may_have_no_value() -> None:
    """log 0 where the key is hidden: the mask is not left to exp(-inf) = 0 alone."""
    lines = (
        "P[b, m, n] = exp(S[b, m, n]) * log(doc[n]) where doc[n] > 0\n"
        "O[b, m, e] = sum(n) P[b, m, n] * V[b, n, e]"
    )
    assert sweep_counts(spec(lines)) == (1,)


# bounds on the compiler ---------------------------------------------------------------------------


def chain(step: str, length: int) -> str:
    lines = ["X0[b, m, n] = S[b, m, n]"]
    for i in range(length):
        lines.append(f"X{i + 1}[b, m, n] = " + step.replace("X", f"X{i}[b, m, n]"))
    return "\n".join([*lines, f"O[b, m, e] = sum(n) X{length}[b, m, n] * V[b, n, e]"])


@pytest.mark.parametrize("step", ["X * X", "X + exp(X)", "exp(X)", "X / (1 + (sum(n) X))"])
def test_long_chains_plan_or_are_refused_in_time(step: str) -> None:
    start = time.perf_counter()
    try:
        planned(chain(step, 60))
    except AttncError as e:
        assert e.code == "E902" and e.span is not None
    assert time.perf_counter() - start < 4


def test_a_product_of_many_sums_is_not_distributed() -> None:
    factors = " * ".join(f"(S[b, m, n] + {i}.5 + G[b, m])" for i in range(14))
    lines = f"G[b, m] = max(n) S[b, m, n]\nO[b, m, e] = sum(n) {factors} * V[b, n, e]"
    assert derived(lines).sweeps == 2


# anything that can be written -------------------------------------------------------------------

MASKS = ("", "", " where n <= m", " where n < m", " where doc[n] > 0", " where n == m")
UNARY = (
    "exp(X)",
    "softplus(X)",
    "relu(X)",
    "sigmoid(X)",
    "abs(X)",
    "X * X",
    "pow(softplus(X), 1.5)",
    "clamp(X, -1, 1)",
    "max(X, 0)",
    "tanh(X / 3) * 3",
)
WITH_STATISTIC = (
    "exp(X - R)",
    "exp2(X - R)",
    "X - R",
    "X / R",
    "X / (1 + abs(R))",
    "X * rsqrt(abs(R) + 0.1)",
    "if X >= R then X else 0.0",
    "relu(X - R)",
    "X * R + sigmoid(S) * (1 - R)",
    "X * exp(R)",
    "min(X, R)",
    "exp(tau[b] * (X - R))",
)
EPILOGUES = ("U", "U / R", "U * sigmoid(R)", "U / (1 + abs(R))", "U - R")


@st.composite
def specs(draw: st.DrawFn) -> str:
    """Maps of the score, normalised by statistics of it, under masks, with an epilogue."""
    mask = draw(st.sampled_from(MASKS))
    maps, statistics, lines = ["S[b, m, n]"], ["w[m]"], []
    for i in range(draw(st.integers(1, 4))):
        x, r = draw(st.sampled_from(maps[-2:])), draw(st.sampled_from(statistics[-2:]))
        form = draw(st.sampled_from((*UNARY, *WITH_STATISTIC)))
        value = form.replace("X", x).replace("R", r).replace("S)", "S[b, m, n])")
        where = mask if draw(st.integers(0, 4)) else ""
        if draw(st.booleans()):
            # A sum of scores is no base: over a score of -inf it has no value at all.
            op = draw(st.sampled_from(("max", "min", "sum")))
            value = "exp(" + value + ")" if op == "sum" and "exp" not in form else value
            lines.append(f"R{i}[b, m] = {op}(n) ({value}){where}")
            statistics.append(f"R{i}[b, m]")
        else:
            lines.append(f"X{i}[b, m, n] = {value}{where}")
            maps.append(f"X{i}[b, m, n]")
    lines.append(f"U[b, m, e] = sum(n) {maps[-1]} * V[b, n, e]{mask}")
    end = draw(st.sampled_from(EPILOGUES)).replace("R", statistics[-1])
    lines.append(f"O[b, m, e] = {end.replace('U', 'U[b, m, e]')}")
    return spec("\n".join(lines))


@settings(max_examples=120)
@given(specs(), st.integers(0, 3))
def test_derived_cascades_compute_what_was_written(text: str, seed: int) -> None:
    cascade = load_text(text)
    try:
        made = plan(cascade)
    except AttncError as e:
        assert e.code.startswith("E9")
        return
    assert recheck(made, seed, cascade) < 1e-9
