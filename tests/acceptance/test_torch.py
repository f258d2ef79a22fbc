"""An emitted module as a part of torch: compiled graphs, modules, shapes that change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import attnc

Kernel = Callable[..., Any]


def qkv(m: int = 9, n: int = 13) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(m)
    return torch.randn(2, 4, m, 8), torch.randn(2, 2, n, 8), torch.randn(2, 2, n, 6)


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_module_is_one_node_of_a_compiled_graph(
    kernel: Callable[..., Kernel], backend: str
) -> None:
    torch._dynamo.reset()
    function = kernel(attnc.load("causal"))

    @torch.compile(fullgraph=True, backend=backend)
    def block(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        result: Tensor = function(q * 0.5, k * 2, v) + 1
        return result

    # the second length makes torch treat it as variable, the third runs what that compiled
    for m in (9, 12, 17):
        torch.testing.assert_close(block(*qkv(m)), exact(*qkv(m)) + 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_several_outputs_and_a_parameter_in_a_compiled_graph(kernel: Callable[..., Kernel]) -> None:
    torch._dynamo.reset()
    function = kernel(attnc.load("lse"))
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*qkv()), function(*qkv()), strict=True):
        torch.testing.assert_close(got, want)
    window = kernel(attnc.load("sliding_window"))
    near = torch.compile(lambda *x: window(*x, window=2), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(near(*qkv()), window(*qkv(), window=2))


class Layer(nn.Module):
    """Attention with projections; `attn` is any spec's function."""

    def __init__(self, attn: Callable[..., Any]) -> None:
        super().__init__()
        self.attn = attn
        self.project = nn.Linear(16, 3 * 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        result: Tensor = self.attn(q, k, v).transpose(1, 2).flatten(-2)
        return result


def test_a_spec_is_a_models_attention() -> None:
    torch.manual_seed(0)
    layer = Layer(attnc.load("causal")).eval()
    plain = Layer(lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True))
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(3, 10, 16)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), plain(x))
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), plain(x))
