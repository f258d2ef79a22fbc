"""References of attentions that arrange heads, keys and values differently."""

from __future__ import annotations

import math

import torch

from tests.references import Inputs, Outputs, Params, plain


def gqa(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"])
    return {"O": plain.apply(plain.softmax(s, plain.causal_to_the_end(s)), x["V"])}


def diffqkv(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"])
    return {"O": plain.apply(plain.softmax(s, plain.causal(s)), x["V"])}


def mla(x: Inputs, p: Params) -> Outputs:
    """The plain form: keys [nope; rope] of every head, expanded from the latent."""
    latent, heads = x["CKV"][:, None], x["UK"].shape[0]
    rotary = x["KR"][:, None].expand(-1, heads, -1, -1)
    q = torch.cat([x["QN"], x["QR"]], dim=-1)
    k = torch.cat([latent @ x["UK"], rotary], dim=-1)
    s = q @ k.mT / math.sqrt(q.shape[-1])
    return {"O": plain.softmax(s, plain.causal_to_the_end(s)) @ (latent @ x["UV"])}


def mla_absorbed(x: Inputs, p: Params) -> Outputs:
    return mla(x, p)


def multi_value(x: Inputs, p: Params) -> Outputs:
    """One attention over the values side by side, cut apart."""
    a = plain.softmax(plain.scaled_dots(x["Q"], x["K"]))
    both = plain.apply(a, torch.cat([x["VF"], x["VC"]], dim=-1))
    features, cost = torch.split(both, [x["VF"].shape[-1], x["VC"].shape[-1]], dim=-1)
    return {"OF": features, "OC": cost}


def talking_heads(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"])
    a = plain.softmax(torch.einsum("bimn,ih->bhmn", s, x["WL"]))
    return {"O": torch.einsum("bhmn,hj->bjmn", a, x["WP"]) @ x["V"]}
