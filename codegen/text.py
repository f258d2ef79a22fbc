"""Text of a spec made safe inside Python source, and lines broken at a width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

WIDTH = 100
_COMPARISONS = (" <= ", " < ", " >= ", " > ", " == ", " != ")


def escape(text: str) -> str:
    """As it may stand inside a triple-quoted string: evaluates to `text` again."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    # Single quotes and lone double quotes are harmless; only keep the escape where it is needed.
    if '"""' not in text and not text.endswith('"'):
        plain = plain.replace('\\"', '"')
    return "".join(c if c == "\n" or " " <= c <= "~" else _escaped(c) for c in plain)


def _escaped(c: str) -> str:
    return c.encode("unicode_escape").decode("ascii")


def comment(text: str, width: int = WIDTH) -> str:
    """As it may stand behind `#`: one line of printable ASCII, cut at `width` characters."""
    line = "".join(c if " " <= c <= "~" else _escaped(c) for c in text)
    return line if len(line) <= width else f"{line[: width - 4]} ..."


def wrap(line: str, indent: int = 0) -> list[str]:
    """A line of code, broken where Python allows if it is too long for its indentation."""
    stripped = line.lstrip(" ")
    indent, line = indent + len(line) - len(stripped), stripped
    pad = " " * indent
    if line.startswith("#") or indent + len(line) <= WIDTH:
        return [pad + line]
    for attempt in (_break_operators, _break_call):
        broken = attempt(line, indent)
        if broken is not None:
            return broken
    return [pad + line]


def paragraph(text: str, indent: int = 0) -> str:
    """Words in lines of at most the width; lines after the first are indented a little more."""
    pad = " " * indent
    lines = textwrap.wrap(
        text, WIDTH, initial_indent=pad, subsequent_indent=f"{pad}  ", break_long_words=False
    )
    return "\n".join(lines)


def fill(items: Iterable[str], indent: int) -> list[str]:
    """As many items to a line as fit, each with a comma behind it."""
    rows = _fill([f"{x}," for x in items], " ", indent)
    return [" " * indent + r for r in rows]


def _break_operators(line: str, indent: int) -> list[str] | None:
    """`x = a + b` as `x = (`, `a`, `+ b`, `)`; the loosest operator outside brackets breaks."""
    head, equals, body = _assignment(line)
    if not equals:
        return None
    if not (cuts := _cuts(body)):
        return None
    rows = _fill(_pieces(body, cuts), " ", indent + 4)
    lines = [x for r in rows for x in wrap(r, indent + 4)]
    return [" " * indent + head + equals + "(", *lines, " " * indent + ")"]


def _break_call(line: str, indent: int) -> list[str] | None:
    """`f(a, b)` as `f(`, `a, b,`, `)`; the first bracket that closes at the end of the line."""
    opened = [i for i, depth in _depths(line) if depth == 0 and line[i] in "([{"]
    if not opened or not line.rstrip(":,").endswith((")", "]", "}")):
        return None
    start = opened[-1]
    close = _closing(line, start)
    if line[close + 1 :] not in ("", ":", ",") or close == start + 1:
        return None
    inner = line[start + 1 : close]
    cuts = [i for i, depth in _depths(inner) if depth == 0 and inner[i] == ","]
    pieces = [inner[a:b].strip(" ,") for a, b in zip([0, *cuts], [*cuts, len(inner)], strict=True)]
    comma = "," if len(pieces) > 1 else ""
    rows = _fill([f"{p}{comma}" for p in pieces if p], " ", indent + 4)
    lines = [x for r in rows for x in _break_argument(r, indent + 4)]
    return [" " * indent + line[: start + 1], *lines, " " * indent + line[close:]]


def _break_argument(row: str, indent: int) -> list[str]:
    """A row inside brackets, where lines may break anywhere."""
    if indent + len(row) <= WIDTH or not (cuts := _cuts(row)):
        return wrap(row, indent)
    rows = _fill(_pieces(row, cuts), " ", indent)
    return [x for piece in rows for x in _break_argument(piece, indent)]


def _cuts(text: str) -> list[int]:
    """Where the loosest operators outside brackets stand."""
    for signs in ((" | ",), (" & ",), _COMPARISONS, (" + ", " - "), (" * ", " / ")):
        cuts = [i for i, depth in _depths(text) if depth == 0 and text.startswith(signs, i)]
        if cuts:
            return cuts
    return []


def _pieces(text: str, cuts: list[int]) -> list[str]:
    return [text[a:b].strip() for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _assignment(line: str) -> tuple[str, str, str]:
    for i, depth in _depths(line):
        if depth == 0:
            for sign in (" = ", " += ", " &= "):
                if line.startswith(sign, i):
                    return line[:i], sign, line[i + len(sign) :]
    if line.startswith("return "):
        return "return", " ", line[7:]
    return line, "", ""


def _fill(pieces: list[str], gap: str, indent: int) -> list[str]:
    rows = [pieces[0]]
    for piece in pieces[1:]:
        if indent + len(rows[-1]) + len(gap) + len(piece) <= WIDTH:
            rows[-1] += gap + piece
        else:
            rows.append(piece)
    return rows


def _depths(text: str) -> Iterator[tuple[int, int]]:
    """Each position outside strings, with the number of brackets open just before it."""
    depth, quote = 0, ""
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
            continue
        if c in "\"'":
            quote = c
            continue
        if c in ")]}":
            depth -= 1
        yield i, depth
        if c in "([{":
            depth += 1


def _closing(text: str, start: int) -> int:
    opened = next(d for i, d in _depths(text) if i == start)
    return next(i for i, d in _depths(text) if i > start and d == opened and text[i] in ")]}")
