"""Calling a spec: how tensors are bound, what comes back, how mistakes are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import attnc
from attnc.errors import AttncError

GRID = """\
attention grid
rank m = (my, mx)
rank n = (ny, nx)
input S[m, n]
input V[n, e]
P[m, n] = softmax(n) S[m, n]  where abs(my - ny) <= 1 and abs(mx - nx) <= 1
O[m, e] = sum(n) P[m, n] * V[n, e]
output O[m, e]
"""


def qkv(m: int = 9, n: int = 13) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 4, m, 5), torch.randn(2, 2, n, 5), torch.randn(2, 2, n, 7)


def test_tensors_go_by_position_or_by_name() -> None:
    attn, (q, k, v) = attnc.load("causal"), qkv()
    by_position = attn(q, k, v)
    assert by_position.shape == (2, 4, 9, 7)
    assert torch.equal(attn(q, V=v, K=k), by_position)


def test_the_reference_is_float64_and_the_call_keeps_the_dtype() -> None:
    attn, (q, k, v) = attnc.load("causal"), qkv()
    exact = attn.reference(q, k, v)
    assert exact.dtype == torch.float64
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        found = attn(*(x.to(dtype) for x in (q, k, v)))
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact, atol=0.05, rtol=0.05)


def test_strides_do_not_matter() -> None:
    attn, tensors = attnc.load("causal"), qkv()
    strided = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in tensors]
    torch.testing.assert_close(attn(*strided), attn(*tensors))


def test_several_outputs_are_a_tuple_in_the_specs_order() -> None:
    o, lse = attnc.load("lse")(*qkv())
    assert (o.shape, lse.shape) == ((2, 4, 9, 7), (2, 4, 9))


def test_captured_tensors_go_by_name() -> None:
    attn = attnc.load("alibi")
    slope = torch.tensor([0.5, 0.25, 0.125, 0.0625])
    plain = attn(*qkv(), slope=slope * 0)
    torch.testing.assert_close(plain, attnc.load("causal")(*qkv()))
    assert not torch.equal(attn(*qkv(), slope=slope), plain)


def test_parameters_are_set_when_loading() -> None:
    wide, narrow = attnc.load("sliding_window"), attnc.load("sliding_window", window=2)
    assert not torch.equal(wide(*qkv()), narrow(*qkv()))


def test_components_take_their_extents_by_upper_case_name(tmp_path: Path) -> None:
    (tmp_path / "grid.attn").write_text(GRID)
    attn = attnc.load(tmp_path / "grid.attn")
    scores, values = torch.randn(12, 12), torch.randn(12, 3)
    tall, wide = attn(scores, values, MY=4, NY=4), attn(scores, values, MX=4, NX=4)
    assert not torch.equal(tall, wide)
    torch.testing.assert_close(wide.double(), attn.reference(scores, values, MY=3, NY=3))
    with pytest.raises(AttncError, match="MY") as e:
        attn(scores, values)
    assert e.value.code == "E504"


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("E503", lambda q, k, v: ((q, k), {})),
        ("E511", lambda q, k, v: ((q, k, v, v), {})),
        ("E511", lambda q, k, v: ((q, k, v), {"Q": q})),
        ("E501", lambda q, k, v: ((q, k, v[:, :, 1:]), {})),
        ("E501", lambda q, k, v: ((q, k, v), {"M": 3})),
        ("E502", lambda q, k, v: ((q, k, v[0]), {})),
        ("E512", lambda q, k, v: ((q, k, [1.0]), {})),
        ("E513", lambda q, k, v: ((q, k, v.int()), {})),
        ("E513", lambda q, k, v: ((q, k, v.to(torch.complex64)), {})),
        ("E513", lambda q, k, v: ((q, k, v.to(torch.float8_e5m2)), {})),
        ("E514", lambda q, k, v: ((q, k, v.to("meta")), {})),
        ("E503", lambda q, k, v: ((q, k), {"v": v})),
        ("E503", lambda q, k, v: ((q, k, v), {"window": 3})),
        ("E504", lambda q, k, v: ((q, k, v), {"X": 3})),
    ],
)
def test_what_does_not_fit_is_told(code: str, change: Any) -> None:
    arguments, named = change(*qkv())
    for call in (attnc.load("sliding_window"), attnc.load("sliding_window").reference):
        with pytest.raises(AttncError) as e:
            call(*arguments, **named)
        assert e.value.code == code


def test_a_mismatch_shows_the_binding_of_each_rank() -> None:
    q, k, v = qkv()
    with pytest.raises(AttncError) as e:
        attnc.load("causal")(q, k, v[:, :, :5])
    for binding in ("Q[b=2, h=4, m=9, d=5]", "K[b=2, g=2, n=13, d=5]", "V[b=2, g=2, n=5, e=7]"):
        assert binding in str(e.value)


def test_heads_that_no_group_divides_are_refused() -> None:
    q, k, v = qkv()
    with pytest.raises(AttncError) as e:
        attnc.load("causal")(q[:, :3], k, v)
    assert e.value.code == "E602"


def test_what_a_kernel_refuses_is_an_error_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("Q, K, V must have the same dtype")

    monkeypatch.setattr("attnc.runtime.launch.run", refuse)
    with pytest.raises(AttncError, match="the same dtype") as e:
        attnc.load("causal")(*qkv())
    assert e.value.code == "E517"


def test_a_gradient_is_never_silently_missing() -> None:
    attn, (q, k, v) = attnc.load("causal"), qkv()
    q.requires_grad_()
    o = attn(q, k, v)
    with pytest.raises(AttncError) as e:
        o.sum().backward()
    assert e.value.code == "E515"
    attn.reference(q, k, v).sum().backward()
    assert q.grad is not None


@pytest.mark.parametrize(
    ("code", "name", "params"),
    [
        ("E701", "sliding_windw", {}),
        ("E702", "./nowhere.attn", {}),
        ("E506", "sliding_window", {"windw": 3}),
        ("E508", "sliding_window", {"window": 1.5}),
        ("E509", "sliding_window", {"window": 0}),
    ],
)
def test_what_cannot_be_loaded_is_told(code: str, name: str, params: dict[str, object]) -> None:
    with pytest.raises(AttncError) as e:
        attnc.load(name, **params)
    assert e.value.code == code


def test_it_shows_its_signature() -> None:
    shown = repr(attnc.load("sliding_window", window=3))
    assert "sliding_window(Q[b, h, m, d], K[b, g, n, d], V[b, g, n, e]), window=3" in shown


def test_the_package_offers_what_it_says() -> None:
    assert set(attnc.__all__) <= set(dir(attnc))
    assert all(getattr(attnc, name) is not None for name in attnc.__all__)
    with pytest.raises(AttributeError):
        attnc.nothing  # noqa: B018
