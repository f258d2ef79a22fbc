"""The model of spatial arrays against its artifact's tables, its closed forms and its headlines."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.errors import AttncError
from attnc.runtime.spatial.counts import cycles_2d, load_attention, make_problem
from attnc.runtime.spatial.designs import design_names, load_design
from attnc.runtime.spatial.mappings import Found
from attnc.runtime.spatial.models import LENGTHS, Model, load_model, model_names, show_length
from attnc.runtime.spatial.simulate import Prediction, simulate

ROOT = Path(__file__).parents[2]
TABLES = Path(__file__).parent / "fusemax_tables"
MAPPINGS = ROOT / "runtime" / "spatial" / "flat_mappings.csv"
LENGTH = {show_length(n): n for n in LENGTHS}
EACH = [(m, n) for m in model_names() for n in LENGTHS]

simulated = cache(simulate)


def _table(path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


@pytest.mark.parametrize("design", design_names())
def test_each_row_of_the_artifact_is_reproduced(design: str) -> None:
    rows = [r for r in _table(TABLES / "attention.csv") if r["design"] == design]
    assert [(r["model"], LENGTH[r["length"]]) for r in rows] == EACH
    for row in rows:
        p = simulated(design, row["model"], LENGTH[row["length"]])
        found = (p.ms / 1e3, p.traffic_bytes, p.utilisation["2d"], p.utilisation["1d"])
        told = tuple(float(row[c]) for c in ("latency", "traffic", "util_2d", "util_1d"))
        assert found == pytest.approx(told, rel=1e-9)


def test_the_linear_layers_take_as_long_as_the_artifact_says() -> None:
    rows = _table(TABLES / "linear.csv")
    assert [(r["model"], LENGTH[r["length"]]) for r in rows] == EACH
    for row in rows:
        layers = simulated("fusemax", row["model"], LENGTH[row["length"]]).linear
        assert layers.seconds == pytest.approx(float(row["latency"]), rel=1e-9)
        # The weights of XLM's feed-forward layers do not fit: a mapping reads something again.
        fits = row["model"] != "XLM"
        assert (layers.least_bytes == int(row["traffic"])) is fits
        assert layers.least_bytes <= int(row["traffic"])


def _seconds(p: Prediction, *, whole_layer: bool) -> float:
    return p.end_to_end_ms if whole_layer else p.ms


@pytest.mark.parametrize(
    ("slow", "fast", "attention", "whole_layer"),
    [
        ("flat", "fusemax", 6.72, 5.30),
        ("unfused", "fusemax", 10.05, 7.60),
        ("flat", "fusemax_arch", 2.18, 2.00),
        ("flat", "fusemax_cascade", 0.91, 0.93),
    ],
)
def test_the_headline_speedups(slow: str, fast: str, attention: float, whole_layer: float) -> None:
    for whole, told in ((False, attention), (True, whole_layer)):
        ratios = [
            _seconds(simulated(slow, m, n), whole_layer=whole)
            / _seconds(simulated(fast, m, n), whole_layer=whole)
            for m, n in EACH
        ]
        assert round(mean(ratios), 2) == told


@pytest.mark.parametrize(
    ("design", "told"),
    [("fusemax", 0.970), ("fusemax_arch", 0.326), ("fusemax_cascade", 0.132),
     ("flat", 0.149), ("unfused", 0.099)],
)  # fmt: skip
def test_the_mean_utilisation_of_the_square_array(design: str, told: float) -> None:
    assert round(mean(simulated(design, m, n).utilisation["2d"] for m, n in EACH), 3) == told


def test_the_worked_example() -> None:
    p = simulate("fusemax", "BERT", 1024)
    assert (p.cycles, p.traffic_bytes, p.passes) == (1892352, 402653184, 1)
    assert p.utilisation["2d"] == pytest.approx(137 / 154)
    assert {e.name: e.cycles / 12288 for e in p.einsums} == {
        "BQK": 64, "LM": 1, "SLN": 7, "SLD": 1, "SLNV": 64,
        "RM": 1, "PRM": 7, "SPD": 1, "RD": 1, "SPNV": 64, "RNV": 64, "AV": 16,
    }  # fmt: skip


@given(st.integers(1, 5000), st.sampled_from([16, 32, 64, 128, 256]), st.integers(1, 40))
def test_the_closed_form_at_any_length(tiles: int, width: int, heads: int) -> None:
    model = Model("any", 512, heads, width, 2048)
    p = simulate("fusemax", model, 256 * tiles)
    computing = 64 * heads * tiles**2 * (2 * width + 10 + width / tiles)
    moving = p.traffic_bytes / (400 * 2**30) * 940e6
    assert p.cycles == pytest.approx(max(computing, moving), rel=1e-12)
    fitting = (2**24 - 1024 * width) // (512 * (2 * width + 2))
    block = max(k for k in range(1, min(tiles, fitting) + 1) if tiles % k == 0)
    shared = tiles // block * 256 * tiles * 2 * width
    assert p.traffic_bytes == 2 * 64 * heads * (256 * tiles * 2 * width + shared)


@pytest.mark.parametrize("design", design_names())
@pytest.mark.parametrize("length", [1 << 10, 1 << 18])
def test_parts_add_up(design: str, length: int) -> None:
    p = simulate(design, "T5", length)
    assert sum(p.limited_ms.values()) == pytest.approx(p.ms)
    assert p.limited_ms[p.bottleneck] == max(p.limited_ms.values())
    for unit, share in p.utilisation.items():
        assert sum(e.utilisation for e in p.einsums if e.unit == unit) == pytest.approx(share)
        assert 0 < share <= 1 + 1e-12


@pytest.mark.parametrize("name", design_names())
def test_a_binding_has_each_einsum_of_its_cascade_once(name: str) -> None:
    design = load_design(name)
    bound = Counter(e for k in design.kernels for e in k.einsums())
    assert bound == Counter(list(load_attention(design.spec).einsums))


@pytest.mark.parametrize("row", _table(MAPPINGS), ids=lambda r: f"{r['model']}-{r['seq_len']}")
def test_the_mappings_are_for_the_models_shapes(row: dict[str, str]) -> None:
    m, n = load_model(row["model"]), LENGTH[row["seq_len"]]
    told = tuple(int(row[c]) for c in ("B", "H", "M", "P", "E", "F", "D", "S"))
    width = (m.head_dim, m.head_dim)
    assert told == (m.batch, m.heads, n, n, *width, m.embedding, m.feed_forward)


@given(
    st.sampled_from(["output", "weight", "input"]),
    st.sampled_from(LENGTHS[:4]),
    st.sampled_from([64, 128, 512]),
    st.sampled_from([256, 1024]),
)
def test_products_under_each_stationarity(kind: str, length: int, width: int, rows: int) -> None:
    """Cycles, how full the array is, and re-reads, written out by hand for one head."""
    problem = make_problem("sdpa", Model("any", 512, 1, width, 2048, batch=1), length, 256)
    scores = {"output": "S", "weight": "K", "input": "Q"}[kind]
    values = {"output": "O", "weight": "V", "input": "P"}[kind]
    found = Found(rows, 0.0, frozenset(), {"S": scores, "O": values})
    n, w, full = max(1, length // 256), max(1, width // 256), min(width, 256) / 256
    blocks = length // rows
    cycles, filled, q, k = {
        "output": (width * n * n, 1.0, n, n),
        "weight": (length * w * n, full, n, blocks),
        "input": (length * w * n, full, 1, n),
    }[kind]
    assert (found.times(problem, "S", "Q"), found.times(problem, "S", "K")) == (q, k)
    spent = cycles_2d(problem, "S", {}, found.spatial(problem, "S"))
    assert (spent.taken, spent.busy) == (cycles, cycles * filled)
    cycles, filled, p, v, writes = {
        "output": (length * w * n, full, w, n, 1),
        "weight": (length * w * n, full, w, blocks, n),
        "input": (width * n * n, 1.0, 1, n, n),
    }[kind]
    assert found.times(problem, "O", "P") == p
    assert found.times(problem, "O", "V") == v
    assert found.times(problem, "O", "O") == writes
    spent = cycles_2d(problem, "O", {}, found.spatial(problem, "O"))
    assert (spent.taken, spent.busy) == (cycles, cycles * filled)


@pytest.mark.parametrize(
    ("design", "model", "length", "code", "says"),
    [
        ("fusmax", "BERT", 1024, "E841", "did you mean `fusemax`?"),
        ("h200", "BERT", 1024, "E841", "one of these names"),
        ("fusemax", "Bart", 1024, "E842", "did you mean `BERT`?"),
        ("fusemax", "BERT", 1000, "E843", "1024 is, the nearest"),
        ("fusemax", "BERT", 0, "E843", "256 is, the nearest"),
        ("fusemax", "BERT", -512, "E843", "256 is, the nearest"),
        pytest.param("fusemax", "BERT", 1 << 20000, "E843", "1099511627776 is", id="too long"),
        ("fusemax", "BERT", 1024.0, "E843", "1024 is"),
        ("flat", "BERT", 2048, "E844", "BERT, TrXL, T5 and XLM at 1K, 4K, 16K, 64K, 256K, 1M"),
        ("unfused", Model("wide", 512, 8, 32, 2048), 1 << 20, "E844", "64 and 128"),
        ("fusemax", Model("wide", 512, 8, 1 << 14, 2048), 1024, "E844", "smaller head dimension"),
    ],
)
def test_what_is_not_modelled_says_so(
    design: str, model: str | Model, length: int, code: str, says: str
) -> None:
    with pytest.raises(AttncError) as e:
        simulate(design, model, length)
    assert e.value.code == code
    assert says in str(e.value)


def test_a_model_has_positive_figures() -> None:
    with pytest.raises(AttncError, match="`heads` of a model is 0"):
        Model("none", 512, 0, 64, 2048)


def _run(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_torch_is_loaded() -> None:
    printed = _run(
        "-c",
        "import sys; from attnc.runtime.spatial.simulate import simulate; "
        "print(simulate('flat', 'xlm', 1 << 20)); sys.exit('torch' in sys.modules)",
    )
    assert printed.startswith("flat, XLM at 1M: 2.228e+07 ms, limited by memory;")


def test_the_page_shows_what_the_benchmark_prints(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    printed = _run("benchmarks/spatial_array.py", "--means", "--json", str(file))
    assert printed in (ROOT / "docs" / "spatial-arrays.md").read_text(encoding="utf-8")
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert rows == [simulated(d, m, n).to_dict() for d in design_names() for m, n in EACH]
