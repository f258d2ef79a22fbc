"""Emitted modules against float64: what the library's specs do not use, and awkward calls."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

Load = Callable[[str], ModuleType]
Exact = Callable[..., tuple[Tensor, ...]]

QKV = """
input Q[b, h, m, d]
input K[b, h, n, d]
input V[b, h, n, e]
"""
SOFTMAX = (
    QKV
    + """
{declared}
S[b, h, m, n] = {score}
P[b, h, m, n] = softmax(n) S[b, h, m, n]  where {where}
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h, n, e]
output O[b, h, m, e]
"""
)
DOT = "sum(d) Q[b, h, m, d] * K[b, h, n, d]"

CASES = {
    "documents": ("input doc[b, m]: int\ninput kdoc[b, n]: int", DOT, "doc[b, m] == kdoc[b, n]"),
    "next_document": ("input doc[b, n]: int", DOT, "n > 0 and doc[b, n - 1] == doc[b, n]"),
    "relative_bias": ("input bias[h, r]", f"({DOT}) + bias[h, clamp(m - n + 8, 0, R - 1)]", "true"),
    "negative_floor": ("", f"({DOT}) + ((m - n) // 4 - (m - n) % 3)", "(m - n) % 5 != 1"),
    "distance": ("", "-(sum(d) abs(Q[b, h, m, d] - K[b, h, n, d]))", "true"),
    "largest_product": ("", "max(d) Q[b, h, m, d] * K[b, h, n, d]", "n <= m + 3"),
    "gathered_keys": ("input at[b, n]: int", "sum(d) Q[b, h, m, d] * K[b, h, at[b, n], d]", "true"),
    "data_mask": ("input sel[m, n]: bool\ninput temp[h]", f"({DOT}) / temp[h]", "sel[m, n]"),
    "functions": ("", f"silu({DOT}) + gelu({DOT}) - softplus({DOT}) + log1p(abs({DOT}))", "true"),
    "trigonometry": ("", f"sin({DOT}) + cos(tanh({DOT})) + sigmoid({DOT}) - erf({DOT})", "true"),
    "tl": (
        "input tl[h]\ninput torch[m]\ninput BLOCK_M[n]",
        f"({DOT}) * tl[h] + BLOCK_M[n] * torch[m]",
        "true",
    ),
}


def _spec(name: str, case: tuple[str, str, str]) -> str:
    declared, score, where = case
    body = SOFTMAX.format(declared=declared, score=score, where=where)
    return f"attention {name}\n{body}"


def _inputs(module: ModuleType, spec: str, extents: dict[str, int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    found = {}
    for line in spec.splitlines():
        if line.startswith("input "):
            name, rest = line.removeprefix("input ").split("[", 1)
            axes, kind = rest.split("]", 1)
            shape = [extents[r.strip()] for r in axes.split(",") if r.strip()]
            if "int" in kind:
                found[name] = torch.randint(0, 3, shape, generator=generator)
            elif "bool" in kind:
                found[name] = torch.rand(shape, generator=generator) < 0.5
            else:
                found[name] = torch.randn(shape, generator=generator)
    return found


EXTENTS = {"b": 2, "h": 2, "g": 1, "m": 19, "n": 37, "d": 12, "e": 20, "r": 17, "k": 5}


def _compare(load: Load, exact: Exact, spec: str, **options: int) -> None:
    module = load(spec)
    tensors = _inputs(module, spec, EXTENTS)
    (public,) = module.__all__
    found = getattr(module, public)(*tensors.values(), **options)
    outputs = found if isinstance(found, tuple) else (found,)
    for got, wanted in zip(outputs, exact(spec, tensors, **options), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_scores(name: str, load: Load, exact: Exact) -> None:
    _compare(load, exact, _spec(name, CASES[name]))


def test_a_normaliser_nobody_named(load: Load, exact: Exact) -> None:
    spec = f"""attention powered
{QKV}
input p[h]
input bias[h, m, n]
S[b, h, m, n] = ({DOT}) + bias[h, m, n]
W[b, h, m, n] = softplus(S[b, h, m, n]) ** p[h]  where n <= m + 2
Z[b, h, m] = 1 + (sum(n) W[b, h, m, n])
O[b, h, m, e] = sum(n) W[b, h, m, n] / Z[b, h, m] * V[b, h, n, e]
output O[b, h, m, e], Z[b, h, m]
"""
    _compare(load, exact, spec)


def test_reductions(load: Load, exact: Exact) -> None:
    spec = f"""attention reductions
input Q[b, h, m, d]
input K[b, h, n, d]
S[b, h, m, n] = {DOT}
A[b, h, m] = min(n) S[b, h, m, n]  where n != m
B[b, h, m] = prod(n) tanh(S[b, h, m, n])
C[b, h, m] = any(n) S[b, h, m, n] > 9.0
D2[b, h, m] = all(n) S[b, h, m, n] > -9.0
O[b, h, m] = sum(n) (if C[b, h, m] and D2[b, h, m] then S[b, h, m, n] else 1.0)
output A[b, h, m], B[b, h, m], O[b, h, m]
"""
    _compare(load, exact, spec)


def test_grids(load: Load, exact: Exact) -> None:
    spec = f"""attention grids
rank m = (my, mx)
rank n = (nz, ny, nx)
{QKV}
S[b, h, m, n] = {DOT}
P[b, h, m, n] = softmax(n) S[b, h, m, n]  where ny <= my + 1 and nx * 2 > mx and nz >= 0
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h, n, e]
output O[b, h, m, e]
"""
    extents = EXTENTS | {"m": 20, "n": 36}
    module = load(spec)
    tensors = _inputs(module, spec, extents)
    options = {"MY": 4, "MX": 5, "NZ": 2, "NY": 3, "NX": 6}
    got = module.grids(*tensors.values(), **options)
    (wanted,) = exact(spec, tensors, **options)
    torch.testing.assert_close(got.double(), wanted, rtol=2e-4, atol=2e-5)
    with pytest.raises(ValueError, match="MY \\* MX is not M = 20"):
        module.grids(*tensors.values(), **(options | {"MX": 6}))


def test_wide_values_are_split_over_programs(load: Load, exact: Exact) -> None:
    spec = _spec("wide", ("", DOT, "n <= m"))
    module = load(spec)
    tensors = _inputs(module, spec, EXTENTS | {"e": 300, "b": 1, "h": 1})
    (wanted,) = exact(spec, tensors)
    torch.testing.assert_close(
        module.wide(*tensors.values()).double(), wanted, rtol=2e-4, atol=2e-5
    )


def test_parameters(load: Load, exact: Exact) -> None:
    spec = f"""attention parameters
param window: int[2] = (3, 4) in [0, inf)
param causal: bool = false
param scale: float = 0.5
{QKV}
S[b, h, m, n] = ({DOT}) * scale
P[b, h, m, n] = softmax(n) S[b, h, m, n]
    where m - n <= window[0] and n - m <= window[1] and (n <= m or not causal)
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h, n, e]
output O[b, h, m, e]
"""
    spec = spec.replace("\n    where", "  where")
    module = load(spec)
    tensors = _inputs(module, spec, EXTENTS)
    q, k, v = (x.double() for x in tensors.values())
    back = torch.arange(19)[:, None] - torch.arange(37)
    scores = (q @ k.mT) * 0.25
    seen = (back <= 2) & (back >= -1) & (back >= 0)
    wanted = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v
    got = module.parameters(*tensors.values(), window=(2, 1), causal=True, scale=0.25)
    torch.testing.assert_close(got.double(), wanted, rtol=2e-4, atol=2e-5)
    with pytest.raises(ValueError, match="window = "):
        module.parameters(*tensors.values(), window=(2, -1))


@pytest.mark.parametrize("empty", ["b", "m", "n", "e"])
def test_ranks_of_length_zero(empty: str, load: Load, exact: Exact) -> None:
    tensors = _inputs(load("lse"), "input Q[b, h, m, d]\ninput K[b, g, n, d]\ninput V[b, g, n, e]",
                      EXTENTS | {empty: 0})  # fmt: skip
    found = load("lse").lse(*tensors.values())
    for got, wanted in zip(found, exact("lse", tensors), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=2e-4, atol=2e-5)


def test_any_strides(load: Load, exact: Exact) -> None:
    tensors = _inputs(load("lse"), "input Q[b, h, m, d]\ninput K[b, g, n, d]\ninput V[b, g, n, e]",
                      EXTENTS)  # fmt: skip
    strided = [x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0) for x in tensors.values()]
    assert not any(x.is_contiguous() for x in strided)
    plain, moved = (load("lse").lse(*xs) for xs in (tensors.values(), strided))
    assert torch.equal(plain[0], moved[0]) and torch.equal(plain[1], moved[1])


def test_statistics_are_float32(load: Load) -> None:
    tensors = _inputs(load("lse"), "input Q[b, h, m, d]\ninput K[b, g, n, d]\ninput V[b, g, n, e]",
                      EXTENTS)  # fmt: skip
    o, lse = load("lse").lse(*(x.half() for x in tensors.values()))
    assert (o.dtype, lse.dtype) == (torch.float16, torch.float32)


def test_calls_that_do_not_fit(load: Load) -> None:
    module = load("sliding_window")
    q, k, v = torch.zeros(1, 2, 3, 16), torch.zeros(1, 1, 5, 16), torch.zeros(1, 1, 5, 8)
    with pytest.raises(ValueError, match=r"rank n is 5 and 4: .*V\[b, g, n, e\] is \(1, 1, 4, 8\)"):
        module.sliding_window(q, k, v[:, :, :4])
    with pytest.raises(ValueError, match="K has 3 axes instead of 4"):
        module.sliding_window(q, k[0], v)
    with pytest.raises(ValueError, match=r"Q is torch\.float64"):
        module.sliding_window(q.double(), k, v)
    with pytest.raises(ValueError, match="Q, K, V must have the same dtype"):
        module.sliding_window(q, k, v.half())
    with pytest.raises(ValueError, match=r"window = 0 is not in \[1, inf\)"):
        module.sliding_window(q, k, v, window=0)
    with pytest.raises(ValueError, match="H / G = 3 / 2 leaves a remainder"):
        module.sliding_window(q[:, :1].expand(1, 3, 3, 16), k.expand(1, 2, 5, 16),
                              v.expand(1, 2, 5, 8))  # fmt: skip


def test_torch_compile(load: Load) -> None:
    module = load("sliding_window")

    def model(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found: Tensor = module.sliding_window(q * 2, k, v, window=4)
        return found + 1

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    k, v = torch.randn(1, 1, 9, 16), torch.randn(1, 1, 9, 8)
    for length in (5, 7):
        q = torch.randn(1, 2, length, 16)
        assert torch.equal(compiled(q, k, v), model(q, k, v))
    torch.library.opcheck(module._sliding_window, (q, k, v, 4))
