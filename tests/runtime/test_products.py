"""Products of tiles as batched matrix products, and masks put into tiles bit by bit."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnc.runtime.hidden import Hidden, Mask
from attnc.runtime.products import Product


def tile(draw: st.DrawFn, shape: list[int], whole: list[int]) -> Tensor:
    """A tensor of this shape in any order in memory, perhaps a part of a larger one."""
    order = draw(st.permutations(range(len(shape))))
    larger = [n + draw(st.integers(0, 2)) for n in shape]
    x = torch.randint(-4, 5, [larger[i] for i in order]).double()
    x = x.permute([list(order).index(i) for i in range(len(shape))])
    for axis, n in enumerate(shape):
        x = x.narrow(axis, 0, n)
    return x


@st.composite
def operands(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    whole = draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    shapes = [[n if draw(st.booleans()) else 1 for n in whole] for _ in range(2)]
    over = draw(st.integers(0, len(whole) - 1))
    a, b = (tile(draw, shape, whole) for shape in shapes)
    return a, b, over


@given(operands())
@settings(max_examples=150, deadline=None)
def test_products_of_tiles(case: tuple[Tensor, Tensor, int]) -> None:
    a, b, over = case
    wanted = (a * b).sum(over, keepdim=True)
    shape = tuple(max(m, n) for m, n in zip(a.shape, b.shape, strict=True))
    multiply = Product(over)
    found = multiply(a, b, shape)
    assert torch.equal(found.expand(wanted.shape), wanted)
    total = found.clone() if found.shape == wanted.shape else wanted.clone()
    if multiply.add_to(total, a, b):
        assert torch.equal(total, 2 * wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fill", [-inf, 0.0, 1.5])
def test_nothing_hidden_gets_through(dtype: torch.dtype, fill: float) -> None:
    x = torch.tensor([[1.0, nan, inf, -inf, -2.0, 0.0, 7.0]], dtype=dtype).repeat(3, 1)
    shown = torch.tensor([[True, False, False, True, False], [True] * 5, [False] * 5])
    wanted = x.clone()
    wanted[:, 1:6] = torch.where(shown, x[:, 1:6], fill)
    Hidden(Mask.of(shown, dtype), 1, 1, 5).hide(x, fill)
    assert torch.equal(x.nan_to_num(nan=9.0), wanted.nan_to_num(nan=9.0))


def test_a_filling_may_vary() -> None:
    x, fill = torch.zeros(2, 4), torch.arange(4.0).expand(2, 4)
    Hidden(Mask.of(torch.tensor([[True, False]]), torch.float32), 1, 2, 2).hide(x, fill)
    assert x.tolist() == [[0, 0, 0, 3]] * 2
