"""Random predicates as functions of torch equal numpy's evaluation, point by point."""

from __future__ import annotations

from math import prod
from random import Random

import numpy as np
import pytest
import torch

from attnc.ir.expr import Expr, Index, Number, call
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.runtime.mask_mod import Coordinates, mask_mod
from tests.ir.geometry.pointwise import holds
from tests.ir.geometry.random_masks import random_case


def places(axes: tuple[Axis, ...], argument: str, bound: Bound) -> dict[str, Expr]:
    """Each coordinate of a side of the space in terms of its flat index."""
    found: dict[str, Expr] = {}

    def split(names: tuple[str, ...], sizes: tuple[int, ...], whole: Expr) -> None:
        for i, name in enumerate(names):
            inner = max(1, prod(sizes[i + 1 :]))
            row = call("floordiv", whole, Number(inner))
            found[name] = call("mod", row, Number(max(1, sizes[i])))

    split(tuple(a.name for a in axes), tuple(a.extent for a in axes), Index(argument))
    for whole, parts in bound.components.items():
        if whole in found:
            split(parts, tuple(bound.extents[p] for p in parts), found[whole])
        elif all(p in found for p in parts):
            total: Expr = Number(0)
            for part in parts:
                total = call("add", call("mul", total, Number(bound.extents[part])), found[part])
            found[whole] = total
    return found


@pytest.mark.parametrize("index", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("block", range(10))
def test_random_predicates(block: int, index: torch.dtype) -> None:
    """`create_block_mask` passes indices of 64 bits, a compiled kernel those of 32."""
    for seed in range(15 * block, 15 * block + 15):
        case = random_case(Random(seed))
        bound, sides = case.bound, (case.rows, case.keys)
        rows, keys = (prod(a.extent for a in side) for side in sides)
        ranks = {**places(sides[0], "q_idx", bound), **places(sides[1], "kv_idx", bound)}
        coordinates = Coordinates(ranks, {"q_idx": rows, "kv_idx": keys})
        tensors = {name: torch.from_numpy(np.array(x)) for name, x in bound.tensors.items()}
        seen = mask_mod(case.predicate, coordinates, bound, tensors, "random")
        zero = torch.zeros((), dtype=index)
        m, n = torch.arange(rows, dtype=index), torch.arange(keys, dtype=index)
        got = seen(zero, zero, m[:, None], n[None])
        want = np.asarray(holds(case.predicate, case.rows + case.keys, bound)).reshape(rows, keys)
        assert got.dtype == torch.bool
        np.testing.assert_array_equal(got.broadcast_to(rows, keys).numpy(), want, str(seed))
