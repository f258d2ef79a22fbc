"""Use a spec of your own: load it by its path, call it, compare it with its formula in torch."""

from pathlib import Path

import torch
from torch.nn.functional import softplus

import attnc

torch.manual_seed(0)
batch, heads, groups, queries, keys, d, e = 2, 6, 2, 77, 131, 40, 72
q = torch.randn(batch, heads, queries, d)
k = torch.randn(batch, groups, keys, d)
v = torch.randn(batch, groups, keys, e)
power = torch.linspace(0.5, 2.0, heads)
bias = torch.randn(heads, queries, keys)

attn = attnc.load(Path(__file__).parent / "power.attn")
o = attn(q, k, v, power=power, bias=bias)

# The formula on tensors that hold every score: what the kernel never does.
k, v = (x.repeat_interleave(heads // groups, 1) for x in (k, v))
past = torch.arange(keys) - (keys - queries) <= torch.arange(queries)[:, None]
weights = softplus(q @ k.mT / d**0.5 + bias) ** power[:, None, None] * past
expected = weights @ v / (1 + weights.sum(-1, keepdim=True))

print(attn.explain())
print(f"\nlargest difference to the formula: {(o - expected).abs().max():.1e}")
torch.testing.assert_close(o, expected)
