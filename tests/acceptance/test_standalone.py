"""Every emitted module runs where there is no attnc, and computes its paper's formula."""

from __future__ import annotations

import os
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest
import torch
from torch import Tensor

import attnc
from attnc.codegen import emit
from attnc.errors import AttncError
from attnc.library import names
from attnc.runtime.cases import draw, make_cases, small_params
from tests.references import reference

FAST = ("causal", "lse", "relu_l1")
# Extents of the others' heads: one group of two, in each of two batches.
FEW = {"h": 2, "g": 1}

# What a user would write around a module, in a process that cannot import attnc.
DRIVER = """
import importlib.util, inspect, pathlib, sys
sys.modules["attnc"] = None
import torch
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    spec = importlib.util.spec_from_file_location(folder.name, folder / f"{folder.name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (public,) = module.__all__
    function = getattr(module, public)
    call = torch.load(folder / "call.pt")
    options = list(inspect.signature(function).parameters)[len(call["tensors"]):]
    found = function(*call["tensors"], **{o: call["options"][o] for o in options})
    torch.save(found if isinstance(found, tuple) else (found,), folder / "found.pt")
    assert not any(name.startswith("attnc.") for name in sys.modules)
"""


def prepare(name: str, folder: Path) -> dict[str, Tensor] | None:
    """Write a module and a call of it; gives what the paper's formula says, by output.

    `FAST` ones are called with groups of several heads, the others with few heads. None for a spec
    that is not lowered yet.
    """
    attention = attnc.load(name)
    try:
        plan = attention.plan
    except AttncError as e:
        assert e.code == "E901"
        return None
    params = small_params(plan, {}, attention.run_time_params)
    few = {} if name in FAST else FEW
    heads = {r.name: few[r.name] for r in plan.written.ranks if r.name in few}
    case = make_cases(plan, params, heads)[0]
    inputs = draw(plan, case, torch.float32, seed=1)
    sizes = {rank.upper(): n for rank, n in case.extents.items()}
    folder.mkdir()
    (folder / f"{name}.py").write_text(emit(plan), encoding="utf-8")
    tensors = [inputs[t.name] for t in attention.cascade.inputs]
    options: dict[str, object] = {**sizes, **params}
    torch.save({"tensors": tensors, "options": options}, folder / "call.pt")
    exact = {n: x.double() if x.is_floating_point() else x for n, x in inputs.items()}
    return reference(name)(exact, {**sizes, **attention.params, **params})


def run_alone(chosen: tuple[str, ...], folder: Path) -> None:
    want = {name: prepare(name, folder / name) for name in chosen}
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", DRIVER, str(folder)],
        cwd=folder,
        env={**env, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name, outputs in want.items():
        if outputs is None:
            continue
        found = torch.load(folder / name / "found.pt")
        for x, (output, exact) in zip(found, outputs.items(), strict=True):
            finite = exact[exact.isfinite()]
            size = float(finite.abs().max()) if finite.numel() else 1.0
            error = (x.double() - exact).nan_to_num(0.0, posinf=inf, neginf=-inf).abs()
            assert x.isnan().sum() == exact.isnan().sum(), f"{name}.{output}"
            assert float(error.max()) <= 3e-5 * max(size, 1e-3), f"{name}.{output}"


def test_modules_run_alone(tmp_path: Path) -> None:
    run_alone(FAST, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_every_module_runs_alone(part: int, tmp_path: Path) -> None:
    run_alone(tuple(n for n in names() if n not in FAST)[part::3], tmp_path)
