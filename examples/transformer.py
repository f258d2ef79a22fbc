"""A small language model over bytes whose attention is a spec: any of the library, or your own.

Layers alternate between a sliding window and full causal attention, with fewer key heads than query
heads. The same weights with torch's own attention give the same logits.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import attnc

WINDOW = 32

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Block(nn.Module):
    """Attention, then a feed-forward layer, each after a norm and beside a residual."""

    def __init__(self, attend: Attend, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.attend = attend
        self.sizes = [
            heads * (width // heads),
            groups * (width // heads),
            groups * (width // heads),
        ]
        self.head = width // heads
        self.project = nn.Linear(width, sum(self.sizes), bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norms = nn.ModuleList([nn.RMSNorm(width), nn.RMSNorm(width)])
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = self.project(self.norms[0](x)).split(self.sizes, -1)
        # [batch, token, head, d] seen as [batch, head, token, d]: any strides will do.
        q, k, v = (part.unflatten(-1, (-1, self.head)).transpose(1, 2) for part in parts)
        x = x + self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))
        y: Tensor = x + self.mlp(self.norms[1](x))
        return y


class Model(nn.Module):
    """Bytes to logits of the next byte."""

    def __init__(self, local: Attend, full: Attend, layers: int = 4, width: int = 96) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width)
        attends = [full if i % 2 else local for i in range(layers)]
        self.blocks = nn.Sequential(*(Block(a, width, heads=6, groups=2) for a in attends))
        self.logits = nn.Linear(width, 256, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.logits(self.blocks(self.embed(tokens)))
        return logits


def dense(window: int) -> Attend:
    """The same attention in plain torch, with a mask of tokens x tokens."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        i = torch.arange(q.shape[-2])
        near = (i <= i[:, None]) & (i[:, None] - i < window)
        return scaled_dot_product_attention(q, k, v, near, enable_gqa=True)

    return attend


def main() -> None:
    torch.manual_seed(0)
    text = Path(__file__).read_bytes()[:500]
    tokens = torch.tensor(list(text)).reshape(2, -1)
    model = Model(attnc.load("sliding_window", window=WINDOW), attnc.load("causal")).eval()
    plain = Model(dense(WINDOW), dense(tokens.numel())).eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        found, expected = model(tokens), plain(tokens)
    print(f"logits {tuple(found.shape)}, differing by {(found - expected).abs().max():.1e} at most")
    torch.testing.assert_close(found, expected)


if __name__ == "__main__":
    main()
