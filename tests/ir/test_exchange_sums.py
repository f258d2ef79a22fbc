"""Sums of normalised maps are mixed after the sweep, with the same result."""

from __future__ import annotations

import re

import numpy as np
import pytest

from attnc.dsl import load_text
from attnc.ir.build_plan import sweeps
from attnc.ir.cascade import Cascade
from attnc.ir.exchange_sums import exchange_sums
from attnc.ir.interpret import interpret
from attnc.ir.pipeline import plan
from attnc.ir.recheck import recheck
from attnc.ir.show import show_cascade
from attnc.library import text

HEAD = """\
attention mixed
input Q[h, m, d]
input K[h, n, d]
input V[j, n, e]
input R[n, e]
input WP[h, j]
input B[m, n]
"""
MAP = """\
S[h, m, n] = sum(d) Q[h, m, d] * K[h, n, d]
P[h, m, n] = softmax(n) S[h, m, n]
"""
MASKED = MAP.replace("]\nP", "] where B[m, n] > 0\nP")
MIX = "U[j, m, n] = sum(h) P[h, m, n] * WP[h, j]\n"
END = "\noutput O[j, m, e]"
EXTENTS = {"h": 3, "m": 4, "n": 5, "d": 2, "e": 3, "j": 2}


def spec(lines: str) -> Cascade:
    """The lines under the inputs that they read."""
    head = HEAD.splitlines()
    used = [x for x in head[1:] if re.search(rf"\b{re.escape(x.split()[1][:2])}", lines)]
    return load_text("\n".join([head[0], *used, lines]))


def exchanged(cascade: Cascade) -> list[str]:
    made, certificates = exchange_sums(cascade)
    assert {c.law for c in certificates} == {"exchange"}
    assert_same(cascade, made)
    return [re.sub(" +", " ", x) for x in show_cascade(made).splitlines()]


def assert_same(written: Cascade, made: Cascade) -> None:
    """Equal to rounding in float64; the second row sees nothing where B masks."""
    random = np.random.default_rng(5)
    inputs = {t.name: random.normal(size=[EXTENTS[r] for r in t.ranks]) for t in written.inputs}
    if "B" in inputs:
        inputs["B"][1] = -1.0
    want, got = (interpret(c, inputs)["O"] for c in (written, made))
    assert np.isfinite(want).all()
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scores", [MAP, MASKED])
def test_the_sweep_comes_before_the_mix(scores: str) -> None:
    cascade = spec(scores + MIX + "O[j, m, e] = sum(n) U[j, m, n] * V[j, n, e]" + END)
    assert exchanged(cascade)[-2:] == [
        "O_h[h, j, m, e] = sum(n) P[h, m, n] * V[j, n, e]",
        "O[j, m, e] = sum(h) O_h[h, j, m, e] * WP[h, j]",
    ]


def test_values_without_the_mixed_rank_are_summed_once_per_head() -> None:
    cascade = spec(MAP + MIX + "O[j, m, e] = sum(n) U[j, m, n] * R[n, e]" + END)
    assert exchanged(cascade)[-2:] == [
        "O_h[h, m, e] = sum(n) P[h, m, n] * R[n, e]",
        "O[j, m, e] = sum(h) O_h[h, m, e] * WP[h, j]",
    ]


def test_masks_of_both_sums_stay_inside() -> None:
    mix = MIX.replace("\n", " where m != 2 or h > 0\n")
    line = "O[j, m, e] = sum(n) 2 * U[j, m, n] * V[j, n, e] where n <= m"
    shown = exchanged(spec(MASKED + mix + line + END))
    assert shown[-2].endswith("where n <= m and (m != 2 or h > 0)")
    assert "where" not in shown[-1]


def test_a_factor_that_may_be_absent_stays_inside() -> None:
    mix = MIX.replace("WP[h, j]", "(1 / WP[h, j])")
    shown = exchanged(spec(MAP + mix + "O[j, m, e] = sum(n) U[j, m, n] * V[j, n, e]" + END))
    assert shown[-1] == "O[j, m, e] = sum(h) O_h[h, j, m, e]"


@pytest.mark.parametrize(
    "lines",
    [
        # Another reduction, a function around the mix, a map that waits for no reduction.
        MAP + MIX.replace("sum(h)", "max(h)") + "O[j, m, e] = sum(n) U[j, m, n] * V[j, n, e]",
        MAP + MIX + "O[j, m, e] = sum(n) exp(U[j, m, n]) * V[j, n, e]",
        MAP.replace("softmax(n) S[h, m, n]", "exp(S[h, m, n])")
        + MIX
        + "O[j, m, e] = sum(n) U[j, m, n] * V[j, n, e]",
    ],
)
def test_other_mixes_are_left_alone(lines: str) -> None:
    cascade = spec(lines + END)
    assert exchange_sums(cascade) == (cascade, ())


def test_talking_heads_needs_one_pass() -> None:
    cascade = load_text(text("talking_heads"))
    made = plan(cascade)
    assert [s.derived.sweeps for s in sweeps(made) if s.derived is not None] == [1]
    assert recheck(made, written=cascade) < 1e-10
