"""The language reference: its examples are specs, its table is the catalogue."""

from __future__ import annotations

import re

import pytest

from attnc.dsl import format_spec, load_text, parse
from attnc.dsl.codes import CODES
from attnc.dsl.expression import FUNCTIONS
from attnc.dsl.macros import prelude
from tests.dsl.specs import ROOT

TEXT = (ROOT / "docs" / "language.md").read_text()
EXAMPLES = re.findall(r"```attn\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.split()[1])
def test_examples_are_canonical_specs(example: str) -> None:
    load_text(example)
    assert format_spec(parse(example)) == example


def test_the_table_of_codes_is_the_catalogue() -> None:
    assert dict(re.findall(r"^\| (E\d{3}) \| (.*) \|$", TEXT, re.MULTILINE)) == CODES


def test_every_function_and_macro_is_mentioned() -> None:
    macros = {m.name.name for m in prelude() if not m.name.name.startswith("_")}
    assert all(re.search(rf"\b{name}\b", TEXT) for name in FUNCTIONS | macros)
