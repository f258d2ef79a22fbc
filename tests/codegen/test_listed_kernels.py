"""Modules whose kernels visit listed tiles: results, and lists that follow the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.codegen.softmax import masked_softmax

Load = Callable[[str], ModuleType]
Exact = Callable[..., tuple[Tensor, ...]]


def qkv(m: int, n: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    shapes = (2, 2, m, 8), (2, 1, n, 8), (2, 1, n, 8)
    q, k, v = (torch.randn(s, generator=random).to(dtype) for s in shapes)
    return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Softmax attention in float64; zeros for a query that sees nothing."""
    scores = q.double() @ k.double().mT / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num(0.0)
    found: Tensor = weights @ v.double()
    return found


def assert_near(found: Tensor, wanted: Tensor) -> None:
    near = (2e-4, 2e-5) if found.dtype == torch.float32 else (2e-2, 1e-2)
    torch.testing.assert_close(found.double(), wanted, rtol=near[0], atol=near[1])


def same_document(doc: Tensor, m: int) -> Tensor:
    return doc[:, None, :m, None] == doc[:, None, None]


@pytest.fixture
def built(load: Load, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Grows by one whenever the module of `document` lists tiles."""
    module: Any = load("document")
    calls: list[int] = []
    plain = module._list_tiles

    def counted(*args: object) -> object:
        calls.append(1)
        return plain(*args)

    monkeypatch.setattr(module, "_list_tiles", counted)
    module._KEPT.clear()
    yield calls


def test_lists_are_kept_until_the_data_changes(load: Load, built: list[int]) -> None:
    run = load("document").document
    q, k, v = qkv(40, 50)
    doc = torch.arange(50).div(13, rounding_mode="floor").expand(2, 50).contiguous()
    first = run(q, k, v, doc)
    assert torch.equal(run(q, k, v, doc), first) and len(built) == 1
    assert_near(first, attend(q, k, v, same_document(doc, 40)))
    doc[0, 5:30] = -7
    changed = run(q, k, v, doc)
    assert_near(changed, attend(q, k, v, same_document(doc, 40)))
    assert len(built) == 2
    # the same values in another tensor, another shape of the call
    assert torch.equal(run(q, k, v, doc.clone()), changed) and len(built) == 3
    run(q[:, :, :20], k, v, doc)
    assert len(built) == 4
    assert torch.equal(run(q, k, v, doc), changed) and len(built) == 4


def test_lists_of_tensors_that_are_gone_are_dropped(load: Load, built: list[int]) -> None:
    module = load("document")
    q, k, v = (x[:1, :1] for x in qkv(9, 9))
    for i in range(20):
        module.document(q, k, v, torch.full((1, 9), i))
    assert len(built) == 20 and len(module._KEPT) <= 2
    kept = [torch.full((1, 9), i) for i in range(20)]
    for doc in kept:
        module.document(q, k, v, doc)
    assert len(module._KEPT) == 16


def test_tensors_of_inference_mode(load: Load) -> None:
    run = load("document").document
    q, k, v = qkv(20, 20)
    with torch.inference_mode():
        doc = torch.zeros(2, 20, dtype=torch.int64)
        run(q, k, v, doc)
        doc[:, 10:] = 1
        found = run(q, k, v, doc)
        assert_near(found, attend(q, k, v, same_document(doc, 20)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ids_in_no_order(dtype: torch.dtype, load: Load) -> None:
    random = torch.Generator().manual_seed(1)
    q, k, v = qkv(37, 83, dtype)
    doc = torch.randint(-3, 4, (2, 83), generator=random)
    doc[1, 40:] = 2**40
    found = load("document").document(q, k, v, doc)
    wanted = attend(q, k, v, same_document(doc, 37))
    assert_near(found, wanted)


def test_rows_that_see_nothing_are_zero(load: Load) -> None:
    q, k, v = qkv(40, 40)
    select = torch.zeros(2, 3, 3, dtype=torch.bool)
    select[1, 2, 0] = True
    found = load("block_sparse").block_sparse(q, k, v, select, block=(16, 16))
    assert not found[:, 0].any() and not found[:, 1, :32].any() and found[:, 1, 32:].all()


def test_a_selection_that_does_not_fit(load: Load) -> None:
    q, k, v = qkv(40, 40)
    select = torch.ones(2, 3, 2, dtype=torch.bool)
    message = (
        r"select\[h, m // block\[0\], n // block\[1\]\]: n // block\[1\] is 2, outside of 0 .. 1"
    )
    with pytest.raises(ValueError, match=message):
        load("block_sparse").block_sparse(q, k, v, select, block=(16, 16))
    with pytest.raises(ValueError, match=r"doc\[b, m\]: m is 40, outside of 0 .. 39"):
        load("document").document(*qkv(41, 40), torch.zeros(2, 40, dtype=torch.int64))


def test_no_keys(load: Load) -> None:
    found = load("document").document(*qkv(20, 0), torch.zeros(2, 0, dtype=torch.int64))
    assert found.shape == (2, 2, 20, 8) and not found.any()


def test_torch_compile(load: Load) -> None:
    module = load("document")

    def model(q: Tensor, k: Tensor, v: Tensor, doc: Tensor) -> Tensor:
        found: Tensor = module.document(q * 2, k, v, doc)
        return found + 1

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for length in (17, 33):
        tensors = (*qkv(length, 33), torch.arange(33).expand(2, 33) // 9)
        assert torch.equal(compiled(*tensors), model(*tensors))


PLANES = "rank m = (my, mx)\nrank n = (ny, nx)\n"
MASKS = [
    "my % d == ny % d and abs(mx - nx) <= 2",
    "my % d == ny % d and mx % d == nx % d and n <= m",
    "my == ny and mx % d == nx % d",
    "(m - n) % d == 0 and abs(m - n) < 40",
]


def planes(where: str, d: int, load: Load, exact: Exact, **changes: tuple[str, str]) -> None:
    """Groups of unequal length; queries and keys in planes of other shapes."""
    spec = masked_softmax(where, f"{PLANES}param d: int = 2 in [1, inf)", over="c")
    for old, new in changes.values():
        spec = spec.replace(old, new)
    shape = {"b": 1, "h": 1, "m": 7 * 11, "n": 8 * 10, "c": 4, "e": 4}
    random = torch.Generator().manual_seed(2)
    names = {"Q": "bhmc", "K": "bhnc", "V": "bhne"} | ({"W": "hn"} if "input W" in spec else {})
    tensors = {
        t: torch.randn([shape[r] for r in ranks], generator=random) for t, ranks in names.items()
    }
    if "input doc" in spec:
        tensors["doc"] = torch.randint(0, 2, (1, 80), generator=random)
    told = {"MY": 7, "MX": 11, "NY": 8, "NX": 10} if "my" in where else {}
    if not told:
        spec = spec.replace(PLANES, "")
    found = load(spec).masked(*tensors.values(), **told, d=d)
    wanted = exact(spec.replace("d: int = 2", f"d: int = {d}"), tensors, **told)
    for x, y in zip(found if isinstance(found, tuple) else (found,), wanted, strict=True):
        assert_near(x, y)


@pytest.mark.parametrize("d", [1, 3, 50])
@pytest.mark.parametrize("where", MASKS)
def test_residue_classes(where: str, d: int, load: Load, exact: Exact) -> None:
    planes(where, d, load, exact)


@pytest.mark.parametrize("where", MASKS)
def test_permuted_tokens(where: str, load_permuted: Load, exact: Exact) -> None:
    planes(where, 3, load_permuted, exact)


def test_a_tensor_is_permuted_only_where_all_reads_are_at_the_token(
    load_permuted: Load, exact: Exact
) -> None:
    # a table per key, a document read at query and key, and a statistic of the row as an output
    changes = {
        "inputs": ("input V[b, h, n, e]\n", "input V[b, h, n, e]\ninput W[h, n]\n"
                   "input doc[b, n]: int\n"),
        "score": ("K[b, h, n, c]\nP", "K[b, h, n, c] + W[h, n]\nP"),
        "output": ("output O[b, h, m, e]", "L[b, h, m] = sum(n) exp(S[b, h, m, n])  where "
                   "abs(my - ny) <= 2 and doc[b, m] == doc[b, n]\n"
                   "output O[b, h, m, e], L[b, h, m]"),
    }  # fmt: skip
    where = "abs(my - ny) <= 2 and doc[b, m] == doc[b, n]"
    planes(where, 3, load_permuted, exact, **changes)


BOX = """attention box
rank m = (my, mx)
rank n = (ny, nx)
input X[b, m]
input Y[b, n]
S[b, m, n] = X[b, m] * Y[b, n]
O[b, m] = logsumexp(n) S[b, m, n]  where abs(my - ny) <= 1 and abs(mx - nx) <= 1
output O[b, m]
"""


def test_tokens_are_permuted_where_one_alone_is_less_than_a_sector(
    source: Callable[[str], str], load: Load, exact: Exact
) -> None:
    assert "_tile_order" not in source("na2d")
    assert "_tile_order" in source(BOX)
    tensors = {t: torch.randn(2, 63, generator=torch.Generator().manual_seed(4)) for t in "XY"}
    told = {"MY": 7, "MX": 9, "NY": 7, "NX": 9}
    found = load(BOX).box(*tensors.values(), **told)
    assert_near(found, exact(BOX, tensors, **told)[0])


def test_lists_per_point_of_the_grid(load: Load, exact: Exact) -> None:
    random = torch.Generator().manual_seed(5)
    shapes = (2, 3, 37, 8), (2, 3, 61, 8), (2, 3, 61, 8)
    tensors = {t: torch.randn(s, generator=random) for t, s in zip("QKV", shapes, strict=True)}
    spec = masked_softmax("n + 9 * b <= m + 11 * h or n % 25 < 3")
    module = load(spec)
    assert hasattr(module, "_list_tiles")
    assert_near(module.masked(*tensors.values()), exact(spec, tensors)[0])


def neighbours(at: Tensor, length: int, dilation: int) -> Tensor:
    """Of all pairs of tokens: three of a class next to each other, moved inside at the borders."""
    group, place = at % dilation, at // dilation
    count = (length - group + dilation - 1) // dilation
    first = torch.minimum((place - 1).clamp(min=0), count - 3)[:, None]
    return (group[:, None] == group) & (place >= first) & (place < first + 3)


@pytest.mark.parametrize("permuted", [False, True])
def test_classes_of_a_plane_may_have_fewer_tiles_than_others(
    load: Load, load_permuted: Load, permuted: bool
) -> None:
    module: Any = (load_permuted if permuted else load)("na2d")
    q, k, v = qkv(63, 63)
    options = {"window": (3, 3), "stride": (1, 1), "dilation": (2, 2), "causal": (False, False)}
    found = module.na2d(q, k, v, MY=7, MX=9, NY=7, NX=9, **options)
    # even columns are five, odd ones four: a tile of four by four
    y, x = torch.arange(63) // 9, torch.arange(63) % 9
    assert_near(found, attend(q, k, v, neighbours(y, 7, 2) & neighbours(x, 9, 2)))
