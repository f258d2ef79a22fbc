"""Tensors as users have them: any strides, more than 2^31 elements apart, empty, wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import attnc
from attnc.errors import AttncError

Kernel = Callable[..., Any]


@pytest.fixture(params=["engine", "kernel"])
def gqa(request: pytest.FixtureRequest, kernel: Callable[..., Kernel]) -> Kernel:
    """Causal attention with grouped heads: tile by tile in torch, and by the emitted kernel."""
    attention = attnc.load("causal")
    return attention if request.param == "engine" else kernel(attention)


def qkv(m: int = 9, n: int = 13) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 4, m, 5), torch.randn(2, 2, n, 5), torch.randn(2, 2, n, 7)


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


# strides ------------------------------------------------------------------------------------------

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "batch, length, head, feature": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "feature first": lambda x: x.movedim(-1, 0).contiguous().movedim(0, -1),
    "every second": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
    "a part": lambda x: torch.nn.functional.pad(x, (3, 2, 1, 4))[:, :, 1:-4, 3:-2],
    "one of a packed three": lambda x: torch.stack([x, x + 1, x + 2], 3)[..., 0, :],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_any_strides(gqa: Kernel, view: Callable[[Tensor], Tensor]) -> None:
    strided = [view(x) for x in qkv()]
    assert not any(x.is_contiguous() for x in strided)
    torch.testing.assert_close(gqa(*strided), exact(*qkv()))


def test_a_stride_of_zero(gqa: Kernel) -> None:
    q, k, v = qkv()
    one_head, one_key = k[:, :1].expand(-1, 2, -1, -1), v[:, :, :1].expand(-1, -1, 13, -1)
    torch.testing.assert_close(gqa(q, one_head, one_key), exact(q, one_head, one_key))


@pytest.fixture
def sparse() -> Iterator[Callable[[Tensor, int, int], Tensor]]:
    """A tensor in a file with holes, so that it may span more than there is memory."""
    files = []

    def spread(x: Tensor, axis: int, gap: int) -> Tensor:
        strides = list(x.select(axis, 0).contiguous().stride())
        strides.insert(axis, gap)
        count = 1 + sum((n - 1) * s for n, s in zip(x.shape, strides, strict=True))
        file = tempfile.TemporaryFile()
        file.truncate(2 * count)
        files.append(file)
        memory = np.memmap(file, dtype=np.float16, mode="r+", shape=(count,))
        far = torch.from_numpy(memory).as_strided(x.shape, strides)
        far.copy_(x)
        return far

    yield spread
    for file in files:
        file.close()


@pytest.mark.parametrize(
    ("axis", "gap"),
    [(0, 2**28), (1, 2**28), (2, 2**27), (3, 2**29), *((i, 2**31 + 64) for i in range(4))],
)
def test_elements_more_than_two_to_the_31_apart(
    gqa: Kernel, sparse: Callable[[Tensor, int, int], Tensor], axis: int, gap: int
) -> None:
    torch.manual_seed(0)
    heads = 10 if axis == 1 else 2
    q, k, v = (torch.randn(10 if axis == 0 else 1, heads, 20, 8).half() for _ in range(3))
    q, k, v = (x.repeat_interleave(2, axis) if x.shape[axis] == 1 else x for x in (q, k, v))
    far = [sparse(x, axis, gap) for x in (q, k, v)]
    assert all((x.shape[axis] - 1) * gap > 2**31 for x in far)
    want = exact(q.double(), k.double(), v.double())
    torch.testing.assert_close(gqa(*far).double(), want, rtol=0, atol=4e-3)


# nothing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", "bhmnde")
def test_a_rank_of_length_zero(gqa: Kernel, rank: str) -> None:
    size = {"b": 2, "h": 4, "g": 2, "m": 9, "n": 13, "d": 5, "e": 7, rank: 0}
    if rank == "h":
        size["g"] = 0
    q, k, v = (torch.randn([size[r] for r in ranks]) for ranks in ("bhmd", "bgnd", "bgne"))
    found = gqa(q, k, v)
    assert found.shape == (size["b"], size["h"], size["m"], size["e"])
    if rank == "n":
        assert torch.all(found == 0)
    if rank == "d":
        weights = torch.ones(9, 13).tril()
        mean = (weights / weights.sum(1, keepdim=True)) @ v.repeat_interleave(2, 1)
        torch.testing.assert_close(found, mean)


def test_a_row_without_keys_has_lse_minus_infinity(kernel: Callable[..., Kernel]) -> None:
    attention = attnc.load("lse")
    q, k, v = qkv(m=9, n=4)
    for function in (attention, kernel(attention)):
        o, lse = function(q, k, v)
        assert torch.all(o[:, :, :5] == 0)
        assert torch.all(lse[:, :, :5] == -torch.inf)
        assert torch.all(lse[:, :, 5:].isfinite())


# mistakes -----------------------------------------------------------------------------------------

WRONG: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Any, ...]]] = {
    "an axis too few": lambda q, k, v: (q[0], k, v),
    "an axis too many": lambda q, k, v: (q[None], k, v),
    "keys and values of other lengths": lambda q, k, v: (q, k[:, :, 1:], v),
    "heads that do not divide": lambda q, k, v: (q[:, :3], k, v),
    "ints": lambda q, k, v: (q.int(), k, v),
    "complex": lambda q, k, v: (q, k, v.to(torch.complex64)),
    "truth values": lambda q, k, v: (q, k, v > 0),
    "another device": lambda q, k, v: (q, k, v.to("meta")),
    "too few": lambda q, k, v: (q, k),
    "too many": lambda q, k, v: (q, k, v, v),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_wrong_tensors(
    change: Callable[..., tuple[Any, ...]], kernel: Callable[..., Kernel]
) -> None:
    attention = attnc.load("causal")
    arguments = change(*qkv())
    for function in (attention, attention.reference):
        with pytest.raises(AttncError):
            function(*arguments)
    # the module stands alone and has no errors of its own
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        kernel(attention)(*arguments)


def test_wrong_extents_show_every_binding(gqa: Kernel) -> None:
    q, k, v = qkv()
    with pytest.raises(ValueError if not isinstance(gqa, attnc.Attention) else AttncError) as e:
        gqa(q, k[:, :, 1:], v)
    for name, size in product("QKV", ("2", "12", "13")):
        assert name in str(e.value) and size in str(e.value)


def test_an_unknown_keyword_and_an_extent_that_nothing_tells(gqa: Kernel) -> None:
    with pytest.raises((AttncError, TypeError)):
        gqa(*qkv(), windw=3)
    with pytest.raises((AttncError, TypeError)):
        gqa(*qkv(), MX=3)
