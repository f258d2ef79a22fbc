"""Code generation: a Plan as the source of a standalone Triton module."""

from __future__ import annotations

from attnc.codegen.config import Config, default_config
from attnc.codegen.emit import emit

__all__ = ["Config", "default_config", "emit"]
