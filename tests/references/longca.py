"""References of the twelve static masks of LongCA-bench, from its own mask functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from tests.references import Inputs, Outputs, Params, plain
from tests.references.document import of_keys, of_queries, past, same_document


def longca_full(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.attention(x, past(x) | True)}


def longca_causal(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.attention(x, past(x))}


def longca_sliding_window(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.attention(x, _distance(x).abs() <= p["window"])}


def longca_sliding_window_causal(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.attention(x, past(x) & (_distance(x) <= p["window"]))}


def longca_full_document(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.attention(x, same_document(x))}


def longca_causal_document(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.attention(x, same_document(x) & past(x))}


def longca_share_question(x: Inputs, p: Params) -> Outputs:
    asked = (of_queries(x, "doc") != 0) & (of_keys(x, "doc") == 0)
    return {"O": plain.attention(x, same_document(x) & past(x) | asked)}


def longca_causal_blockwise(x: Inputs, p: Params) -> Outputs:
    last = pad(x["doc"], (1, 0))[:, -1, None, None, None]
    final = (of_queries(x, "doc") == last) & (of_keys(x, "doc") != last)
    return {"O": plain.attention(x, same_document(x) & past(x) | final)}


def longca_prefix_lm_causal(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.attention(x, past(x) | (torch.arange(x["K"].shape[2]) <= p["prefix"]))}


def longca_prefix_lm_document(x: Inputs, p: Params) -> Outputs:
    place = torch.arange(x["K"].shape[2]) - x["begin"]
    prefix = (place <= p["prefix"])[:, None, None]
    return {"O": plain.attention(x, same_document(x) & (past(x) | prefix))}


def longca_global_sliding_window(x: Inputs, p: Params) -> Outputs:
    seen = _distance(x).abs() <= p["window"]
    seen[: 2 * p["window"]] = True
    seen[:, : 2 * p["window"]] = True
    return {"O": plain.attention(x, seen)}


def longca_block_causal_document(x: Inputs, p: Params) -> Outputs:
    seen = past(x)
    for start in range(0, seen.shape[0], p["block"]):
        seen[start : start + p["block"], : start + p["block"]] = True
    return {"O": plain.attention(x, same_document(x) & seen)}


def _distance(x: Inputs) -> Tensor:
    """Query minus key, [m, n]."""
    m, n = (torch.arange(x[name].shape[2]) for name in "QK")
    return m[:, None] - n
