"""References of causal windows, with sinks, gaps and spans per head: key by key."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from tests.references import Inputs, Outputs, Params, plain


def streaming_llm(x: Inputs, p: Params) -> Outputs:
    """The cache of query i: the sinks, and the last `window` keys."""

    def cache(i: int) -> list[int]:
        return [*range(p["sink"]), *range(i - p["window"] + 1, i + 1)]

    return {"O": plain.attention(x, _causal(x, cache))}


def dilated_causal(x: Inputs, p: Params) -> Outputs:
    def reached(i: int) -> range:
        return range(i, i - p["window"] * p["dilation"], -p["dilation"])

    return {"O": plain.attention(x, _causal(x, reached))}


def strided(x: Inputs, p: Params) -> Outputs:
    """A_i^(1) = {max(0, i - l), .., i}, A_i^(2) = {j : (i - j) mod l = 0}."""
    stride = p["stride"]
    near = _causal(x, lambda i: range(max(0, i - stride), i + 1))
    far = _causal(x, lambda i: range(i, -1, -stride))
    return {"O": plain.attention(x, _alternating(x, near, far))}


def fixed_strided(x: Inputs, p: Params) -> Outputs:
    """A_i^(1) = {j : j // l = i // l}, A_i^(2) = {j : j mod l in {l - c, .., l - 1}}."""
    stride, last = p["stride"], p["stride"] - p["summary"]
    near = _causal(x, lambda i: range(i // stride * stride, i + 1))
    far = _causal(x, lambda i: [j for j in range(i + 1) if j % stride >= last])
    return {"O": plain.attention(x, _alternating(x, near, far))}


def moa_window(x: Inputs, p: Params) -> Outputs:
    """Per head a band of blocks and the first blocks, cut to the causal triangle."""
    block = p["block"]

    def of_head(span: int) -> Tensor:
        def band(i: int) -> list[int]:
            first = (i // block - span + 1) * block
            return [*range(p["sink"] * block), *range(first, i + 1)]

        return _causal(x, band)

    seen = [of_head(span) for span in x["span"].tolist()]
    return {"O": plain.attention(x, torch.stack(seen))}


def titans_mac(x: Inputs, p: Params) -> Outputs:
    """Persistent keys in front of the tokens; these in segments or in a sliding window."""
    persistent, window = p["persistent"], p["window"]
    m, n = x["Q"].shape[2], x["K"].shape[2]
    seen = torch.zeros(m, n, dtype=torch.bool)
    seen[:, :persistent] = True
    for i in range(m):
        first = max(0, i - window) if p["sliding"] else i // window * window
        seen[i, persistent + first : persistent + i + 1] = True
    return {"O": plain.attention(x, seen)}


def _causal(x: Inputs, keys: Callable[[int], Iterable[int]]) -> Tensor:
    """[m, n] of the keys each query lists; what is not a key before it does not count."""
    m, n = x["Q"].shape[2], x["K"].shape[2]
    seen = torch.zeros(m, n, dtype=torch.bool)
    for i in range(m):
        seen[i, [j for j in keys(i) if 0 <= j <= min(i, n - 1)]] = True
    return seen


def _alternating(x: Inputs, even: Tensor, odd: Tensor) -> Tensor:
    """[h, m, n]"""
    return torch.stack([(even, odd)[h % 2] for h in range(x["Q"].shape[1])])
