"""References of the softmax family."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.references import Inputs, Outputs, Params, plain


def sdpa(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.apply(plain.softmax(plain.scaled_dots(x["Q"], x["K"])), x["V"])}


def sdpa_2pass(x: Inputs, p: Params) -> Outputs:
    return {"AV": sdpa(x, p)["O"]}


def sdpa_1pass(x: Inputs, p: Params) -> Outputs:
    heads = x["Q"].shape[1]
    k, v = (plain.per_query_head(x[name], heads) for name in "KV")
    return {"AV": scaled_dot_product_attention(x["Q"], k, v)}


def causal(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"])
    return {"O": plain.apply(plain.softmax(s, plain.causal(s)), x["V"])}


def sliding_window(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"])
    near = plain.causal(s).triu(1 - int(p["window"]))
    return {"O": plain.apply(plain.softmax(s, near), x["V"])}


def lse(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"])
    past = plain.causal_to_the_end(s)
    return {
        "O": plain.apply(plain.softmax(s, past), x["V"]),
        "LSE": torch.logsumexp(s.masked_fill(~past, -math.inf), dim=-1),
    }
