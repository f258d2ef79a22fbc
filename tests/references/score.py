"""References of attentions that change the score."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from tests.references import Inputs, Outputs, Params, plain


def softcap(x: Inputs, p: Params) -> Outputs:
    s = torch.tanh(plain.scaled_dots(x["Q"], x["K"]) / p["cap"]) * p["cap"]
    return {"O": plain.apply(plain.softmax(s, plain.causal(s)), x["V"])}


def qk_norm(x: Inputs, p: Params) -> Outputs:
    q = rms_norm(x["Q"], x["Q"].shape[-1:], x["wq"], p["eps"])
    k = rms_norm(x["K"], x["K"].shape[-1:], x["wk"], p["eps"])
    s = plain.scaled_dots(q, k)
    return {"O": plain.apply(plain.softmax(s, plain.causal(s)), x["V"])}


def ssa(x: Inputs, p: Params) -> Outputs:
    query = _temperature(x["FQ"], x["AQ"])
    value = _temperature(x["FV"], x["AV"])
    s = plain.scaled_dots(query * x["Q"], x["K"])
    return {"O": plain.apply(plain.softmax(s, plain.causal(s)), value * x["V"])}


def _temperature(token: Tensor, weight: Tensor) -> Tensor:
    """tanh(f) + 1 + sigmoid(alpha) log i, for positions i = 1, 2, ..: [b, h, length, 1]."""
    position = torch.arange(1, token.shape[-1] + 1).to(token)
    return (token.tanh() + 1 + weight.sigmoid()[:, None] * position.log())[..., None]


def prior_bias(x: Inputs, p: Params) -> Outputs:
    s, prior = plain.scaled_dots(x["Q"], x["K"]), x["prior"][:, None, None]
    return {"O": plain.apply(plain.softmax(s * prior if p["scaled"] else s + prior), x["V"])}
