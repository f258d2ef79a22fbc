"""The language: `.attn` text to a cascade."""

from __future__ import annotations

from attnc.dsl.check import check
from attnc.dsl.format import format_spec
from attnc.dsl.lower import lower
from attnc.dsl.parse import parse, read_text
from attnc.ir.cascade import Cascade

__all__ = ["check", "format_spec", "load_text", "lower", "parse", "read_text"]


def load_text(text: str, file: str = "") -> Cascade:
    """Parse, check and lower a spec; AttncError (one or all that were found) if it is wrong."""
    return lower(parse(text, file))
