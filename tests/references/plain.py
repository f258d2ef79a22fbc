"""What the references share: heads, masks and normalisers in plain torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def per_query_head(x: Tensor, heads: int) -> Tensor:
    """[b, g, ..] -> [b, h, ..]: each key-value head serves h / g query heads in a row."""
    return x.repeat_interleave(heads // x.shape[1], dim=1)


def dots(q: Tensor, k: Tensor) -> Tensor:
    """q [b, h, m, d], k [b, g, n, d] -> [b, h, m, n], not scaled."""
    return q @ per_query_head(k, q.shape[1]).mT


def scaled_dots(q: Tensor, k: Tensor) -> Tensor:
    return dots(q, k) / math.sqrt(q.shape[-1])


def apply(p: Tensor, v: Tensor) -> Tensor:
    """p [b, h, m, n], v [b, g, n, e] -> [b, h, m, e]."""
    return p @ per_query_head(v, p.shape[1])


def causal(s: Tensor) -> Tensor:
    """Which keys each query sees, [m, n], when query 0 is key 0."""
    return torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).tril()


def causal_to_the_end(s: Tensor) -> Tensor:
    """Which keys each query sees, [m, n], when the last query is the last key."""
    m, n = s.shape[-2:]
    return torch.ones((m, n), dtype=torch.bool, device=s.device).tril(n - m)


def softmax(s: Tensor, visible: Tensor | None = None) -> Tensor:
    if visible is not None:
        s = s.masked_fill(~visible, -math.inf)
    nothing = (s == -math.inf).all(dim=-1, keepdim=True)
    return torch.softmax(s, dim=-1).masked_fill(nothing, 0.0)


def attention(x: Mapping[str, Tensor], seen: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention of Q, K, V where `seen`, broadcast to [b, h, m, n]; `bias` is added."""
    s = scaled_dots(x["Q"], x["K"])
    return apply(softmax(s if bias is None else s + bias, seen), x["V"])


def bias_of_offsets(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """table [h, ry, rx] at rows [my, ny] and columns [mx, nx] -> [h, my * mx, ny * nx]."""
    y, x = rows[:, None, :, None], columns[None, :, None, :]
    return table[:, y, x].flatten(3).flatten(1, 2)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0."""
    return torch.where(b == 0, torch.zeros_like(a), a / b)


def elu1(x: Tensor) -> Tensor:
    return torch.nn.functional.elu(x) + 1
