"""The functions that Triton's core lacks, against float64."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from types import ModuleType

import pytest
import torch
from torch import Tensor

from attnc.codegen.helpers import HELPER_NAMES, helper_sources
from attnc.runtime.modules import load_source

POINTS = (0.0, 1e-30, 1e-8, 1e-4, 0.01, 0.3, 0.5, 0.624, 0.626, 1.0, 1.5, 3.0, 9.0, 20.0, 88.0, 1e4)
SIZE = 256


@pytest.fixture(scope="module")
def helpers() -> ModuleType:
    """A kernel `k_NAME` for each helper."""
    parts = ["import triton", "import triton.language as tl"]
    parts += [f"@triton.jit\n{s}" for s in helper_sources(HELPER_NAMES, HELPER_NAMES)]
    for op, name in HELPER_NAMES.items():
        second = ", y" if op in ("pow", "floordiv", "mod", "multiply") else ""
        second = ", 0" if op == "angle" else second
        parts.append(
            f"@triton.jit\ndef k_{name}(X, Y, Z, N: tl.constexpr):\n"
            "    i = tl.arange(0, N)\n    x = tl.load(X + i)\n    y = tl.load(Y + i)\n"
            f"    tl.store(Z + i, {name}(x{second}))"
        )
    return load_source("\n".join(parts) + "\n", "helpers", interpret=True)


def _run(helpers: ModuleType, op: str, x: Tensor, y: Tensor) -> Tensor:
    z = torch.empty_like(x)
    getattr(helpers, f"k_{HELPER_NAMES[op]}")[(1,)](x, y, z, SIZE)
    return z


def _error(got: Tensor, wanted: Tensor) -> float:
    same = (got.double() == wanted) | (got.isnan() & wanted.isnan())
    return ((got.double() - wanted) / wanted).abs().masked_fill(same, 0.0).max().item()


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "tanh": (torch.tanh, 2e-7),
    "log1p": (torch.log1p, 4e-7),
    "softplus": (lambda x: torch.logaddexp(x, torch.zeros_like(x)), 5e-7),
    "silu": (lambda x: x * torch.sigmoid(x), 5e-7),
    "sign": (torch.sign, 0.0),
}


@pytest.mark.parametrize("op", FUNCTIONS)
def test_relative_error(op: str, helpers: ModuleType) -> None:
    function, allowed = FUNCTIONS[op]
    points = torch.tensor(POINTS)
    random = torch.randn(SIZE - 2 * len(points), generator=torch.Generator().manual_seed(1))
    x = torch.cat([points, -points, random])
    # where float32 has no digits left nothing can be asked
    wanted = function(x.double())
    wanted[wanted.abs() < 1e-37] = 0.0
    got = _run(helpers, op, x, x)
    got[got.abs() < 1e-37] = 0.0
    assert _error(got, wanted) <= allowed


@pytest.mark.parametrize(("op", "at"), [("sin", 1e6), ("cos", 1e6), ("sin", 1e-3), ("gelu", 4.0)])
def test_absolute_error(op: str, at: float, helpers: ModuleType) -> None:
    x = at * torch.randn(SIZE, generator=torch.Generator().manual_seed(2))
    exact: dict[str, Callable[[Tensor], Tensor]]
    exact = {"sin": torch.sin, "cos": torch.cos, "gelu": torch.nn.functional.gelu}
    wanted = exact[op](x.double())
    assert (_run(helpers, op, x, x).double() - wanted).abs().max() < 5e-7


@pytest.mark.parametrize(
    ("op", "limits"),
    [("tanh", (-1.0, 1.0)), ("softplus", (0.0, inf)), ("silu", (0.0, inf)), ("gelu", (0.0, inf))],
)
def test_limits(op: str, limits: tuple[float, float], helpers: ModuleType) -> None:
    x = torch.tensor([-inf, inf]).repeat(SIZE // 2)
    assert _run(helpers, op, x, x)[:2].tolist() == list(limits)


def test_power(helpers: ModuleType) -> None:
    x = torch.tensor([0.0, 0.0, 0.0, inf, inf, -inf, -2.0, -2.0, -2.0, 1.0, 1e-40, 1e30, nan, 0.5])
    y = torch.tensor([1.0, -1.0, 0.0, 2.0, -2.0, 3.0, 3.0, 2.0, 0.5, inf, 0.5, 1.2, 1.0, inf])
    generator = torch.Generator().manual_seed(3)
    rest = SIZE - len(x)
    x = torch.cat([x, 30 * torch.rand(rest, generator=generator) + 1e-3])
    y = torch.cat([y, 4 * torch.randn(rest, generator=generator)])
    assert _error(_run(helpers, "pow", x, y), x.double() ** y.double()) < 5e-7


@pytest.mark.parametrize("op", ["floordiv", "mod"])
def test_integers_round_down(op: str, helpers: ModuleType) -> None:
    x = torch.arange(-SIZE // 2, SIZE // 2, dtype=torch.int32)
    y = torch.tensor([3, -3, 7, -1], dtype=torch.int32).repeat(SIZE // 4)
    assert torch.equal(_run(helpers, op, x, y), x // y if op == "floordiv" else x % y)
