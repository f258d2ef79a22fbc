"""What a split sweep costs: the parts' tiles, the merge, what is gained where programs are few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.codegen.config import Config
from attnc.runtime.cost.calibration import specs_only
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.predict import estimate, predict
from attnc.runtime.cost.split_call import in_parts, split_call
from attnc.runtime.cost.tile_visits import tile_visits, visible_points
from attnc.runtime.targets import load_target

MakeCall = Callable[..., Call]
WHOLE = Config(16, 16, 4, 2)
DECODE = {"B": 1, "H": 32, "G": 8, "M": 1, "N": 65536, "D": 128, "E": 128}


@given(st.integers(1, 90), st.integers(1, 120), st.integers(2, 9))
def test_parts_visit_what_the_whole_visits(
    make_call: MakeCall, length: int, window: int, splits: int
) -> None:
    shape = {"B": 2, "H": 3, "G": 3, "M": length, "N": length, "D": 16, "E": 16}
    call = make_call("sliding_window", shape, window=window)
    (stage,) = call.sweeps
    split, configs = split_call(call, {stage.name: replace(WHOLE, splits=splits)})
    parts = min(splits, -(-length // 16))
    whole = tile_visits(call, stage, WHOLE)
    if parts == 1:
        assert split is call
        return
    assert split.extent("part") == parts
    partial, merge = split.sweeps
    own = tile_visits(split, partial, configs[partial.name])
    assert own.programs == parts * whole.programs
    assert own.total("full") == whole.total("full")
    assert own.total("partial") == whole.total("partial")
    assert visible_points(split, partial) == visible_points(call, stage)
    # as the loops of the kernel go: from the first part on, then from the last
    (found,), (seen,) = own.passes, whole.passes
    for i in range(parts):
        for j, (full, rest) in enumerate(zip(seen.full, seen.partial, strict=True)):
            at = i * whole.pattern + j
            assert found.full[at] == len(range(i, full, parts))
            assert found.partial[at] == len(range(parts - 1 - i, rest, parts))
    assert tile_visits(split, merge, configs[merge.name]).programs == 6 * length


def test_several_passes_stay_whole(make_call: MakeCall) -> None:
    call = make_call("clipped_softmax", {"B": 1, "H": 2, "M": 1, "N": 4096, "D": 64, "E": 64})
    (stage,) = call.sweeps
    assert split_call(call, {stage.name: replace(WHOLE, splits=4)})[0] is call


def test_a_decode_step_in_parts_moves_the_same_keys(make_call: MakeCall) -> None:
    call = make_call("gqa", DECODE)
    (stage,) = call.sweeps
    target, config = load_target("h100"), Config(16, 64, 4, 3)
    whole, split = (
        predict(call, target, fidelity="roofline", configs={stage.name: replace(config, splits=n)})
        for n in (1, 8)
    )
    assert whole.shape == split.shape
    (parts, merge), (one,) = split.stages, whole.stages
    assert (parts.programs, merge.programs, one.programs) == (256, 32, 32)
    assert parts.full + parts.partial == one.full + one.partial
    assert parts.config["splits"] == 8 and "splits" not in one.config
    # the keys once; what each part gathers for each of 32 rows: 128 sums of columns, two of rows
    gathered = 8 * 32 * 130 * 4
    assert parts.traffic == pytest.approx(one.traffic + gathered, rel=1e-3)
    assert merge.traffic == pytest.approx(gathered + 32 * 128 * 2)


def test_few_programs_are_split_and_many_are_not(make_call: MakeCall) -> None:
    target, config = load_target("h100"), Config(16, 64, 4, 3)
    call = make_call("gqa", DECODE)
    (stage,) = call.sweeps
    tried = [*in_parts(call, stage, 132, [config])]
    assert [c.splits for c in tried] == [1, 2, 4, 8, 16, 32]
    likely = specs_only(target)
    times = [estimate(call, stage, target, c, likely).ms.mid for c in tried]
    # 32 programs on 132 SMs; more parts than it takes to fill them only lengthen the merge
    assert min(times) < times[0] / 3 and times.index(min(times)) in (2, 3)
    assert [*in_parts(make_call("gqa", DECODE | {"B": 64}), stage, 132, [config])] == [config]
