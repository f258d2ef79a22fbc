"""Text to syntax tree. Any text gives a `Spec` or an `AttncError`, in time linear in its length."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attnc.dsl import tree
from attnc.dsl.build import Builder
from attnc.dsl.slips import explain_slip
from attnc.errors import AttncError, Span

if TYPE_CHECKING:
    from lark import Lark, Token

MAX_TEXT = 32 * 1024

# What a line end does not end: the line before is open, or the next one cannot begin a statement.
_OPEN = frozenset("PLUS MINUS MUL POW COMPARE AND OR NOT COMMA WHERE IF THEN ELSE".split())
_BEGINS = frozenset("ATTENTION CONST PARAM RANK INPUT MASK DEF RETURN OUTPUT".split())


def parse(text: str, file: str = "") -> tree.Spec:
    """Read a spec.

    `file` is only for messages. Raises AttncError (E0xx) at the first place that is not the
    language; names, ranks and types are for `check`.
    """
    spec = parse_file(text, file)
    if spec.name is None:
        raise AttncError(
            "E010",
            "a spec begins with `attention` and its name",
            span=Span(1, 1, 1, 2, file),
            source=spec.text,
            hint="write `attention my_attention` as the first line",
        )
    return spec


def parse_file(text: str, file: str = "") -> tree.Spec:
    """Like `parse`, for a file that may lack the header, such as a collection of macros."""
    from lark.exceptions import UnexpectedInput

    text = _clean(text, file)
    try:
        parsed = lark_parser().parse(text + "\n")
    except UnexpectedInput as e:
        error = explain_slip(e, lark_parser(), text, file)
    else:
        return Builder(text, file).spec(parsed)
    raise error


def read_text(path: Path) -> str:
    """The text of a spec file; AttncError if it is too long (E003) or not UTF-8 text (E012)."""
    try:
        with path.open("rb") as f:
            raw = f.read(4 * MAX_TEXT + 1)
    except OSError as e:
        raise AttncError("E012", f"cannot read `{path}`: {e.strerror}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        if len(raw) > 4 * MAX_TEXT:
            raise AttncError("E003", f"`{path}` is longer than {MAX_TEXT} characters") from None
        raise AttncError(
            "E012",
            f"`{path}` is not UTF-8 text (byte {e.start})",
            hint="save the file as UTF-8",
        ) from None


@cache
def lark_parser() -> Lark:
    """The parser, built on first use: importing the package stays quick."""
    from lark import Lark

    return Lark(
        (Path(__file__).parent / "grammar.lark").read_text("utf-8"),
        start="file",
        parser="lalr",
        lexer="basic",
        postlex=Lines(),
        propagate_positions=True,
        maybe_placeholders=True,
    )


class Lines:
    """Lark's hook between lexer and parser: keeps the line ends that end a statement."""

    always_accept = ("_NL",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        depth, last, pending = 0, "", None
        for token in stream:
            if token.type == "_NL":
                pending = pending or token
                continue
            # A line that starts like a declaration ends every bracket: the error stays near.
            if pending is not None and token.type in _BEGINS:
                depth = 0
            goes_on = depth or last in _OPEN or token.type not in ("NAME", "DOC")
            if pending is not None and last and (token.type in _BEGINS or not goes_on):
                yield pending
            pending = None
            if token.type in ("LPAR", "LSQB"):
                depth += 1
            elif token.type in ("RPAR", "RSQB"):
                depth = max(0, depth - 1)
            last = token.type
            yield token
        if pending is not None and last:
            yield pending


def _clean(text: str, file: str) -> str:
    """The text with `\\n` line ends; refuses what is too long or cannot be shown."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if len(text) > MAX_TEXT:
        raise AttncError(
            "E003",
            f"the spec has {len(text)} characters, at most {MAX_TEXT} are read",
            hint="a spec describes one attention; constants and tables are inputs",
        )
    for number, line in enumerate(text.split("\n"), 1):
        if line.isprintable():
            continue
        for column, char in enumerate(line, 1):
            if not char.isprintable() and char != "\t":
                raise AttncError(
                    "E002",
                    f"character U+{ord(char):04X} cannot be shown",
                    span=Span(number, column, number, column + 1, file),
                    source=text.encode("utf-8", "replace").decode(),
                    hint="remove it; it may have come along with copied text",
                )
    return text
