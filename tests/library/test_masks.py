"""Masks against how their sources draw them: slices of documents, partitions, factors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.library import text
from attnc.runtime.reference import reference
from tests.library.visible import Array, visible

# (first query, one past the last, first key, one past the last, kind of slice)
Slice = tuple[int, int, int, int, str]
Drawn = Callable[[list[int], int], Iterator[Slice]]


def painted(total: int, slices: Iterator[Slice]) -> Array:
    """A mask as LongCA-bench and MagiAttention give it; causal slices end at their last corner."""
    seen = np.zeros((total, total), dtype=bool)
    for q0, q1, k0, k1, kind in slices:
        full = np.ones((q1 - q0, k1 - k0), dtype=bool)
        part = np.tril(full, (k1 - k0) - (q1 - q0)) if kind == "causal" else full
        seen[q0:q1, k0:k1] |= part
    return seen


def full_document(ends: list[int], prefix: int) -> Iterator[Slice]:
    for a, b in pairwise(ends):
        yield a, b, a, b, "full"


def causal_document(ends: list[int], prefix: int) -> Iterator[Slice]:
    for a, b in pairwise(ends):
        yield a, b, a, b, "causal"


def share_question(ends: list[int], prefix: int) -> Iterator[Slice]:
    yield from causal_document(ends, prefix)
    yield ends[1], ends[-1], 0, ends[1], "full"


def causal_blockwise(ends: list[int], prefix: int) -> Iterator[Slice]:
    yield from causal_document(ends, prefix)
    yield ends[-2], ends[-1], 0, ends[-1], "causal"


def prefix_lm_document(ends: list[int], prefix: int) -> Iterator[Slice]:
    """The prefix is inclusive in the benchmark's mask functions: prefix + 1 tokens."""
    for a, b in pairwise(ends):
        yield a, b, a, min(a + prefix + 1, b), "full"
        yield a, b, a, b, "causal"


def prefix_lm_causal(ends: list[int], prefix: int) -> Iterator[Slice]:
    total = ends[-1]
    yield 0, total, 0, min(prefix + 1, total), "full"
    yield 0, total, 0, total, "causal"


DRAWN: dict[str, Drawn] = {
    f.__name__: f
    for f in (
        *(full_document, causal_document, share_question),
        *(causal_blockwise, prefix_lm_document, prefix_lm_causal),
    )
}


@pytest.mark.parametrize("lengths", [(5,), (3, 4), (1, 6, 2, 3), (4, 1, 1, 1, 5)], ids=str)
@pytest.mark.parametrize("name", DRAWN)
def test_documents_are_slices(name: str, lengths: tuple[int, ...]) -> None:
    ends = [0, *np.cumsum(lengths).tolist()]
    total, prefix = ends[-1], 2
    doc = np.repeat(np.arange(len(lengths)), lengths)[None]
    begin = np.repeat(np.array(ends[:-1]), lengths)[None]
    params = {"prefix": prefix} if name.startswith("prefix") else {}
    found = visible(
        f"longca_{name}", {"m": total, "n": total}, {"doc": doc, "begin": begin}, **params
    )
    expected = painted(total, DRAWN[name](ends, prefix))
    np.testing.assert_array_equal(found.reshape(total, total), expected)


@pytest.mark.parametrize(("persistent", "window"), [(0, 4), (3, 4), (2, 1), (5, 20)])
def test_memory_as_context_is_slices(persistent: int, window: int) -> None:
    m = 11
    sizes = {"m": m, "n": m + persistent}
    found = visible("titans_mac", sizes, persistent=persistent, window=window)
    segments = ((a, min(a + window, m)) for a in range(0, m, window))
    tokens = painted(m, ((a, b, a, b, "causal") for a, b in segments))
    assert found[:, :persistent].all()
    np.testing.assert_array_equal(found[:, persistent:], tokens)


@pytest.mark.parametrize("name", ["strided", "fixed_strided"])
def test_two_steps_through_the_factors_reach_every_earlier_key(name: str) -> None:
    """What Child et al. ask of a factorisation, section 4.2; stride near the root of the length."""
    params: dict[str, Any] = {"stride": 4} | ({"summary": 1} if name == "fixed_strided" else {})
    even, odd = visible(name, {"h": 2, "m": 18, "n": 18}, **params).astype(int)
    np.testing.assert_array_equal(
        (odd @ even + even @ odd + even + odd) > 0, np.tri(18, dtype=bool)
    )


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_shifted_windows_are_those_of_the_rolled_plane(shift: int) -> None:
    side, window = 6, 3
    extents = {"my": side, "mx": side, "ny": side, "nx": side}
    found = visible("swin", extents, window=window, shift=shift)
    plane = np.arange(side * side).reshape(side, side)
    rolled = np.roll(plane, (-shift, -shift), (0, 1))
    expected = np.zeros_like(found)
    for y in range(0, side, window):
        for x in range(0, side, window):
            tokens = rolled[y : y + window, x : x + window].ravel()
            wrapped = np.stack([tokens // side < shift, tokens % side < shift])
            expected[np.ix_(tokens, tokens)] = (wrapped[:, :, None] == wrapped[:, None]).all(0)
    np.testing.assert_array_equal(found, expected)


def test_space_and_time_are_a_product() -> None:
    extents = {"mf": 3, "mp": 4, "nf": 3, "np": 4}
    np.testing.assert_array_equal(visible("spatial", extents), np.kron(np.eye(3), np.ones((4, 4))))
    np.testing.assert_array_equal(visible("temporal", extents), np.kron(np.ones((3, 3)), np.eye(4)))


def call(name: str, ints: dict[str, list[int]]) -> None:
    spec = load_text(text(name))
    x = torch.ones(1, 1, 4, 2)
    data = {k: torch.tensor([v]) for k, v in ints.items()}
    blocks = {"select": torch.ones(1, 2, 3, dtype=torch.bool)} if "block" in name else {}
    reference(spec, {"Q": x, "K": x, "V": x, **data, **blocks})


@pytest.mark.parametrize(
    ("query_block", "key_block", "says"),
    [
        ([0, 1, 2, 1], [0, 0, 2, 2], "`select` is read at i = 2, but holds i = 0 .. 1"),
        ([0, 1, 1, 1], [0, 3, 2, 2], "`select` is read at j = 3, but holds j = 0 .. 2"),
        ([0, 1, 1, -1], [0, 1, 2, 2], "`select` is read at i = -1, but holds i = 0 .. 1"),
    ],
)
def test_a_block_that_is_missing(query_block: list[int], key_block: list[int], says: str) -> None:
    with pytest.raises(AttncError) as caught:
        call("block_sparse_variable", {"query_block": query_block, "key_block": key_block})
    assert caught.value.code == "E601"
    assert says in str(caught.value)


def test_fewer_blocks_than_the_tokens_fill() -> None:
    with pytest.raises(AttncError) as caught:
        x = torch.ones(1, 1, 129, 2)
        select = torch.ones(1, 2, 3, dtype=torch.bool)
        reference(load_text(text("block_sparse")), {"Q": x, "K": x, "V": x, "select": select})
    assert "`select` is read at i = 2" in str(caught.value)


def test_more_queries_than_tokens_have_documents() -> None:
    q, k, doc = torch.ones(1, 1, 4, 2), torch.ones(1, 1, 3, 2), torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(AttncError) as caught:
        reference(load_text(text("document")), {"Q": q, "K": k, "V": k, "doc": doc})
    assert "`doc` is read at n = 3, but holds n = 0 .. 2" in str(caught.value)
