"""Configurations that a stage could be launched with, and how a module carries a choice."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attnc
from attnc import library
from attnc.codegen import Config, emit
from attnc.codegen.candidates import (
    Limits,
    candidates,
    lack,
    least_shared_bytes,
    split_counts,
)
from attnc.codegen.config import Chosen, registers_of, widest
from attnc.compilation import complete_shape
from attnc.dsl import load_text
from attnc.ir.bind import with_joined
from attnc.ir.pipeline import plan as plan_of
from attnc.ir.plan import Plan, SweepStage
from attnc.runtime.dtypes import torch_dtype
from attnc.runtime.launches import find_launches
from attnc.runtime.modules import load_source

SPECS = ("causal", "sliding_window", "gna", "document", "differential", "cmha", "mla")
HOPPER = Limits(255, 65536, 232448, 1.3, (2, 3, 4))
EXTENTS = {"b": 2, "h": 4, "g": 2, "m": 512, "n": 512, "d": 128, "e": 128}


def sweep(plan: Plan) -> SweepStage:
    return next(s for s in plan.stages if isinstance(s, SweepStage))


@given(
    spec=st.sampled_from(SPECS),
    width=st.sampled_from((1, 16, 40, 64, 128, 256, 700)),
    itemsize=st.sampled_from((2, 4)),
    registers=st.integers(100, 600),
    shared=st.integers(16_000, 300_000),
    rows=st.none() | st.integers(1, 600),
)
def test_candidates_are_what_the_limits_admit(
    spec: str, width: int, itemsize: int, registers: int, shared: int, rows: int | None
) -> None:
    plan = attnc.load(spec).plan
    stage = sweep(plan)
    dims = dict.fromkeys((*stage.inner, *stage.columns), width)
    if rows is not None and stage.row is not None:
        dims[stage.row] = rows
    limits = Limits(registers, 65536, shared, 1.0, (2, 3))
    found = candidates(stage, plan.cascade, dims, itemsize, limits)
    assert len(set(found)) == len(found)
    known, widest_block = registers_of(stage, plan.cascade), widest(stage, dims)
    for c in found:
        assert {c.block_m, c.block_n} <= {16, 32, 64, 128, 256}
        assert c.num_warps in (4, 8, 16) and c.num_stages in (2, 3)
        assert rows is None or c.block_m < max(32, 2 * rows)
        assert (
            known.estimate(c, widest_block, itemsize)
            <= min(registers, 65536 / 32 / c.num_warps) + 0.5
        )
        assert least_shared_bytes(c, known, widest_block, itemsize) <= shared
        assert lack(c, known, widest_block, itemsize, limits) is None
    # more of everything admits no less
    more = Limits(registers + 50, 65536, shared * 2, 1.2, (2, 3))
    assert set(found) <= set(candidates(stage, plan.cascade, dims, itemsize, more))


def test_what_is_lacking_is_told_with_how_much() -> None:
    plan = attnc.load("causal").plan
    stage = sweep(plan)
    known = registers_of(stage, plan.cascade)
    found = lack(Config(64, 256, 8, 4), known, 128, 2, HOPPER)
    assert str(found) == (
        "it takes 393216 bytes of shared memory, 160768 more than the 232448 there are"
    )


def chosen(stage: str, gpu: int | str, config: Config, few: bool = False) -> Chosen:
    return Chosen(stage, gpu, 2, 128, few, config)


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """Causal attention with choices for two GPUs."""
    plan = attnc.load("causal").plan
    name = sweep(plan).name
    choices = (
        chosen(name, 90, Config(128, 128, 8, 2)),
        chosen(name, 90, Config(16, 128, 4, 3), few=True),
        chosen(name, 80, Config(64, 64, 8, 3)),
        chosen(name, "gfx942", Config(64, 32, 4, 1)),
    )
    return load_source(emit(plan, chosen=choices), "causal")


@pytest.mark.parametrize(
    ("gpu", "dtype", "changed", "tiles"),
    [
        (90, "bf16", {}, (128, 128, 8, 2)),
        (90, "bf16", {"m": 3}, (16, 128, 4, 3)),
        (80, "fp16", {}, (64, 64, 8, 3)),
        ("gfx942", "bf16", {}, (64, 32, 4, 1)),
        # what nothing was chosen for is what the rule says
        (100, "bf16", {}, (128, 64, 8, 2)),
        ("gfx90a", "bf16", {}, (128, 64, 8, 2)),
        (90, "fp32", {}, (32, 32, 4, 2)),
        (90, "bf16", {"d": 64, "e": 64}, (128, 64, 8, 2)),
    ],
)
def test_a_module_carries_choices_for_several_gpus(
    module: ModuleType,
    gpu: int | str,
    dtype: str,
    changed: dict[str, int],
    tiles: tuple[int, ...],
) -> None:
    cascade = attnc.load("causal").plan.cascade
    capability = gpu if isinstance(gpu, int) else 0
    (launch,) = find_launches(
        module, cascade, EXTENTS | changed, {}, torch_dtype(dtype), 32, capability, gpu
    )
    blocks = launch.config["BLOCK_M"], launch.config["BLOCK_N"]
    assert (*blocks, launch.num_warps, launch.num_stages) == tiles


def test_a_module_with_choices_runs_where_there_is_no_gpu() -> None:
    made = load_source(module_text(), "causal", interpret=True)
    q, k, v = (torch.randn(1, 2, 9, 16) for _ in range(3))
    found = made.causal(q, k, v)
    expected = attnc.load("causal").reference(q, k, v)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def module_text() -> str:
    plan = attnc.load("causal").plan
    return emit(plan, chosen=[chosen(sweep(plan).name, 90, Config(128, 128, 8, 2))])


def test_the_rule_stays_in_the_module() -> None:
    plan = attnc.load("causal").plan
    plain = emit(plan)
    assert "_CHOSEN" not in plain
    tables = [t[t.index("_TILES = {") : t.index("_KINDS = ")] for t in (plain, module_text())]
    assert tables[1].startswith(tables[0].split("\n\n\n")[0])


def test_a_module_takes_the_sides_of_tiles_that_were_chosen() -> None:
    plan = attnc.load("na2d").plan
    name = sweep(plan).name
    sides = Config(64, 32, 4, 2, shape_m=(16, 4), shape_n=(2, 16))
    choices = [chosen(name, 90, sides), chosen(name, 80, Config(64, 64, 8, 2))]
    module = load_source(emit(plan, chosen=choices), "na2d")
    extents = {"b": 1, "h": 1, "g": 1, "my": 20, "mx": 20, "ny": 20, "nx": 20, "d": 128, "e": 128}
    extents |= {"m": 400, "n": 400}
    found = []
    for gpu in (90, 80):
        (launch,) = find_launches(
            module, plan.cascade, extents, attnc.load("na2d").params, torch_dtype("bf16"), 32, gpu
        )
        blocks = ("BLOCK_M", "BLOCK_MX", "BLOCK_N", "BLOCK_NX")
        found.append(tuple(launch.config[b] for b in blocks))
    assert found == [(64, 4, 32, 16), (64, 8, 64, 8)]


def test_kernels_are_right_with_any_sides() -> None:
    attn = attnc.load("na2d", window=(3, 5))
    name = sweep(attn.plan).name
    sides = Config(16, 16, 4, 2, shape_m=(8, 2), shape_n=(1, 16))
    made = load_source(emit(attn.plan, {name: sides}), "na2d", interpret=True)
    q, k, v = (torch.randn(1, 1, 42, 16) for _ in range(3))
    grid = {"MY": 6, "MX": 7, "NY": 6, "NX": 7}
    found = made.na2d(q, k, v, **grid, **attn.params)
    expected = attn.reference(q, k, v, **grid)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@given(st.integers(1, 5000), st.integers(0, 2000), st.integers(1, 300))
def test_sweeps_are_split_where_programs_leave_idle_what_runs_them(
    programs: int, tiles: int, sms: int
) -> None:
    found = split_counts(programs, tiles, sms)
    assert found == tuple(1 << i for i in range(len(found)))
    assert len(found) == 1 or (programs < sms and found[-1] <= min(tiles, 64))
    # the last but one still leaves some with less than they hold
    assert len(found) == 1 or programs * found[-2] < 4 * sms
    assert programs >= sms or tiles < 2 or len(found) > 1


TWO = """
attention two
input Q[b, h, m, d]
input K[b, h, n, d]
input V[b, h, n, e]
input L[b, h, j, d]
input W[b, h, j, e]
S[b, h, m, n] = sum(d) Q[b, h, m, d] * K[b, h, n, d]
P[b, h, m, n] = softmax(n) S[b, h, m, n]
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h, n, e]
T[b, h, m, j] = sum(d) Q[b, h, m, d] * L[b, h, j, d]
U[b, h, m, j] = softmax(j) T[b, h, m, j]
X[b, h, m, e] = sum(j) U[b, h, m, j] * W[b, h, j, e]
output O[b, h, m, e]
output X[b, h, m, e]
"""


def test_each_kernel_has_its_own_choice() -> None:
    made = plan_of(load_text(TWO))
    first, second = (s.name for s in made.stages)
    assert (first, second) == ("two", "two_2")
    # nothing on the way to an output is stored
    assert [s.outputs for s in made.stages] == [("O",), ("X",)]
    choices = [chosen(first, 90, Config(64, 64, 4, 2)), chosen(second, 90, Config(32, 64, 4, 3))]
    module = load_source(emit(made, chosen=choices), "two")
    extents = {"b": 1, "h": 1, "m": 99, "n": 50, "j": 40, "d": 128, "e": 128}
    launches = find_launches(module, made.cascade, extents, {}, torch_dtype("bf16"), 32, 90)
    tiles = [(x.config["BLOCK_M"], x.num_stages) for x in launches]
    assert tiles == [(64, 2), (32, 3)]


@pytest.mark.parametrize("generosity", [1.0, 1.3])
def test_every_library_kernel_has_candidates_at_common_widths(generosity: float) -> None:
    """Contracted heads (`talking_heads`: 8 x 128 at once) take the last tiles that there are."""
    limits = Limits(255, 65536, 166912, generosity, (2, 3, 4))
    for name in library.names():
        attn = attnc.load(name)
        extents = complete_shape(attn.plan, {}, attn.run_time_params)
        bound = with_joined(attn.plan.cascade, extents)
        for stage in attn.plan.stages:
            if isinstance(stage, SweepStage):
                dims = {r: bound[r] for r in (*stage.inner, *stage.columns)}
                assert candidates(stage, attn.plan.cascade, dims, 2, limits), stage.name
