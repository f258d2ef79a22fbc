"""`attnc predict` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnc.cli import main
from attnc.runtime.spatial.designs import design_names
from attnc.runtime.spatial.models import LENGTHS, model_names
from attnc.runtime.spatial.simulate import simulate

Run = Callable[..., tuple[int, str, str]]
SHAPE = ("--shape", "B=1,H=8,G=2,M=4096,D=128,E=128")
# What compiles nothing, and ranks nothing.
QUICK = ("--fidelity", "roofline", "--config", "m=128,n=64,warps=8,stages=2")
WINDOW = ("sliding_window", *SHAPE, *QUICK)


@pytest.fixture
def predict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Run:
    """(exit status, stdout, stderr) of the command in an empty folder, with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))

    def run(*args: str) -> tuple[int, str, str]:
        try:
            status = main(("predict", *args))
        except SystemExit as e:
            assert isinstance(e.code, int)
            status = e.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


def _json(run: Run, *args: str) -> Any:
    status, out, err = run(*args, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_the_prediction_as_text(predict: Run) -> None:
    status, out, err = predict(*WINDOW, "--param", "window=512", "--share", "60%")
    assert (status, err) == (0, "")
    assert out.startswith("sliding_window on h200, bf16: ")
    assert "over        dense causal, " in out
    assert "attention having been 60% of it" in out
    assert "calibration  specs only: " in out
    assert "fidelity     roofline: " in out


def test_the_prediction_as_json(predict: Run) -> None:
    found = _json(predict, *WINDOW, "--target", "h100", "--dtype", "fp16")
    assert (found["target"], found["dtype"], found["fidelity"]) == ("h100", "fp16", "roofline")
    assert found["shape"]["N"] == found["shape"]["M"] == 4096
    assert found["speedup"] == found["baseline"]["ms"] / found["ms"]["mid"]
    assert found["config"].keys() == {"block_m", "block_n", "num_warps", "num_stages"}
    assert {"full", "partial"} == found["stages"][0]["tiles"].keys()
    assert found["config_from"] == "as asked for"


def test_tiles_that_nobody_asked_for(predict: Run) -> None:
    found = _json(predict, *WINDOW[:-2], "--target", "mi300x", "--dtype", "fp32")
    assert found["config_from"] == "the best by what the plan says; none was compiled"
    stage = found["stages"][0]
    assert stage["per_sm"] >= 1 and stage["registers"] is None


@pytest.mark.slow
def test_all_three_fidelities(predict: Run) -> None:
    fixed = ("--config", "m=64,n=64,warps=4,stages=2", "--target", "a100")
    status, out, err = predict("sliding_window", *SHAPE, *fixed, "--explain")
    assert (status, err) == (0, "")
    assert "at best " in out and " over dense causal: " in out
    assert "at once on an SM" in out
    found = _json(predict, "sliding_window", *SHAPE, *fixed, "--explain")
    assert [x["fidelity"] for x in found["fidelities"]] == ["tiles", "roofline", "machine code"]
    assert all(x["reasons"] for x in found["fidelities"])


@pytest.mark.slow
def test_all_three_fidelities_of_a_sweep_in_parts(predict: Run) -> None:
    """One query and many keys: a few programs would leave most of the GPU idle."""
    shape = ("--shape", "B=1,H=4,G=4,M=1,N=8192,D=64,E=64", "--target", "h100")
    status, out, err = predict("sdpa", *shape, "--explain")
    assert (status, err) == (0, "")
    assert "sdpa_parts: " in out and "sdpa_merge: " in out


def test_specs_beside_each_other(predict: Run) -> None:
    others = ("--versus", "causal", "--versus", "sliding_window window=512")
    status, out, _ = predict(*WINDOW, *others)
    assert status == 0
    assert "sliding_window window=512" in out
    found = _json(predict, *WINDOW, *others)
    small = found["versus"][1]
    assert small["params"] == {"window": 512}
    assert small["ratio"] == small["ms"]["mid"] / found["ms"]["mid"] < 0.5


def test_a_sweep_over_the_length_and_its_picture(predict: Run) -> None:
    shape = ("--shape", "B=1,H=8,G=2,D=128,E=128", "--sweep", "M=1024..16384")
    status, out, _ = predict("sliding_window", *shape, *QUICK, "-o", "lengths.svg")
    assert status == 0
    assert "5 settings" in out and "lengths.svg: " in out
    drawn = Path("lengths.svg").read_bytes()
    assert drawn.startswith(b"<?xml")
    found = _json(predict, "sliding_window", *shape, *QUICK, "-o", "lengths.svg")
    assert Path("lengths.svg").read_bytes() == drawn, "the same sweep gives the same bytes"
    assert [r["values"] for r in found["rows"]] == [{"M": 1024 << i} for i in range(5)]
    assert all(r["shape"]["N"] == r["values"]["M"] for r in found["rows"])
    times = [r["ms"]["mid"] for r in found["rows"]]
    assert times == sorted(times)


def test_strides_of_a_plane_and_their_picture(predict: Run) -> None:
    plane = ("gna", "--shape", "B=1,H=8,G=8,MT=1,MY=64,MX=64,D=64,E=64")
    windows = ("--param", "window=(1,16,16)", "--sweep", "stride=1x1,16x1,16")
    status, out, _ = predict(*plane, *windows, *QUICK, "-o", "strides.png")
    assert status == 0
    assert "(1, 16, 16)" in out and "over: dense;" in out
    assert Path("strides.png").read_bytes().startswith(b"\x89PNG")


def test_which_windows_fit_in_a_time(predict: Run) -> None:
    windows = ("--sweep", "window=256..4096:256", "--target", "h100")
    at = _json(predict, *WINDOW, *windows)["rows"][8]["ms"]["mid"]
    found = _json(predict, *WINDOW, *windows, "--budget", f"{at * 1.0001:.9f}ms")
    fits = [r["fits"] for r in found["rows"]]
    order = ["surely", "likely", "hardly", "no"]
    assert fits == sorted(fits, key=order.index), "a larger window takes no less time"
    assert set(fits) == set(order)
    (likely,), (surely,) = found["largest_likely"], found["largest_surely"]
    assert surely["window"] < likely["window"] == 9 * 256
    status, out, _ = predict(*WINDOW, *windows, "--budget", "100s")
    assert status == 0
    assert "largest that surely fits in 100000 ms: window 4096" in out
    assert _json(predict, *WINDOW, "--budget", "1us")["fits"] == "no"


def test_several_gpus_and_what_does_not_fit_there(predict: Run) -> None:
    shape = ("--shape", "B=64,H=8,G=8,D=128,E=128", "--sweep", "M=262144..524288")
    targets = ("--target", "a100", "--target", "mi300x")
    found = _json(predict, "sliding_window", *shape, *QUICK, *targets)
    assert [r["values"]["target"] for r in found["rows"]] == ["a100"] * 2 + ["mi300x"] * 2
    assert [r["ms"] is None for r in found["rows"]] == [True, True, False, True]
    status, out, _ = predict("sliding_window", *shape, *QUICK, *targets)
    assert status == 0 and "GB are missing" in out


def test_data_of_a_mask_comes_from_files(predict: Run) -> None:
    np.save("doc.npy", np.arange(4096).reshape(1, 4096) // 256)
    found = _json(predict, "document", *SHAPE, *QUICK, "--data", "doc=doc.npy")
    assert found["speedup"] > 4


def test_the_tables_of_spatial_arrays(predict: Run) -> None:
    status, out, _ = predict("sdpa", "--target", "spatial", "--model", "all")
    assert status == 0
    assert "fusemax               1    97.0%   100.0%          6.72x    5.30x" in out
    found = _json(predict, "sdpa", "--target", "spatial", "--model", "all")
    each = [(d, m, n) for d in design_names() for m in model_names() for n in LENGTHS]
    assert [(r["target"], r["model"], r["shape"]["M"]) for r in found["rows"]] == each
    for row, which in zip(found["rows"][::7], each[::7], strict=True):
        p = simulate(*which)
        assert (row["ms"]["mid"], row["traffic_bytes"]) == (p.ms, p.traffic_bytes)
        assert row["utilisation"] == dict(p.utilisation)


def test_one_array_at_ones_own_shape(predict: Run) -> None:
    shape = ("--shape", "B=4,H=16,G=16,D=64,E=64")
    found = _json(predict, "sdpa_2pass", "--target", "fusemax", *shape, "--sweep", "M=512..2048")
    assert [r["shape"]["N"] for r in found["rows"]] == [512, 1024, 2048]
    assert "end_to_end_ms" not in found["rows"][0]
    status, out, _ = predict("sdpa", "--target", "flat", "--model", "T5", "--shape", "M=4096")
    assert status == 0 and "a layer of T5" in out and "3 passes" in out


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ((*WINDOW, "--target", "h20"), "E801", "did you mean `h200`?"),
        ((*WINDOW, "--target", "fusmax"), "E801", "did you mean `fusemax`?"),
        ((*WINDOW, "--sweep", "windw=1..4"), "E854", "`window`"),
        ((*WINDOW, "--sweep", "window[0]=1..4"), "E854", "has no item"),
        ((*WINDOW, "--sweep", "M=0.5"), "E854", "is a length"),
        ((*WINDOW, "--sweep", "window=1..5000"), "E854", "more than 4096"),
        ((*WINDOW, "--sweep", "window=0..2"), "E509", "window"),
        ((*WINDOW, "-o", "out.svg"), "E854", "--sweep"),
        ((*WINDOW, "--sweep", "window=1..2", "-o", "out.pdf"), "E714", ".svg"),
        ((*WINDOW, "--model", "BERT"), "E854", "fusemax"),
        ((*WINDOW, "--target", "h200", "--target", "flat"), "E854", "one table"),
        ((*WINDOW, "--target", "h200", "--target", "h100", "--explain"), "E854", "one GPU"),
        ((*WINDOW, "--calibration", "none.json"), "E853", "none.json"),
        ((*WINDOW[:-2], "--config", "m=100"), "E852", "power of 2"),
        ((*WINDOW, "--shape", "Z=3"), "E504", "`Z`"),
        (("causal", "--target", "fusemax"), "E845", "it has a mask"),
        (("sdpa", "--target", "fusemax", "--shape", "M=1000"), "E843", "1024 is, the nearest"),
        (("sdpa", "--target", "flat", "--sweep", "H=1..4"), "E854", "only the length"),
        (("sdpa", "--target", "flat", "--model", "BERT", "--shape", "H=4"), "E854", "`H`"),
        (("sdpa", "--target", "flat", "--model", "Bert2"), "E842", "`BERT`"),
        (("sdpa", "--target", "flat", "--budget", "2ms"), "E854", "`--budget`"),
        (("sdpa", "--target", "flat", "--dtype", "fp32"), "E854", "two bytes"),
    ],
)
def test_mistakes(predict: Run, args: tuple[str, ...], code: str, says: str) -> None:
    status, out, err = predict(*args)
    assert (status, out) == (1, "")
    assert f"error[{code}]" in err and says in err, err


@pytest.mark.parametrize(
    "args",
    [
        ("--budget", "2"),
        ("--budget", "0ms"),
        ("--share", "2"),
        ("--share", "0"),
        ("--sweep", "M=4..1"),
        ("--sweep", "M"),
        ("--fidelity", "exact"),
        ("--explain", "--versus", "causal"),
    ],
)
def test_wrong_usage(predict: Run, args: tuple[str, ...]) -> None:
    status, out, err = predict(*WINDOW, *args)
    assert (status, out) == (2, "")
    assert "usage: attnc predict" in err
