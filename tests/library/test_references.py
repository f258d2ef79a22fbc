"""Every library spec, interpreted as written in float64, equals its paper's formula."""

from __future__ import annotations

from itertools import product
from math import isqrt

import pytest
import torch
from torch import Tensor

from attnc.dsl import load_text
from attnc.ir.cascade import Cascade, TensorDecl
from attnc.library import names, text
from attnc.runtime.reference import reference as interpreted
from tests.references import reference as plain

EXTENTS = {"b": 2, "g": 2, "h": 6, "u": 3, "i": 4, "j": 2, "c": 4, "r": 3, "f": 2, "d": 5, "e": 3}
LENGTHS = {
    "no tile divides": (7, 13),
    "grids": (6, 12),
    "more queries than keys": (13, 7),
    "one query": (1, 13),
    "one key": (7, 1),
    "no key": (3, 0),
    "no query": (0, 3),
}
# Values of run-time params that matter at these lengths, beside the defaults.
VALUES: dict[str, dict[str, float]] = {
    "attn_edit": {"weight": -2.0},
    "clipped_softmax": {"alpha": 1.5, "zeta": 1.2},
    "differential": {"lambda_init": 0.3, "eps": 0.1},
    "lssar": {"power": 1},
    "qk_norm": {"eps": 0.1},
    "sliding_window": {"window": 3},
    "soft_mask": {"r": 0.0},
    "softcap": {"cap": 0.5},
}


def cascade(name: str) -> Cascade:
    return load_text(text(name), f"{name}.attn")


def random_inputs(spec: Cascade, extents: dict[str, int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(len(spec.inputs))

    def random(t: TensorDecl) -> Tensor:
        shape = [extents[r] for r in t.ranks]
        if t.dtype == "bool":
            return torch.rand(shape, generator=generator) < 0.5
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return {t.name: random(t) for t in spec.inputs}


def widths(spec: Cascade, extents: dict[str, int]) -> dict[str, int]:
    """For each grid rank, by name, the extent of its inner component: a divisor of the rank's."""

    def divisor(length: int) -> int:
        return max((w for w in range(1, isqrt(length) + 1) if length % w == 0), default=1)

    grids = [r for r in spec.ranks if r.components]
    return {r.components[-1].upper(): divisor(extents[r.name]) for r in grids}


def check(name: str, lengths: tuple[int, int], scale: float = 1.0, **params: float) -> None:
    """Equal to 1e-12 of the largest output for scores of order 1; scores' rounding adds to that."""
    spec = cascade(name)
    extents = {**EXTENTS, "m": lengths[0], "n": lengths[1]}
    inputs = random_inputs(spec, extents)
    first = spec.inputs[0].name
    inputs[first] = inputs[first] * scale
    named = widths(spec, extents)
    defaults = {p.name: p.default for p in spec.params if isinstance(p.default, int | float)}
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
    switches = [p.name for p in cascade(name).params if p.dtype == "bool"]
    for values in product([False, True], repeat=len(switches)):
        check(name, (7, 13), **dict(zip(switches, values, strict=True)))


@pytest.mark.parametrize("name", VALUES)
def test_params(name: str) -> None:
    check(name, (7, 13), **VALUES[name])


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
