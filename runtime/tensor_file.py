"""Tensors from files that a user names, `.npy` or `.pt` with one tensor; nothing in them is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attnc.errors import AttncError


def read_tensor(file: str) -> Any:
    """The array or tensor in a file. Raises AttncError E715 for what cannot be read."""
    suffix = Path(file).suffix
    try:
        if suffix == ".npy":
            import numpy as np

            return np.load(file, allow_pickle=False)
        if suffix == ".pt":
            import torch

            found = torch.load(file, map_location="cpu", weights_only=True)
            if isinstance(found, torch.Tensor):
                return found
            raise AttncError("E715", f"`{file}` holds {type(found).__name__}, not one tensor")
    except AttncError:
        raise
    except Exception as e:  # whatever a damaged file makes its reader raise
        raise AttncError("E715", f"cannot read a tensor from `{file}`: {_first_line(e)}") from None
    raise AttncError("E715", f"`{file}` is no file of a tensor", hint="`.npy` and `.pt` are read")


def _first_line(e: Exception) -> str:
    return (str(e).splitlines() or [type(e).__name__])[0][:120]
