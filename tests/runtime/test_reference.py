"""The torch oracle: the same values as numpy, in every dtype, with gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from attnc.ir.arrays import NUMPY
from attnc.ir.cascade import Cascade
from attnc.ir.interpret import interpret
from attnc.runtime.reference import TORCH, reference
from tests.ir.written import cascade

SOFTMAX = """
S[b, h, m, n] = sum(d) Q[b, h, m, d] * K[b, h // (H @ G), n, d] / sqrt(float(D))
X[b, h, m, n] = S[b, h, m, n] + bias[h, n] where n <= m + 1 and doc[b, n] != 1 and m != 2
T[b, h, m] = max(n) X[b, h, m, n]
W[b, h, m, n] = exp(X[b, h, m, n] - T[b, h, m])
Z[b, h, m] = sum(n) W[b, h, m, n]
P[b, h, m, n] = W[b, h, m, n] / Z[b, h, m]
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h // (H @ G), n, e]
LSE[b, h, m] = log(Z[b, h, m]) + T[b, h, m]
"""


def attention() -> Cascade:
    return cascade(
        SOFTMAX,
        "O LSE",
        inputs="Q[b, h, m, d] K[b, g, n, d] V[b, g, n, e] bias[h, n] doc[b, n]",
        typed=[("doc", "int")],
    )


def tensors(dtype: torch.dtype = torch.float64, m: int = 6, n: int = 7) -> dict[str, Tensor]:
    make = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make, dtype=torch.float64).to(dtype)

    return {
        "Q": normal(2, 4, m, 3),
        "K": normal(2, 2, n, 3),
        "V": normal(2, 2, n, 5),
        "bias": normal(4, n),
        "doc": torch.arange(n).repeat(2, 1) % 3,
    }


def eager(t: dict[str, Tensor]) -> Tensor:
    """The same attention in plain torch; the empty row is left out."""
    k, v = (t[x].repeat_interleave(2, 1) for x in "KV")
    m, n = torch.arange(t["Q"].shape[2])[:, None], torch.arange(k.shape[2])
    seen = (n <= m + 1) & (t["doc"] != 1)[:, None, None]
    s = t["Q"] @ k.mT / math.sqrt(3) + t["bias"][:, None]
    return s.masked_fill(~seen, -torch.inf).softmax(-1) @ v


ROWS = [0, 1, 3, 4, 5]


def test_torch_and_numpy_agree() -> None:
    t = tensors()
    ours = reference(attention(), t)
    for name, x in interpret(attention(), {k: v.numpy() for k, v in t.items()}).items():
        np.testing.assert_allclose(ours[name].numpy(), x, atol=1e-14)
    torch.testing.assert_close(ours["O"][:, :, ROWS], eager(t)[:, :, ROWS])
    assert (ours["O"][:, :, 2] == 0).all() and (ours["LSE"][:, :, 2] == -torch.inf).all()


@pytest.mark.parametrize("memory", [1, 3_000])
def test_chunks_change_nothing(memory: int) -> None:
    t = tensors()
    torch.testing.assert_close(
        reference(attention(), t, memory_bytes=memory), reference(attention(), t)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lower_precision_errs_like_eager_torch(dtype: torch.dtype) -> None:
    t = tensors(dtype, m=64, n=65)
    rows = [i for i in range(64) if i != 2]
    truth = reference(attention(), t)["O"][:, :, rows]
    ours = reference(attention(), t, dtype=dtype)["O"]
    assert ours.dtype == dtype
    error = (ours[:, :, rows].double() - truth).abs().max()
    expected = (eager(t)[:, :, rows].double() - truth).abs().max()
    assert 0 < error < 4 * expected


def test_gradients_match_autograd_of_plain_torch() -> None:
    t = tensors()
    leaves = ("Q", "K", "V", "bias")
    for name in leaves:
        t[name].requires_grad_()
    weight = torch.randn(2, 4, len(ROWS), 5, dtype=torch.float64)
    grads = []
    for o in (reference(attention(), t)["O"], eager(t)):
        loss = (o[:, :, ROWS] * weight).sum()
        grads.append(torch.autograd.grad(loss, [t[name] for name in leaves]))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_of_absent_points_are_zero_not_nan() -> None:
    """Masked scores that overflow, -inf and NaN inputs, logs of negatives, empty rows."""
    t = tensors()
    with torch.no_grad():
        t["K"][:, :, 1] *= 1e4
        t["bias"][:, 4] = torch.nan
    for name in ("Q", "V", "bias"):
        t[name].requires_grad_()
    out = reference(attention(), t)
    q, _, bias = torch.autograd.grad(out["O"].sum(), [t["Q"], t["V"], t["bias"]])
    assert q.isfinite().all() and bias.isfinite().all()
    assert (q[:, :, 2] == 0).all() and (bias[:, [1, 4]] == 0).all()


@pytest.mark.parametrize(
    "body",
    [
        "log(A[n]) where A[n] > 0.0",
        "log(A[n]) if A[n] > 0.0 else A[n]",
        "given(sqrt(A[n]), A[n] > 0.0)",
        "1.0 / A[n]",
        "or_else(B[n] / A[n], 7.0)",
        "pow(A[n], 0.5) where A[n] > 0.0",
        "exp(1e4 * A[n]) where A[n] < 0.0",
        "rsqrt(A[n]) * B[n] where A[n] > 0.0",
    ],
)
def test_gradients_beside_singularities(body: str) -> None:
    c = cascade(f"Y[n] = {body}\nL[0] = sum(n) Y[n]", "L", inputs="A[n] B[n]")
    a = torch.tensor([-2.0, 0.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    b = torch.ones(4, dtype=torch.float64)
    (grad,) = torch.autograd.grad(reference(c, {"A": a, "B": b})["L"].sum(), a)
    assert grad.isfinite().all()
    points = [0, 2, 3]

    def loss(x: Tensor) -> Tensor:
        whole = torch.zeros(4, dtype=torch.float64).index_put((torch.tensor(points),), x)
        return reference(c, {"A": whole, "B": b})["L"]

    assert torch.autograd.gradcheck(loss, a.detach()[points].clone().requires_grad_())


def test_stopgrad_is_the_identity_without_gradient() -> None:
    c = cascade("Y[n] = A[n] * stopgrad(A[n])", "Y", inputs="A[n]")
    a = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    y = reference(c, {"A": a})["Y"]
    (grad,) = torch.autograd.grad(y.sum(), a)
    assert y.tolist() == [4, 9] and grad.tolist() == [2, 3]


def test_recurrences_are_differentiable() -> None:
    c = cascade(
        """
        H[0, d, e] = 0.0
        H[t + 1, d, e] = A[t] * H[t, d, e] + K[t, d] * V[t, e]
        O[t, e] = sum(d) Q[t, d] * H[t + 1, d, e]
        """,
        "O",
        inputs="Q[t, d] K[t, d] V[t, e] A[t]",
    )
    shapes = {"Q": (4, 2), "K": (4, 2), "V": (4, 3), "A": (4,)}
    leaves = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes.values()]

    def run(*xs: Tensor) -> Tensor:
        return reference(c, dict(zip(shapes, xs, strict=True)))["O"]

    assert torch.autograd.gradcheck(run, leaves)


def test_strides_do_not_matter() -> None:
    t = tensors()
    strided = {
        "Q": t["Q"].permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
        "K": torch.stack([t["K"], t["K"]], -1)[..., 0],
        "V": t["V"].flip(2).flip(2),
        "bias": t["bias"].T.contiguous().T,
        "doc": t["doc"][:1].expand(2, -1),
    }
    assert not strided["Q"].is_contiguous() and not strided["K"].is_contiguous()
    torch.testing.assert_close(reference(attention(), strided), reference(attention(), t))


@pytest.mark.parametrize(("m", "n"), [(0, 7), (6, 0), (1, 1)])
def test_zero_length_ranks(m: int, n: int) -> None:
    out = reference(attention(), tensors(m=m, n=n))
    assert out["O"].shape == (2, 4, m, 5)
    if n == 0:
        assert (out["O"] == 0).all() and (out["LSE"] == -torch.inf).all()


def test_selection_and_gathers_agree_with_numpy() -> None:
    c = cascade(
        """
        sel[m, n] = topk(n, 2) A[m, n]
        top[m, n] = topp(n, 0.5) A[m, n] where n > 0
        G[m, n] = A[idx[m], n] where sel[m, n]
        C[m, x] = concat(x: n, y) A[m, n]; A[m, y] * 2.0
        B[m] = any(n) A[m, n] > 0.8
        """,
        "sel top G C B",
        inputs="A[m, n] idx[m]",
        typed=[("idx", "int"), ("B", "bool")],
    )
    a = np.random.default_rng(0).random((4, 5)).round(1)
    idx = np.array([3, 3, 0, 1])
    ours = reference(c, {"A": torch.from_numpy(a), "idx": torch.from_numpy(idx)}, None, {"y": 3})
    for name, x in interpret(c, {"A": a, "idx": idx}, extents={"y": 3}).items():
        np.testing.assert_array_equal(ours[name].numpy(), x)


def test_functions_and_reductions_agree_with_numpy() -> None:
    x = np.array([-40.0, -2.5, -0.5, 0.0, 0.5, 3.0, 60.0])
    assert TORCH.functions.keys() == NUMPY.functions.keys()
    assert TORCH.reductions.keys() == NUMPY.reductions.keys()
    with np.errstate(all="ignore"):
        for name, f in NUMPY.functions.items():
            theirs = TORCH.functions[name](torch.from_numpy(x)).numpy()
            np.testing.assert_allclose(theirs, f(x), rtol=1e-12, atol=1e-15, err_msg=name)
    for name, g in NUMPY.reductions.items():
        y = x.reshape(1, 7, 1) > 1 if name in ("any", "all") else x.reshape(1, 7, 1)
        np.testing.assert_allclose(
            TORCH.reductions[name](torch.from_numpy(y), (0, 1)), g(y, (0, 1))
        )
