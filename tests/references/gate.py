"""References of attentions whose output is gated."""

from __future__ import annotations

import torch

from tests.references import Inputs, Outputs, Params, plain


def ca_softmax(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"])
    gate = 2 * torch.sigmoid(x["X"] @ x["WS"]).mT[..., None]
    return {"O": gate * plain.apply(plain.softmax(s, plain.causal(s)), x["V"])}


def gated_attn(x: Inputs, p: Params) -> Outputs:
    logit = torch.einsum("bhmc,hc->bhm", x["X"], x["WG"]) + x["bias"][:, None]
    o = plain.apply(plain.softmax(plain.scaled_dots(x["Q"], x["K"])), x["V"])
    return {"O": torch.sigmoid(logit)[..., None] * o}
