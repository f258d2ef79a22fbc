"""Text of a spec made safe inside Python source, and lines broken at a width."""

from __future__ import annotations

from collections.abc import Iterator

WIDTH = 100


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


def fill(items: str, indent: int) -> list[str]:
    """Items separated by commas, as many to a line as fit, each line ending in a comma."""
    rows = _fill([f"{x}," for x in items.split(", ")], " ", indent)
    return [" " * indent + r for r in rows]


def _break_operators(line: str, indent: int) -> list[str] | None:
    """`x = a + b` as `x = (`, `a`, `+ b`, `)`; the loosest operator outside brackets breaks."""
    head, equals, body = _assignment(line)
    if not equals:
        return None
    for signs in ((" | ",), (" & ",), (" + ", " - "), (" * ", " / ")):
        cuts = [i for i, depth in _depths(body) if depth == 0 and body.startswith(signs, i)]
        if cuts:
            pieces = [body[a:b].strip() for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
            lines = [x for p in _fill(pieces, " ", indent + 4) for x in wrap(p, indent + 4)]
            return [" " * indent + head + equals + "(", *lines, " " * indent + ")"]
    return None


def _break_call(line: str, indent: int) -> list[str] | None:
    """`f(a, b)` as `f(`, `a, b,`, `)`; the first bracket that closes at the end of the line."""
    tail = line[len(line.rstrip(")]}:,")) :]
    opened = [i for i, depth in _depths(line) if depth == 0 and line[i] in "([{"]
    if not opened or not tail.startswith((")", "]", "}")):
        return None
    start = opened[-1]
    close = _closing(line, start)
    if line[close + 1 :] not in ("", ":"):
        return None
    inner = line[start + 1 : close]
    cuts = [i for i, depth in _depths(inner) if depth == 0 and inner[i] == ","]
    pieces = [inner[a:b].strip(" ,") for a, b in zip([0, *cuts], [*cuts, len(inner)], strict=True)]
    comma = "," if len(pieces) > 1 else ""
    rows = _fill([f"{p}{comma}" for p in pieces if p], " ", indent + 4)
    lines = [x for r in rows for x in wrap(r, indent + 4)]
    return [" " * indent + line[: start + 1], *lines, " " * indent + line[close:]]


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
    """Each position outside strings, with how many brackets are open there (an opening: before it)."""
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
