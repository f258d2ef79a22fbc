"""References of masks that follow data: documents, regions, prefixes, kinds of tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from tests.references import Inputs, Outputs, Params, plain


def document(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.attention(x, same_document(x))}


def causal_document(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.attention(x, same_document(x) & past(x))}


def same_document(x: Inputs) -> Tensor:
    """[b, 1, m, n]; the queries are the first of the tokens."""
    return of_queries(x, "doc") == of_keys(x, "doc")


def of_queries(x: Inputs, name: str) -> Tensor:
    """[b, 1, m, 1] of a vector along the tokens; 0 behind the last of them."""
    missing = max(0, x["Q"].shape[2] - x[name].shape[1])
    return pad(x[name], (0, missing))[:, None, : x["Q"].shape[2], None]


def of_keys(x: Inputs, name: str) -> Tensor:
    """[b, 1, 1, n]"""
    return x[name][:, None, None]


def past(x: Inputs) -> Tensor:
    """[m, n]: keys up to the query's own place."""
    m, n = (torch.arange(x[name].shape[2]) for name in "QK")
    return n <= m[:, None]


def prefix_lm(x: Inputs, p: Params) -> Outputs:
    """Per sequence: the causal triangle, with the columns of the prefix filled."""
    seen = past(x).expand(x["Q"].shape[0], 1, -1, -1).clone()
    for of_batch, length in zip(seen, x["prefix"].tolist(), strict=True):
        of_batch[..., : max(length, 0)] = True
    return {"O": plain.attention(x, seen)}


def region_mask(x: Inputs, p: Params) -> Outputs:
    same = x["query_region"][:, :, None] == x["key_region"][:, None]
    return {"O": plain.attention(x, (same | x["shared"][:, None])[:, None])}


def mixed_bidirectional(x: Inputs, p: Params) -> Outputs:
    both = of_queries(x, "image") & of_keys(x, "image")
    return {"O": plain.attention(x, past(x) | both)}


def scale_blockdiag(x: Inputs, p: Params) -> Outputs:
    """One attention per scale."""
    seen = torch.zeros(x["Q"].shape[2], x["K"].shape[2], dtype=torch.bool)
    for scale in set(x["scale"].tolist()):
        of_scale = x["scale"] == scale
        seen |= of_scale[: seen.shape[0], None] & of_scale
    return {"O": plain.attention(x, seen)}
