"""Runs against the matrix of classes that they stand for."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attnc.ir.geometry import tile_runs
from attnc.ir.geometry.tile_runs import Runs, expand, make_runs, whole

SIZES = st.tuples(st.integers(0, 9), st.integers(0, 12), st.integers(0, 999))


def random_runs(rows: int, keys: int, seed: int) -> tuple[Runs, Any]:
    """Runs made from single tiles in any order, and their matrix."""
    data = np.random.default_rng(seed)
    classes = data.choice(3, (rows, keys), p=data.dirichlet([1, 1, 1]))
    row, key = np.nonzero(classes)
    order = data.permutation(len(row))
    row, key = row[order], key[order]
    return make_runs(rows, keys, row, key, key + 1, classes[row, key] == 2), classes


@given(SIZES)
def test_runs_are_merged_ordered_and_apart(size: tuple[int, int, int]) -> None:
    runs, classes = random_runs(*size)
    np.testing.assert_array_equal(runs.classes(), classes)
    for row in range(runs.rows):
        part = slice(int(runs.offsets[row]), int(runs.offsets[row + 1]))
        start, stop, full = runs.start[part], runs.stop[part], runs.full[part]
        assert (start < stop).all() and (stop[:-1] <= start[1:]).all()
        assert not ((stop[:-1] == start[1:]) & (full[:-1] == full[1:])).any()


@given(SIZES)
def test_counts_and_lists(size: tuple[int, int, int]) -> None:
    runs, classes = random_runs(*size)
    np.testing.assert_array_equal(runs.visited(), (classes > 0).sum(axis=1))
    np.testing.assert_array_equal(runs.full_tiles(), (classes == 2).sum(axis=1))
    for full, kept in ((None, classes > 0), (True, classes == 2), (False, classes == 1)):
        offsets, tiles = runs.lists(full)
        np.testing.assert_array_equal(np.diff(offsets), kept.sum(axis=1))
        np.testing.assert_array_equal(tiles, np.nonzero(kept)[1])


@given(SIZES, st.sampled_from([0, 4]))
def test_transposing_twice_changes_nothing(size: tuple[int, int, int], short: int) -> None:
    runs, classes = random_runs(*size)
    with patch.object(tile_runs, "_SHORT", short):
        turned = runs.transpose()
        back = turned.transpose()
    np.testing.assert_array_equal(turned.classes(), classes.T)
    for name in ("offsets", "start", "stop", "full"):
        np.testing.assert_array_equal(getattr(back, name), getattr(runs, name))


def test_everything_full() -> None:
    for rows, keys in ((0, 3), (3, 0), (2, 5)):
        np.testing.assert_array_equal(whole(rows, keys).classes(), np.full((rows, keys), 2))


def test_expanded_ranges() -> None:
    np.testing.assert_array_equal(expand(np.array([4, 7, 1]), np.array([6, 7, 4])), [4, 5, 1, 2, 3])
