"""References of attentions with another normaliser than softmax, or none."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Inputs, Outputs, Params, plain


def sigmoid(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"])
    a = torch.sigmoid(s - math.log(max(s.shape[-1], 1)))
    return {"O": plain.apply(a * plain.causal(s), x["V"])}


def relu_n(x: Inputs, p: Params) -> Outputs:
    s = torch.relu(plain.dots(x["Q"] @ x["W"], x["K"]))
    return {"O": plain.apply(s, x["V"]) / max(s.shape[-1], 1)}


def relu_l1(x: Inputs, p: Params) -> Outputs:
    a = torch.relu(plain.scaled_dots(x["Q"], x["K"]))
    return {"O": plain.apply(a / (a.sum(-1, keepdim=True) + 1e-5), x["V"])}


def scale_attn(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"])
    return {"O": plain.apply(s, x["V"]) / max(s.shape[-1], 1)}


def quad2_l1(x: Inputs, p: Params) -> Outputs:
    a = plain.scaled_dots(x["Q"], x["K"]) ** 2
    return {"O": plain.apply(plain.divide(a, a.sum(-1, keepdim=True)), x["V"])}


def lssa(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.apply(_lssa(x)[0], x["V"])}


def lssar(x: Inputs, p: Params) -> Outputs:
    a, visible = _lssa(x)
    b = torch.relu(visible * a - 1) ** int(p["power"])
    return {"O": plain.apply(b / (b.sum(-1, keepdim=True) + 1e-6), x["V"])}


def _lssa(x: Inputs) -> tuple[Tensor, Tensor]:
    """The map [b, h, m, n] and how many keys each row sees [m, 1]."""
    s = plain.scaled_dots(x["Q"], x["K"])
    past = plain.causal(s)
    visible = past.sum(-1, keepdim=True).to(s)
    s = math.log(x["Q"].shape[-1]) * visible.log() * s
    a = torch.logaddexp(s, torch.zeros_like(s)).masked_fill(~past, 0.0)
    return plain.divide(a, a.sum(-1, keepdim=True)), visible


def sink_sim(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"])
    a = (plain.elu1(s) if p["elu"] else torch.sigmoid(s)) * plain.causal(s)
    if p["normalise"]:
        a = a / (a.sum(-1, keepdim=True) + 1e-8)
    return {"O": plain.apply(a, x["V"])}


def sink_kernel(x: Inputs, p: Params) -> Outputs:
    if p["elu"]:
        a = plain.scaled_dots(plain.elu1(x["Q"]), plain.elu1(x["K"]))
        a = a * plain.causal(a)
        a = a / (a.sum(-1, keepdim=True) + 1e-8) if p["normalise"] else a
    else:
        a = _signed(plain.scaled_dots(x["Q"], x["K"]), bool(p["normalise"]))
    return {"O": plain.apply(a, x["V"])}


def sink_kernel_mlp(x: Inputs, p: Params) -> Outputs:
    q, k = (torch.relu(x[name] @ x["W1"].mT) @ x["W2"].mT for name in "QK")
    s = plain.dots(q, k) / math.sqrt(x["Q"].shape[-1])
    return {"O": plain.apply(_signed(s, bool(p["normalise"])), x["V"])}


def _signed(s: Tensor, normalise: bool) -> Tensor:
    """Causal scores of any sign, over max(|sum|, 1) if normalised."""
    s = s * plain.causal(s)
    return s / s.sum(-1, keepdim=True).abs().clamp(min=1) if normalise else s
