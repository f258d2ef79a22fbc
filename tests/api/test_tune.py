"""Tuning, with a clock of the test's own: kernels run in the interpreter, where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import attnc
from attnc import tune as tuning
from attnc.codegen.config import Config
from attnc.compilation import complete_shape
from attnc.errors import AttncError
from attnc.runtime.cost.calibration import specs_only
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.choices import measured_configs
from attnc.runtime.cost.predict import estimate
from attnc.runtime.cost.prove import Proof
from attnc.runtime.targets import load_target
from attnc.runtime.tuning import Bench

H100 = load_target("h100")
CONFIGS = (Config(32, 32, 4, 2), Config(16, 32, 4, 2), Config(16, 16, 4, 2))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Of a kernel of which three configurations count as compiled."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))

    def ranked(call: Call, stage: object, target: object, count: int) -> tuple[Proof, ...]:
        known = specs_only(H100)
        times = [estimate(call, s, H100, c, known) for s in call.sweeps[:1] for c in CONFIGS]
        return tuple(Proof(c, t, None) for c, t in zip(CONFIGS[:count], times, strict=False))

    monkeypatch.setattr(tuning, "finalists", ranked)
    attn = attnc.load("causal")
    shape = {"B": 1, "H": 1, "G": 1, "M": 33, "N": 33, "D": 16, "E": 16}
    return Call(attn.plan, {}, complete_shape(attn.plan, shape), "fp32")


def bench(call: Call, timer: Callable[[Callable[[], object]], float]) -> Bench:
    tensors = tuning.inputs(call, {}, torch.float32, "cpu")
    return Bench(call.plan, call.params, call.extents, tensors, timer, interpret=True)


def test_the_fastest_is_kept_and_used_later(call: Call) -> None:
    ran: list[object] = []

    def timer(run: Callable[[], object]) -> float:
        ran.append(run())
        return (3.0, 1.0, 2.0)[len(ran) - 1]

    found = tuning.measure(call, H100, bench(call, timer), "a clock")
    assert [t.measured_ms for t in found.trials] == [1.0, 2.0, 3.0]
    assert found.trials[0].config == found.stored[call.sweeps[0].name] == "16x32, 4 warps, 2 stages"
    assert [*measured_configs(call, H100).values()] == [CONFIGS[1]]
    first, *others = (x["O"] for x in ran if isinstance(x, dict))
    for other in others:
        torch.testing.assert_close(first, other)
    assert "is kept" in str(found) and found.to_dict()["device"] == "a clock"


def test_what_cannot_be_launched_is_no_winner(call: Call) -> None:
    times = iter((0.5, 0.25))

    def timer(run: Callable[[], object]) -> float:
        if (found := next(times, None)) is None:
            raise RuntimeError("out of resource: shared memory")
        return found

    found = tuning.measure(call, H100, bench(call, timer), "a clock")
    assert [t.measured_ms for t in found.trials] == [0.25, 0.5, float("inf")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("target", [None, "h100"])
def test_tuning_needs_a_gpu(target: str | None) -> None:
    with pytest.raises(AttncError) as e:
        attnc.load("causal").tune({"M": 64, "N": 64}, target=target)
    assert e.value.code == "E832"


@pytest.mark.gpu
def test_tuning_on_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))
    found = attnc.load("causal").tune({"B": 2, "M": 1024, "N": 1024})
    assert 2 <= len(found.trials) <= tuning.COUNT
    times = [t.measured_ms for t in found.trials]
    assert times == sorted(times) and times[0] > 0
