"""Spec files that the commands write: always whole, never half, never over another's work."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from attnc.errors import AttncError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_STARTER = Path(__file__).parent / "starter.attn"


def new_spec(name: str) -> Path:
    """Write a starter spec to `name` (a path, `.attn` added if it is not there); gives its path.

    The attention is called like the file. Raises E711 for a name that is none, E712 if the file
    exists, E713 if it cannot be written, and what the checker says of a reserved name.
    """
    from attnc.dsl import load_text

    path = Path(name if name.endswith(".attn") else f"{name}.attn")
    if not _NAME.fullmatch(path.stem):
        raise AttncError(
            "E711",
            f"`{path.stem[:64]}` cannot be the name of an attention",
            hint="letters, digits and `_`, a letter first: `attnc new my_attention`",
        )
    text = _STARTER.read_text(encoding="utf-8").replace("my_attention", path.stem, 1)
    load_text(text, str(path))
    with _written(path, text.encode()) as temporary:
        try:
            # Unlike a rename, a link never replaces a file that is there.
            os.link(temporary, path)
        except FileExistsError:
            raise AttncError(
                "E712", f"`{path}` exists already", hint="choose another name, or remove it"
            ) from None
    return path


def format_file(name: str, *, write: bool) -> bool:
    """Format one spec file in place (`-`: stdin to stdout); gives whether that changes it.

    With `write` false nothing is written. Raises what reading and parsing raise, and E713.
    """
    from attnc.dsl import format_spec, parse
    from attnc.dsl.parse import read_text

    if name == "-":
        text = _stdin()
        formatted = format_spec(parse(text, "<stdin>"))
        if write:
            sys.stdout.write(formatted)
        return formatted != text
    path = Path(name)
    text = read_text(path)
    formatted = format_spec(parse(text, name))
    if write and formatted != text:
        replace_text(path, formatted)
    return formatted != text


def replace_text(path: Path, text: str) -> None:
    """Write a text file in one step: readers see the old content or the new, never a part of it.

    Raises E713 if it cannot be written.
    """
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """`replace_text` for any file."""
    # A link stays a link: what it points to is replaced.
    path = path.resolve()
    with _written(path, content) as temporary:
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)


@contextmanager
def _written(path: Path, content: bytes) -> Iterator[Path]:
    """A temporary file beside `path` that holds the content, removed afterwards if still there."""
    temporary = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        yield temporary
    except OSError as e:
        raise AttncError("E713", f"cannot write `{path}`: {e.strerror or e}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise AttncError("E012", f"`<stdin>` is not UTF-8 text (byte {e.start})") from None
