"""An independent reference for each library spec: its paper's formula in plain torch.

A function has the spec's name and takes the spec's inputs by name, and its params by name (extents
of components, such as `MX`, among them). It computes in the inputs' dtype and shares
nothing with the compiler. A row that sees no key gives 0, its log-sum-exp -inf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeAlias

from torch import Tensor

Inputs: TypeAlias = Mapping[str, Tensor]
Params: TypeAlias = Mapping[str, Any]
Outputs: TypeAlias = dict[str, Tensor]
Reference: TypeAlias = Callable[[Inputs, Params], Outputs]


def reference(name: str) -> Reference:
    """The function of that name in one of this folder's modules; KeyError if none has it.

    `plain` holds what the references are made of and is not searched.
    """
    for module in (m.name for m in iter_modules(__path__) if m.name != "plain"):
        found = getattr(import_module(f"{__name__}.{module}"), name, None)
        if found is not None and found.__module__ == f"{__name__}.{module}":
            function: Reference = found
            return function
    raise KeyError(f"no reference for `{name}` in {__path__}")
