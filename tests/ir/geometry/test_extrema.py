"""Extrema of boxes of tensors against numpy's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.ir.geometry.extrema import extrema_of

LENGTHS = (1, 5, 63, 64, 65, 200, 700)


@given(st.sampled_from(LENGTHS), st.sampled_from([(), (3,), (2, 3)]), st.integers(0, 99))
def test_ranges_are_exact(length: int, lead: tuple[int, ...], seed: int) -> None:
    data = np.random.default_rng(seed)
    x = data.integers(-9, 99, (*lead, length))
    tables = extrema_of(x, (len(lead),))
    at = [data.integers(0, n, 30) for n in lead]
    ends = np.sort(data.integers(0, length, (2, 30)), axis=0)
    if seed % 2:
        ends[0] = ends[0] // 64 * 64
        ends[1] = np.minimum(ends[1] // 64 * 64 + 63, length - 1)
    low, high = tables.query(at, [ends[0]], [ends[1]])
    for i, (a, b) in enumerate(ends.T):
        part = x[tuple(n[i] for n in at)][a : b + 1]
        assert (low[i], high[i]) == (part.min(), part.max())


@pytest.mark.parametrize("ranged", [(1, 2), (0, 2), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("kind", [bool, int])
def test_boxes_are_exact_or_enlarged(ranged: tuple[int, ...], kind: type) -> None:
    data = np.random.default_rng(0)
    x = data.random((4, 20, 31)) < 0.5 if kind is bool else data.integers(-9, 9, (4, 20, 31))
    ends = [np.sort(data.integers(0, n, (2, 50)), axis=0) for n in x.shape]
    low, high = extrema_of(x, ranged).query(
        [e[0] for i, e in enumerate(ends) if i not in ranged],
        [ends[i][0] for i in ranged],
        [ends[i][1] for i in ranged],
    )
    for j in range(50):
        part = x[
            tuple(
                slice(e[0][j], e[1][j] + 1) if i in ranged else e[0][j] for i, e in enumerate(ends)
            )
        ]
        assert low[j] <= part.min() and part.max() <= high[j]
        if kind is bool and len(ranged) == 2:
            assert (low[j], high[j]) == (part.all(), part.any())
