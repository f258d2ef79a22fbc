"""Calibrations: argued for every target, kept exactly in files, mistakes in a file named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.errors import AttncError
from attnc.runtime.cost import calibration
from attnc.runtime.cost.calibration import (
    LIMITS,
    MORE_IS_FASTER,
    PARAMETERS,
    Calibration,
    Range,
    load_calibration,
    save_calibration,
    specs_only,
    stored_calibration,
)
from attnc.runtime.targets import load_target, target_names


@pytest.mark.parametrize("name", target_names())
def test_every_target_has_ordered_assumptions(name: str, tmp_path: Path) -> None:
    known = specs_only(load_target(name))
    assert known.tier == "specs only" and known.source
    assert known.clock.slow < known.clock.likely < known.clock.fast
    # the checks of a file are those of the assumptions
    save_calibration(known, tmp_path / "known.json")
    assert load_calibration(tmp_path / "known.json") == known


def test_measurements_of_a_target_beat_assumptions() -> None:
    h200 = load_target("h200")
    assert specs_only(h200).memory.likely == pytest.approx(4.3 / 4.8)
    assert specs_only(h200).clock.slow == pytest.approx(784 / 989)
    slow = replace(h200, memory_sustained=2.4e12)
    assert specs_only(slow).memory.slow == 0.5
    assert specs_only(replace(h200, clock_max_mhz=None)).clock.fast == 1.0


FIGURES = st.one_of(st.none(), st.floats(1e2, 1e13))


@given(highest=FIGURES, products=FIGURES, memory=FIGURES)
def test_assumptions_are_ordered_whatever_a_file_says(
    highest: float | None, products: float | None, memory: float | None
) -> None:
    target = replace(
        load_target("h200"),
        clock_max_mhz=highest,
        tensor_tflops_sustained=products,
        memory_sustained=memory,
    )
    known = specs_only(target)
    for name in PARAMETERS:
        r = getattr(known, name)
        ends = (r.slow, r.fast) if name in MORE_IS_FASTER else (r.fast, r.slow)
        assert 0 <= ends[0] <= r.likely <= ends[1]


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    ranges = {}
    for name in PARAMETERS:
        ends = draw(st.lists(st.floats(*LIMITS[name]), min_size=3, max_size=3).map(sorted))
        ranges[name] = Range(*(reversed(ends) if name in MORE_IS_FASTER else ends))
    return Calibration(draw(st.sampled_from(["specs only", "one sweep"])), **ranges, source="x")


@given(known=calibrations())
def test_a_file_gives_back_what_was_saved(
    known: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "known.json"
    save_calibration(known, path)
    assert load_calibration(path) == known


def changed(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda data: {**data, **values}


GOOD = {"fast": 1.0, "likely": 0.9, "slow": 0.8}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(speed=1), "`speed` is unknown"),
        (changed(tier="guess"), "`tier` is `guess`, not `specs only` or `one sweep`"),
        (changed(tier=["one sweep"]), "`tier` is "),
        (changed(source=7), "`source` is not text"),
        (changed(clock=0.9), "`clock` is not { fast, likely, slow }"),
        (changed(clock={**GOOD, "worst": 0.1}), "`clock` is not {"),
        (changed(clock={**GOOD, "slow": -1}), "`clock.slow` is -1, not between 0.1 and 2"),
        (changed(clock={**GOOD, "slow": float("nan")}), "`clock.slow` is nan"),
        (changed(clock={**GOOD, "fast": float("inf")}), "`clock.fast` is inf"),
        (changed(clock={**GOOD, "fast": 10**400}), "`clock.fast` is 1000"),
        (changed(clock={**GOOD, "fast": True}), "`clock.fast` is True"),
        (changed(clock={**GOOD, "fast": 0.85}), "`clock` is not in the order slow <= likely"),
        (changed(launch=GOOD), "`launch` is not in the order fast <= likely <= slow"),
        (lambda data: {k: v for k, v in data.items() if k != "masked"}, "`masked` is missing"),
        (lambda data: [data], "not an object"),
    ],
)
def test_a_mistake_in_a_file_is_named(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.json"
    save_calibration(specs_only(load_target("h200")), path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(AttncError) as e:
        load_calibration(path)
    assert e.value.code == "E853" and message in e.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not JSON"), (b"{", "not JSON"), (b"\xff", "not JSON"), (b"[" * 100_000, "not JSON")],
)  # fmt: skip
def test_a_file_that_is_no_json(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(AttncError, match=message):
        load_calibration(tmp_path / "bad.json")
    with pytest.raises(AttncError, match="cannot read"):
        load_calibration(tmp_path / "absent.json")


def test_what_was_measured_on_a_device_is_for_that_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "_STORED", tmp_path)
    h200 = load_target("h200")
    assert stored_calibration(h200) is None
    measured = replace(specs_only(h200), tier="one sweep")
    save_calibration(measured, tmp_path / "h200.json")
    assert stored_calibration(h200) == measured
    assert stored_calibration(replace(h200, clock_mhz=1000.0)) is None
    assert stored_calibration(replace(h200, name="../h200")) is None


def test_the_calibrations_that_come_with_attnc_are_valid() -> None:
    for name in target_names():
        assert stored_calibration(load_target(name)) is None or name
