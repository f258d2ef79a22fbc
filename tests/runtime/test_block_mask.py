"""Block masks equal those that FlexAttention makes by evaluating every point of the same mask."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import (
    BlockMask,
    create_block_mask,
    create_mask,
    flex_attention,
)

from attnc.api import Attention, load
from attnc.errors import AttncError
from attnc.ir.evaluate import evaluate
from attnc.ir.frame import Scope, Value
from attnc.ir.presence import TRUE
from attnc.masks import masks
from tests.library.small_calls import MASKED, small_call

LISTS = (
    "kv_num_blocks",
    "kv_indices",
    "full_kv_num_blocks",
    "full_kv_indices",
    "q_num_blocks",
    "q_indices",
    "full_q_num_blocks",
    "full_q_indices",
)


def points(attention: Attention, shape: Mapping[str, int], tensors: Mapping[str, Tensor]) -> Tensor:
    """[b, h, m, n]: the mask evaluated at every point, as the interpreter does."""
    cascade = attention.plan.cascade
    found = masks(attention.plan, attention.run_time_params, shape, tensors)
    mask = next((m for m in found if m.visibility.some != TRUE), found[0])
    seen, extents = mask.visibility, mask.bound.extents
    axes = [*seen.grid, *(r for r in (seen.row, seen.swept) if r is not None)]
    arrays = mask.bound.tensors
    scope = Scope(
        tensors={n: Value(x, cascade.input(n).ranks) for n, x in arrays.items()},
        extents=extents,
        params=mask.bound.params,
        ranks={r.name: r for r in cascade.ranks},
        box={r: range(extents[r]) for r in axes},
    )
    value = evaluate(seen.some, scope)
    dense = np.asarray(value.data if value.present is None else value.data & value.present)
    sizes = [extents[r] if r in axes else 1 for r in ("b", "h", seen.row or "", seen.swept)]
    return torch.from_numpy(dense.copy()).reshape(sizes)


def assert_equal(got: BlockMask, dense: Tensor) -> None:
    """Every list, what lies behind its count included, and the mask at every point."""
    batch, heads, rows, keys = dense.shape

    def look(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return dense[b, h, q, k]

    want = create_block_mask(
        look, batch, heads, rows, keys, device="cpu", BLOCK_SIZE=got.BLOCK_SIZE
    )
    assert got.shape == want.shape and got.seq_lengths == want.seq_lengths
    for name in LISTS:
        x, y = getattr(got, name), getattr(want, name)
        assert x.dtype == y.dtype and torch.equal(x, y), name
    assert torch.equal(create_mask(got.mask_mod, batch, heads, rows, keys, "cpu"), dense)


@pytest.mark.parametrize("name", MASKED)
def test_every_library_mask(name: str) -> None:
    attention, shape, captured = small_call(name)
    got = attention.block_mask(shape, (32, 16), "cpu", **captured)
    assert_equal(got, points(attention, shape, captured))


DOCUMENTS = torch.tensor([[0] * 50 + [1] * 70 + [2] * 24, [0] * 1 + [5] * 128 + [2] * 15])
CALLS: tuple[tuple[str, dict[str, Any], dict[str, int], dict[str, Tensor]], ...] = (
    ("sliding_window", {"window": 40}, {}, {}),
    ("na2d", {"window": (3, 5), "stride": (1, 2)}, {"MY": 9, "MX": 16, "NY": 9, "NX": 16}, {}),
    ("causal_document", {}, {}, {"doc": DOCUMENTS}),
    ("moa_window", {"block": 16}, {}, {"span": torch.tensor([1, 2, 3, 5])}),
)


def called(
    name: str, params: dict[str, Any], named: dict[str, int], captured: dict[str, Tensor]
) -> tuple[tuple[Tensor, Tensor, Tensor], BlockMask, Tensor]:
    """Tensors of 144 tokens, the block mask of 2 batches and 4 heads, and what attention is."""
    torch.manual_seed(0)
    attention = load(name, **params)
    q, k, v = (torch.randn(2, 4, 144, 16) for _ in range(3))
    shape = {"M": 144, "N": 144, "B": 2, "H": 4, **named}
    want = attention.reference(q, k, v, **captured, **named)
    return (q, k, v), attention.block_mask(shape, 32, "cpu", **captured), want


# Uncompiled it is slow, and says so.
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0])
def test_flex_attention_takes_it(call: Any) -> None:
    inputs, mask, want = called(*call)
    got = flex_attention(*inputs, block_mask=mask)
    torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for the CPU with g++")
@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
@pytest.mark.parametrize("call", CALLS[1::2], ids=lambda call: call[0])
def test_compiled_flex_attention_takes_it(call: Any) -> None:
    inputs, mask, want = called(*call)
    torch._dynamo.reset()
    got = torch.compile(flex_attention)(*inputs, block_mask=mask)
    torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-6)


SIZES = ((64, 64), (65, 64), (64, 63), (1, 100), (100, 1), (130, 7))


@pytest.mark.parametrize(("rows", "keys"), SIZES)
@pytest.mark.parametrize("block", [16, (64, 32), (1, 128)], ids=str)
def test_blocks_that_reach_beyond_the_last_token(
    rows: int, keys: int, block: int | tuple[int, int]
) -> None:
    """FlexAttention pads with hidden points: such a block is never full."""
    attention, shape = load("sliding_window", window=70), {"M": rows, "N": keys}
    assert_equal(attention.block_mask(shape, block, "cpu"), points(attention, shape, {}))


def test_a_mask_that_hides_nothing_is_full() -> None:
    mask = load("sdpa").block_mask({"M": 40, "N": 50}, 16, "cpu")
    assert_equal(mask, torch.ones(1, 1, 40, 50, dtype=torch.bool))


SPEC = """attention strange
param scale: float = 0.5
input Q[b, h, m, d]
input K[b, h, n, d]
input V[b, h, n, e]
input table[h, i]: int
input close[b, n]: bool
input q_idx[b]: int
mask seen[b, h, m, n] = {mask}
S[b, h, m, n] = sum(d) Q[b, h, m, d] * K[b, h, n, d]
P[b, h, m, n] = softmax(n) S[b, h, m, n] where seen[b, h, m, n]
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h, n, e]
output O[b, h, m, e]
"""
PREDICATES = {
    "floor division and remainder of negatives": "(n - m) // 3 % 4 < 2 and (m - n) % -5 > -4",
    "a divisor that is 0": "m % (n - 3) == 0",
    "a divisor that is always 0": "m // 0 == 0",
    "a choice with a divisor of 0": "if n > 4 then m // (n - 4) > 1 else n < 2",
    "not of what is absent": "not (m % (n - 3) == 0)",
    "minima and maxima": "max(m - 5, 0) <= n and n < min(M, max(3, m + 2)) and clamp(n, 2, 9) > 2",
    "floats": "abs(m - n) * scale <= 2.5 and exp(0.1 * n) > scale and sqrt(m) < 6.5",
    "powers and signs": "n ** 2 <= 20 * m + 1 or sign(m - n) == -1",
    "reads behind a guard": "i < 4 and table[h, i] > n % 3 and close[b, n] or n < q_idx[b]",
    "all points": "0 <= n",
    "a constant": "M > 3",
    "no points": "n < 0",
    "products beyond 32 bits": "m * 1000000007 * n % 3 == 0",
    "negated": "-m + n < -q_idx[b] or not close[b, n]",
}


@pytest.mark.parametrize("predicate", PREDICATES.values(), ids=PREDICATES.keys())
def test_the_language_of_masks(predicate: str, tmp_path: Path) -> None:
    index = "m // 8" if " i" in predicate else "0"
    mask = predicate.replace("i < 4", "m // 8 < 4").replace("[h, i]", f"[h, {index}]")
    path = tmp_path / "strange.attn"
    path.write_text(
        SPEC.format(mask=f"({mask}) and table[h, 0] > -9 and close[b, 0] != (q_idx[b] > 99)")
    )
    attention = load(path)
    captured = {
        "table": torch.tensor([[1, 2, 0, 1], [0, 0, 3, 1], [2, 1, 1, -1]], dtype=torch.int8),
        "close": torch.arange(2 * 37).reshape(2, 37) % 3 > 0,
        "q_idx": torch.tensor([2, 0]),
    }
    shape = {"M": 41, "N": 37, "B": 2, "H": 3}
    got = attention.block_mask(shape, 8, "cpu", **captured)
    assert_equal(got, points(attention, shape, captured))


def test_the_function_reads_as_if_written_by_hand() -> None:
    mask = load("sliding_window", window=100).block_mask({"M": 300, "N": 300}, device="cpu")
    source = inspect.getsource(mask.mask_mod)
    assert "return (kv_idx <= q_idx) & (q_idx - kv_idx < 100)" in source


def test_many_heads_share_one_list() -> None:
    mask = load("causal").block_mask({"M": 256, "N": 256, "B": 8, "H": 32}, device="cpu")
    assert mask.shape == (1, 1, 256, 256)


@pytest.mark.parametrize("block", [0, -1, (16,), (16, 0), 1.5, True, (2, 2, 2)], ids=str)
def test_a_block_that_is_no_size(block: Any) -> None:
    with pytest.raises(AttncError, match="a block is") as caught:
        load("causal").block_mask({"M": 8, "N": 8}, block)
    assert caught.value.code == "E521"


def test_integers_of_more_than_64_bits(tmp_path: Path) -> None:
    path = tmp_path / "strange.attn"
    path.write_text(
        SPEC.format(
            mask="m * n * 4000000000000000000 > 1 and table[h, 0] + q_idx[b] > 0 and close[b, n]"
        )
    )
    captured = {
        "table": torch.ones(1, 1, dtype=torch.int64),
        "close": torch.ones(1, 9, dtype=torch.bool),
        "q_idx": torch.ones(1, dtype=torch.int64),
    }
    with pytest.raises(AttncError) as caught:
        load(path).block_mask({"M": 9}, 4, "cpu", **captured)
    assert caught.value.code == "E518"


def test_what_the_mask_reads_is_asked_for() -> None:
    with pytest.raises(AttncError, match="doc") as caught:
        load("document").block_mask({"B": 1, "N": 8})
    assert caught.value.code == "E503"
