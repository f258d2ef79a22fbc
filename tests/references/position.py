"""References of attentions with positions in the score."""

from __future__ import annotations

import torch

from tests.references import Inputs, Outputs, Params, plain


def alibi(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"])
    m, n = (torch.arange(extent).to(s) for extent in s.shape[-2:])
    s = s + x["slope"][:, None, None] * (n - m[:, None])
    return {"O": plain.apply(plain.softmax(s, plain.causal(s)), x["V"])}


def additive_bias(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"]) + x["bias"]
    return {"O": plain.apply(plain.softmax(s), x["V"])}


def cmha(x: Inputs, p: Params) -> Outputs:
    """The [m, n, d] tensor of phases, as in the authors' code."""
    rq, fq = x["RQ"], x["FQ"]
    rk, fk = (plain.per_query_head(x[name], rq.shape[1]) for name in ("RK", "FK"))
    m, n = torch.arange(rq.shape[2]).to(rq), torch.arange(rk.shape[2]).to(rq)
    delta, shift = x["delta"][:, None, None], x["shift"][:, None, None]
    distance = (m[:, None] - n)[:, :, None] * x["freq"]
    phase = delta * (fq[:, :, :, None] - fk[:, :, None]) + shift + distance
    s = torch.einsum("bhmd,bhnd,bhmnd->bhmn", rq, rk, torch.cos(phase))
    return {"O": plain.apply(plain.softmax(s, plain.causal(s)), x["V"])}
