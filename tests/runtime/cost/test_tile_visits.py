"""Tiles per program, against masks that are formed point by point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.codegen.config import Config
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.tile_visits import tile_visits, visible_points

MakeCall = Callable[..., Call]


def _classes(mask: Any, m: int, n: int) -> tuple[int, int]:
    """(full, partial) tiles of m x n points; the last of each axis may be cut short."""
    full = partial = 0
    for i in range(0, mask.shape[0], m):
        for j in range(0, mask.shape[1], n):
            tile = mask[i : i + m, j : j + n]
            full += bool(tile.all())
            partial += bool(tile.any() and not tile.all())
    return full, partial


@given(
    st.integers(1, 90),
    st.integers(1, 120),
    st.sampled_from([16, 32, 64]),
    st.sampled_from([16, 32]),
)
def test_a_window_visits_what_its_points_touch(
    make_call: MakeCall, length: int, window: int, m: int, n: int
) -> None:
    shape = {"B": 2, "H": 3, "G": 3, "M": length, "N": length, "D": 16, "E": 16}
    call = make_call("sliding_window", shape, window=window)
    back = np.arange(length)[:, None] - np.arange(length)
    mask = (back >= 0) & (back < window)
    (stage,) = call.sweeps
    visits = tile_visits(call, stage, Config(m, n, 4, 2))
    assert visits.repeats == 6
    assert visits.programs == 6 * -(-length // m)
    full, partial = _classes(mask, m, n)
    assert (visits.total("full"), visits.total("partial")) == (6 * full, 6 * partial)
    assert visible_points(call, stage) == 6 * mask.sum()


def test_the_last_tile_of_keys_is_at_a_border_if_it_is_cut_short(make_call: MakeCall) -> None:
    call = make_call("sdpa", {"B": 1, "H": 1, "M": 64, "N": 100, "D": 16, "E": 16})
    visits = tile_visits(call, call.sweeps[0], Config(64, 32, 4, 2))
    assert (visits.total("full"), visits.total("partial")) == (3, 1)


def test_documents_are_counted_by_their_ids(make_call: MakeCall) -> None:
    ids = np.repeat([[0, 1, 2], [0, 0, 1]], 32, axis=1)
    shape = {"B": 2, "H": 2, "M": 96, "N": 96, "D": 16, "E": 16}
    call = make_call("document", shape, tensors={"doc": ids})
    visits = tile_visits(call, call.sweeps[0], Config(32, 32, 4, 2))
    assert (visits.total("full"), visits.total("partial")) == (2 * (3 + 5), 0)
    assert visits.pattern == 6 and visits.repeats == 2
    assert list(visits.passes[0].full) == [1, 1, 1, 2, 2, 1]


def test_what_data_hide_is_not_guessed(make_call: MakeCall) -> None:
    call = make_call("document", {"B": 1, "H": 1, "M": 96, "N": 96, "D": 16, "E": 16})
    visits = tile_visits(call, call.sweeps[0], Config(32, 32, 4, 2))
    assert visits.total("full") == 9


@pytest.mark.parametrize(("mask", "tiles"), [("none", (16, 0)), ("causal", (6, 4))])
def test_a_baseline_visits_more(make_call: MakeCall, mask: Any, tiles: tuple[int, int]) -> None:
    shape = {"B": 1, "H": 1, "G": 1, "M": 128, "N": 128, "D": 16, "E": 16}
    call = make_call("sliding_window", shape, window=32)
    visits = tile_visits(call, call.sweeps[0], Config(32, 32, 4, 2), mask)
    assert (visits.total("full"), visits.total("partial")) == tiles


def test_the_longest_start_first_under_a_causal_mask(make_call: MakeCall) -> None:
    call = make_call("causal", {"B": 1, "H": 1, "M": 128, "N": 128, "D": 16, "E": 16})
    (p,) = tile_visits(call, call.sweeps[0], Config(32, 32, 4, 2)).passes
    assert list(p.full) == [3, 2, 1, 0] and list(p.partial) == [1, 1, 1, 1]


def test_a_plane_is_cut_into_boxes(make_call: MakeCall) -> None:
    shape = {"B": 1, "H": 1, "MY": 16, "MX": 16, "NY": 16, "NX": 16, "D": 16, "E": 16}
    call = make_call("na2d", shape, window=(8, 8), stride=(8, 8))
    visits = tile_visits(call, call.sweeps[0], Config(64, 64, 4, 2))
    # 8 x 8 boxes: windows that stand on them, and are shifted inwards at the borders
    assert visits.pattern == 4
    assert visits.total("full") + visits.total("partial") <= 16
    assert visible_points(call, call.sweeps[0]) == 256 * 64


def test_a_second_column_block_is_another_program(make_call: MakeCall) -> None:
    call = make_call("sdpa", {"B": 1, "H": 1, "M": 64, "N": 64, "D": 16, "E": 512})
    assert tile_visits(call, call.sweeps[0], Config(64, 64, 4, 2)).programs == 2
