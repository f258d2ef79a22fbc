"""The oracle in torch: the cascade as written, in any dtype, differentiable.

In float64 it is the truth that kernels and gradients are compared with. In float16, bfloat16 and
float32 it is the straightforward torch evaluation, every intermediate result rounded to that dtype:
what an error is measured against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from attnc.ir.arrays import Array, Arrays, is_scalar
from attnc.ir.cascade import Cascade
from attnc.ir.interpret import interpret

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "bool": torch.bool,
}


def reference(
    cascade: Cascade,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, object] | None = None,
    extents: Mapping[str, int] | None = None,
    dtype: torch.dtype = torch.float64,
    memory_bytes: int = 256 << 20,
) -> dict[str, Tensor]:
    """The outputs by name, in `dtype`, on the tensors' device: see `interpret`."""
    device = next((str(t.device) for t in tensors.values()), "cpu")
    return interpret(
        cascade,
        tensors,
        params=params,
        extents=extents,
        arrays=torch_arrays(device),
        dtype=str(dtype).removeprefix("torch."),
        memory_bytes=memory_bytes,
    )


def _bound(lower: bool) -> Callable[[Tensor, Array], Tensor]:
    def apply(x: Tensor, bound: Array) -> Tensor:
        if is_scalar(bound):
            return x.clamp(min=bound) if lower else x.clamp(max=bound)
        return torch.maximum(x, bound) if lower else torch.minimum(x, bound)

    return apply


def _prod(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True)
    return x


def _softplus(x: Tensor) -> Tensor:
    # torch's own threshold, 20, is too low for float64
    return F.softplus(x, threshold=50.0)


@lru_cache(maxsize=8)
def torch_arrays(device: str) -> Arrays:
    """Torch as the evaluator's array library; new arrays are made on `device`."""

    def full(shape: tuple[int, ...], value: bool | int | float, dtype: str) -> Tensor:
        return torch.full(shape, value, dtype=_DTYPES[dtype], device=device)

    return Arrays(
        name="torch",
        functions={
            "exp": torch.exp,
            "exp2": torch.exp2,
            "log": torch.log,
            "log2": torch.log2,
            "log1p": torch.log1p,
            "sqrt": torch.sqrt,
            "rsqrt": torch.rsqrt,
            "abs": torch.abs,
            "sign": torch.sign,
            "tanh": torch.tanh,
            "sigmoid": torch.sigmoid,
            "softplus": _softplus,
            "relu": torch.relu,
            "silu": F.silu,
            "gelu": F.gelu,
            "erf": torch.erf,
            "sin": torch.sin,
            "cos": torch.cos,
            "stopgrad": torch.detach,
        },
        reductions={
            "sum": lambda x, axes: x.sum(axes, keepdim=True),
            "max": lambda x, axes: x.amax(axes, keepdim=True),
            "min": lambda x, axes: x.amin(axes, keepdim=True),
            "prod": _prod,
            "any": lambda x, axes: x.any(axes, keepdim=True),
            "all": lambda x, axes: x.all(axes, keepdim=True),
        },
        asarray=lambda x, dtype: torch.as_tensor(x, dtype=_DTYPES[dtype], device=device),
        arange=lambda low, high: torch.arange(low, high, device=device),
        full=full,
        zeros_like=lambda x, shape: x.new_zeros(shape),
        where=torch.where,
        minimum=_bound(lower=False),
        maximum=_bound(lower=True),
        permute=lambda x, axes: x.permute(*axes),
        broadcast=torch.broadcast_to,
        concat=lambda parts, axis: torch.cat(list(parts), axis),
        contiguous=lambda x: x.contiguous(),
        argsort=lambda x, axis: torch.argsort(x, dim=axis, stable=True),
        take=lambda x, index, axis: x.index_select(axis, index),
        take_along=torch.take_along_dim,
        cumsum=lambda x, axis: torch.cumsum(x, axis),
        is_float=lambda x: bool(x.is_floating_point()),
        all_finite=lambda x: bool(torch.isfinite(x).all()),
        tracked=lambda x: torch.is_grad_enabled() and x.requires_grad,
        quiet=nullcontext,
    )


TORCH = torch_arrays("cpu")
