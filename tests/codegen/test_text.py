"""Text of a spec inside Python, and the breaking of lines."""

from __future__ import annotations

import ast

from hypothesis import given
from hypothesis import strategies as st

from attnc.codegen.names import Namer
from attnc.codegen.text import WIDTH, comment, escape, wrap


@given(st.text())
def test_escaped_text_evaluates_to_itself(text: str) -> None:
    # a carriage return is a line end to Python, hence the escape
    assert ast.literal_eval(f'"""{escape(text)}"""') == text


@given(st.text())
def test_a_comment_is_one_line_of_ascii(text: str) -> None:
    line = comment(text)
    assert len(line.splitlines()) <= 1 and line.isascii() and len(line) <= WIDTH


ATOMS = st.sampled_from(["alpha", "beta[:, None]", "f(x, y)", "tl.load(p + i * s, mask=a & b)"])
SUMS = st.lists(ATOMS, min_size=1, max_size=12).map(" + ".join)
CALLS = st.lists(SUMS, min_size=1, max_size=8).map(lambda xs: f"tl.where({', '.join(xs)})")


@given(SUMS | CALLS, st.integers(0, 3))
def test_broken_lines_mean_the_same(value: str, level: int) -> None:
    line = f"name = {value}"
    broken = wrap(line, 4 * level)
    assert all(x.startswith(" " * (4 * level)) for x in broken)
    joined = "\n".join(x[4 * level :] for x in broken)
    assert ast.dump(ast.parse(joined)) == ast.dump(ast.parse(line))


@given(st.lists(st.integers(1, 30), min_size=2, max_size=20))
def test_long_sums_fit(widths: list[int]) -> None:
    line = "x = " + " + ".join("a" * w for w in widths)
    assert all(len(x) <= WIDTH for x in wrap(line, 8))


def test_one_name_each() -> None:
    names = Namer()
    assert names.name("tensor", "tl", "tl_ptr") == "tl_ptr"
    assert names.name("other", "tl_ptr") == "tl_ptr_"
    assert names.name("third", "tl_ptr") == "tl_ptr_2"
    assert names.name("keyword", "lambda") == "lambda_"
    assert names.name("tensor", "anything") == "tl_ptr"
