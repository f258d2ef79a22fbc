"""References of attentions that mix several maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from tests.references import Inputs, Outputs, Params, plain


def gpsa(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"])
    my, mx = _grid(s.shape[-2], int(p["MX"]))
    ny, nx = _grid(s.shape[-1], int(p["NX"]))
    dx, dy = nx - mx[:, None], ny - my[:, None]
    features = torch.stack([dx, dy, dx**2 + dy**2], dim=-1).to(s)
    weights = torch.stack([x["wx"], x["wy"], x["wr"]], dim=-1)
    positional = torch.einsum("mnj,hj->hmn", features, weights) + x["bias"][:, None, None]
    gate = torch.sigmoid(x["gate"])[:, None, None]
    a = (1 - gate) * plain.softmax(s) + gate * plain.softmax(positional)
    return {"O": plain.apply(a, x["V"])}


def _grid(length: int, width: int) -> tuple[Tensor, Tensor]:
    """Row and column of each token of a grid."""
    token = torch.arange(length)
    return token // width, token % width


def differential(x: Inputs, p: Params) -> Outputs:
    s1, s2 = plain.scaled_dots(x["Q1"], x["K1"]), plain.scaled_dots(x["Q2"], x["K2"])
    past = plain.causal(s1)
    a = plain.softmax(s1, past) - x["lam"] * plain.softmax(s2, past)
    o = plain.apply(a, x["V"])
    return {"O": (1 - p["lambda_init"]) * rms_norm(o, o.shape[-1:], eps=p["eps"])}
