"""The library is its folder: a spec is found because its file is there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from attnc.errors import AttncError

MAX_BYTES = 1 << 20

_FAMILY = re.compile(r"^#\s*family:\s*(\S+)\s*$", re.MULTILINE)
_CITATION = re.compile(r"^#\s*(.*\S)\s*$", re.MULTILINE)
_SUMMARY = re.compile(r'^"""\s*(.*?)\s*(?:"""|$)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """What `attnc list` shows of a spec; `citation` is the first comment line of its file."""

    name: str
    family: str
    summary: str
    citation: str


@cache
def names() -> tuple[str, ...]:
    """The library's specs, in alphabetical order."""
    found = (Path(file.name) for file in _folder().iterdir())
    return tuple(sorted(file.stem for file in found if file.suffix == ".attn"))


def text(name: str) -> str:
    """A library spec as written. Raises AttncError (E701) if there is none of that name."""
    if name not in names():
        raise _unknown(name)
    return (_folder() / f"{name}.attn").read_text(encoding="utf-8")


@cache
def entries() -> tuple[Entry, ...]:
    """One entry per spec, in the order of `names()`; nothing is parsed, so listing is quick."""
    return tuple(_entry(name, text(name)) for name in names())


def resolve(name_or_path: str) -> tuple[str, str]:
    """The text of a library spec or of a `.attn` file, and the file name to cite it by.

    A library name goes before a file of that name: write `./causal` for the file. Raises
    AttncError: E701 neither a name nor a path, E702 cannot be read, E703 longer than 1 MiB,
    E704 not UTF-8.
    """
    if name_or_path in names():
        return text(name_or_path), f"{name_or_path}.attn"
    if not _looks_like_path(name_or_path):
        raise _unknown(name_or_path)
    return _read(name_or_path), name_or_path


def _folder() -> Traversable:
    return files("attnc.library") / "specs"


def _entry(name: str, spec: str) -> Entry:
    family, citation, summary = (p.search(spec) for p in (_FAMILY, _CITATION, _SUMMARY))
    return Entry(name, *(found[1] if found else "" for found in (family, summary, citation)))


def _unknown(name: str) -> AttncError:
    hint = "`attnc list` shows the library; a spec of your own is given by its path, `./mine.attn`"
    if near := get_close_matches(name.lower(), names(), n=1, cutoff=0.5):
        hint = f"did you mean `{near[0]}`?"
    return AttncError("E701", f"the library has no attention `{name[:80]}`", hint=hint)


def _looks_like_path(given: str) -> bool:
    return given.endswith(".attn") or "/" in given or "\\" in given or _is_file(given)


def _is_file(given: str) -> bool:
    try:
        return Path(given).is_file()
    except (OSError, ValueError):  # too long, or holds a zero byte
        return False


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else "not a file name"
        raise AttncError(
            "E702",
            f"cannot read `{path[:200]}`: {why[0].lower()}{why[1:]}",
            hint="give the name of a library spec or the path of a `.attn` file",
        ) from None
    if len(raw) > MAX_BYTES:
        raise AttncError(
            "E703",
            f"`{path}` is longer than {MAX_BYTES} bytes",
            hint="a spec is a page of text; is this another file?",
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise AttncError(
            "E704",
            f"`{path}` is not UTF-8 text: byte {e.start} belongs to no character",
            hint="save the file as UTF-8",
        ) from None
