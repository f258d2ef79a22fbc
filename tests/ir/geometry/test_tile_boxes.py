"""Flat ranges of a grid as boxes of its components."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest

from attnc.ir.geometry.tile_boxes import grid_boxes


@pytest.mark.parametrize("sizes", [(5,), (3, 4), (2, 3, 4), (3, 1, 5), (2, 2, 2, 3)], ids=str)
def test_boxes_hold_each_point_of_a_range_once(sizes: tuple[int, ...]) -> None:
    total = prod(sizes)
    ranges = np.array([(a, b) for a in range(total) for b in range(a, total)])
    spans, valid = grid_boxes(ranges[:, 0], ranges[:, 1], sizes)
    assert valid.shape[1] <= 2 * len(sizes) - 1
    for i, (a, b) in enumerate(ranges):
        points = [
            int(np.ravel_multi_index(digits, sizes))
            for box in np.flatnonzero(valid[i])
            for digits in product(*(range(x[i, box], y[i, box] + 1) for x, y in spans))
        ]
        assert sorted(points) == list(range(a, b + 1))
