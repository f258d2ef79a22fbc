"""The benchmark scripts run: what needs a GPU runs small, in Triton's interpreter."""

from __future__ import annotations

import json
import operator
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from attnc.runtime.cost.calibration import load_calibration

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> str:
    """Run a script from the root of the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_gpu_script_runs_small(tmp_path: Path) -> None:
    flags = ("--json", str(tmp_path / "tiny.json"), "--calibration", str(tmp_path / "fitted.json"))
    out = run("benchmarks/gpu.py", "--tiny", *flags)
    result = json.loads((tmp_path / "tiny.json").read_text())
    found = {(row["spec"], row["impl"]): row for row in result["rows"]}
    every = {"dense math", "flex", "flex, our lists"}
    assert {impl for spec, impl in found if spec == "document"} == {"attnc", "attnc chosen", *every}
    layouts = {"attnc gather", "attnc permuted", "attnc chosen"}
    assert {impl for spec, impl in found if spec == "na2d"} == {*layouts, *every}
    far = [r["differs"] for r in result["rows"] if r["differs"] is not None]
    assert len(far) == 9 and max(far) < 1e-5
    assert found["document", "attnc"]["lists_ms"] is not None
    assert found["softcap", "attnc"]["bound"]["visible"] == 2 * sum(range(1, 21))
    assert result["verified"] == {"causal": {"fp32": "ok"}}
    assert "DIFFERS" not in out
    ours = [row for (_, impl), row in found.items() if impl.startswith("attnc")]
    assert len(ours) == 6 and all(row["predicted"]["likely"] > 0 for row in ours)
    assert all(row["off"] < 0 and row["not_predicted"] is None for row in ours)
    assert result["fit"]["one sweep"]["fitted"]["rows"] == 2
    assert result["fit"]["specs only"]["held_out"]["rows"] == 4
    assert load_calibration(tmp_path / "fitted.json").tier == "one sweep"
    (sweep,) = result["sweeps"]
    assert sweep["timed"] == sweep["tried"] == 3 and sweep["over_best"] >= 1


def test_a_child_process_is_replaced_when_it_dies_or_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    child = import_module("child_process").ChildProcess()
    try:
        first = child.run(os.getpid, timeout=60)
        with pytest.raises(RuntimeError, match="ZeroDivisionError: integer modulo by zero"):
            child.run(operator.mod, 1, 0, timeout=60)
        assert child.run(os.getpid, timeout=60) == first != os.getpid()
        with pytest.raises(RuntimeError, match="the process died"):
            child.run(os._exit, 3, timeout=60)
        with pytest.raises(TimeoutError, match="no answer in 0 s"):
            child.run(time.sleep, 60, timeout=0.1)
        assert child.run(operator.mod, 7, 4, timeout=60) == 3
    finally:
        child.stop()


@pytest.mark.slow
def test_resources_of_a_spec_on_two_targets(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    flags = ("--specs", "sdpa", "--targets", "a100,h100", "--dims", "64", "--json", str(out))
    run("benchmarks/targets.py", *flags)
    rows = json.loads(out.read_text())
    assert [r["target"] for r in rows] == ["a100", "h100"]
    assert all(r["registers"] > 0 and r["spills"] == 0 for r in rows)


@pytest.mark.slow
def test_waiting_time_of_a_spec() -> None:
    assert "FlexAttention takes" in run("benchmarks/compile_time.py", "--specs", "sdpa")


@pytest.mark.slow
def test_masks_beside_flex_attention(tmp_path: Path) -> None:
    out = tmp_path / "masks.json"
    run("benchmarks/masks.py", "--tiny", "--repeats", "1", "--json", str(out))
    rows = json.loads(out.read_text())["rows"]
    assert [r["name"] for r in rows[-2:]] == ["document", "na3d"]
    assert all(r["over_compiled"] > 1 for r in rows if r["flex_compiled"] is not None)


@pytest.mark.slow
def test_the_cpu_script_compares() -> None:
    assert "x)" in run("benchmarks/cpu.py", "one query")


def test_published_speeds_beside_predictions(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    flags = ("--rule", "--fidelity", "roofline", "--target", "a100", "--json", str(out))
    text = run("benchmarks/published.py", *flags)
    (row,) = json.loads(out.read_text())["not_our_kernels"]
    assert row["target"] == "a100" and row["low"] <= row["likely"] <= row["high"]
    assert row["ratio"] == row["likely"] / row["published"]
    assert "published: others' kernels" in text and row["source"] in text
