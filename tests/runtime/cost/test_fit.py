"""Fits: known parameters come back, what rows do not tell stays, errors are as defined."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.errors import AttncError
from attnc.runtime.cost.calibration import (
    LIMITS,
    PARAMETERS,
    Range,
    Setting,
    load_calibration,
    save_calibration,
    specs_only,
)
from attnc.runtime.cost.fit import Measured, errors, fit, rank_correlation
from attnc.runtime.targets import load_target

PRIOR = specs_only(load_target("h200"))


@dataclass(frozen=True)
class Row:
    """Milliseconds that a kernel keeps its units busy at the peak rates."""

    tensor: float
    special: float
    partial: float
    memory: float
    launches: int = 1


def predicted(row: Row, s: Setting) -> float:
    """A small model of the same physics, with the kinks of the real one."""
    compute = row.tensor + (1 - s.overlap) * row.special + s.masked * row.partial
    return max(compute / s.clock, row.memory / s.memory) + row.launches * s.launch / 1e3


# Rows that tell every parameter: limited by each unit, short and long, with borders and without.
TELLING = tuple(
    Row(*units, launches=n)
    for units in (
        (4.0, 0.1, 0.0, 0.1), (1.0, 1.0, 0.0, 0.1), (1.0, 0.1, 1.0, 0.1), (0.1, 0.1, 0.0, 2.0),
        (0.01, 0.0, 0.0, 0.001), (2.0, 2.0, 0.2, 0.1), (0.5, 0.1, 0.7, 0.3), (0.2, 0.1, 0.0, 1.0),
    )
    for n in (1, 3)
)  # fmt: skip


def measured(rows: tuple[Row, ...], s: Setting) -> list[Measured[Row]]:
    return [Measured(r, predicted(r, s)) for r in rows]


truths = st.builds(
    Setting,
    clock=st.floats(0.7, 1.1),
    memory=st.floats(0.7, 0.95),
    overlap=st.floats(0.05, 0.6),
    masked=st.floats(0.9, 1.5),
    launch=st.floats(1.0, 8.0),
)


@settings(max_examples=15, deadline=None)
@given(truth=truths)
def test_known_parameters_come_back(truth: Setting) -> None:
    found = fit(measured(TELLING, truth), predicted, PRIOR)
    assert found.kept == ()
    assert found.fitted.mape < 1e-3
    for name in PARAMETERS:
        assert getattr(found.calibration, name).likely == pytest.approx(
            getattr(truth, name), rel=0.01, abs=0.005
        )


def test_intervals_of_noisy_fits_hold_the_truth_nearly_always() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(20):
        clock, memory = random.uniform((0.7, 0.7), (1.1, 0.95)).tolist()
        truth = Setting(clock, memory, 0.3, 1.2, 4.0)
        rows = [
            Measured(r.case, r.ms * float(np.exp(random.normal(0, 0.02))))
            for r in measured(TELLING, truth)
        ]
        known = fit(rows, predicted, PRIOR).calibration
        assert known.tier == "one sweep"
        assert max(known.clock.fast - known.clock.slow, known.memory.fast - known.memory.slow) < 0.3
        held += known.clock.slow <= clock <= known.clock.fast
        held += known.memory.slow <= memory <= known.memory.fast
    assert held >= 36


def test_what_rows_do_not_tell_stays_and_is_named() -> None:
    truth = Setting(0.9, 0.5, 0.4, 1.4, 3.0)
    rows = measured(tuple(Row(n, n / (n + 1), 0.0, 0.01, 0) for n in range(1, 9)), truth)
    found = fit(rows, predicted, PRIOR)
    assert found.kept == ("memory", "masked", "launch")
    assert "memory, masked, launch" in found.calibration.source
    assert all(getattr(found.calibration, p) == getattr(PRIOR, p) for p in found.kept)
    assert found.calibration.clock.likely == pytest.approx(0.9, rel=0.02)


def test_parameters_that_only_show_together_stay_near_the_prior() -> None:
    rows = [Measured(Row(1.0, 1.0, 0.0, 0.0, 0), 1.9)] * 6
    found = fit(rows, predicted, PRIOR)
    assert found.fitted.mape < 0.01
    assert abs(found.calibration.clock.likely - PRIOR.clock.likely) < 0.1
    assert abs(found.calibration.overlap.likely - PRIOR.overlap.likely) < 0.2


def test_a_fit_stays_within_physical_limits(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [Measured(r.case, 100 * r.ms) for r in measured(TELLING, PRIOR.at(lambda r: r.likely))]
    known = fit(rows, predicted, PRIOR).calibration
    for name in PARAMETERS:
        least, most = LIMITS[name]
        r = getattr(known, name)
        assert all(least <= x <= most for x in (r.fast, r.likely, r.slow))
    path = tmp_path_factory.mktemp("fit") / "far.json"
    save_calibration(known, path)
    assert load_calibration(path) == known


def test_held_out_rows_are_reported_apart() -> None:
    truth = Setting(0.9, 0.85, 0.3, 1.1, 4.0)
    rows = measured(TELLING, truth)
    off = [replace(r, ms=r.ms * 2) for r in rows[:4]]
    found = fit(rows[4:], predicted, PRIOR, off)
    assert found.held_out is not None and found.held_out.mape == pytest.approx(0.5, abs=0.02)
    assert found.fitted.mape < 0.01
    assert fit(rows, predicted, PRIOR).held_out is None


@pytest.mark.parametrize("ms", [0.0, -1.0, float("nan"), float("inf")])
def test_times_that_are_none_are_refused(ms: float) -> None:
    good = measured(TELLING, PRIOR.at(lambda r: r.likely))
    for rows, held in (([*good, Measured(TELLING[0], ms)], ()), (good, [Measured(TELLING[0], ms)])):
        with pytest.raises(AttncError, match="not a positive number") as e:
            fit(rows, predicted, PRIOR, held)
        assert e.value.code == "E854"
    with pytest.raises(AttncError, match="two measured rows"):
        fit(good[:1], predicted, PRIOR)


def test_errors_are_as_defined() -> None:
    rows = [Measured(110.0, 100.0), Measured(190.0, 200.0), Measured(390.0, 300.0)]
    found = errors(rows, lambda said: said)
    assert found.mape == pytest.approx((0.1 + 0.05 + 0.3) / 3)
    assert found.worst == pytest.approx(0.3)
    assert found.rank_correlation == 1.0
    assert str(found) == "MAPE 15.0%, rank correlation 1.000, worst 30.0% (3 rows)"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=20))
def test_rank_correlation_is_that_of_mean_ranks(pairs: list[tuple[int, int]]) -> None:
    def ranks(x: list[int]) -> list[float]:
        return [sum(y < v for y in x) + (sum(y == v for y in x) + 1) / 2 for v in x]

    a, b = (list(x) for x in zip(*pairs, strict=True))
    found = rank_correlation(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(np.corrcoef(ranks(a), ranks(b))[0, 1])


def test_the_prior_may_be_exact() -> None:
    sure = replace(PRIOR, overlap=Range(0.2, 0.2, 0.2))
    found = fit(measured(TELLING, Setting(0.9, 0.8, 0.2, 1.2, 3.0)), predicted, sure)
    assert found.calibration.overlap.likely == pytest.approx(0.2, abs=1e-3)
