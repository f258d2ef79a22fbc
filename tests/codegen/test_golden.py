"""The kernel of every library spec, to be reviewed as a diff."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from attnc import library
from attnc.codegen import emit
from attnc.codegen.text import WIDTH
from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.pipeline import plan

GOLDEN = Path(__file__).parents[1] / "golden"


def _text(name: str) -> str:
    """The module, or the message that says what is not lowered yet."""
    try:
        return emit(plan(load_text(library.text(name))))
    except AttncError as e:
        return "".join(f"# {line}\n" for line in str(e).splitlines())


@pytest.mark.parametrize("name", library.names())
def test_module(name: str, golden: Callable[[str, Path], None]) -> None:
    text = _text(name)
    ast.parse(text)
    # lines of the spec come with their numbers
    assert all(len(line) <= WIDTH + 5 for line in text.splitlines())
    golden(text, GOLDEN / f"{name}.py")


def test_no_golden_file_is_left_over() -> None:
    assert {p.stem for p in GOLDEN.glob("*.py")} == set(library.names())


def test_emission_is_deterministic() -> None:
    assert _text("gpsa") == _text("gpsa")
