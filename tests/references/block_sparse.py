"""References of attentions whose blocks are chosen: the choice is laid out token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Inputs, Outputs, Params, plain


def block_sparse(x: Inputs, p: Params) -> Outputs:
    rows, columns = p["block"]
    return {"O": plain.attention(x, _spread(x, x["select"], rows, columns))}


def _spread(x: Inputs, blocks: Tensor, rows: int, columns: int) -> Tensor:
    """[h, i, j] to [h, m, n]: every choice repeated over its block."""
    m, n = x["Q"].shape[2], x["K"].shape[2]
    laid = blocks[:, : -(-m // rows), : -(-n // columns)]
    return laid.repeat_interleave(rows, 1).repeat_interleave(columns, 2)[:, :m, :n]


def block_sparse_variable(x: Inputs, p: Params) -> Outputs:
    """Head by head: rows of the choice for the queries, columns for the keys."""
    choices = zip(x["select"], x["query_block"], x["key_block"], strict=True)
    return {"O": plain.attention(x, torch.stack([s[q][:, k] for s, q, k in choices]))}


def bigbird(x: Inputs, p: Params) -> Outputs:
    """The union of three patterns of blocks."""
    m, n, block = x["Q"].shape[2], x["K"].shape[2], p["block"]
    rows, columns = -(-m // block), -(-n // block)
    pattern = x["random"][:, :rows, :columns].clone()
    for i in range(rows):
        near = range(max(0, i - p["window"] // 2), min(columns, i + p["window"] // 2 + 1))
        pattern[:, i, list(near)] = True
    if rows and columns:
        pattern[:, [0, -1], :] = True
        pattern[:, :, [0, -1]] = True
    return {"O": plain.attention(x, _spread(x, pattern, block, block))}
