"""Masks that read outside of their tensors are refused, whatever else hides there."""

from __future__ import annotations

import pytest
import torch

import attnc
from attnc.errors import AttncError


def inputs(queries: int, keys: int) -> tuple[torch.Tensor, ...]:
    return torch.randn(1, 2, queries, 4), torch.randn(1, 2, keys, 4), torch.randn(1, 2, keys, 4)


def test_ids_of_keys_do_not_tell_those_of_more_queries() -> None:
    ids = torch.zeros(1, 6, dtype=torch.int64)
    with pytest.raises(AttncError, match=r"`doc\[b, m\]` is read at m = 8") as e:
        attnc.load("document")(*inputs(9, 6), doc=ids)
    assert e.value.code == "E601"


def test_a_selection_must_have_every_block() -> None:
    attn = attnc.load("block_sparse", block=(4, 4))
    whole = torch.ones(2, 3, 2, dtype=torch.bool)
    assert attn(*inputs(9, 6), select=whole).shape == (1, 2, 9, 4)
    with pytest.raises(AttncError, match=r"n // block\[1\] = 1, but the axis has length 1"):
        attn(*inputs(9, 6), select=whole[:, :, :1])


def test_a_list_of_blocks_must_not_name_a_missing_one() -> None:
    attn = attnc.load("block_sparse_variable")
    ids = {"query_block": torch.zeros(2, 9, dtype=torch.int64)}
    key_block = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, -1]])
    select = torch.ones(2, 1, 3, dtype=torch.bool)
    with pytest.raises(AttncError, match="= -1, but the axis has length 3"):
        attn(*inputs(9, 6), key_block=key_block, select=select, **ids)
    assert attn(*inputs(9, 6), key_block=key_block.abs(), select=select, **ids).isfinite().all()


def test_nothing_is_read_where_there_is_nothing() -> None:
    ids = torch.zeros(1, 0, dtype=torch.int64)
    assert attnc.load("document")(*inputs(3, 0), doc=ids).eq(0).all()
