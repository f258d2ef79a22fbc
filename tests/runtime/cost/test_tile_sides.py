"""Sides of tiles over several axes."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from hypothesis import given
from hypothesis import strategies as st

from attnc.codegen.config import Config
from attnc.runtime.cost.calibration import specs_only
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.predict import estimate
from attnc.runtime.cost.prediction import StageTime
from attnc.runtime.cost.tile_sides import side_shapes, with_sides
from attnc.runtime.cost.tile_visits import tile_visits
from attnc.runtime.targets import load_target

H100 = load_target("h100")
VIDEO = {"B": 1, "H": 4, "MT": 30, "MY": 48, "MX": 80, "NT": 30, "NY": 48, "NX": 80}


@given(st.sampled_from((16, 32, 64, 128)), st.lists(st.integers(1, 300), min_size=2, max_size=3))
def test_sides_fill_the_tile_and_are_no_longer_than_needed(block: int, extents: list[int]) -> None:
    found = side_shapes(block, extents)
    assert len(set(found)) == len(found)
    for sides in found:
        assert prod(sides) == block
        assert all(s < 2 * n for s, n in zip(sides, extents, strict=True))
        growing = [s for s, n in zip(sides, extents, strict=True) if s < n]
        assert not growing or max(sides) <= 4 * min(growing)


def test_sides_that_fit_the_stride_visit_fewer_tiles(make_call: Callable[..., Call]) -> None:
    call = make_call("gna", VIDEO, window=(18, 24, 24), stride=(16, 8, 8))
    (stage,) = call.sweeps
    usual = Config(64, 64, 4, 3)
    known = specs_only(H100)

    def timed(c: Config) -> StageTime:
        return estimate(call, stage, H100, c, known)

    config, time = with_sides(call, stage, usual, timed(usual), timed)
    assert config.shape_m is not None and prod(config.shape_m) == 64
    assert time.ms.mid < timed(usual).ms.mid
    visits, before = tile_visits(call, stage, config), tile_visits(call, stage, usual)
    assert visits.total("full") + visits.total("partial") < 0.9 * (
        before.total("full") + before.total("partial")
    )


def test_tiles_with_one_axis_stay_as_they_are(make_call: Callable[..., Call]) -> None:
    call = make_call("causal", {"M": 256, "N": 256})
    config = Config(64, 64, 4, 3)
    time = estimate(call, call.sweeps[0], H100, config, specs_only(H100))
    assert with_sides(call, call.sweeps[0], config, time, lambda c: time) == (config, time)
