"""Stored choices: who gets which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attnc.codegen.config import Config
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.choices import measured_configs, store, stored_choices, stored_configs
from attnc.runtime.targets import load_target

SHAPE = {"B": 1, "H": 2, "G": 2, "M": 2048, "N": 2048, "D": 64, "E": 64}
H100, A100 = load_target("h100"), load_target("a100")
MODEL = Config(128, 64, 8, 2)
BETTER = Config(64, 64, 4, 3, descriptors=True, shape_m=(8, 8), splits=2)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))


@pytest.fixture
def call(make_call: Callable[..., Call]) -> Callable[..., Call]:
    def make(dtype: str = "bf16", window: int = 256, **shape: int) -> Call:
        return make_call("sliding_window", SHAPE | shape, dtype=dtype, window=window)

    return make


def keep(call: Call, origin: str, config: Config) -> None:
    name = call.sweeps[0].name
    store(call, H100, origin, {name: (config, 1.0)})  # type: ignore[arg-type]


def test_a_choice_is_for_calls_of_its_kind(call: Callable[..., Call]) -> None:
    assert stored_configs(call(), H100) == {}
    keep(call(), "model", MODEL)
    (found,) = stored_configs(call(M=1500), H100).values()
    assert found == MODEL
    for other in (call(M=512), call(D=128), call(window=512), call("fp16"), call(B=4)):
        assert stored_configs(other, H100) == {}
    assert stored_configs(call(), A100) == {}


def test_what_was_measured_counts_more_than_what_was_predicted(call: Callable[..., Call]) -> None:
    keep(call(), "measured", BETTER)
    keep(call(), "model", MODEL)
    assert [*stored_configs(call(), H100).values()] == [BETTER]
    assert [*measured_configs(call(), H100).values()] == [BETTER]
    keep(call(), "measured", MODEL)
    assert [*measured_configs(call(), H100).values()] == [MODEL]


def test_a_module_carries_one_choice_per_kind_that_it_can_tell(call: Callable[..., Call]) -> None:
    plan = call().plan
    keep(call(window=512), "model", BETTER)
    keep(call(), "model", MODEL)
    keep(call(M=8), "model", Config(16, 64, 4, 3))
    keep(call("fp32"), "model", Config(32, 32, 4, 2))
    found = {(x.itemsize, x.few): x.config for x in stored_choices(plan, 90, {"window": 512})}
    assert found == {
        (2, False): BETTER,
        (2, True): Config(16, 64, 4, 3),
        (4, False): Config(32, 32, 4, 2),
    }
    later = {(x.itemsize, x.few): x.config for x in stored_choices(plan, 90, {"window": 1})}
    assert later[2, False] == MODEL
    assert stored_choices(plan, 80, {}) == ()
