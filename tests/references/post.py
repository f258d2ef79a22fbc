"""References of attentions that change the weights after the softmax."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from tests.references import Inputs, Outputs, Params, plain


def clipped_softmax(x: Inputs, p: Params) -> Outputs:
    a = plain.softmax(plain.scaled_dots(x["Q"], x["K"]))
    gamma = -p["alpha"] / max(a.shape[-1], 1)
    return {"O": plain.apply(torch.clamp((p["zeta"] - gamma) * a + gamma, 0, 1), x["V"])}


def bin_attn(x: Inputs, p: Params) -> Outputs:
    q, k, v = (x[f"{name.lower()}_scale"] * torch.sign(x[name]) for name in "QKV")
    a = plain.softmax(plain.scaled_dots(q, k))
    # A zero beside the weights, which are positive, makes a row without keys have a maximum.
    threshold = pad(a, (0, 1)).amax(-1, keepdim=True) / 4
    return {"O": plain.apply((a >= threshold).to(a), v)}


def soft_mask(x: Inputs, p: Params) -> Outputs:
    a = plain.softmax(plain.scaled_dots(x["Q"], x["K"]))
    return {"O": plain.apply(torch.where(plain.causal(a), a, p["r"] * a), x["V"])}


def key_gain(x: Inputs, p: Params) -> Outputs:
    """Normalised again, a gain is its logarithm added to the score; not, it scales the values."""
    s = plain.scaled_dots(x["Q"], x["K"])
    log_gain = (x["strength"][:, None] * x["saliency"][:, None])[:, :, None]
    if p["renormalise"]:
        return {"O": plain.apply(plain.softmax(s + log_gain, plain.causal(s)), x["V"])}
    return {"O": plain.apply(plain.softmax(s, plain.causal(s)) * log_gain.exp(), x["V"])}


def attn_edit(x: Inputs, p: Params) -> Outputs:
    """(P gain) V is P (gain V), and a constant at chosen keys adds the sum of their values."""
    a, v = plain.softmax(plain.scaled_dots(x["Q"], x["K"])), x["V"]
    edited = plain.apply(a, x["gain"][:, None, :, None] * v)
    chosen = (x["chosen"][:, None, :, None] * v).sum(2, keepdim=True)
    return {"O": edited + p["weight"] * plain.per_query_head(chosen, a.shape[1])}
