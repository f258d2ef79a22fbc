"""The names of floating-point types in commands and calls."""

from __future__ import annotations

import torch

from attnc.errors import AttncError

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def torch_dtype(name: str) -> torch.dtype:
    """torch's type of a name; AttncError E516 for any but `fp32`, `fp16`, `bf16`."""
    if name not in _DTYPES:
        raise AttncError(
            "E516", f"unknown dtype `{name[:60]}`", hint=f"known: {', '.join(_DTYPES)}"
        )
    return _DTYPES[name]
