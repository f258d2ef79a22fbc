"""The calls that specs are checked on: tables, vectors and params fit what is read of them."""

from __future__ import annotations

import pytest
import torch

from attnc.api import load
from attnc.ir.plan import Plan
from attnc.runtime.cases import Case, draw, make_cases, small_params
from attnc.runtime.reference import reference


def cases(name: str) -> tuple[Plan, dict[str, Case]]:
    attention = load(name)
    params = small_params(attention.plan, {}, attention.run_time_params)
    made = make_cases(attention.plan, params, {"B": 2, "H": 2, "G": 1})
    return attention.plan, {c.name: c for c in made}


def test_params_of_several_axes_are_small_together() -> None:
    attention = load("na3d")
    assert small_params(attention.plan, {}, attention.run_time_params)["window"] == (3, 3, 3)


def test_a_shape_without_a_length_leaves_the_usual_cases() -> None:
    _, made = cases("sdpa")
    assert "ragged" in made and all(c.extents["b"] == 2 for c in made.values())


def test_ids_come_in_order_and_out_of_order_and_negative() -> None:
    plan, made = cases("document")
    ordered = draw(plan, made["ragged"], torch.float32, 0)["doc"]
    mixed = draw(plan, made["hidden"], torch.float32, 0)["doc"]
    assert torch.equal(ordered, ordered.sort(dim=-1).values) and int(ordered.min()) == -1
    assert not torch.equal(mixed, mixed.sort(dim=-1).values)
    assert len(set(ordered[0].tolist())) > 2


def test_queries_that_read_the_vector_of_the_keys_are_no_more_than_these() -> None:
    _, made = cases("document")
    assert made["one key"].extents["m"] == made["one key"].extents["n"] == 1


def test_lengths_are_about_what_they_are_compared_with() -> None:
    plan, made = cases("prefix_lm")
    prefix = torch.cat([draw(plan, made["ragged"], torch.float32, i)["prefix"] for i in range(40)])
    assert 0 <= int(prefix.min()) < 30 and 100 < int(prefix.max()) <= 132
    plan, made = cases("moa_window")
    span = draw(plan, made["ragged"], torch.float32, 0)["span"]
    assert int(span.min()) >= 0 and int(span.max()) <= 8


def test_tables_hold_what_is_read_of_them() -> None:
    _, made = cases("block_sparse")
    assert (made["ragged"].extents["i"], made["ragged"].extents["j"]) == (16, 27)
    _, made = cases("maxvit_grid")
    assert all(made["ragged"].extents[c] % 7 == 0 for c in ("my", "mx", "ny", "nx"))


@pytest.mark.parametrize(
    "name",
    ["block_sparse_variable", "longca_causal_blockwise", "scale_blockdiag", "halonet"],
)
def test_every_case_can_be_called(name: str) -> None:
    plan, made = cases(name)
    for case in made.values():
        tensors = draw(plan, case, torch.float32, 1)
        reference(plan.written, tensors, params=case.params, extents=case.extents)
