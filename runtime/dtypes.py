"""The names of floating-point types in commands and calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnc.errors import AttncError

if TYPE_CHECKING:
    import torch

# By name: torch's name, bytes of an element.
_DTYPES = {"fp32": ("float32", 4), "fp16": ("float16", 2), "bf16": ("bfloat16", 2)}


def torch_dtype(name: str) -> torch.dtype:
    """torch's type of a name; AttncError E516 for any but `fp32`, `fp16`, `bf16`."""
    import torch

    found = getattr(torch, _known(name)[0])
    assert isinstance(found, torch.dtype)
    return found


def element_bytes(name: str) -> int:
    """Bytes of an element, without torch; AttncError E516 as above."""
    return _known(name)[1]


def _known(name: str) -> tuple[str, int]:
    if name not in _DTYPES:
        raise AttncError(
            "E516", f"unknown dtype `{name[:60]}`", hint=f"known: {', '.join(_DTYPES)}"
        )
    return _DTYPES[name]
