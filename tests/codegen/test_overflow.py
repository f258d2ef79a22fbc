"""Masks whose arithmetic passes 32 bits mean what they say, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

Load = Callable[[str], ModuleType]
Exact = Callable[..., tuple[Tensor, ...]]

M, N = 20, 37
CASES = {
    "product": ("param by: int = 200000000", "m * by >= n * by", {}),
    "square": ("param by: int = 3", "(m * 40000) * (m * 40000) >= n * by", {}),
    "literal": ("param by: int = 1", "n < 3000000000 * by and n < m + 3", {}),
    "far_apart": ("param by: int = 2147483647", "n - m <= by and m - n <= by", {}),
    "blocks": ("param by: int = 1500000000", "n < (m // 2 + 2) * by", {}),
    "scalar": ("param by: int = 2000000000", "n * by <= m * (3 * by)", {}),
    "small_ints": ("input at[m]: int", "n < at[m] * 2 - 250", {"at": torch.uint8}),
    "differences": ("input at[m]: int", "n - at[m] > 100 - at[m] - n", {"at": torch.int32}),
}


def _spec(name: str) -> str:
    declared, where, _ = CASES[name]
    return f"""attention {name}
{declared}
input Q[h, m, d]
input K[h, n, d]
input V[h, n, e]
S[h, m, n] = sum(d) Q[h, m, d] * K[h, n, d]
P[h, m, n] = softmax(n) S[h, m, n]  where {where}
O[h, m, e] = sum(n) P[h, m, n] * V[h, n, e]
output O[h, m, e]
"""


def _tensors(name: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = {"Q": (1, M, 16), "K": (1, N, 16), "V": (1, N, 16)}
    found = {x: torch.randn(s, generator=generator) for x, s in shapes.items()}
    spread = {torch.uint8: 255 - torch.arange(M), torch.int32: 2**31 - 1 - torch.arange(M)}
    kinds: dict[str, torch.dtype] = CASES[name][2]
    return {x: spread[k].to(k) for x, k in kinds.items()} | found


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_the_written_mask(name: str, load: Load, exact: Exact) -> None:
    tensors = _tensors(name)
    (wanted,) = exact(_spec(name), tensors)
    got = getattr(load(_spec(name)), name)(*tensors.values())
    torch.testing.assert_close(got.double(), wanted, rtol=2e-4, atol=2e-5)


def test_what_64_bits_do_not_hold_is_refused(load: Load) -> None:
    tensors = _tensors("product")
    with pytest.raises(ValueError, match="more than 64 bits"):
        load(_spec("product")).product(*tensors.values(), by=2**62)
