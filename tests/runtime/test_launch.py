"""What a call does: it computes, it keeps the graph, and it does not invent gradients."""

from __future__ import annotations

from types import ModuleType
from typing import NoReturn

import pytest
import torch
from torch import Tensor

from attnc.api import load
from attnc.codegen import emit
from attnc.errors import AttncError
from attnc.ir.bind import bind_extents
from attnc.runtime.launch import call_module, public_function, run
from attnc.runtime.modules import load_source
from attnc.runtime.reference import reference

SHAPES = {"Q": (1, 4, 9, 16), "K": (1, 2, 11, 16), "V": (1, 2, 11, 8)}


def tensors(requires_grad: bool = False) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=random).requires_grad_(requires_grad)
        for name, shape in SHAPES.items()
    }


def unused() -> NoReturn:
    raise AssertionError("CPU tensors need no module")


def test_missing_gradient_is_an_error_and_not_zero() -> None:
    plan = load("lse").plan
    extents = bind_extents(plan.cascade, SHAPES, {})
    found = run(plan, unused, tensors(requires_grad=True), {}, extents)
    assert found["O"].requires_grad and found["LSE"].requires_grad
    with pytest.raises(AttncError) as e:
        found["O"].sum().backward()  # type: ignore[no-untyped-call]
    assert e.value.code == "E515"
    wanted = reference(plan.cascade, tensors())
    torch.testing.assert_close(found["O"], wanted["O"].float(), rtol=1e-5, atol=1e-6)


def test_without_gradients_nothing_special_happens() -> None:
    plan = load("lse").plan
    extents = bind_extents(plan.cascade, SHAPES, {})
    with torch.no_grad():
        found = run(plan, unused, tensors(requires_grad=True), {}, extents)
    assert not found["O"].requires_grad
    assert not run(plan, unused, tensors(), {}, extents)["O"].requires_grad


def module_of(name: str) -> ModuleType:
    return load_source(emit(load(name).plan), name, interpret=True)


def test_modules_get_params_and_extents_by_their_own_names() -> None:
    attention = load("sliding_window")
    plan, module = attention.plan, module_of("sliding_window")
    assert public_function(module).__name__ == "sliding_window"
    extents = bind_extents(plan.cascade, SHAPES, {})
    params = {"window": 3}
    found = call_module(module, plan.cascade, tensors(), params=params, extents=extents)
    wanted = reference(plan.cascade, tensors(), params)["O"]
    torch.testing.assert_close(found["O"], wanted.float(), rtol=1e-5, atol=1e-6)


def test_modules_get_extents_that_no_tensor_tells() -> None:
    plan, module = load("gpsa").plan, module_of("gpsa")
    random = torch.Generator().manual_seed(0)
    grids = {"MY": 3, "MX": 3, "NY": 1, "NX": 11}
    inputs = {
        t.name: tensors()[t.name]
        if t.name in SHAPES
        else torch.randn([4] * len(t.ranks), generator=random)
        for t in plan.cascade.inputs
    }
    shapes = {name: tuple(x.shape) for name, x in inputs.items()}
    extents = bind_extents(plan.cascade, shapes, grids)
    found = call_module(module, plan.cascade, inputs, params={}, extents=extents)
    wanted = reference(plan.cascade, inputs, extents=grids)["O"]
    torch.testing.assert_close(found["O"], wanted.float(), rtol=1e-5, atol=1e-6)
