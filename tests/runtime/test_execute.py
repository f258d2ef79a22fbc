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
from attnc.runtime import layout
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
        before = {name: x.clone() for name, x in tensors.items()}
        found = engine.execute(plan, tensors, params, case.extents)
        assert all(torch.equal(before[name], x) for name, x in tensors.items())
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
    tensors = qkv(1, 1, 1, 4000, 7000)
    watch = watched(lambda: run(load("sdpa"), tensors))
    assert watch.largest <= TILE_POINTS
    assert watch.largest < 4000 * 7000 / 50


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


DOCUMENTS = """
attention documents
input Q[b, h, m, d]
input K[b, g, n, d]
input V[b, g, n, e]
input qdoc[m]: int
input kdoc[n]: int
S[b, h, m, n] = sum(d) Q[b, h, m, d] * K[b, h // (H / G), n, d]
P[b, h, m, n] = softmax(n) S[b, h, m, n]  where qdoc[m] == kdoc[n]
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h // (H / G), n, e]
output O[b, h, m, e]
"""


def equals_reference(attention: Attention, tensors: Mapping[str, Tensor]) -> Tensor:
    """Run, compare with float64, and return the result."""
    found = run(attention, tensors)["O"]
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    extents = bind_extents(attention.plan.cascade, shapes, {})
    params = attention.run_time_params
    wanted = reference(attention.plan.cascade, tensors, params, extents)["O"]
    torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-5)
    return found


def test_data_masks_hide_tiles() -> None:
    doc = torch.arange(1024) // 256
    tensors = {**qkv(1, 2, 2, 1024, 1024), "qdoc": doc, "kdoc": doc}
    attention = Attention(load_text(DOCUMENTS))
    watch = watched(lambda: run(attention, tensors))
    assert watch.multiplied == 2 * visited(doc[:, None] == doc) * (16 + 8)
    equals_reference(attention, tensors)


def test_lists_are_kept_until_the_data_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[object] = []
    choose = layout._choose

    def counted(*arguments: Any) -> layout.Layout:
        found.append(arguments)
        return choose(*arguments)

    monkeypatch.setattr(layout, "_choose", counted)
    doc = torch.arange(300) // 50
    tensors = {**qkv(1, 2, 2, 300, 300), "qdoc": doc, "kdoc": doc.clone()}
    attention = Attention(load_text(DOCUMENTS))
    first = equals_reference(attention, tensors)
    assert torch.equal(equals_reference(attention, {**tensors, "qdoc": doc.clone()}), first)
    assert len(found) == 1
    tensors["kdoc"].numpy()[:] = 5  # unseen by torch: its version counter stays as it was
    second = equals_reference(attention, tensors)
    assert len(found) == 2
    assert not second[:, :, :250].any() and second[:, :, 250:].any()


def test_many_lists_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "DATA_BYTES", 5000)
    attention = Attention(load_text(DOCUMENTS))
    for size in range(100, 140):
        doc = torch.arange(100) // size
        run(attention, {**qkv(1, 1, 1, 100, 100), "qdoc": doc, "kdoc": doc})
    assert sum(known.bytes for known in layout._KNOWN) <= 5000


def test_memory_of_lists_does_not_grow_with_the_map() -> None:
    doc = torch.randint(0, 3, (3000,), generator=torch.Generator().manual_seed(0))
    tensors = {**qkv(1, 1, 1, 3000, 3000), "qdoc": doc, "kdoc": doc}
    watch = watched(lambda: run(Attention(load_text(DOCUMENTS)), tensors))
    assert watch.largest <= TILE_POINTS
    assert all(known.layout.masks.bytes <= layout.MASK_BYTES for known in layout._KNOWN)


NEAR = """
attention near
param window: int = 40
input Q[b, h, m, d]
input K[b, g, n, d]
input V[b, g, n, e]
input slope[h]
S[b, h, m, n] = sum(d) Q[b, h, m, d] * K[b, h // (H / G), n, d]
T[b, h, m, n] = S[b, h, m, n] - slope[h] * (m - n) + sin(m + 0.5 * n)
P[b, h, m, n] = softmax(n) T[b, h, m, n]  where n <= m and m - n < window
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h // (H / G), n, e]
output O[b, h, m, e]
"""


def test_row_tiles_that_see_the_same_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnc.runtime.layout.ROW_TILES", (64,))
    attention = Attention(load_text(NEAR), {"window": 40})
    tensors = {**qkv(2, 4, 2, 700, 700), "slope": torch.rand(4)}
    watch = watched(lambda: equals_reference(attention, tensors))
    products = watched(lambda: run(attention, tensors)).calls["bmm"]
    # the first row tile, which sees no keys before itself, those like the second, and the last
    assert products == 2 * (1 + 2 * 4 + 1)
    assert watch.calls["bmm"] >= products


def test_what_is_hidden_may_be_anything() -> None:
    tensors = qkv(1, 2, 2, 200, 200)
    wanted = run(load("causal"), tensors)["O"][:, :, :150]
    tensors["K"][:, :, 150:] = torch.nan
    assert torch.equal(run(load("causal"), tensors)["O"][:, :, :150], wanted)


def test_nothing_visible_gives_zeros() -> None:
    qdoc, kdoc = torch.zeros(90, dtype=torch.int64), torch.ones(70, dtype=torch.int64)
    tensors = {**qkv(2, 2, 1, 90, 70), "qdoc": qdoc, "kdoc": kdoc}
    watch = watched(lambda: run(Attention(load_text(DOCUMENTS)), tensors))
    assert watch.multiplied == 0
    assert not equals_reference(Attention(load_text(DOCUMENTS)), tensors).any()


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
