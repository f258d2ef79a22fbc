"""What an emitted module would launch for given shapes, found without a GPU and without memory.

The module's own launcher runs on tensors of torch's `meta` device, which have shapes and strides
but no storage, with its kernels replaced by recorders. So tiles, grids and specialisations are
exactly those of a real call, whatever the launcher computes on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import FunctionType, ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

from attnc.errors import AttncError
from attnc.ir.cascade import Cascade
from attnc.ir.frame import ParamValue
from attnc.runtime.launch import call_module
from attnc.runtime.machine_code import Argument, Descriptor, Pointer

# What Triton takes as options of a launch, not as arguments of a kernel.
_OPTIONS = ("num_warps", "num_stages", "maxnreg")
_LARGE_BYTES = 2**31
# A module's axes: each has a `length` and a `tile`.
Axes: TypeAlias = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch: its arguments as the compiler sees them, grid, warps and pipeline stages.

    `maxnreg` is the most registers that ptxas may give a thread (None: its own choice).
    `config` are the constants among the arguments: tile sizes and feature extents.
    """

    kernel: str
    arguments: Mapping[str, Argument]
    config: Mapping[str, int]
    programs: int
    num_warps: int
    num_stages: int
    maxnreg: int | None = None


def find_launches(
    module: ModuleType,
    cascade: Cascade,
    extents: Mapping[str, int],
    params: Mapping[str, ParamValue],
    dtype: torch.dtype,
    warp_size: int = 32,
    capability: int = 0,
    gpu: int | str | None = None,
) -> tuple[Launch, ...]:
    """The launches of one call, in order; float inputs are contiguous and of type `dtype`.

    `warp_size`, `capability`: those of the GPU they are for (the latter as 90 for Hopper, 0 for
    AMD), on which a launch's options depend; `gpu`: its architecture (90, "gfx942"), for which a
    module may have tiles of its own. Raises AttncError E505 for what the module refuses.
    """
    kinds = {"float": dtype, "int": torch.int64, "bool": torch.bool}
    tensors = {
        t.name: torch.empty([extents[r] for r in t.ranks], dtype=kinds[t.dtype], device="meta")
        for t in cascade.inputs
    }
    recorded: list[Launch] = []
    copy = _recording(module, recorded)
    if hasattr(module, "_list_tiles"):
        # Tensors without storage have no tiles to list; how many row tiles there are is known.
        vars(copy).update(_list_tiles=_no_tiles, _check_places=lambda *_: None)
    vars(copy).update(WARP_SIZE=warp_size, _capability=lambda: capability)
    vars(copy).update(_gpu=lambda: capability if gpu is None else gpu)
    # A number of parts was chosen for this shape, and the GPU here is another one.
    vars(copy).update(_are_few=lambda _: True)
    try:
        call_module(copy, cascade, tensors, params=params, extents=extents)
    except ValueError as e:
        raise AttncError("E505", f"`{cascade.name}` does not take this shape: {e}") from None
    return tuple(recorded)


def _recording(module: ModuleType, recorded: list[Launch]) -> ModuleType:
    """A copy of a module whose op runs at once, and whose kernels are recorders."""
    copy = ModuleType(module.__name__)
    copy.__dict__.update(vars(module))
    for name, value in vars(module).items():
        # Without the op around it, torch would not run the launcher but its shape function.
        inner: Any = value._init_fn if isinstance(value, CustomOpDef) else value
        if isinstance(inner, FunctionType) and inner.__module__ == module.__name__:
            function = FunctionType(inner.__code__, copy.__dict__, name, inner.__defaults__)
            function.__kwdefaults__ = inner.__kwdefaults__
            setattr(copy, name, function)
        elif hasattr(value, "arg_names"):
            setattr(copy, name, _Recorder(value, recorded))
    return copy


def _no_tiles(
    device: torch.device, bounds: object, visible: object, grid: Axes, rows: Axes, keys: Axes
) -> tuple[Tensor, Tensor]:
    """What a module's `_list_tiles` returns, where every list is empty."""
    tiles, points = (prod(-(-a.length // a.tile) for a in axes) for axes in (rows, grid))
    table = torch.empty((points, tiles, 4), dtype=torch.int32, device=device)
    return table, torch.empty(0, dtype=torch.int32, device=device)


class _Recorder:
    """Stands for a jitted kernel: `kernel[grid](..)` is noted, nothing runs."""

    def __init__(self, fn: Any, recorded: list[Launch]) -> None:
        self._fn, self._recorded = fn, recorded

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: object, **kwargs: Any) -> None:
            options = {name: kwargs.pop(name) for name in _OPTIONS if name in kwargs}
            given = {**dict(zip(self._fn.arg_names, args, strict=False)), **kwargs}
            constants = {p.name for p in self._fn.params if p.is_constexpr}
            self._recorded.append(
                Launch(
                    self._fn.__name__,
                    {name: _argument(value) for name, value in given.items()},
                    {
                        name: value
                        for name, value in given.items()
                        if name in constants and not isinstance(value, bool)
                    },
                    prod(grid),
                    **options,
                )
            )

        return launch


def _argument(value: Any) -> Argument:
    if isinstance(value, Tensor):
        size = value.numel() * value.element_size()
        return Pointer(_type(value), large=size >= _LARGE_BYTES)
    if hasattr(value, "block_shape"):
        return Descriptor(_type(value.base), tuple(value.block_shape))
    argument: Argument = value
    return argument


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
