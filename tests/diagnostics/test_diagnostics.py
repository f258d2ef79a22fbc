"""Every mistake of the catalogue, as a file and as the message that it gets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from attnc.dsl import check, parse, read_text
from attnc.dsl.codes import CODES
from attnc.errors import AttncError, AttncErrors

HERE = Path(__file__).parent
CASES = sorted(HERE.glob("*.attn"))


def message(path: Path) -> str:
    """What a user sees."""
    try:
        errors = check(parse(read_text(path), path.name))
    except AttncError as e:
        return str(e).replace(str(path), path.name)
    return str(AttncErrors(errors)) if errors else "no error"


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.stem)
def test_message(case: Path, golden: Callable[[str, Path], None]) -> None:
    golden(f"{message(case)}\n", case.with_suffix(".txt"))


def test_every_code_has_a_file() -> None:
    shown = set(re.findall(r"error\[(E\d+)]", "".join(message(c) for c in CASES)))
    # The text of E003 would be 32 KiB long: see tests/dsl/test_parse.py.
    assert shown == CODES.keys() - {"E003"}


def test_every_code_in_the_source_is_in_the_catalogue() -> None:
    source = "".join(p.read_text() for p in (HERE.parents[1] / "dsl").glob("*.py"))
    assert set(re.findall(r'"(E\d{3})"', source)) == CODES.keys()
