"""Every library spec, interpreted as written in float64, equals its paper's formula."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import product
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.cascade import Cascade, TensorDecl
from attnc.ir.expr import Index
from attnc.ir.walk import operands, reads
from attnc.library import names, text
from attnc.runtime.reference import reference as interpreted
from tests.references import reference as plain

EXTENTS = {
    **{"b": 2, "g": 2, "h": 6, "u": 3, "i": 40, "j": 40, "c": 4, "r": 3, "f": 2, "d": 5, "e": 3},
    **{"ry": 24, "rx": 25},
}
LENGTHS = {
    "no tile divides": (7, 13),
    "grids": (6, 12),
    "more queries than keys": (13, 7),
    "one query": (1, 13),
    "one key": (7, 1),
    "no key": (3, 0),
    "no query": (0, 3),
}
Values: TypeAlias = Mapping[str, Any]
# Values of run-time params that matter at these lengths, beside the defaults.
VALUES: dict[str, tuple[Values, ...]] = {
    "attn_edit": ({"weight": -2.0},),
    "bigbird": ({"block": 2, "window": 3}, {"block": 1, "window": 4}, {"block": 5}),
    "block_sparse": ({"block": (2, 3)}, {"block": (5, 1)}, {"block": (64, 4)}),
    "clear": (
        {"text": 3, "width": 4, "radius": 2},
        {"text": 0, "width": 3, "radius": 3},
        {"text": 0, "width": 5, "radius": 0},
        {"text": 20},
    ),
    "clipped_softmax": ({"alpha": 1.5, "zeta": 1.2},),
    "differential": ({"lambda_init": 0.3, "eps": 0.1},),
    "dilated_causal": ({"window": 3, "dilation": 2}, {"window": 2, "dilation": 5}, {"dilation": 1}),
    "dilated_na": (
        {"window": 3, "dilation": (1, 2)},
        {"window": 2, "dilation": (2, 3)},
        {"window": 9, "dilation": (1, 1)},
    ),
    "fixed_strided": ({"stride": 4, "summary": 1}, {"stride": 3, "summary": 5}),
    "gna": (
        {"window": (3, 2, 2), "stride": (2, 2, 1), "dilation": (1, 1, 2)},
        {"window": (2, 1, 3), "stride": (2, 3, 2), "causal": (False, True, False)},
    ),
    "halonet": ({"block": 2, "halo": 1}, {"block": 3, "halo": 0}, {"block": 1, "halo": 2}),
    "longca_block_causal_document": ({"block": 3}, {"block": 1}),
    "longca_global_sliding_window": ({"window": 2}, {"window": 0}),
    "longca_prefix_lm_causal": ({"prefix": 4}, {"prefix": 0}),
    "longca_prefix_lm_document": ({"prefix": 1}, {"prefix": 0}),
    "longca_sliding_window": ({"window": 2}, {"window": 0}),
    "longca_sliding_window_causal": ({"window": 2}, {"window": 0}),
    "lssar": ({"power": 1},),
    "maxvit_block": ({"window": 2}, {"window": 3}),
    "maxvit_grid": ({"grid": 2}, {"grid": 3}),
    "moa_window": ({"block": 2, "sink": 1}, {"block": 3, "sink": 0}),
    "na1d": (
        {"window": 3},
        {"window": 4, "stride": 3},
        {"window": 2, "stride": 4, "dilation": 3},
        {"window": 3, "stride": 2, "causal": True},
        {"window": 2, "stride": 5, "dilation": 2, "causal": True},
    ),
    "na2d": (
        {"window": (2, 3)},
        {"window": (3, 2), "stride": (2, 3), "dilation": (1, 2)},
        {"window": (2, 9), "stride": (4, 1), "causal": (True, False)},
        {"window": (2, 2), "stride": (1, 3), "causal": (True, True)},
    ),
    "na3d": (
        {"window": (2, 3, 2)},
        {"window": (3, 2, 2), "stride": (2, 1, 3), "dilation": (1, 2, 1)},
        {"window": (1, 2, 3), "stride": (3, 2, 2), "causal": (True, False, True)},
    ),
    "qk_norm": ({"eps": 0.1},),
    "sliding_window": ({"window": 3},),
    "soft_mask": ({"r": 0.0},),
    "softcap": ({"cap": 0.5},),
    "streaming_llm": ({"sink": 2, "window": 3}, {"sink": 0, "window": 1}),
    "strided": ({"stride": 3}, {"stride": 1}),
    "swin": ({"window": 3, "shift": 1}, {"window": 2, "shift": 1}, {"window": 4, "shift": 0}),
    "titans_mac": (
        {"persistent": 2, "window": 3},
        {"persistent": 3, "window": 2, "sliding": True},
        {"persistent": 20},
    ),
}
# At the defaults these would refuse all of these lengths.
LEAST: dict[str, Values] = {"maxvit_grid": {"grid": 1}}
# What the int inputs hold: numbers of blocks, lengths, the begin of a document; else ids.
BLOCKS = {"query_block": "i", "key_block": "j"}


@cache
def cascade(name: str) -> Cascade:
    return load_text(text(name), f"{name}.attn")


def random_inputs(
    spec: Cascade, extents: dict[str, int], ordered: bool = False
) -> dict[str, Tensor]:
    """Floats N(0, 1), bools half true; ids from -1 on, in order or not, some of them missing."""
    generator = torch.Generator().manual_seed(len(spec.inputs))

    def random(t: TensorDecl) -> Tensor:
        shape = [extents[r] for r in t.ranks]
        if t.dtype == "bool":
            return torch.rand(shape, generator=generator) < 0.5
        if t.dtype == "int":
            low, high = -1, 4
            if t.name in BLOCKS:
                low, high = 0, extents[BLOCKS[t.name]]
            elif t.name == "prefix":
                high = extents["n"] + 2
            found = torch.randint(low, high, shape, generator=generator)
            return found.sort(dim=-1).values if ordered else found
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    found = {t.name: random(t) for t in spec.inputs}
    if "begin" in found:
        same = found["doc"][:, :, None] == found["doc"][:, None]
        found["begin"] = same.int().argmax(dim=-1) if same.shape[-1] else found["begin"]
    return found


def components(spec: Cascade, extents: dict[str, int]) -> dict[str, int]:
    """The extents of every grid's components, by name: as equal as its length allows."""

    def split(length: int, parts: int) -> list[int]:
        if parts == 1:
            return [length]
        side = max(1, round(length ** (1 / parts)))
        first = max((w for w in range(1, side + 1) if length % w == 0), default=1)
        return [first, *split(length // first, parts - 1)]

    grids = [r for r in spec.ranks if r.components]
    sizes = {r.name: split(extents[r.name], len(r.components)) for r in grids}
    return {c.upper(): n for r in grids for c, n in zip(r.components, sizes[r.name], strict=True)}


def holds_ints(name: str) -> bool:
    return any(t.dtype == "int" for t in cascade(name).inputs)


def reads_at_queries(spec: Cascade) -> bool:
    """Whether a tensor of the keys is read at queries: they are the first of the keys."""
    axes = {t.name: t.ranks for t in spec.inputs}
    found = [r for s in spec.statements for e in operands(s) for r in reads(e) if r.tensor in axes]
    pairs = ((i, axis) for r in found for i, axis in zip(r.indices, axes[r.tensor], strict=True))
    return any(isinstance(i, Index) and (i.rank, axis) == ("m", "n") for i, axis in pairs)


def refused(spec: Cascade, extents: dict[str, int], params: Values) -> str:
    """The code of the error that a call gets, or nothing."""
    sides = [n for c, n in components(spec, extents).items() if c in ("MY", "MX", "NY", "NX")]
    if spec.name == "maxvit_grid" and any(n % params["grid"] for n in sides):
        return "E602"
    # A query behind the last key sees all keys there, without a look.
    late = spec.name == "mixed_bidirectional"
    fewer = 0 < extents["n"] < extents["m"]
    return "E601" if fewer and not late and reads_at_queries(spec) else ""


def check(
    name: str, lengths: tuple[int, int], scale: float = 1.0, ordered: bool = False, **params: Any
) -> None:
    """Equal to 1e-12 of the largest output for scores of order 1; scores' rounding adds to that."""
    spec = cascade(name)
    extents = {**EXTENTS, "m": lengths[0], "n": lengths[1]}
    inputs = random_inputs(spec, extents, ordered)
    first = spec.inputs[0].name
    inputs[first] = inputs[first] * scale
    named = components(spec, extents)
    params = {**LEAST.get(name, {}), **params}
    defaults = {p.name: p.default for p in spec.params}
    if code := refused(spec, extents, params):
        with pytest.raises(AttncError) as caught:
            interpreted(spec, inputs, params=params, extents=named)
        assert caught.value.code == code
        return
    got = interpreted(spec, inputs, params=params, extents=named)
    want = plain(name)(inputs, {**defaults, **named, **params})
    assert got.keys() == want.keys() == set(spec.outputs)
    for output, expected in want.items():
        finite = expected[expected.isfinite()]
        size = float(finite.abs().max()) if finite.numel() else 0.0
        torch.testing.assert_close(got[output], expected, rtol=0, atol=1e-12 * scale * size)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("name", names())
def test_spec_is_its_papers_formula(name: str, lengths: tuple[int, int]) -> None:
    check(name, lengths)


@pytest.mark.parametrize("name", names())
def test_switches(name: str) -> None:
    switches = [p for p in cascade(name).params if p.dtype == "bool"]
    choices: list[list[Any]] = [
        [False, True] if p.length is None else list(product([False, True], repeat=p.length))
        for p in switches
    ]
    for values in product(*choices):
        check(name, (7, 13), **{p.name: v for p, v in zip(switches, values, strict=True)})


@pytest.mark.parametrize("lengths", [(7, 13), (13, 13), (18, 16), (12, 30), (36, 36)], ids=str)
@pytest.mark.parametrize("name", VALUES)
def test_params(name: str, lengths: tuple[int, int]) -> None:
    for values in VALUES[name]:
        check(name, lengths, **values)


@pytest.mark.parametrize("lengths", [(13, 13), (12, 30)], ids=str)
@pytest.mark.parametrize("name", [n for n in names() if holds_ints(n)])
def test_ids_in_order(name: str, lengths: tuple[int, int]) -> None:
    check(name, lengths, ordered=True)


@pytest.mark.parametrize("name", names())
def test_large_scores(name: str) -> None:
    check(name, (7, 13), scale=1e5)


def test_rows_that_see_nothing_give_zero() -> None:
    spec = cascade("lse")
    extents = {**EXTENTS, "m": 5, "n": 3}
    got = interpreted(spec, random_inputs(spec, extents))
    assert torch.all(got["O"][:, :, :2] == 0)
    assert torch.all(got["LSE"][:, :, :2] == -torch.inf)
    assert torch.all(got["LSE"][:, :, 2:].isfinite())


def test_minus_infinity_hides_a_key() -> None:
    spec = cascade("additive_bias")
    inputs = random_inputs(spec, {**EXTENTS, "m": 5, "n": 4})
    inputs["bias"][:, 2] = -torch.inf
    inputs["bias"][:, 3, :3] = -torch.inf
    got = interpreted(spec, inputs)["O"]
    assert torch.all(got[:, :, 2] == 0)
    torch.testing.assert_close(got, plain("additive_bias")(inputs, {})["O"], rtol=0, atol=1e-12)
