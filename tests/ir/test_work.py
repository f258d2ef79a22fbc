"""The work of a plan, as formulas in the extents."""

from __future__ import annotations

from attnc.dsl import load_text
from attnc.ir.pipeline import plan
from attnc.ir.work import Formula, count_work
from attnc.library import resolve

EXTENTS = {"b": 2, "h": 3, "g": 1, "m": 5, "n": 7, "d": 11, "e": 13}


def test_a_formula_is_shown_with_its_common_factors() -> None:
    assert str(Formula()) == "0"
    assert str(Formula(((2, ("m", "n")),))) == "2*M*N"
    assert str(Formula(((2, ("m", "n", "d")), (1, ("m", "n"))))) == "M*N*(2*D + 1)"
    assert str(Formula(((1, ("m",)), (3, ("n",))))) == "M + 3*N"


def test_attention_costs_two_matrix_products() -> None:
    work = count_work(plan(load_text(*resolve("causal"))))
    assert str(work.tensor) == "B*H*M*N*(2*D + 2*E)"
    assert work.tensor.at(EXTENTS) == 2 * 2 * 3 * 5 * 7 * (11 + 13)
    assert work.moved.at(EXTENTS) == 2 * (3 * 5 * (11 + 13) + 7 * (11 + 13))


def test_one_exponential_per_point_of_the_map() -> None:
    terms = count_work(plan(load_text(*resolve("causal")))).pipes["sfu"].terms
    assert (1, ("b", "h", "m", "n")) in terms


def test_a_second_pass_multiplies_again() -> None:
    work = count_work(plan(load_text(*resolve("clipped_softmax"))))
    assert str(work.tensor) == "B*H*M*N*(4*D + 2*E)"


def test_products_beside_the_kernel_count() -> None:
    terms = count_work(plan(load_text(*resolve("mla")))).tensor.terms
    assert (2, ("b", "h", "d", "n", "c")) in terms


def test_masks_are_work_of_border_tiles_only() -> None:
    causal, window, plain = (
        count_work(plan(load_text(*resolve(name)))) for name in ("causal", "sliding_window", "sdpa")
    )
    assert causal.to_dict() == window.to_dict() == plain.to_dict()


def test_a_row_is_divided_by_its_sum_with_one_reciprocal() -> None:
    sfu = count_work(plan(load_text(*resolve("causal")))).pipes["sfu"]
    assert sfu.at(EXTENTS) == 2 * 3 * 5 * (7 + 1)


def test_a_point_of_the_map_takes_three_multiply_adds() -> None:
    """(score - base) * scale and the sum of weights: 3."""
    fma = count_work(plan(load_text(*resolve("causal")))).pipes["fma"]
    assert (3, ("b", "h", "m", "n")) in fma.terms
