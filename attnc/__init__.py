"""attnc: write attention as the maths of its paper, get a verified Triton kernel."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnc.api import Attention, load
    from attnc.errors import AttncError, AttncErrors

__all__ = ["Attention", "AttncError", "AttncErrors", "load"]

_HOMES = {
    "Attention": "attnc.api",
    "load": "attnc.api",
    "AttncError": "attnc.errors",
    "AttncErrors": "attnc.errors",
}


def __getattr__(name: str) -> object:
    """Import on first use: `import attnc` is immediate, and so is every command's start."""
    if name not in _HOMES:
        raise AttributeError(f"module 'attnc' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
