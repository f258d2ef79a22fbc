"""Names, docstrings and comments of a spec are text: they never change what a module does."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from attnc.api import Attention
from attnc.codegen import emit
from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.pipeline import plan

SPEC = """\
attention {attention}
{doc}
input {Q}[{b}, {h}, {m}, {d}]
input {K}[{b}, {h}, {n}, {d}]
input {V}[{b}, {h}, {n}, {e}]
param {scale}: float = 1.0  # {comment}
{S}[{b}, {h}, {m}, {n}] = {scale} * (
    sum({d}) {Q}[{b}, {h}, {m}, {d}] * {K}[{b}, {h}, {n}, {d}] / sqrt({D}))
{P}[{b}, {h}, {m}, {n}] = softmax({n}) {S}[{b}, {h}, {m}, {n}]  where {n} <= {m}
{O}[{b}, {h}, {m}, {e}] = sum({n}) {P}[{b}, {h}, {m}, {n}] * {V}[{b}, {h}, {n}, {e}]
output {O}[{b}, {h}, {m}, {e}]
"""
PLAIN = {name: name for name in "QKVSPObhmnde"} | {
    "attention": "plain",
    "scale": "factor",
    "doc": '"""What it is."""',
    "comment": "what it does",
}
# Words of Triton, of the emitted code, of Python.
TAKEN = """
    tl torch triton math re O Q N M BLOCK_M BLOCK_D pid self print exec float range LOG2E
    q k v o s p m n d h b m0 n0 offs_m in_m tile_m tiles_m q_ptrs stride_qb scale width programs
    num_warps num_stages warps stages tiles debug grid warmup maxnreg extents tensor w _ _x _plain
    _check _OP _TILES _KINDS _divide _exact check divide exact OP TILES KINDS plain plain_kernel
    case match type lambda class None __class__ __init__ attention output sum softmax where
""".split()
CORNERS = ["attention", "scale", "Q", "K", "S", "O", "b", "m", "n", "d"]


def text(**names: str) -> str:
    used = {**PLAIN, **names}
    return SPEC.format(**used, D=used["d"].upper())


def right_or_refused(
    spec: str, attention: Callable[[str], Attention], kernel: Callable[..., Any]
) -> None:
    """The module computes what the plain one does, or the spec is refused with a code."""
    try:
        made = attention(spec)
    except AttncError:
        return
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 9, 8), torch.randn(1, 2, 9, 3)
    want = scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(kernel(made)(q, k, v), want)


@pytest.mark.parametrize("name", ["width", "num_warps", "_check", "tl", "stride_qb", "check"])
def test_a_name_is_only_a_name(
    name: str, attention: Callable[[str], Attention], kernel: Callable[..., Any]
) -> None:
    for place in ("attention", "Q", "n"):
        right_or_refused(text(**{place: name}), attention, kernel)


def accepted(place: str) -> list[str]:
    """The words that the language lets stand in a place."""

    def fits(word: str) -> bool:
        try:
            return bool(load_text(text(**{place: word})))
        except AttncError:
            return False

    return [word for word in TAKEN if fits(word)]


@pytest.mark.slow
def test_every_taken_name_in_every_place(
    attention: Callable[[str], Attention], kernel: Callable[..., Any]
) -> None:
    """A spec has a different word in each place; each word comes to each place once."""
    words = {place: accepted(place) for place in CORNERS}
    for i in range(max(map(len, words.values()))):
        chosen = {p: w[(i + 5 * k) % len(w)] for k, (p, w) in enumerate(words.items())}
        right_or_refused(text(**chosen), attention, kernel)


def test_one_letter_for_all_that_may_share_it(
    attention: Callable[[str], Attention], kernel: Callable[..., Any]
) -> None:
    """Tensor `n` over rank `n`; tensors called like extents."""
    for names in (
        {"Q": "n", "K": "m", "V": "d", "S": "s", "P": "p", "O": "o"},
        {"Q": "N", "K": "M", "V": "E", "S": "D", "P": "H", "O": "B"},
        {"Q": "q", "K": "k", "V": "v", "b": "q", "m": "k", "n": "v"},
    ):
        spec = text(**names)
        assert attention(spec).name == "plain"
        right_or_refused(spec, attention, kernel)


def shape_of_code(source: str) -> list[str]:
    """The kinds of all nodes of a module, strings counted as one kind: all but names and text."""
    return [type(node).__name__ for node in ast.walk(ast.parse(source))]


WANT = shape_of_code(emit(plan(load_text(text()))))
NASTY = st.sampled_from(
    ['"', '"""', "'''", "\\", '\\"', "\n", "#", "{{ 1 }}", "{% raw %}", "{x}", "%s", "\\x41",
     "\\N{DASH}", "\x00", "\u2028", "\u202e", "\r", "\x0c", "é", "\U0001f600", "os", ")", "]"]
)  # fmt: skip
TEXT = st.lists(NASTY | st.text(max_size=8), max_size=6).map("".join)


@given(TEXT, TEXT)
def test_text_stays_text(doc: str, comment: str) -> None:
    """Whatever stands in a docstring or a comment, the code is the same or the spec is refused."""
    try:
        made = plan(load_text(text(doc=f'"""{doc}"""', comment=comment)))
    except AttncError:
        return
    assert shape_of_code(emit(made)) == WANT


NAMES = st.sampled_from(TAKEN) | st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,70}", fullmatch=True)


@given(st.dictionaries(st.sampled_from(CORNERS), NAMES, max_size=4))
def test_names_stay_names(names: dict[str, str]) -> None:
    try:
        made = plan(load_text(text(**names)))
    except AttncError:
        return
    assert shape_of_code(emit(made)) == WANT
