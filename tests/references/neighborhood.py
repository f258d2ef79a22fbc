"""References of attentions to what is near along the axes of a grid."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Inputs, Outputs, Params, plain


def na1d(x: Inputs, p: Params) -> Outputs:
    lengths = (x["Q"].shape[2], x["K"].shape[2])
    seen = along(*lengths, p["window"], p["stride"], p["dilation"], p["causal"])
    return {"O": plain.attention(x, seen)}


def na2d(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.attention(x, _product(p, "YX"))}


def na3d(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.attention(x, _product(p, "TYX"))}


def gna(x: Inputs, p: Params) -> Outputs:
    return na3d(x, p)


def dilated_na(x: Inputs, p: Params) -> Outputs:
    w, d = p["window"], p["dilation"]
    rows = along(p["MY"], p["NY"], w, 1, d[0], False)
    columns = along(p["MX"], p["NX"], w, 1, d[1], False)
    offsets = [_offsets(p[f"M{a}"], p[f"N{a}"], w, d[i]) for i, a in enumerate("YX")]
    bias = plain.bias_of_offsets(x["bias"], offsets[0], offsets[1])
    return {"O": plain.attention(x, torch.kron(rows, columns), bias)}


def along(queries: int, keys: int, window: int, stride: int, dilation: int, causal: bool) -> Tensor:
    """Which keys each query sees, [queries, keys], one query after the other.

    NATTEN's rule (`mask.hpp`): the window of a stride group's leader, shifted inwards at the
    borders, inside the query's dilation group; if causal, up to the query itself.
    """
    seen = torch.zeros(queries, keys, dtype=torch.bool)
    left, right = window // 2, window // 2 + window % 2 - 1
    for i in range(queries):
        group = range(i % dilation, keys, dilation)
        u, length = i // dilation, len(group)
        if causal:
            leader = min(u // stride * stride + stride - 1, length - 1)
            start, end = leader - window + 1, u + 1
        else:
            leader = min(u // stride * stride + stride // 2, length - 1)
            start = max(leader - left, 0)
            if leader + right >= length:
                start += length - right - leader - 1
            end = start + window
        seen[i, [group[v] for v in range(max(start, 0), min(end, length))]] = True
    return seen


def _product(p: Params, axes: str) -> Tensor:
    """[m, n] over tokens in row-major order: visible along every axis."""
    seen = torch.ones(1, 1, dtype=torch.bool)
    for i, axis in enumerate(axes):
        settings = (p[name][i] for name in ("window", "stride", "dilation", "causal"))
        seen = torch.kron(seen, along(p[f"M{axis}"], p[f"N{axis}"], *settings))
    return seen


def _offsets(queries: int, keys: int, window: int, dilation: int) -> Tensor:
    """The row of a bias table, [queries, keys], inside a dilation group."""
    i, j = torch.arange(queries)[:, None] // dilation, torch.arange(keys) // dilation
    return (j - i + window - 1).clamp(0, 2 * window - 2)


def clear(x: Inputs, p: Params) -> Outputs:
    """Text first, then the image; a circle of keys at a distance less than the radius."""
    m, n = (torch.arange(x[name].shape[2]) - p["text"] for name in "QK")
    y, c = torch.div(m, p["width"], rounding_mode="floor"), m.remainder(p["width"])
    ky, kc = torch.div(n, p["width"], rounding_mode="floor"), n.remainder(p["width"])
    circle = (y[:, None] - ky) ** 2 + (c[:, None] - kc) ** 2 < p["radius"] ** 2
    return {"O": plain.attention(x, (m[:, None] < 0) | (n < 0) | circle)}
