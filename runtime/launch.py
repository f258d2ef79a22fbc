"""Run a plan on tensors: on a GPU the emitted module's kernels, on the CPU the engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attnc.errors import AttncError
from attnc.ir.cascade import Cascade
from attnc.ir.frame import ParamValue
from attnc.ir.plan import Plan
from attnc.runtime.execute import execute

Tensors: TypeAlias = Mapping[str, Tensor]
Compute: TypeAlias = Callable[[Tensors], dict[str, Tensor]]


def run(
    plan: Plan,
    module: Callable[[], ModuleType],
    tensors: Tensors,
    params: Mapping[str, ParamValue],
    extents: Mapping[str, int],
) -> dict[str, Tensor]:
    """The outputs by name, in the inputs' dtype. `module` gives the emitted module, asked on a GPU.

    `params` and `extents` are complete (`attnc.ir.bind`). Where an input requires a gradient the
    outputs do, too; asking for it raises AttncError E515, since none is derived.
    """
    device = next((x.device.type for x in tensors.values()), "cpu")
    compute: Compute
    if device == "cpu":
        compute = partial(_on_cpu, plan, params, extents)
    else:
        compute = partial(call_module, module(), plan.cascade, params=params, extents=extents)
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors.values())):
        return compute(tensors)
    cascade = plan.cascade
    found = _WithoutGradient.apply(compute, cascade, tuple(tensors), *tensors.values())  # type: ignore[no-untyped-call]
    return dict(zip(cascade.outputs, found, strict=True))


def _on_cpu(
    plan: Plan,
    params: Mapping[str, ParamValue],
    extents: Mapping[str, int],
    tensors: Tensors,
) -> dict[str, Tensor]:
    return execute(plan, tensors, params, extents)


def call_module(
    module: ModuleType,
    cascade: Cascade,
    tensors: Tensors,
    *,
    params: Mapping[str, ParamValue],
    extents: Mapping[str, int],
) -> dict[str, Tensor]:
    """The outputs of an emitted module's function by name.

    It takes the inputs in the spec's order; by keyword the extents that no tensor tells, called as
    the spec does, then the params in the spec's order.
    """
    function = public_function(module)
    taken = list(inspect.signature(function).parameters)[len(cascade.inputs) :]
    first = len(taken) - len(cascade.params)
    names = {r.extent_name: r.name for r in cascade.ranks}
    sizes = (extents[names[name.removesuffix("_extent")]] for name in taken[:first])
    options = (*sizes, *(params[p.name] for p in cascade.params))
    arguments = (tensors[t.name] for t in cascade.inputs)
    found = function(*arguments, **dict(zip(taken, options, strict=True)))
    outputs = found if isinstance(found, tuple) else (found,)
    return dict(zip(cascade.outputs, outputs, strict=True))


def public_function(module: ModuleType) -> Callable[..., Any]:
    """What an emitted module is there for: the last function in it."""
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, FunctionType) and value.__module__ == module.__name__
    ]
    return own[-1]


class _WithoutGradient(torch.autograd.Function):
    """Keeps the graph connected, so that a missing gradient is an error and not silently zero."""

    @staticmethod
    def forward(
        ctx: Any, compute: Compute, cascade: Cascade, names: tuple[str, ...], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.name = cascade.name
        found = compute(dict(zip(names, tensors, strict=True)))
        outputs = tuple(found[t] for t in cascade.outputs)
        ctx.mark_non_differentiable(*(x for x in outputs if not x.is_floating_point()))
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise AttncError(
            "E515",
            f"the gradient of `{ctx.name}` is not derived yet",
            hint="`.reference(...)` can be differentiated",
        )
