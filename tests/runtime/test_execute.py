"""The CPU engine: right on awkward shapes, in bounded memory, without needless work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attnc.api import Attention, load
from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.bind import bind_extents
from attnc.library import names
from attnc.runtime import execute as engine
from attnc.runtime.cases import Case, draw, make_cases, small_params
from attnc.runtime.reference import reference
from attnc.runtime.tile_code import TILE_POINTS

SMALL_TILES = {
    "layout.ROW_TILES": (24, 32),
    "layout.DENSE_ROW_TILE": 24,
    "layout.SWEPT_TILE": 16,
    "layout.SPAN_POINTS": 48 * 32,
    "execute.TILE_POINTS": 1 << 12,
}


def run(attention: Attention, tensors: Mapping[str, Tensor], **extents: int) -> dict[str, Tensor]:
    plan = attention.plan
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    sizes = bind_extents(plan.cascade, shapes, extents)
    return engine.execute(plan, tensors, attention.run_time_params, sizes)


def qkv(b: int, h: int, g: int, m: int, n: int, d: int = 16, e: int = 8) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = {"Q": (b, h, m, d), "K": (b, g, n, d), "V": (b, g, n, e)}
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", names())
def test_plan_equals_cascade(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for constant, value in SMALL_TILES.items():
        monkeypatch.setattr(f"attnc.runtime.{constant}", value)
    attention = load(name)
    try:
        plan = attention.plan
    except AttncError as e:
        assert e.code == "E901"
        return
    params = small_params(plan, {}, attention.run_time_params)
    for case in make_cases(plan, params, None):
        tensors = draw(plan, case, torch.float64, seed=1, scale=3.0)
        try:
            wanted = reference(plan.cascade, tensors, params, case.extents)
        except AttncError as e:
            assert e.code == "E601"  # `doc[b, m]` with more queries than there are ids
            continue
        found = engine.execute(plan, tensors, params, case.extents)
        for output, x in wanted.items():
            torch.testing.assert_close(found[output], x, rtol=1e-9, atol=1e-9, msg=case.name)


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what torch is asked to do, and the largest tensor that comes of it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self.largest = 0
        self.multiplied = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls[func.overloadpacket.__name__] += 1
        if func.overloadpacket.__name__ in ("bmm", "baddbmm_"):
            self.multiplied += out.numel() * args[-1].shape[-2]
        if isinstance(out, Tensor):
            self.largest = max(self.largest, out.untyped_storage().nbytes() // out.element_size())
        return out


def watched(f: Callable[[], object]) -> Watch:
    watch = Watch()
    with watch:
        f()
    return watch


def test_memory_does_not_grow_with_the_map() -> None:
    tensors = qkv(1, 2, 2, 3000, 5000)
    watch = watched(lambda: run(load("sdpa"), tensors))
    assert watch.largest <= TILE_POINTS
    assert watch.largest < 2 * 3000 * 5000 / 50


def test_a_large_grid_is_walked_in_chunks() -> None:
    tensors = qkv(40, 30, 30, 16, 64)
    watch = watched(lambda: run(load("sdpa"), tensors))
    inputs_and_outputs = max(x.numel() for x in tensors.values())
    assert watch.largest <= max(TILE_POINTS, inputs_and_outputs)


def test_shared_heads_are_not_copied() -> None:
    watch = watched(lambda: run(load("gqa"), qkv(2, 8, 2, 5, 700)))
    assert not {"index", "index_select", "gather", "expand_copy"} & set(watch.calls)
    # and keys of several group sizes: 12 query heads over 4 and 2
    tensors = qkv(1, 12, 4, 5, 70)
    tensors["V"] = tensors["V"][:, :2].contiguous()
    watch = watched(lambda: run(load("diffqkv"), tensors))
    assert not {"index", "index_select", "gather"} & set(watch.calls)


def visited(mask: Tensor, rows: int = 64, keys: int = 64) -> int:
    """The points of the tiles in which a mask holds anywhere; lengths are multiples of tiles."""
    m, n = mask.shape
    tiles = mask.view(m // rows, rows, n // keys, keys)
    return int(tiles.any(3).any(1).sum()) * rows * keys


def test_hidden_tiles_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnc.runtime.layout.ROW_TILES", (64,))
    tensors = qkv(1, 1, 1, 2048, 2048)
    m, n = torch.arange(2048)[:, None], torch.arange(2048)
    masks = {
        "sdpa": n < 2048,
        "causal": n <= m,
        "sliding_window": (n <= m) & (m - n < 100),
    }
    for name, mask in masks.items():
        attention = load(name, window=100) if name == "sliding_window" else load(name)
        watch = watched(partial(run, attention, tensors))
        assert watch.multiplied == visited(mask.expand(2048, 2048)) * (16 + 8)


def test_data_masks_hide_tiles() -> None:
    spec = """
attention documents
input Q[h, m, d]
input K[h, n, d]
input V[h, n, e]
input qdoc[m]: int
input kdoc[n]: int
S[h, m, n] = sum(d) Q[h, m, d] * K[h, n, d]
P[h, m, n] = softmax(n) S[h, m, n]  where qdoc[m] == kdoc[n]
O[h, m, e] = sum(n) P[h, m, n] * V[h, n, e]
output O[h, m, e]
"""
    attention = Attention(load_text(spec))
    q, k, v = (x[0] for x in qkv(1, 2, 2, 1024, 1024).values())
    doc = torch.arange(1024) // 256
    tensors = {"Q": q, "K": k, "V": v, "qdoc": doc, "kdoc": doc}
    watch = watched(lambda: run(attention, tensors))
    assert watch.multiplied == 2 * visited(doc[:, None] == doc) * (16 + 8)
    wanted = reference(attention.plan.cascade, tensors)["O"]
    torch.testing.assert_close(run(attention, tensors)["O"], wanted.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_of_outputs(dtype: torch.dtype) -> None:
    tensors = {name: x.to(dtype) for name, x in qkv(1, 2, 1, 7, 9).items()}
    found = run(load("lse"), tensors)
    assert found["O"].dtype == dtype
    assert found["LSE"].dtype == (dtype if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize(
    "sizes", [(0, 2, 2, 3, 4), (1, 2, 2, 0, 4), (1, 2, 2, 3, 0), (1, 0, 0, 3, 4)]
)
def test_zero_length_ranks(sizes: tuple[int, int, int, int, int]) -> None:
    found = run(load("lse"), qkv(*sizes))
    b, h, _, m, n = sizes
    assert found["O"].shape == (b, h, m, 8)
    assert n > 0 or (not found["O"].any() and bool((found["LSE"] == -torch.inf).all()))


def test_a_remainder_is_refused() -> None:
    with pytest.raises(AttncError) as e:
        run(load("gqa"), qkv(1, 5, 2, 3, 4))
    assert e.value.code == "E602"


def test_strides_do_not_matter() -> None:
    plan = load("gqa").plan
    (case,) = (c for c in make_cases(plan, {}, None) if c.name == "ragged")
    assert case.strided
    plain = Case(case.name, case.extents)
    strided, packed = (draw(plan, c, torch.float32, 0) for c in (case, plain))
    assert not strided["Q"].is_contiguous()
    one, two = (engine.execute(plan, x, {}, case.extents)["O"] for x in (strided, packed))
    torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)
