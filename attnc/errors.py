"""The one exception that users see: a code, a place, a sentence and a hint."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of spec text: 1-based line and column; the end column is exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int
    file: str = field(default="", compare=False)


class AttncError(Exception):
    """The user's mistake (any other exception that escapes attnc is our bug).

    `code` is stable (`E101`); `span` and `source` (the whole spec text) give the caret; `hint` says
    what to do about it.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        span: Span | None = None,
        source: str = "",
        hint: str = "",
    ) -> None:
        self.code = code
        self.message = message
        self.span = span
        self.source = source
        self.hint = hint
        super().__init__(message)

    def __str__(self) -> str:
        head = f"error[{self.code}]: {self.message}"
        return "\n".join(
            [head, *self._excerpt(), *([f"  = hint: {self.hint}"] if self.hint else [])]
        )

    def _excerpt(self) -> list[str]:
        if self.span is None:
            return []
        span = self.span
        lines = self.source.splitlines()
        place = f" --> {span.file or '<spec>'}:{span.line}:{span.column}"
        if not 1 <= span.line <= len(lines):
            return [place]
        text = lines[span.line - 1]
        end = span.end_column if span.end_line == span.line else len(text) + 1
        # A line may be megabytes long: show a window around the place.
        start = max(0, span.column - 1 - 60)
        shown = text[start : start + 120].replace("\t", " ")
        width = max(1, min(end - span.column, start + 120 - (span.column - 1)))
        gutter = " " * len(str(span.line))
        caret = " " * (span.column - 1 - start) + "^" * width
        return [f"{gutter}{place}", f"{gutter} |", f"{span.line} | {shown}", f"{gutter} | {caret}"]

    def to_dict(self) -> dict[str, object]:
        """`{code, line, column, message, hint}`: one entry of `attnc check --json`."""
        return {
            "code": self.code,
            "line": self.span.line if self.span else None,
            "column": self.span.column if self.span else None,
            "message": self.message,
            "hint": self.hint,
        }


class AttncErrors(AttncError):
    """Every mistake found in one file, in order of place; shows as the first if there is one."""

    def __init__(self, errors: tuple[AttncError, ...]) -> None:
        first = errors[0]
        super().__init__(
            first.code, first.message, span=first.span, source=first.source, hint=first.hint
        )
        self.errors = errors

    def __str__(self) -> str:
        return "\n\n".join(str(e) for e in self.errors)
