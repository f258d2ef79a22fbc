"""Kernels that load boxes by tensor descriptors: which tiles, for which calls, and right results.

On a GPU from Hopper on, the same modules are verified by `attnc verify`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attnc import library
from attnc.codegen import Config, emit
from attnc.codegen.config import Chosen
from attnc.dsl import load_text
from attnc.ir.pipeline import plan
from attnc.ir.plan import Plan, SweepStage
from attnc.runtime.compile_pool import Job, compile_many
from attnc.runtime.launches import Launch, find_launches
from attnc.runtime.machine_code import CompiledKernel, machine_code, specialise
from attnc.runtime.modules import load_module, load_source
from attnc.runtime.reference import reference
from attnc.runtime.targets import load_target
from attnc.runtime.verify import verify

SMALL = Config(block_m=16, block_n=16, num_warps=4, num_stages=2, descriptors=True)
LARGE = Config(block_m=128, block_n=64, num_warps=8, num_stages=2, descriptors=True)
GOLDEN = Path(__file__).parents[1] / "golden" / "descriptors"
QKV = "input Q[b, h, m, d]\ninput K[b, h, n, d]\ninput V[b, h, n, e]\n"
REST = """P[b, h, m, n] = softmax(n) S[b, h, m, n]
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h, n, e]
output O[b, h, m, e]
"""


@cache
def _planned(spec: str) -> Plan:
    return plan(load_text(spec if "\n" in spec else library.text(spec)))


@cache
def _source(spec: str, config: Config) -> str:
    made = _planned(spec)
    return emit(made, {s.name: config for s in made.stages if isinstance(s, SweepStage)})


def _module(spec: str, config: Config = SMALL, *, interpret: bool = True) -> ModuleType:
    return load_source(_source(spec, config), _planned(spec).cascade.name, interpret=interpret)


def _kernel_text(spec: str) -> str:
    """The kernel that loads boxes; \"\" if there is none."""
    text = _source(spec, SMALL)
    found = re.search(r"def \w+_descriptor_kernel\(.*?(?=\n\n\n)", text, re.DOTALL)
    return found[0] if found else ""


def _launches(spec: str, extents: Mapping[str, int], capability: int = 90, **params: object) -> str:
    """The names of the kernels that a call would launch."""
    module = _module(spec, LARGE, interpret=False)
    cascade = _planned(spec).cascade
    given = {p.name: p.default for p in cascade.params if p.default is not None} | params
    dtype = torch.bfloat16
    found = find_launches(module, cascade, extents, given, dtype, capability=capability)  # type: ignore[arg-type]
    return " ".join(x.kernel for x in found)


def test_module(golden: Callable[[str, Path], None]) -> None:
    golden(_source("sliding_window", LARGE), GOLDEN / "sliding_window.py")


# which tiles are boxes ---------------------------------------------------------------------------


def test_loads_of_boxes_need_neither_pointers_nor_masks() -> None:
    text = _kernel_text("sdpa")
    assert "K_tiles.load([b, g, n0, 0]).reshape(BLOCK_N, BLOCK_D).T" in text
    assert "V_tiles.load([b, g, n0, e0])" in text
    assert "O_tiles.store([b, h, m0, e0]" in text
    assert not re.search(r"tl\.load|tl\.store|stride|mask=|int64", text)


def test_vectors_stay_pointer_loads() -> None:
    text = _kernel_text("alibi")
    assert "tl.load(slope + " in text
    assert "K_tiles.load(" in text


def test_a_tile_over_rows_and_keys_is_a_box() -> None:
    assert "bias_tiles.load([h, m0, n0])" in _kernel_text("additive_bias")


@pytest.mark.parametrize(
    ("declared", "score"),
    [
        ("input at[b, n]: int\n", "sum(d) Q[b, h, m, d] * K[b, h, at[b, n], d]"),
        ("", "sum(d) Q[b, h, m, d] * K[b, h, max(n - 1, 0), d]"),
    ],
)
def test_gathered_tiles_are_no_boxes(declared: str, score: str) -> None:
    spec = f"attention gathered\n{declared}{QKV}S[b, h, m, n] = {score}\n{REST}"
    text = _kernel_text(spec)
    assert "K_tiles" not in text
    assert "V_tiles.load(" in text


def test_a_tile_of_a_plane_is_a_box_of_it() -> None:
    text = _kernel_text("na2d")
    assert "K_tiles.load([b, g, ny0, nx0, 0]).reshape(BLOCK_N, BLOCK_D).T" in text
    source = _source("na2d", SMALL)
    assert "_descriptor(K.unflatten(2, (NY, NX)), BLOCK_NY, BLOCK_NX, BLOCK_D)" in source


def test_six_axes_are_five_where_two_can_be_merged() -> None:
    assert "K_tiles.load([b * G + g, nt0, ny0, nx0, 0])" in _kernel_text("na3d")


def test_starts_that_may_have_64_bits_are_cut_to_32() -> None:
    assert "[b, g, tl.cast(n0, tl.int32), 0]" in _kernel_text("sliding_window")


def test_without_a_box_there_is_no_second_kernel() -> None:
    spec = "attention sums\ninput X[m, n]: bool\nO[m] = sum(n) (if X[m, n] then 1.0 else 0.0)\n"
    assert not _kernel_text(spec + "output O[m]\n")


# which calls use them ----------------------------------------------------------------------------

SHAPE = {"b": 1, "h": 4, "g": 2, "m": 300, "n": 300, "d": 64, "e": 64}
PLANE = SHAPE | {"my": 15, "mx": 20, "ny": 15, "nx": 20}


@pytest.mark.parametrize(
    ("spec", "change", "boxes"),
    [
        ("sdpa", {}, True),
        ("sdpa", {"capability": 80}, False),
        ("sdpa", {"capability": 0}, False),
        ("sdpa", {"d": 72}, True),
        # rows of 40 bytes
        ("sdpa", {"d": 20}, False),
        ("sdpa", {"n": 0}, False),
        ("sliding_window", {"window": 2**40}, True),
        ("na2d", {}, True),
        ("na2d", {"dilation": (2, 2)}, False),
        ("na3d", {"mt": 3, "my": 10, "mx": 10, "nt": 3, "ny": 10, "nx": 10}, True),
    ],
)
def test_a_call_uses_them_where_the_gpu_and_the_tensors_allow_it(
    spec: str, change: dict[str, object], boxes: bool
) -> None:
    names = {r.name for r in _planned(spec).cascade.ranks}
    extents = {k: v for k, v in (PLANE | change).items() if k in names}
    params = {k: v for k, v in change.items() if k not in names}
    kernels = _launches(spec, extents, **params)  # type: ignore[arg-type]
    assert ("descriptor" in kernels) == boxes


def test_a_module_that_chooses_by_gpu_takes_them_where_they_were_chosen() -> None:
    made = _planned("sdpa")
    (stage,) = (s.name for s in made.stages if isinstance(s, SweepStage))
    plain = replace(LARGE, descriptors=False)
    chosen = [Chosen(stage, g, 2, 64, False, c) for g, c in ((90, LARGE), (100, plain))]
    module = load_source(emit(made, chosen=chosen), "sdpa")
    for capability, name in ((90, "sdpa_descriptor_kernel"), (100, "sdpa_kernel")):
        (found,) = find_launches(
            module, made.cascade, SHAPE, {}, torch.bfloat16, capability=capability
        )
        assert found.kernel == name
        assert found.config["BLOCK_M"] == 128


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=5),
    st.lists(st.sampled_from((0, 1, 2, 4, 8, 16, 24, 64)), min_size=5, max_size=5),
    st.integers(0, 9),
)
def test_what_is_called_describable_is(shape: list[int], strides: list[int], start: int) -> None:
    module = _module("sdpa")
    memory = torch.zeros(2000, dtype=torch.float16)
    tensor = torch.as_strided(memory, shape, strides[: len(shape)], start)
    rows = [2 * s for s in tensor.stride()[:-1]]
    aligned = (memory.data_ptr() + 2 * start) % 16 == 0 and all(s % 16 == 0 < s for s in rows)
    fits = aligned and tensor.stride(-1) == 1 and tensor.numel() > 0
    assert module._describable(tensor) == fits
    if fits:
        module._descriptor(tensor, *[8] * tensor.dim())  # Triton checks it again


# right results -----------------------------------------------------------------------------------


def _used(spec: str, config: Config = SMALL) -> tuple[ModuleType, list[bool]]:
    """A module, and what its calls will find out about their tensors."""
    module = _module(spec, config)
    found: list[bool] = []
    known = module._describable

    def describable(*tensors: Tensor) -> bool:
        found.append(known(*tensors))
        return found[-1]

    vars(module)["_describable"] = describable
    return module, found


CASES = ("one row", "no key", "one key", "large scores", "hidden")


@pytest.mark.parametrize("spec", ["sliding_window", "differential", "additive_bias"])
def test_awkward_shapes(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, used = _used(spec)
    monkeypatch.setattr("attnc.runtime.verify.load_source", lambda *_, **__: module)
    report = verify(_planned(spec), str, dtype=torch.bfloat16, backend="interpreter", cases=CASES)
    assert report.ok, str(report)
    assert True in used and False in used


@pytest.mark.parametrize(
    ("shape", "boxes"),
    [
        ({"b": 2, "h": 4, "g": 2, "m": 33, "n": 50, "d": 72, "e": 96}, True),
        ({"b": 1, "h": 2, "g": 1, "m": 1, "n": 17, "d": 96, "e": 16}, True),
        ({"b": 1, "h": 1, "g": 1, "m": 5, "n": 1, "d": 16, "e": 40}, True),
        ({"b": 1, "h": 1, "g": 1, "m": 18, "n": 20, "d": 20, "e": 20}, False),
    ],
)
def test_feature_ranks_that_do_not_fill_a_block(shape: dict[str, int], boxes: bool) -> None:
    module, used = _used("sdpa")
    q, k, v = _inputs(shape)
    _close(module.sdpa(q, k, v), q, k, v)
    assert used[-1] == boxes


Move = Callable[[Tensor], Tensor]
MOVES: dict[str, tuple[Move, bool]] = {
    "heads inside": (lambda x: x.transpose(1, 2).contiguous().transpose(1, 2), True),
    "every second token": (lambda x: x.repeat_interleave(2, 2)[:, :, ::2], True),
    "features first": (lambda x: x.mT.contiguous().mT, False),
    "from the second feature on": (lambda x: torch.cat([x[..., :1], x], -1)[..., 1:], False),
    "one head for all": (lambda x: x[:, :1].expand_as(x), False),
}


@pytest.mark.parametrize("name", MOVES)
def test_strided_inputs(name: str) -> None:
    move, boxes = MOVES[name]
    module, used = _used("sdpa")
    q, k, v = _inputs({"b": 2, "h": 2, "g": 2, "m": 20, "n": 35, "d": 32, "e": 32})
    k, v = move(k), move(v)
    _close(module.sdpa(q, k, v), q, k, v)
    assert used[-1] == boxes


@pytest.mark.parametrize("permuted", [False, True])
def test_a_plane_without_and_with_dilation(permuted: bool) -> None:
    module, used = _used("na2d", replace(SMALL, permuted=permuted))
    extents = {"m": 63, "n": 63, "b": 1, "h": 1, "g": 1, "d": 16, "e": 16}
    q, k, v = _inputs(extents)
    for d in (1, 2):
        params = {"window": (3, 3), "stride": (1, 1), "dilation": (d, d), "causal": (False, False)}
        sizes = {"MY": 7, "MX": 9, "NY": 7, "NX": 9}
        got = module.na2d(q, k, v, **sizes, **params)
        tensors = {"Q": q, "K": k, "V": v}
        wanted = reference(_planned("na2d").cascade, tensors, params=params, extents=sizes)["O"]
        torch.testing.assert_close(got.double(), wanted, rtol=2e-2, atol=2e-2)
    # with dilation it is the tiles that do not allow it, unless tokens are put in their order
    assert used == [True, True]


def _inputs(shape: Mapping[str, int]) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    axes = ("bhmd", "bgnd", "bgne")
    made = [torch.randn([shape[r] for r in a], generator=generator) for a in axes]
    q, k, v = (x.bfloat16() for x in made)
    return q, k, v


def _close(got: Tensor, q: Tensor, k: Tensor, v: Tensor) -> None:
    q, k, v = (x.double() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    torch.testing.assert_close(got.double(), weights @ v, rtol=2e-2, atol=2e-2)


# machine code ------------------------------------------------------------------------------------


def test_a_descriptor_is_specialised_by_its_type_and_its_box() -> None:
    module = _module("sdpa", LARGE, interpret=False)
    cascade = _planned("sdpa").cascade
    (launch,) = find_launches(module, cascade, SHAPE, {}, torch.bfloat16, capability=90)
    special = specialise(module.sdpa_descriptor_kernel, launch.arguments, load_target("h100"))
    assert special.signature["K_tiles"] == "tensordesc<bf16[1, 1, 64, 64]>"
    assert special.signature["O_tiles"] == "tensordesc<bf16[1, 1, 128, 64]>"


@pytest.mark.slow
def test_hopper_copies_tiles_by_itself(tmp_path: Path) -> None:
    jobs = [_job(tmp_path, x) for x in (LARGE, replace(LARGE, descriptors=False))]
    boxes, pointers = compile_many(jobs, processes=1)
    assert isinstance(boxes, CompiledKernel) and isinstance(pointers, CompiledKernel)
    assert "UTMALDG" in machine_code(boxes)
    assert "LDGSTS" not in machine_code(boxes)
    assert boxes.resources.spills == 0
    assert boxes.resources.registers < pointers.resources.registers


def _job(folder: Path, config: Config) -> Job:
    path = folder / f"sdpa_{config.descriptors}.py"
    path.write_text(_source("sdpa", config))
    extents = {"b": 1, "h": 8, "g": 8, "m": 1024, "n": 1024, "d": 128, "e": 128}
    launch: Launch
    (launch,) = find_launches(
        load_module(path), _planned("sdpa").cascade, extents, {}, torch.bfloat16, capability=90
    )
    return Job(
        str(path),
        launch.kernel,
        launch.arguments,
        load_target("h100"),
        launch.num_warps,
        launch.num_stages,
        launch.maxnreg,
    )
