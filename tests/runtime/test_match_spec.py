"""Which specs a modelled array runs: those that compute what it computes, whatever their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnc.api import load
from attnc.compilation import complete_shape
from attnc.errors import AttncError
from attnc.runtime.spatial.designs import design_names, load_design
from attnc.runtime.spatial.match_spec import match_spec, model_of

_OTHER_LAYOUT = """attention tokens_first

input Queries[b, q, head, c]
input Keys[b, k, head, c]
input Values[b, k, head, f]

S[b, head, q, k] = sum(c) Queries[b, q, head, c] * Keys[b, k, head, c] / sqrt(C)
P[b, head, q, k] = {weights}
Out[b, q, head, f] = sum(k) P[b, head, q, k] * Values[b, k, head, f]

output Out[b, q, head, f]
"""


@pytest.mark.parametrize("design", design_names())
@pytest.mark.parametrize("spec", ["sdpa", "sdpa_1pass", "sdpa_2pass", "longca_full"])
def test_softmax_however_it_is_written(spec: str, design: str) -> None:
    a = load(spec)
    roles = match_spec(a.plan, a.run_time_params, load_design(design))
    assert (roles.grid, roles.row, roles.swept) == (("b", "h"), "m", "n")


def test_ranks_of_any_name_in_any_order(tmp_path: Path) -> None:
    file = tmp_path / "own.attn"
    file.write_text(_OTHER_LAYOUT.format(weights="softmax(k) S[b, head, q, k]"), encoding="utf-8")
    a = load(file)
    roles = match_spec(a.plan, a.run_time_params, load_design("fusemax"))
    assert roles.inputs == ("Queries", "Keys", "Values")
    shape = {"B": 3, "HEAD": 4, "Q": 512, "K": 512, "C": 64, "F": 64}
    model, length = model_of(roles, complete_shape(a.plan, shape), a.plan.written)
    assert (model.batch, model.heads, model.head_dim, length) == (3, 4, 64, 512)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("causal", "it has a mask"),
        ("sigmoid", "it has a mask"),
        ("softmax1", "its maths is another"),
        ("scale_attn", "its maths is another"),
        ("additive_bias", "it reads other tensors"),
        ("talking_heads", "it is no single sweep"),
    ],
)
def test_what_is_not_run(spec: str, why: str) -> None:
    a = load(spec)
    with pytest.raises(AttncError, match=why) as e:
        match_spec(a.plan, a.run_time_params, load_design("fusemax"))
    assert e.value.code == "E845"


def test_a_softmax_with_another_scale_is_another_maths(tmp_path: Path) -> None:
    file = tmp_path / "own.attn"
    weights = "softmax(k) (2 * S[b, head, q, k])"
    file.write_text(_OTHER_LAYOUT.format(weights=weights), encoding="utf-8")
    a = load(file)
    with pytest.raises(AttncError, match="its maths is another"):
        match_spec(a.plan, a.run_time_params, load_design("flat"))


@pytest.mark.parametrize(
    ("shape", "takes"),
    [
        ({"M": 256, "N": 512}, "as many keys as queries"),
        ({"M": 256, "N": 256, "D": 64, "E": 128}, "values as wide as keys"),
        ({"M": 256, "N": 256, "H": 8, "G": 2}, "keys and values per head"),
    ],
)
def test_shapes_that_are_not_modelled(shape: dict[str, int], takes: str) -> None:
    a = load("sdpa")
    roles = match_spec(a.plan, a.run_time_params, load_design("fusemax"))
    with pytest.raises(AttncError, match=takes):
        model_of(roles, complete_shape(a.plan, shape), a.plan.written)
