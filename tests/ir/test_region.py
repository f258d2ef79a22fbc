"""What is swept, beside which rows: by the roles that ranks play, never by their names."""

from __future__ import annotations

import re

import pytest

from attnc.dsl import load_text
from attnc.ir.build_plan import sweeps
from attnc.ir.pipeline import plan
from attnc.ir.plan import SweepStage, TorchStage
from tests.ir.derived import planned, spec

SOFTMAX = "P[b, m, n] = softmax(n) S[b, m, n]\nO[b, m, e] = sum(n) P[b, m, n] * V[b, n, e]"


def the_sweep(text: str) -> SweepStage:
    (stage,) = sweeps(plan(load_text(text)))
    return stage


def test_the_map_is_never_stored() -> None:
    stage = the_sweep(spec(SOFTMAX))
    assert (stage.row, stage.swept, stage.columns, stage.grid) == ("m", "n", ("e",), ("b",))
    assert stage.outputs == ("O",) and stage.inner == ("d",)


@pytest.mark.parametrize("names", ["npqr", "mned", "abcd"])
def test_ranks_may_have_any_names(names: str) -> None:
    m, n, d, e = tuple(names)
    text = spec(SOFTMAX).replace("attention example", "attention other")
    for old, new in (("b", "z"), ("m", "M0"), ("n", "N0"), ("d", "D0"), ("e", "E0")):
        text = _rename(text, old, new)
    for old, new in (("M0", m), ("N0", n), ("D0", d), ("E0", e)):
        text = _rename(text, old, new)
    text = text.replace("sqrt(D)", f"sqrt({d.upper()})")
    stage = the_sweep(text)
    assert (stage.row, stage.swept, stage.columns, stage.grid) == (m, n, (e,), ("z",))


def _rename(text: str, old: str, new: str) -> str:
    return re.sub(rf"(?<=[\[(, ]){old}(?=[\]), ])", new, text)


def test_a_map_normalised_over_the_queries_sweeps_twice() -> None:
    lines = SOFTMAX.replace("softmax(n)", "softmax(m)")
    swept = [s.swept for s in sweeps(planned(lines))]
    assert "m" in swept


def test_one_query_per_head_has_no_rows() -> None:
    text = """attention pool
input q[h, d]
input K[b, n, h, d]
input V[b, n, h, e]
S[b, h, n] = (sum(d) q[h, d] * K[b, n, h, d]) / sqrt(D)
P[b, h, n] = softmax(n) S[b, h, n]
O[b, h, e] = sum(n) P[b, h, n] * V[b, n, h, e]
output O[b, h, e]
"""
    made = plan(load_text(text))
    assert all(s.swept == "n" for s in sweeps(made))
    assert {t for s in made.stages for t in s.outputs} >= {"O"}


def test_plain_products_run_in_torch() -> None:
    text = """attention linear
input A[m, k]
input B[k, e]
O[m, e] = sum(k) A[m, k] * B[k, e]
output O[m, e]
"""
    assert [type(s) for s in plan(load_text(text)).stages] == [TorchStage]
