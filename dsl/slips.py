"""What a syntax error is about, in the user's words: the code, the sentence and the hint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnc.errors import AttncError, Span

if TYPE_CHECKING:
    from lark import Lark
    from lark.exceptions import UnexpectedInput


def explain_slip(e: UnexpectedInput, parser: Lark, text: str, file: str) -> AttncError:
    """The error to raise for what lark did not expect."""
    return AttncError("E004", str(e), span=Span(max(1, e.line), max(1, e.column), e.line, e.column + 1, file), source=text)
