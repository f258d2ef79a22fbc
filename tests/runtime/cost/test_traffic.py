"""What a kernel moves: every tensor once, and again what the caches cannot keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from attnc.codegen.config import Config
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.tile_visits import tile_visits
from attnc.runtime.cost.traffic import traffic_bytes

MakeCall = Callable[..., Call]
TILES = Config(128, 64, 8, 2)
CACHE, PLACES = 50e6, 132


def _moved(call: Call) -> float:
    visits = tile_visits(call, call.sweeps[0], TILES)
    return traffic_bytes(call, call.sweeps[0], TILES, visits, PLACES, CACHE)


def _shape(length: int, heads: int = 8) -> dict[str, int]:
    return {"B": 1, "H": heads, "G": heads, "M": length, "N": length, "D": 128, "E": 128}


def test_tensors_that_fit_in_the_cache_move_once(make_call: MakeCall) -> None:
    call = make_call("sdpa", _shape(4096))
    assert _moved(call) == call.total_bytes == 4 * 8 * 4096 * 128 * 2


def test_keys_that_do_not_fit_are_fetched_by_every_round(make_call: MakeCall) -> None:
    length = 1 << 20
    call = make_call("sdpa", _shape(length, heads=1))
    side = length * 128 * 2
    rounds = length / 128 / PLACES
    assert _moved(call) == pytest.approx(2 * side + 2 * side * rounds)


def test_a_window_moves_what_its_rounds_see(make_call: MakeCall) -> None:
    """Neighbours see nearly the same keys, so a window moves little more than the tensors."""
    call = make_call("sliding_window", _shape(1 << 20), window=4096)
    assert call.total_bytes <= _moved(call) <= 1.5 * call.total_bytes


def test_a_decode_moves_the_keys_that_it_sees(make_call: MakeCall) -> None:
    keys = 1 << 16
    shape = {"B": 1, "H": 32, "G": 8, "M": 1, "N": keys, "D": 128, "E": 128}
    whole = make_call("gqa", shape)
    assert _moved(whole) == whole.total_bytes
    part = make_call("streaming_llm", shape)
    assert _moved(part) < _moved(whole) / 8
