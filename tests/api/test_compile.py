"""Compiling: the module stands alone, the report tells what a GPU's compiler made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import attnc
from attnc.compilation import complete_shape
from attnc.errors import AttncError
from attnc.ir.plan import Plan

SHAPE = {"B": 1, "H": 4, "G": 2, "M": 1024, "N": 1024, "D": 64, "E": 64}


def plan(name: str) -> Plan:
    return attnc.load(name).plan


def test_the_report_has_the_resources_of_each_kernel_on_each_target(tmp_path: Path) -> None:
    config = {"m": 64, "n": 32, "warps": 4, "stages": 3}
    targets = ("h200", "a100", "h100")
    made = attnc.load("causal").compile(SHAPE, target=targets, to=tmp_path / "new", config=config)
    assert [k.target for k in made.kernels] == [*targets]
    for k in made.kernels:
        assert (k.config["BLOCK_M"], k.config["BLOCK_N"]) == (64, 32)
        assert (k.config["num_warps"], k.config["num_stages"]) == (4, 3)
        assert 16 < k.registers <= 255
        assert k.spills == 0
        assert k.fits
        assert k.config["D"] == 64
        assert k.programs > 0
    assert json.loads(Path(made.report).read_text()) == json.loads(json.dumps(made.to_dict()))
    assert "registers" in str(made)
    assert "chosen for h200" in str(made.kernels[2])
    # what was asked for is in the module, for both architectures
    chosen = (
        "_CHOSEN = {(90, 2, 64, False): (64, 32, 128, 3), (80, 2, 64, False): (64, 32, 128, 3)}"
    )
    assert chosen in Path(made.module).read_text()


def test_a_module_needs_no_attnc(tmp_path: Path) -> None:
    made = attnc.load("causal").compile(target=(), to=tmp_path)
    assert made.kernels == ()
    code = "import sys; sys.modules['attnc'] = None; import causal; print(causal.causal.__doc__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True
    )
    assert "Q[b, h, m, d]" in done.stdout, done.stderr
    assert Path(made.module).read_text().count("\n") == made.lines


def test_a_shape_is_completed_by_the_roles_of_the_ranks() -> None:
    shape = complete_shape(plan("causal"), {"H": 32, "N": 100})
    assert shape == {"b": 8, "h": 32, "m": 4096, "d": 128, "g": 8, "n": 100, "e": 128}


def test_a_shape_is_completed_so_that_exact_divisions_are() -> None:
    sides = ("my", "mx", "ny", "nx")
    maxvit = plan("maxvit_grid")
    shape = complete_shape(maxvit, {})
    assert [shape[side] for side in sides] == [70] * 4
    assert shape["m"] == shape["n"] == 70 * 70
    shape = complete_shape(maxvit, {"MY": 96}, {"grid": 12})
    assert [shape[side] for side in sides] == [96, 72, 72, 72]
    assert complete_shape(plan("gqa"), {"H": 6})["g"] in (1, 2, 3, 6)
    # What cannot be made to fit stays, to be told by its place in the spec.
    assert complete_shape(plan("gqa"), {"H": 6, "G": 4})["g"] == 4


def test_a_volume_is_as_square_as_it_comes() -> None:
    shape = complete_shape(plan("gna"), {"NX": 4})
    assert [shape[f"m{axis}"] for axis in "tyx"] == [16, 16, 16]
    assert shape["n"] == 16 * 16 * 4


@pytest.mark.parametrize(
    ("code", "shape", "target"),
    [
        ("E504", {"X": 3}, "h200"),
        ("E801", SHAPE, "h201"),
        ("E801", SHAPE, "./nowhere.toml"),
        ("E516", SHAPE, "h200"),
        ("E851", SHAPE | {"B": 10**6}, "h200"),
    ],
)
def test_what_cannot_be_compiled_is_told(
    tmp_path: Path, code: str, shape: dict[str, int], target: str
) -> None:
    dtype = "fp8" if code == "E516" else "bf16"
    with pytest.raises(AttncError) as e:
        attnc.load("causal").compile(shape, target=target, dtype=dtype, to=tmp_path)
    assert e.value.code == code


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AttncError) as e:
        attnc.load("causal").compile(target=(), to=tmp_path / "file" / "folder")
    assert e.value.code == "E713"


def test_a_configuration_that_cannot_be_launched_says_what_is_lacking(tmp_path: Path) -> None:
    with pytest.raises(AttncError) as e:
        attnc.load("causal").compile(SHAPE, to=tmp_path, config={"n": 256, "stages": 8})
    assert e.value.code == "E852"
    assert "458752 bytes of shared memory, 226304 more than the 232448" in e.value.message


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["document", "differential"])
def test_the_choice_does_not_spill(spec: str, tmp_path: Path) -> None:
    made = attnc.load(spec).compile(to=tmp_path, target="a100")
    assert all(k.fits and not k.spills for k in made.kernels)


@pytest.mark.slow
def test_a_sweep_in_parts_is_two_kernels(tmp_path: Path) -> None:
    shape = {"B": 1, "H": 8, "G": 1, "M": 1, "N": 16384, "D": 64, "E": 64}
    made = attnc.load("gqa").compile(shape, to=tmp_path, target="h100")
    sweep, merge = made.kernels
    assert sweep.choice is not None and "parts" in sweep.name
    assert merge.choice is None and "merge" in merge.name
    assert not sweep.spills and not merge.spills
