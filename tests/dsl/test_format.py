"""The formatter: same tree, fixed point, comments kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.dsl import format_spec, parse
from attnc.dsl.format import WIDTH
from attnc.dsl.parse import parse_file
from attnc.dsl.tree import Spec
from attnc.errors import AttncError
from tests.dsl.specs import FILES, ROOT, SLIDING_WINDOW, trees

COMMENTS = ["", "  # behind", "\n# on its own", "\n\n# after a blank line", "\n\n\n"]


@given(trees)
def test_a_formatted_tree_parses_to_itself(spec: Spec) -> None:
    text = format_spec(spec)
    again = parse(text)
    assert again == spec
    assert format_spec(again) == text


@given(trees, st.lists(st.sampled_from(COMMENTS), min_size=1))
def test_comments_and_groups_survive_and_formatting_twice_changes_nothing(
    spec: Spec, comments: list[str]
) -> None:
    lines = format_spec(Spec(spec.name, None, spec.items)).splitlines()
    text = "".join(f"{line}{comments[i % len(comments)]}\n" for i, line in enumerate(lines))
    read = parse(text)
    once = format_spec(read)
    assert parse(once) == read
    assert [c.text for c in parse(once).comments] == [c.text for c in read.comments]
    assert format_spec(parse(once)) == once
    assert "\n\n\n" not in once


@pytest.mark.parametrize("path", [*FILES, ROOT / "dsl" / "prelude.attn"], ids=lambda p: p.stem)
def test_files_keep_their_meaning(path: Path) -> None:
    try:
        read = parse_file(path.read_text(), path.name)
    except (AttncError, UnicodeDecodeError):
        return  # a diagnostics file with a syntax error
    once = format_spec(read)
    assert parse_file(once, path.name) == read
    assert format_spec(parse_file(once)) == once


def test_canonical_text_is_left_alone() -> None:
    assert format_spec(parse(SLIDING_WINDOW)) == SLIDING_WINDOW


def test_the_prelude_is_canonical() -> None:
    text = (ROOT / "dsl" / "prelude.attn").read_text()
    assert format_spec(parse_file(text)) == text


def test_spacing_and_needless_parentheses_go() -> None:
    text = "attention x\nA[m]=((a)+(b*c))  -(d-e)   where((not b))and m<n\n"
    shown = "attention x\nA[m] = a + b * c - (d - e)  where not b and m < n\n"
    assert format_spec(parse(text)) == shown


def test_long_lines_break_behind_operators_and_before_where() -> None:
    terms = " + ".join(f"tensor_{i}[b, h, m, n]" for i in range(9))
    text = f"attention x\nS[b, h, m, n] = {terms} where near[m, n]\n"
    lines = format_spec(parse(text)).splitlines()
    assert len(lines) > 2 and all(len(line) <= WIDTH for line in lines)
    assert format_spec(parse("\n".join(lines))).splitlines() == lines


def test_comments_inside_a_broken_statement_move_before_it() -> None:
    text = "attention x\nA[m] = f(a,  # first\n    b)  # second\n"
    assert format_spec(parse(text)) == "attention x\n# first\nA[m] = f(a, b)  # second\n"
