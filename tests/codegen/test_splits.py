"""Sweeps split over programs, and merged: modules against float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attnc import library
from attnc.codegen import Config, emit
from attnc.codegen.config import Chosen
from attnc.codegen.scope import Scope
from attnc.codegen.visits import Share
from attnc.dsl import load_text
from attnc.ir.build_plan import sweeps
from attnc.ir.cascade import Cascade
from attnc.ir.interpret import interpret
from attnc.ir.pipeline import plan
from attnc.ir.plan import Plan
from attnc.ir.split_sweep import split_sweep
from attnc.runtime.compile_pool import Job, compile_many
from attnc.runtime.launches import find_launches
from attnc.runtime.machine_code import CompiledKernel
from attnc.runtime.modules import load_source
from attnc.runtime.targets import load_target

SMALL = Config(block_m=16, block_n=16, num_warps=4, num_stages=2)
QK = """
input Q[b, h, m, d]
input K[b, h, n, d]
S[b, h, m, n] = (sum(d) Q[b, h, m, d] * K[b, h, n, d]){rest}
"""
# Of the rows of a tile some see nothing, others nothing in some parts.
HOLES = f"""attention holes
input V[b, h, n, e]
input tau[m]
{QK.format(rest=" * tau[m]")}
L[b, h, m] = logsumexp(n) S[b, h, m, n]  where n < m - 3 and n % 3 != 1
W[b, h, m, n] = exp(S[b, h, m, n] - L[b, h, m])  where n < m - 3 and n % 3 != 1
O[b, h, m, e] = sum(n) W[b, h, m, n] * V[b, h, n, e]
output O[b, h, m, e], L[b, h, m]
"""
FLAGS = f"""attention flags
{QK.format(rest="")}
A[b, h, m] = max(n) S[b, h, m, n]  where n < m + 30
C[b, h, m] = any(n) S[b, h, m, n] > 9.0
E2[b, h, m] = all(n) S[b, h, m, n] > -9.0
P[b, h, m] = prod(n) tanh(S[b, h, m, n])
I[b, h, m] = min(n) S[b, h, m, n]
O[b, h, m] = if C[b, h, m] and not E2[b, h, m] then I[b, h, m] else P[b, h, m]
output O[b, h, m], A[b, h, m]
"""
GRIDS = f"""attention grids
rank m = (my, mx)
rank n = (ny, nx)
input V[b, h, n, e]
input row[my]
{QK.format(rest="")}
P[b, h, m, n] = softmax(n) S[b, h, m, n]  where ny <= my + 1
O[b, h, m, e] = row[my] * (sum(n) P[b, h, m, n] * V[b, h, n, e])
output O[b, h, m, e]
"""
ONE_ROW = """attention one_row
input Q[b, d]
input K[b, n, d]
input V[b, n, e]
P[b, n] = softmax(n) (sum(d) Q[b, d] * K[b, n, d])
O[b, e] = sum(n) P[b, n] * V[b, n, e]
output O[b, e]
"""
# Extents beside the usual ones, then how many parts are asked for, then params.
CASES: dict[str, tuple[str, dict[str, int], int, dict[str, int]]] = {
    "one row": ("sdpa", {"n": 70}, 3, {}),
    "two parts and a ragged end": ("sdpa", {"m": 20, "n": 45}, 2, {}),
    "more parts than tiles": ("sdpa", {"n": 5}, 7, {}),
    "no keys": ("sdpa", {"m": 2, "n": 0}, 3, {}),
    "shared heads": ("gqa", {"b": 2, "h": 2, "n": 50}, 3, {}),
    "parts without a tile": ("sliding_window", {"m": 37, "n": 37}, 3, {"window": 3}),
    "lists": ("document", {"m": 37, "n": 37}, 2, {}),
    "two outputs": ("lse", {"m": 5, "n": 50}, 4, {}),
    "no base": ("sigmoid", {"m": 20, "n": 40}, 3, {}),
    "a function of scores": ("softcap", {"n": 40}, 3, {}),
    "a bias of places": ("alibi", {"m": 3, "n": 33}, 2, {}),
    "a base with a tensor": ("sink_logit", {"m": 18, "n": 33}, 3, {}),
    "two sums of columns": ("multi_value", {"n": 40, "f": 8}, 3, {}),
    "rows that see nothing": (HOLES, {"m": 20, "n": 40}, 3, {}),
    "other reductions": (FLAGS, {"m": 3, "n": 40}, 3, {}),
    "components of rows": (GRIDS, {"m": 6, "my": 2, "n": 36}, 2, {"MX": 3, "NY": 6, "NX": 6}),
    "no rows": (ONE_ROW, {"n": 40}, 3, {}),
}


def _inputs(cascade: Cascade, extents: dict[str, int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    found = {}
    for t in cascade.inputs:
        shape = [extents[r] for r in t.ranks]
        if t.dtype == "int":
            found[t.name] = torch.randint(0, 3, shape, generator=generator).sort().values
        else:
            found[t.name] = 2 * torch.randn(shape, generator=generator)
    return found


def _check(
    module: ModuleType, made: Plan, extents: dict[str, int], options: dict[str, int]
) -> None:
    cascade = made.written
    tensors = _inputs(cascade, extents)
    got = getattr(module, module.__all__[0])(*tensors.values(), **options)
    known = {
        name: np.asarray(x.double() if x.is_floating_point() else x) for name, x in tensors.items()
    }
    params = {k: v for k, v in options.items() if not k.isupper()}
    sizes = {k: v for k, v in options.items() if k.isupper()}
    wanted = interpret(cascade, known, params=params, extents=sizes)
    for name, x in zip(cascade.outputs, got if isinstance(got, tuple) else (got,), strict=True):
        exact = torch.tensor(np.asarray(wanted[name]))
        torch.testing.assert_close(x.double(), exact, rtol=2e-4, atol=2e-5)


def _plan(spec: str) -> Plan:
    return plan(load_text(spec if "\n" in spec else library.text(spec)))


@pytest.mark.parametrize("case", CASES)
def test_parts_give_what_the_whole_gives(case: str) -> None:
    spec, own, splits, options = CASES[case]
    made = _plan(spec)
    text = emit(made, {s.name: replace(SMALL, splits=splits) for s in made.stages})
    extents = {"b": 1, "h": 1, "g": 1, "m": 1, "d": 12, "e": 20} | own
    _check(load_source(text, made.cascade.name, interpret=True), made, extents, options)


def test_a_module_splits_where_that_was_chosen() -> None:
    made = _plan("causal")
    (stage,) = made.stages
    chosen = [
        Chosen(stage.name, 0, 4, 32, few, replace(SMALL, splits=3 if few else 1))
        for few in (False, True)
    ]
    text = emit(made, chosen=chosen)
    assert "if PART > 1:" in text and "local-then-fix" in text
    module = load_source(text, made.cascade.name, interpret=True)
    calls: list[str] = []
    for name in ("causal_kernel", "causal_parts_kernel", "causal_merge_kernel"):
        _note(module, name, calls)
    extents = {"b": 1, "h": 1, "g": 1, "d": 12, "e": 20}
    for rows, keys in ((3, 40), (20, 20), (3, 16)):
        _check(module, made, extents | {"m": rows, "n": keys}, {})
    # few rows; many; few, but a single tile of keys
    assert calls == ["causal_parts_kernel", "causal_merge_kernel", "causal_kernel", "causal_kernel"]
    vars(module).update(_are_few=lambda programs: programs > 1)
    _check(module, made, extents | {"m": 3, "n": 40}, {})
    assert calls[4:] == ["causal_kernel"]


def _note(module: ModuleType, name: str, calls: list[str]) -> None:
    """Makes a module's kernel append its name to `calls` when it is launched."""
    kernel = getattr(module, name)

    class Noted:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., object]:
            calls.append(name)
            launch: Callable[..., object] = kernel[grid]
            return launch

    setattr(module, name, Noted())


@pytest.mark.parametrize("spec", ["gqa", "prefix_lm"])
def test_parts_load_boxes_too(spec: str) -> None:
    """Their states go to tensors with one more axis, some without a feature."""
    made = _plan(spec)
    config = replace(SMALL, splits=3, descriptors=True)
    text = emit(made, {s.name: config for s in made.stages})
    module = load_source(text, made.cascade.name, interpret=True)
    vars(module).update(_describable=lambda *_: True)
    calls: list[str] = []
    for name in (f"{spec}_parts_kernel", f"{spec}_parts_descriptor_kernel"):
        _note(module, name, calls)
    extents = {"b": 1, "h": 2, "g": 1, "m": 20, "n": 37, "d": 16, "e": 16}
    _check(module, made, extents, {})
    assert calls == [f"{spec}_parts_descriptor_kernel"]


@cache
def _share() -> Share:
    made = _plan("sdpa")
    (stage,) = sweeps(made)
    split = split_sweep(stage, made.cascade)
    assert split is not None
    return Share.of(Scope(split.cascade, split.partial, {}), "BLOCK_N")


class _Part(int):
    """A program's coordinate in emitted code that Python runs."""

    def to(self, _: object) -> int:
        return int(self)


@given(
    start=st.integers(0, 9), tiles=st.integers(0, 40), parts=st.integers(1, 9), second=st.booleans()
)
def test_parts_take_turns(start: int, tiles: int, parts: int, second: bool) -> None:
    """Each tile of a range is one part's, wherever the range lies; no part has two tiles more."""
    share = _share()
    span = (share.second if second else share.first)("start", "stop")
    names = {"PART": parts, "BLOCK_N": 16, "start": 16 * start, "stop": 16 * (start + tiles) - 3}
    taken = []
    for i in range(parts):
        known = {"part": _Part(i), "tl": SimpleNamespace(int32=None), **names}
        exec("\n".join((*share.setup, *share.back)), known)
        taken.append([*eval(f"range({span})", known)])
    assert sorted(x for own in taken for x in own) == [16 * (start + i) for i in range(tiles)]
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("target", ["a100", "h100", "b200", "mi300x"])
def test_a_split_decode_step_does_not_spill(target: str, tmp_path: Path) -> None:
    made = _plan("gqa")
    config = Config(block_m=16, block_n=64, num_warps=4, num_stages=2, splits=8)
    text = emit(made, {s.name: config for s in made.stages})
    path = tmp_path / "module.py"
    path.write_text(text)
    gpu = load_target(target)
    extents = {"b": 1, "h": 32, "g": 8, "m": 1, "n": 65536, "d": 128, "e": 128}
    launches = find_launches(
        load_source(text, made.cascade.name, interpret=False),
        made.cascade, extents, {}, torch.bfloat16, gpu.warp_size,
    )  # fmt: skip
    assert [x.programs for x in launches] == [256, 32]
    jobs = [Job(str(path), x.kernel, x.arguments, gpu, x.num_warps, x.num_stages) for x in launches]
    for compiled in compile_many(jobs):
        assert isinstance(compiled, CompiledKernel), compiled
        assert compiled.resources.spills == 0
