"""Verification passes what is right and fails what is subtly wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import inf, nan

import pytest
import torch
from torch import Tensor

from attnc.api import Attention, load
from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.expr import Apply, Expr, Number
from attnc.ir.pipeline import plan as make_plan
from attnc.ir.plan import Dot, Let, Plan, SweepStage
from attnc.ir.walk import rewrite
from attnc.runtime.cases import draw, make_cases, small_params
from attnc.runtime.tiles import map_stage
from attnc.runtime.verify import Check, _compare, verify


def source(plan: Plan) -> Callable[[], str]:
    def text() -> str:
        from attnc.codegen import emit

        return emit(plan)

    return text


def nothing() -> str:
    raise AssertionError("the CPU engine needs no module")


# what is wrong must be found --------------------------------------------------------------------


def in_expressions(rule: Callable[[Expr], Expr | None]) -> Callable[[SweepStage], SweepStage]:
    return lambda stage: map_stage(stage, lambda e: rewrite(e, rule))


def in_lets(change: Callable[[Let], Let]) -> Callable[[SweepStage], SweepStage]:
    def broken(stage: SweepStage) -> SweepStage:
        passes = tuple(
            replace(
                p,
                body=tuple(map(change, p.body)),
                full=tuple(map(change, p.full)),
                after=tuple(map(change, p.after)),
            )
            for p in stage.passes
        )
        return replace(stage, host=tuple(map(change, stage.host)), passes=passes)

    return broken


def slightly_more(let: Let) -> Let:
    """A scale that is off by a thousandth."""
    if let.ranks or let.dtype != "float":
        return let
    assert isinstance(let.value, Apply)
    return replace(let, value=Apply("mul", (let.value, Number(1.001))))


def without_rescale(let: Let) -> Let:
    """The accumulator keeps the weight of an old maximum."""
    match let.value:
        case Dot(left, right, over, Apply("mul", (state, _))):
            return replace(let, value=Dot(left, right, over, state))
        case _:
            return let


def without_mask(e: Expr) -> Expr | None:
    match e:
        case Apply("select", (_, x, Number(value))) if value == -inf:
            return x
        case _:
            return None


def exclusive(e: Expr) -> Expr | None:
    return Apply("lt", e.args) if isinstance(e, Apply) and e.op == "le" else None


def interleaved(e: Expr) -> Expr | None:
    return Apply("mod", e.args) if isinstance(e, Apply) and e.op == "floordiv" else None


BREAKAGES = {
    "scale": in_lets(slightly_more),
    "rescale": in_lets(without_rescale),
    "mask": in_expressions(without_mask),
    "one key too few": in_expressions(exclusive),
    "heads": in_expressions(interleaved),
}


def broken(name: str) -> Plan:
    plan = load("gqa").plan
    stages = (BREAKAGES[name](s) if isinstance(s, SweepStage) else s for s in plan.stages)
    # What it was derived from would still skip the tiles that the mask hides.
    found = replace(
        plan,
        stages=tuple(replace(s, derived=None) if isinstance(s, SweepStage) else s for s in stages),
    )
    assert found.stages != plan.stages
    return found


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_plan_fails_on_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # tiles so small that every case has several
    monkeypatch.setattr("attnc.runtime.layout.SPAN_POINTS", 32)
    monkeypatch.setattr("attnc.runtime.layout.DENSE_ROW_TILE", 32)
    monkeypatch.setattr("attnc.runtime.layout.ROW_TILES", (32,))
    report = verify(broken(name), nothing, backend="cpu")
    assert not report.ok
    assert "WRONG" in str(report)


@pytest.mark.parametrize("name", ["rescale", "mask"])
def test_a_broken_kernel_fails(name: str) -> None:
    plan = broken(name)
    report = verify(plan, source(plan), backend="interpreter", cases=["ragged", "hidden"])
    assert not report.ok


def test_a_broken_module_fails() -> None:
    plan = load("causal").plan
    text = source(plan)()
    assert "<=" in text
    report = verify(plan, lambda: text.replace("<=", "<"), backend="interpreter", cases=["ragged"])
    assert not report.ok


# what is right must pass ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_right_kernels_pass(dtype: torch.dtype) -> None:
    plan = load("gqa").plan
    report = verify(plan, source(plan), dtype=dtype, backend="interpreter")
    assert report.ok, str(report)
    assert report.backend == "interpreter"
    assert {c.case for c in report.checks} >= {"ragged", "one row", "one key", "no key", "hidden"}


def test_report() -> None:
    plan = load("lse").plan
    report = verify(plan, nothing, backend="cpu", cases=["one row"])
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["ok"] is True
    assert found["backend"] == "cpu"
    assert set(found["outputs"]) == {"O", "LSE"}
    assert {"max_abs", "rel", "allowed"} <= set(found["outputs"]["O"])
    assert [row["case"] for row in found["cases"]] == ["one row", "one row"]
    assert "verified" in str(report)


def test_shape_and_params_can_be_set() -> None:
    plan = load("sliding_window").plan
    seen: list[dict[str, int]] = []

    def watch(case: object, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append({name: x.shape[-2] for name, x in tensors.items()})
        return {}

    report = verify(
        plan,
        nothing,
        backend="cpu",
        shape={"M": 50, "n": 60},
        params={"window": 7},
        override=watch,  # type: ignore[arg-type]
    )
    assert report.ok, str(report)
    assert seen and all(s == {"Q": 50, "K": 60, "V": 60} for s in seen)


def test_a_backend_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(AttncError) as e:
        verify(load("sdpa").plan, nothing, backend="gpu")
    assert e.value.code == "E832"


# how outputs are compared -----------------------------------------------------------------------


def compare(found: list[float], exact: list[float], plain: list[float]) -> Check:
    single = torch.float32
    kernel, torch_itself = torch.tensor(found, dtype=single), torch.tensor(plain, dtype=single)
    truth = torch.tensor(exact, dtype=torch.float64)
    return _compare("case", "O", kernel, truth, torch_itself, single)


def test_a_kernel_may_be_twice_as_wrong_as_torch() -> None:
    assert compare([1.0, 2.0019], [1.0, 2.0], [1.001, 2.0]).ok
    assert not compare([1.0, 2.0021], [1.0, 2.0], [1.001, 2.0]).ok
    assert compare([1.0, 2.0 + 4e-7], [1.0, 2.0], [1.0, 2.0]).ok


def test_infinities_and_nan_must_be_where_they_belong() -> None:
    assert compare([-inf, nan], [-inf, nan], [-inf, nan]).ok
    for wrong in ([0.0, nan], [-inf, 0.0], [inf, nan]):
        assert compare(wrong, [-inf, nan], [-inf, nan]).misplaced == 1
    assert compare([nan, 1.0], [0.0, 1.0], [0.0, 1.0]).misplaced == 1


# which inputs are tried -------------------------------------------------------------------------

# Not one of the usual names.
STRANGE = """
attention strange
rank y = (up, left)
input A[x, y, w]
input B[x, z, w]
input C[x, z, v]
input bend[x, y, z]
input kind[z]: int
input price[kinds]
input stop[y]: int
input mute[z]: bool
T[x, y, z] = (sum(w) A[x, y, w] * B[x, z, w]) + bend[x, y, z] + price[kind[z]]
U[x, y, z] = softmax(z) T[x, y, z]  where z < stop[y] and not mute[z]
R[x, y, v] = sum(z) U[x, y, z] * C[x, z, v]
output R[x, y, v]
"""


def test_roles_not_names_decide() -> None:
    plan = make_plan(load_text(STRANGE))
    cases = {c.name: c for c in make_cases(plan, {}, None)}
    ragged = cases["ragged"].extents
    assert ragged["y"] == ragged["up"] * ragged["left"] >= 77
    assert ragged["z"] == 131
    assert cases["one row"].extents["y"] == 1
    assert cases["one key"].extents["z"] == 1
    hidden = cases["hidden"]
    tensors = draw(plan, hidden, torch.float32, 0)
    assert bool((tensors["bend"] == -inf).any()) and tensors["B"].isfinite().all()
    assert not tensors["mute"][0]
    assert int(tensors["kind"].max()) < hidden.extents["kinds"]
    assert int(tensors["stop"].max()) <= hidden.extents["z"]
    assert verify(plan, nothing, backend="cpu").ok


def test_extents_obey_the_divisions_of_a_spec() -> None:
    plan = load("diffqkv").plan
    for case in make_cases(plan, {}, None):
        h, g, u = (case.extents[r] for r in "hgu")
        assert (h, g, u) == (6, 2, 3)
    blocks = Attention(
        load_text(
            "attention blocks\n"
            "input X[m, d]\n"
            "input Y[n, d]\n"
            "S[m, n] = sum(d) X[m, d] * Y[n, d]\n"
            "P[m, n] = softmax(n) S[m, n]  where n // (N / 8) <= m\n"
            "O[m, d] = sum(n) P[m, n] * Y[n, d]\n"
            "output O[m, d]\n"
        )
    )
    assert all(c.extents["n"] % 8 == 0 for c in make_cases(blocks.plan, {}, None))
    with pytest.raises(AttncError) as e:
        make_cases(blocks.plan, {}, {"N": 9})
    assert e.value.code == "E831"


def test_given_extents_are_kept() -> None:
    plan = load("gpsa").plan
    for case in make_cases(plan, {}, {"M": 12, "NY": 3, "nx": 5}):
        assert (case.extents["m"], case.extents["my"] * case.extents["mx"]) == (12, 12)
        assert (case.extents["ny"], case.extents["nx"], case.extents["n"]) == (3, 5, 15)
    with pytest.raises(AttncError) as e:
        make_cases(plan, {}, {"Z": 3})
    assert e.value.code == "E504"


def test_masks_bite() -> None:
    plan = load("sliding_window").plan
    assert small_params(plan, {}, {"window": 4096}) == {"window": 20}
    assert small_params(plan, {"window": 4096}, {"window": 4096}) == {"window": 4096}


def test_large_scores_are_as_large_as_the_dtype_bears() -> None:
    seen: dict[torch.dtype, float] = {}

    def watch(case: object, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        q, k = (tensors[t].double() for t in ("Q", "K"))
        seen[tensors["Q"].dtype] = float((q[0, 0] @ k[0, 0].T / q.shape[-1] ** 0.5).abs().max())
        return {}

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        report = verify(
            load("sdpa").plan,
            nothing,
            dtype=dtype,
            backend="cpu",
            cases=["large scores"],
            override=watch,  # type: ignore[arg-type]
        )
        assert report.ok, str(report)
    assert seen[torch.float32] > 1e4 and seen[torch.bfloat16] > 1e4
    assert seen[torch.float16] > 1e3
