"""`attn.predict`: what it is made of, what it is compared with, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnc.api import load
from attnc.errors import AttncError
from attnc.predict import Predicted, predict_attention
from attnc.predict_arrays import ArrayPrediction
from attnc.predict_fidelities import predict_fidelities
from attnc.predict_setup import make_call, make_setup
from attnc.predict_versus import predict_versus
from attnc.runtime.spatial.simulate import simulate
from attnc.runtime.targets import load_target


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was chosen and compiled on this machine before does not count."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))


ROOT = Path(__file__).parents[2]
SHAPE = {"B": 1, "H": 8, "G": 2, "M": 2048, "D": 128, "E": 128}


# Asked for, so that nothing is ranked.
TILES = {"m": 128, "n": 64, "warps": 8, "stages": 2}


def _roofline(spec: str, shape: dict[str, int], **how: Any) -> Predicted:
    params = how.pop("params", {})
    captured = how.pop("captured", {})
    setup = make_setup("h200", fidelity="roofline", **{"config": TILES, **how})
    return predict_attention(load(spec, **params), shape, setup, captured)


def test_a_window_is_compared_with_dense_causal_attention() -> None:
    found = _roofline("sliding_window", SHAPE, params={"window": 256})
    assert found.baseline[0] == "dense causal"
    assert found.speedup == found.baseline[1].mid / found.ms.mid > 2
    causal = _roofline("causal", SHAPE)
    assert causal.baseline[0] == "dense causal"
    assert causal.speedup == pytest.approx(1)
    # A window of all keys hides what causality hides.
    whole = _roofline("sliding_window", SHAPE, params={"window": 2048})
    assert whole.speedup == pytest.approx(1)


def test_other_masks_are_compared_with_dense_attention() -> None:
    plane = {"B": 1, "H": 8, "G": 8, "MY": 64, "MX": 64, "D": 64, "E": 64}
    found = _roofline("na2d", plane, params={"window": (16, 16), "stride": (16, 16)})
    assert found.baseline[0] == "dense"
    assert 8 < found.speedup <= 16
    dense = _roofline("sdpa", SHAPE)
    assert (dense.baseline[0], dense.speedup) == ("dense", 1)


def test_an_interval_with_its_parts() -> None:
    found = _roofline("sliding_window", SHAPE)
    assert 0 < found.ms.low < found.ms.mid < found.ms.high
    told: Any = found.to_dict()
    assert {
        "ms", "bottleneck", "tflops", "pipes", "baseline", "speedup", "config", "fidelity",
        "calibration", "target", "dtype", "shape", "stages", "notes", "traffic_bytes",
    } <= told.keys()  # fmt: skip
    assert told["calibration"]["tier"] == "specs only"
    assert told["pipes"][told["bottleneck"]] == max(told["pipes"].values())
    # Queries, keys, values and results at least cross once.
    assert told["traffic_bytes"] >= 2 * 2048 * 128 * (8 + 2 + 2 + 8)
    json.dumps(told, allow_nan=False)


def test_stages_add_up() -> None:
    found = _roofline("differential", {"B": 1, "H": 8, "M": 1024, "D": 64, "E": 64})
    assert len(found.prediction.stages) > 1
    assert found.ms.mid == pytest.approx(sum(s.ms.mid for s in found.prediction.stages))
    assert "kernel" in str(found) and "torch" in str(found)


def test_one_query_waits_for_memory() -> None:
    found = _roofline("gqa", {"B": 64, "H": 32, "G": 32, "M": 1, "N": 32768, "D": 128, "E": 128})
    assert found.prediction.bottleneck == "memory"
    assert "limited by  memory" in str(found)


def test_as_many_keys_as_queries_unless_told() -> None:
    attention = load("sliding_window")
    assert make_call(attention, {"M": 777}, "bf16", {}).extents["n"] == 777
    assert make_call(attention, {"N": 778}, "bf16", {}).extents["m"] == 778
    both = make_call(attention, {"M": 1, "N": 779}, "bf16", {}).extents
    assert (both["m"], both["n"]) == (1, 779)
    plane = make_call(load("na2d"), {"MY": 6, "MX": 7}, "bf16", {}).extents
    assert (plane["ny"], plane["nx"], plane["n"]) == (6, 7, 42)


def test_the_share_of_a_model() -> None:
    half = _roofline("sliding_window", SHAPE, params={"window": 256}, share=0.5)
    assert half.end_to_end == pytest.approx(1 / (0.5 + 0.5 / half.speedup))
    assert _roofline("sliding_window", SHAPE, share=1.0).end_to_end == pytest.approx(
        _roofline("sliding_window", SHAPE).speedup
    )


def test_data_of_a_mask() -> None:
    doc = np.arange(2048).reshape(1, 2048) // 128
    shape = {"B": 1, "H": 8, "D": 128, "E": 128, "M": 2048}
    known = _roofline("document", shape, captured={"doc": doc})
    assert known.speedup > 4 and not known.prediction.notes
    unknown = _roofline("document", shape)
    assert unknown.speedup == 1
    assert "`doc`, which was not given" in unknown.prediction.notes[0]
    with pytest.raises(AttncError, match="no mask reads") as e:
        _roofline("sdpa", shape, captured={"Q": doc})
    assert e.value.code == "E513"


def test_a_configuration_of_ones_own() -> None:
    config = {"m": 64, "n": 32, "warps": 4, "stages": 2}
    found = _roofline("sliding_window", SHAPE, config=config)
    assert found.config == {"block_m": 64, "block_n": 32, "num_warps": 4, "num_stages": 2}
    assert found.tiles == "as asked for"


def test_several_specs_at_one_shape() -> None:
    setup = make_setup("h100", fidelity="roofline", config=TILES)
    others = [load("causal"), load("na1d", window=256)]
    found = predict_versus(load("sliding_window", window=256), others, SHAPE, setup, {})
    assert all(p.prediction.shape["M"] == p.prediction.shape["N"] == 2048 for p in found.others)
    causal = found.others[0]
    assert found.ratio(causal) == causal.ms.mid / found.first.ms.mid > 2
    low, high = found.bounds(causal)
    assert low <= found.ratio(causal) * 1.01 and high >= found.ratio(causal) * 0.99
    told: Any = found.to_dict()
    assert [x["name"] for x in told["versus"]] == ["causal", "na1d"]


def test_a_plane_beside_a_sequence_of_its_tokens() -> None:
    setup = make_setup("h100", fidelity="roofline", config=TILES)
    shape = {"B": 1, "H": 8, "G": 8, "MY": 32, "MX": 64, "D": 64, "E": 64}
    found = predict_versus(load("na2d", window=(8, 8)), [load("sdpa")], shape, setup, {})
    assert found.others[0].prediction.shape["M"] == 2048
    sides = {"M": 4096, "MY": 32, "MX": 128}
    back = predict_versus(load("sdpa"), [load("na2d")], sides, setup, {})
    assert back.others[0].prediction.shape["N"] == 4096
    with pytest.raises(AttncError) as e:
        predict_versus(load("sdpa"), [load("na2d")], {"M": 4096, "MZ": 8}, setup, {})
    assert e.value.code == "E504"


def test_a_sweep_says_what_single_predictions_say() -> None:
    volume: Any = {"B": 1, "H": 2, "G": 2, "MT": 6, "MY": 10, "MX": 12, "D": 64, "E": 64}
    attention = load("gna", window=(3, 5, 6))
    how: Any = {"target": "h200", "fidelity": "roofline", "config": TILES}
    ranges = {"stride[1]": (1, 4), "MT": (6, 7), "dilation[2]": (1, 2)}
    rows = attention.predict_sweep(volume, ranges, **how).rows
    assert len(rows) == 8
    for row in rows:
        params = {n: row.values[n] for n in ("stride", "dilation")}
        alone = load("gna", window=(3, 5, 6), **params)
        shape: Any = {**volume, "MT": row.values["MT"]}
        single = alone.predict(shape, **how)
        assert row.predicted is not None and row.predicted.to_dict() == single.to_dict()


def test_a_modelled_array() -> None:
    found = load("sdpa").predict(
        {"B": 64, "H": 12, "G": 12, "M": 1024, "D": 64, "E": 64}, target="fusemax"
    )
    assert isinstance(found, ArrayPrediction)
    told: Any = found.to_dict()
    bert = simulate("fusemax", "BERT", 1024)
    assert told["ms"] == {"low": bert.ms, "mid": bert.ms, "high": bert.ms}
    assert told["traffic_bytes"] == bert.traffic_bytes
    assert told["utilisation"] == dict(bert.utilisation)
    assert told["speedup"] == simulate("unfused", "BERT", 1024).ms / bert.ms
    with pytest.raises(AttncError) as e:
        load("causal").predict({"M": 1024}, target="flat")
    assert e.value.code == "E845"


def test_a_target_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    own = Path(load_target.__code__.co_filename).parent / "target_files" / "h200.toml"
    file.write_text(own.read_text(encoding="utf-8").replace('name = "h200"', 'name = "mine"'))
    found = load("sdpa").predict(SHAPE, target=str(file), fidelity="roofline", config=TILES)
    assert found.to_dict()["target"] == "mine"


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"fidelity": "exact"}, "E854"),
        ({"share": 1.5}, "E854"),
        ({"share": 0.0}, "E854"),
        ({"budget_ms": 0.0}, "E854"),
        ({"calibration": "none.json"}, "E853"),
    ],
)
def test_what_makes_no_sense(how: dict[str, Any], code: str) -> None:
    with pytest.raises(AttncError) as e:
        make_setup("h200", **how)
    assert e.value.code == code


def test_tensors_that_exceed_the_memory() -> None:
    with pytest.raises(AttncError, match=r"549\.8 GB .* 408\.8 GB are missing") as e:
        _roofline("sliding_window", {"B": 64, "H": 8, "G": 8, "M": 1 << 20, "D": 128, "E": 128})
    assert e.value.code == "E851"


@pytest.mark.slow
def test_machine_code_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = load("sliding_window")
    setup = make_setup("a100", config={"m": 64, "n": 64, "warps": 4, "stages": 2})
    found = predict_fidelities(attention, SHAPE, setup, {})
    assert [p.prediction.fidelity for p in found.each] == ["tiles", "roofline", "machine code"]
    assert found.last.prediction.stages[0].registers
    low, middle, high = (p.ms.mid for p in found.each)
    assert low <= middle <= high

    def compile_nothing(jobs: object) -> None:
        raise AssertionError(f"compiled again: {jobs}")

    monkeypatch.setattr("attnc.runtime.cost.machine_demand.compile_many", compile_nothing)
    for shape in ({**SHAPE, "M": 4096}, {**SHAPE, "B": 2}):
        again = predict_attention(attention, shape, setup, {})
        assert again.prediction.fidelity == "machine code"
        assert again.ms.mid > found.last.ms.mid


@pytest.mark.parametrize("empty", [{"M": 0}, {"B": 0, "M": 64}, {"M": 64, "N": 0}])
def test_nothing_to_do_takes_no_time(empty: dict[str, int]) -> None:
    found = _roofline("sliding_window", {**SHAPE, **empty}, share=0.5)
    assert found.ms.mid >= 0
    assert "over        dense" in str(found)
    assert found.to_dict()["baseline"]


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from attnc.cli import main\n"
        "main(['predict', 'sliding_window', '--shape', 'M=4096', '--fidelity', 'roofline'])\n"
        "heavy = {'torch', 'triton', 'jinja2', 'sympy', 'networkx', 'matplotlib', 'rich'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(requests: Sequence[object]) -> tuple[AttncError, ...]:
        return tuple(AttncError("E812", "triton is not installed") for _ in requests)

    monkeypatch.setattr("attnc.runtime.cost.predict.compiled_kernels", absent)
    setup = make_setup("h200", config={"m": 128, "n": 64, "warps": 8, "stages": 2})
    found = predict_attention(load("sliding_window"), SHAPE, setup, {})
    assert found.prediction.fidelity == "roofline"
    assert "triton is not installed" in found.prediction.notes[0]
