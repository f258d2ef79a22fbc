"""Products of products inside the map become one product over pairs, with the same result."""

from __future__ import annotations

import re

import numpy as np
import pytest

from attnc.dsl import load_text
from attnc.ir.bind import bind_extents
from attnc.ir.cascade import Cascade
from attnc.ir.interpret import interpret
from attnc.ir.join_ranks import join_ranks
from attnc.ir.show import show_cascade

HEAD = """\
attention joined
input Q[i, m, d]
input K[i, n, d]
input V[n, e]
input W[i, h]
"""
SCORES = "S[i, m, n] = sum(d) Q[i, m, d] * K[i, n, d] / sqrt(D)\n"
END = """
P[h, m, n] = softmax(n) L[h, m, n]
O[h, m, e] = sum(n) P[h, m, n] * V[n, e]
output O[h, m, e]"""
EXTENTS = {"h": 3, "i": 2, "m": 4, "n": 5, "d": 3, "e": 2}


def spec(lines: str, head: str = HEAD) -> Cascade:
    return load_text(head + lines + END)


def joined(cascade: Cascade) -> list[str]:
    """The statements over joined ranks; they compute the same in float64, to rounding."""
    made, certificates = join_ranks(cascade)
    assert {c.law for c in certificates} == {"join"}
    random = np.random.default_rng(5)
    inputs = {t.name: random.normal(size=[EXTENTS[r] for r in t.ranks]) for t in cascade.inputs}
    want, got = (interpret(c, inputs)["O"] for c in (cascade, made))
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)
    return [re.sub(" +", " ", x) for x in show_cascade(made).splitlines() if "i_d" in x]


def test_a_sum_of_products_is_a_product_over_pairs() -> None:
    cascade = spec(SCORES + "L[h, m, n] = sum(i) S[i, m, n] * W[i, h]")
    assert joined(cascade) == [
        "L[h, m, n] = sum(i_d) Q[i_d // D, m, i_d % D] * K[i_d // D, n, i_d % D] * W[i_d // D, h]"
        " / sqrt(D)"
    ]


def test_pointwise_tensors_between_are_put_in() -> None:
    lines = "T[i, m, n] = 2 * S[i, m, n] where n <= m\nL[h, m, n] = sum(i) T[i, m, n] * W[i, h]"
    (line,) = joined(spec(SCORES + lines))
    assert line.endswith("where n <= m")


def test_a_product_over_several_ranks_is_over_their_combinations() -> None:
    cascade = spec("L[h, m, n] = sum(i, d) Q[i, m, d] * K[i, n, d] * W[i, h] where d <= i + 1")
    (line,) = joined(cascade)
    assert line.startswith("L[h, m, n] = sum(i_d) ")
    assert line.endswith("where i_d % D <= i_d // D + 1")


def test_products_over_the_same_ranks_share_the_joined_one() -> None:
    two = "A[m, n] = sum(i, d) Q[i, m, d] * K[i, n, d]\n"
    lines = "B[h, m, n] = sum(i, d) Q[i, m, d] * K[i, n, d] * W[i, h]\n"
    cascade = spec(two + lines + "L[h, m, n] = A[m, n] + B[h, m, n]")
    made, certificates = join_ranks(cascade)
    assert [c.tensor for c in certificates] == ["A", "B"]
    assert [r.name for r in made.ranks[len(cascade.ranks) :]] == ["i_d"]


def test_the_extent_is_the_product_of_the_components() -> None:
    cascade = spec(SCORES + "L[h, m, n] = sum(i) S[i, m, n] * W[i, h]")
    made, _ = join_ranks(cascade)
    shapes = {t.name: tuple(EXTENTS[r] for r in t.ranks) for t in cascade.inputs}
    assert bind_extents(made, shapes, {})["i_d"] == EXTENTS["i"] * EXTENTS["d"]


@pytest.mark.parametrize(
    "lines",
    [
        # Not a product: nothing distributes. One rank: nothing to join.
        SCORES + "L[h, m, n] = sum(i) exp(S[i, m, n]) * W[i, h]",
        "L[h, m, n] = sum(d) Q[0, m, d] * K[0, n, d] * W[0, h]",
    ],
)
def test_other_products_are_left_alone(lines: str) -> None:
    cascade = spec(lines)
    assert join_ranks(cascade) == (cascade, ())


def test_components_of_a_grid_are_not_joined_again() -> None:
    head = HEAD.replace("input Q", "rank c = (i, d)\ninput Q", 1)
    cascade = spec(SCORES + "L[h, m, n] = sum(i) S[i, m, n] * W[i, h]", head)
    assert join_ranks(cascade) == (cascade, ())
