"""Parsing: the tree of each construct, line ends, spans, limits."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from attnc.dsl import parse, read_text
from attnc.dsl.format import show
from attnc.dsl.parse import MAX_TEXT
from attnc.dsl.tree import (
    Access,
    Assign,
    Binary,
    Call,
    Chain,
    Concat,
    Input,
    Literal,
    Macro,
    Name,
    Over,
    Param,
    Prefix,
    Rank,
)
from attnc.errors import AttncError
from tests.dsl.specs import SLIDING_WINDOW


def item(line: str) -> object:
    return parse(f"attention x\n{line}\n").items[0]


def right(text: str) -> object:
    assign = item(f"A[m] = {text}")
    assert isinstance(assign, Assign)
    return assign.value


def test_header_and_docstring() -> None:
    spec = parse(SLIDING_WINDOW)
    assert spec.name == Name("sliding_window")
    assert spec.doc and spec.doc.startswith("Causal sliding-window")
    assert [c.text for c in spec.comments] == [
        "# how many keys a query sees",
        "# H / G heads share their keys and values",
    ]


def test_declarations() -> None:
    assert item("rank m = (my, mx)") == Rank(Name("m"), (Name("my"), Name("mx")))
    assert item("input tau[]") == Input(Name("tau"), ())
    assert item("input doc[b, n]: int") == Input(Name("doc"), (Name("b"), Name("n")), "int")
    param = item("const param w: int[2] = (1, -2) in (-3, inf]")
    assert isinstance(param, Param) and param.const and param.range is not None
    assert param.default == (Literal(1), Literal(-2)) and param.length == Literal(2)
    assert param.range.low_open and not param.range.high_open
    assert param.range.high == Literal(float("inf"))


def test_a_reduction_takes_everything_to_its_right() -> None:
    value = right("sum(d) a + b * c")
    assert isinstance(value, Over) and isinstance(value.body, Binary) and value.body.op == "+"


def test_max_of_two_is_a_call_and_max_over_a_rank_a_reduction() -> None:
    assert right("max(a, b) - c") == Binary("-", Call("max", (Name("a"), Name("b"))), Name("c"))
    assert right("max(n) X[n]") == Over("max", (Name("n"),), Access("X", (Name("n"),)))
    assert right("sum(n) -x") == Over("sum", (Name("n"),), Prefix("-", Name("x")))


@pytest.mark.parametrize(
    ("text", "grouped"),
    [
        ("a + b * c", "a + (b * c)"),
        ("a - b - c", "(a - b) - c"),
        ("a ** b ** c", "a ** (b ** c)"),
        ("-a ** b", "-(a ** b)"),
        ("-a * b", "(-a) * b"),
        ("not a < b and c or d", "((not (a < b)) and c) or d"),
        ("if a then b else c + d", "if a then b else (c + d)"),
        ("h // (H / G)", "(h) // (H / G)"),
    ],
)
def test_precedence(text: str, grouped: str) -> None:
    assert right(text) == right(grouped)


def test_chained_comparison() -> None:
    assert right("0 <= x < N") == Chain((Literal(0), Name("x"), Name("N")), ("<=", "<"))


def test_concat() -> None:
    value = right("concat(n) S[x], T[c]")
    assert value == Concat(Name("n"), (Access("S", (Name("x"),)), Access("T", (Name("c"),))))


def test_a_macro_runs_to_its_return() -> None:
    macro = item("def f(n, t = 1) X[n]:\n  G[] = max(n) X[n]\n\n  return G[] * t")
    assert isinstance(macro, Macro)
    assert macro.rank_formals == ("n",) and len(macro.body) == 1
    assert show(macro.result) == "G[] * t"
    assert item("def half(x): return x / 2") == item("def half(x):\n    return x / 2")


@pytest.mark.parametrize(
    "broken", ["a +\n  b", "(a\n + b)", "a\n  + b", "a + # why\n\n b", "a + \\b"]
)
def test_a_line_goes_on_where_it_cannot_end(broken: str) -> None:
    text = broken.replace("\\", "")
    assert right(text) == Binary("+", Name("a"), Name("b"))


def test_windows_line_ends_and_byte_order_mark() -> None:
    assert parse("\ufeff" + SLIDING_WINDOW.replace("\n", "\r\n")) == parse(SLIDING_WINDOW)


def test_spans_point_into_the_text() -> None:
    spec = parse(SLIDING_WINDOW, "window.attn")
    lines = SLIDING_WINDOW.splitlines()
    softmax = next(i.value for i in spec.items if isinstance(i, Assign) and i.target.name == "P")
    span = softmax.span
    assert lines[span.line - 1][span.column - 1 : span.end_column - 1].startswith("softmax(n) S[b")
    assert span.file == "window.attn"


def test_too_long_a_spec_is_refused() -> None:
    with pytest.raises(AttncError) as e:
        parse("attention x\n" + "#\n" * MAX_TEXT)
    assert e.value.code == "E003"


def test_a_file_that_is_too_long_or_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.attn"
    with pytest.raises(AttncError, match="cannot read"):
        read_text(path)
    path.write_bytes(b"\xff" * (5 * MAX_TEXT))
    with pytest.raises(AttncError) as e:
        read_text(path)
    assert e.value.code in ("E003", "E012")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 32_000,
        "A[m] = " + "(" * 16_000 + "1" + ")" * 16_000,
        "A[m] = " + "-" * 32_000 + "1",
        "A[m] = " + "1 + " * 8_000 + "1",
        "A[m] = " + "if a then b else " * 1_900 + "c",
        "A[m] = " + "sum(n) " * 4_600 + "c",
        "A[m] = " + "9" * 32_000,
        "A[m] = x" + "[" * 32_000,
        "A[" + "m, " * 10_000 + "m] = 1",
        "input Q[" + "m" * 32_000 + "]",
        '"""' * 10_001,
        "\n".join(f"A{i}[m] = {i}" for i in range(2_000)),
        "#" * 32_000,
    ],
    ids=range(13),
)
def test_hostile_sizes_are_answered_in_time(text: str) -> None:
    start = time.process_time()
    try:
        parse(f"attention x\n{text}\n")
    except AttncError as e:
        assert len(str(e)) < 2_000
    assert time.process_time() - start < 2


def test_importing_the_language_loads_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys, attnc.dsl; "
        "print({'lark', 'sympy', 'torch', 'numpy', 'networkx'} & sys.modules.keys())"
    )
    root = Path(__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout == "set()\n"
