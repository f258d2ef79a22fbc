"""What a syntax error is about, in the user's words: the code, the sentence, the hint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from attnc.errors import AttncError, Span

if TYPE_CHECKING:
    from lark import Lark, Token
    from lark.exceptions import UnexpectedInput, UnexpectedToken


@dataclass(frozen=True, slots=True)
class Slip:
    """A common mistake: what stops the parser as one of the examples does, in its state and token.

    (lark's own `match_examples` also wants the stacks to be equally high, so that an example would
    match only where it stands in the file.)
    """

    code: str
    message: str
    hint: str
    examples: tuple[str, ...]


_SLIPS = (
    Slip(
        "E013",
        "a reduction or a macro inside an expression needs parentheses",
        "write `2 * (sum(n) X[n])`: it takes everything to its right",
        (
            "A[m] = 2 * sum(n) X[n]\n",
            "A[m] = 2 + sum(n) X[n]\n",
            "A[m] = -sum(n) X[n]\n",
            "A[m] = 2 ** sum(n) X[n]\n",
            "A[m] = m < sum(n) X[n]\n",
            "A[m] = not any(n) X[n]\n",
            "A[m] = m and any(n) X[n]\n",
            "A[m] = m or any(n) X[n]\n",
            "A[m] = 2 * softmax(n) X[n]\n",
            "A[m] = 2 + softmax(n) X[n]\n",
        ),
    ),
    Slip(
        "E015",
        "a tensor always has its brackets",
        "write `tau[]` for a single number, `O[b, m, e]` for a tensor",
        ("tau = 3\n", "output O\n", "input Q\n", "mask near = x\n", "output O[m], L\n"),
    ),
    Slip(
        "E016",
        "the macro has no `return`",
        "a `def` runs to its `return`",
        (
            "def f(n) X[n]:\n A[n] = X[n]\noutput O[m]\n",
            "def f(n) X[n]:\n A[n] = X[n]\ninput O[m]\n",
            "def f(n) X[n]:\n A[n] = X[n]\ndef g(n): return n\n",
            "def f(n) X[n]:\n A[n] = X[n]\n",
            "def f(n) X[n]:\noutput O[m]\n",
            "def f(n) X[n]:\n",
        ),
    ),
    Slip(
        "E017",
        "`if` needs its `then` and its `else`",
        "write `if c then a else b`",
        ("A[m] = if m then n\n", "A[m] = if m\n", "A[m] = (if m then n)\n", "A[m] = if m else n\n"),
    ),
    Slip(
        "E018",
        "the definition has no right side",
        "the formula begins on the line of its `=`; it may be broken anywhere behind that",
        ("A[m] =\n", "mask A[m] =\n"),
    ),
    Slip(
        "E019",
        "a param has a type",
        "write `param window: int = 4096`",
        ("param window = 3\n", "param window\n", "param window: x\n", "param window: 3\n"),
    ),
    Slip(
        "E020",
        "`where` stands at the end of a statement that defines a tensor",
        "combine conditions of a mask with `and`; put `where` behind the whole right side",
        (
            "mask A[m] = m where n\n",
            "A[m] = (m where n)\n",
            "A[m] = f(m where n)\n",
            "A[m] = m where n where m\n",
            "def f(m): return m where n\n",
        ),
    ),
)

_CHARACTERS = {
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not`, or `!=`",
    "^": "write `**`",
    ";": "a statement ends with its line",
    "'": "the language has no strings",
    '"': 'the only text is the docstring: `"""..."""` behind the first line',
    ".": "a number has digits on both sides of its point: `1.0`",
    "{": "write `(`",
    "}": "write `)`",
    "\\": "a line goes on inside brackets and behind an operator",
}

# What tokens are called; the others are called by their text.
_CALLED = {
    "NAME": "a name",
    "NUMBER": "a number",
    "_NL": "the end of the line",
    "$END": "the end of the file",
    "TYPE": "`int`, `float` or `bool`",
    "REDUCE": "a reduction",
    "COMPARE": "a comparison",
    "DOC": "a docstring",
    "MUL": "`*`",
    "MINUS": "`-`",
    "PLUS": "`+`",
    "POW": "`**`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "COMMA": "`,`",
    "COLON": "`:`",
    "EQUAL": "`=`",
    "TRUE": "`true`",
    "FALSE": "`false`",
}
# Tokens that continue any expression: naming them all helps nobody.
_CONTINUE = frozenset("PLUS MINUS MUL POW COMPARE AND OR".split())

_SKIP = re.compile(r'"""(?:.|\n)*?"""|#[^\n]*|[()\[\]]')


def explain_slip(e: UnexpectedInput, parser: Lark, text: str, file: str) -> AttncError:
    """The error to raise for what lark did not expect."""
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    if isinstance(e, UnexpectedToken):
        return _token(e, parser, text, file)
    span = Span(e.line, e.column, e.line, e.column + 1, file)
    at = e.pos_in_stream or 0
    char = text[at] if isinstance(e, UnexpectedCharacters) else "?"
    hint = _CHARACTERS.get(char, "")
    if text.startswith('"""', at):
        return AttncError("E005", "the docstring never ends", span=span, source=text)
    if not hint and not char.isascii():
        hint = "names are made of a-z, A-Z, 0-9 and `_`"
    message = f"`{char}` means nothing here"
    return AttncError("E001", message, span=span, source=text, hint=hint)


def _token(e: UnexpectedToken, parser: Lark, text: str, file: str) -> AttncError:
    token = e.token
    at = _place(token, text, file)
    bracket = _bracket(token, at, text, file)
    if bracket is not None:
        return bracket
    slip = _slips_by_state(parser).get((e.state.position, token.type))
    if slip is not None:
        return AttncError(slip.code, slip.message, span=at, source=text, hint=slip.hint)
    if token.type == "EQUAL" and "COMPARE" in e.accepts:
        message = "`=` defines; a comparison is `==`"
        return AttncError("E014", message, span=at, source=text, hint="write `==`")
    hint = _expected(e)
    if token.type == "$END":
        return AttncError("E005", "the spec ends too early", span=at, source=text, hint=hint)
    if token.type == "_NL":
        return AttncError("E005", "the line ends too early", span=at, source=text, hint=hint)
    names = "NAME" in e.accepts and "INPUT" not in e.accepts
    if names and token.value.isidentifier() and token.type != "NAME":
        message = f"`{token.value}` is a word of the language"
        hint = "choose another name"
        return AttncError("E011", message, span=at, source=text, hint=hint)
    return AttncError("E004", f"unexpected `{token.value}`", span=at, source=text, hint=hint)


@cache
def _slips_by_state(parser: Lark) -> dict[tuple[int, str], Slip]:
    """Where each slip stops the parser."""
    from lark.exceptions import UnexpectedToken

    found: dict[tuple[int, str], Slip] = {}
    for slip in _SLIPS:
        for example in slip.examples:
            try:
                parser.parse(example)
            except UnexpectedToken as e:
                found.setdefault((e.state.position, e.token.type), slip)
            else:
                raise AssertionError(f"an example of a slip parses: {example!r}")
    return found


def _place(token: Token, text: str, file: str) -> Span:
    if token.type != "$END" and token.line is not None and token.column is not None:
        width = max(1, len(token.value.split("\n")[0]))
        return Span(token.line, token.column, token.line, token.column + width, file)
    lines = text.rstrip().split("\n")
    return Span(len(lines), len(lines[-1]) + 1, len(lines), len(lines[-1]) + 2, file)


def _bracket(token: Token, at: Span, text: str, file: str) -> AttncError | None:
    """The error of brackets that do not pair up before the unexpected token."""
    end = len(text) if token.type == "$END" else token.start_pos or 0
    opened: list[tuple[str, int]] = []
    for match in _SKIP.finditer(text, 0, end):
        if match[0] in ("(", "["):
            opened.append((match[0], match.start()))
        elif match[0] in (")", "]") and opened:
            opened.pop()
    if not opened:
        return None
    bracket, start = opened[-1]
    line = text.count("\n", 0, start) + 1
    column = start - text.rfind("\n", 0, start)
    if token.value in (")", "]"):
        if (bracket, token.value) in (("(", ")"), ("[", "]")):
            return None
        message = f"`{token.value}` does not close `{bracket}`"
        hint = f"the `{bracket}` is on line {line}, column {column}"
        return AttncError("E006", message, span=at, source=text, hint=hint)
    if line == at.line and token.type not in ("_NL", "$END"):
        return None
    span = Span(line, column, line, column + 1, file)
    return AttncError("E006", f"`{bracket}` is never closed", span=span, source=text)


def _expected(e: UnexpectedToken) -> str:
    accepted = e.accepts or set()
    if accepted >= _CONTINUE:
        accepted = {*(accepted - _CONTINUE), "an operator"}
    if "NUMBER" in accepted and "LPAR" in accepted:
        return "an expression is expected"
    words = sorted(_CALLED.get(a, a if " " in a else f"`{a.lower()}`") for a in accepted)
    if not words or len(words) > 8:
        return ""
    return (
        f"expected {', '.join(words[:-1])} or {words[-1]}" if words[1:] else f"expected {words[0]}"
    )
