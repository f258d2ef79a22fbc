"""References of attentions with a sink: a key or a logit that is always there."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Inputs, Outputs, Params, plain


def softmax1(x: Inputs, p: Params) -> Outputs:
    s = plain.scaled_dots(x["Q"], x["K"])
    return {"O": plain.apply(_with_sink(s, s.new_zeros(1))[0], x["V"])}


def sink_logit(x: Inputs, p: Params) -> Outputs:
    s = _causal_scores(x)
    return {"O": plain.apply(_with_sink(s, x["sink"][:, None, None])[0], x["V"])}


def sink_kv(x: Inputs, p: Params) -> Outputs:
    """The learned key and value in front of the others."""
    a, sink = _with_sink(_causal_scores(x), _learned_key_scores(x))
    return {"O": plain.apply(a, x["V"]) + sink * x["VS"][:, None]}


def v_bias(x: Inputs, p: Params) -> Outputs:
    return {"O": plain.apply(plain.softmax(_causal_scores(x)), x["V"]) + x["VS"][:, None]}


def ca_bias(x: Inputs, p: Params) -> Outputs:
    """Two attentions, as in the authors' code: the second sees the learned key as well."""
    s = _causal_scores(x)
    _, sink = _with_sink(s, _learned_key_scores(x))
    return {"O": plain.apply(plain.softmax(s), x["V"]) + sink * x["VS"][:, None]}


def _causal_scores(x: Inputs) -> Tensor:
    s = plain.scaled_dots(x["Q"], x["K"])
    return s.masked_fill(~plain.causal(s), -math.inf)


def _learned_key_scores(x: Inputs) -> Tensor:
    """[b, h, m, 1]"""
    return x["Q"] @ x["KS"][:, :, None] / math.sqrt(x["Q"].shape[-1])


def _with_sink(s: Tensor, sink: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax weights of the keys and of one more key whose score is `sink`."""
    both = torch.softmax(torch.cat([sink.expand(*s.shape[:-1], 1), s], dim=-1), dim=-1)
    return both[..., 1:], both[..., :1]
