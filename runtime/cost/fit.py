"""Fit the few parameters of the time model to measured times: the tier "one sweep".

Least squares in the logarithm of time, so that a row counts as much as another one however short it
is. Each parameter is also drawn to its prior, as weakly as its interval is wide beside the scatter
of the rows: what the rows do not tell stays where it was, and is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from attnc.errors import AttncError
from attnc.runtime.cost.calibration import (
    LIMITS,
    MORE_IS_FASTER,
    PARAMETERS,
    Calibration,
    Range,
    Setting,
)

T = TypeVar("T")
Floats: TypeAlias = NDArray[np.float64]

_STEPS = 25
# Logarithm of time: rows are never taken to be more exact than this.
_EXACT = 1e-3
# A parameter whose uncertainty the rows leave larger than this share of the prior's is not told.
_TOLD = 0.7


@dataclass(frozen=True, slots=True)
class Measured(Generic[T]):
    """A case, of whatever kind the predictor takes, and the milliseconds that it took."""

    case: T
    ms: float


@dataclass(frozen=True, slots=True)
class Errors:
    """How far predictions are from measurements.

    mape:              mean absolute error over the measured time
    rank_correlation:  Spearman's, None for fewer than two rows or where all are alike
    worst:             the largest absolute error over the measured time
    rows:              how many were compared
    """

    mape: float
    rank_correlation: float | None
    worst: float
    rows: int

    def __str__(self) -> str:
        rank = "-" if self.rank_correlation is None else f"{self.rank_correlation:.3f}"
        return (
            f"MAPE {self.mape:.1%}, rank correlation {rank}, worst {self.worst:.1%} "
            f"({self.rows} rows)"
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted calibration and what it is worth.

    kept:      parameters that the rows do not tell; they have the prior's range
    fitted:    errors on the rows of the fit
    held_out:  errors on rows that the fit did not see, None where there are none
    """

    calibration: Calibration
    kept: tuple[str, ...]
    fitted: Errors
    held_out: Errors | None


def fit(
    rows: Sequence[Measured[T]],
    predictor: Callable[[T, Setting], float],
    prior: Calibration,
    held_out: Sequence[Measured[T]] = (),
) -> Fit:
    """The parameters with which a predictor comes closest to the rows, and their intervals.

    `predictor` gives milliseconds. Raises AttncError E854 for fewer than two rows or a time that is
    not positive.
    """
    if len(rows) < 2:
        raise AttncError("E854", f"a fit needs two measured rows at least, not {len(rows)}")
    if any(not 0 < r.ms < float("inf") for r in (*rows, *held_out)):
        raise AttncError("E854", "a measured time is not a positive number of milliseconds")
    problem = _Problem(rows, predictor, prior)
    free = np.ones(len(PARAMETERS), bool)
    x, spread, scatter = problem.solve(free)
    free = spread < _TOLD * problem.width
    if not free.all():
        x, spread, scatter = problem.solve(free)
    kept = tuple(name for name, told in zip(PARAMETERS, free, strict=True) if not told)
    setting = Setting(*x.tolist())
    ranges = {
        name: getattr(prior, name) if name in kept else _interval(name, likely, around, scatter)
        for name, likely, around in zip(PARAMETERS, x.tolist(), spread.tolist(), strict=True)
    }
    untold = f"; not told by them: {', '.join(kept)}" if kept else ""
    source = f"fitted to {len(rows)} measured rows{untold}"
    return Fit(
        Calibration("one sweep", **ranges, source=source),
        kept,
        errors(rows, lambda case: predictor(case, setting)),
        errors(held_out, lambda case: predictor(case, setting)) if held_out else None,
    )


def errors(rows: Sequence[Measured[T]], predicted: Callable[[T], float]) -> Errors:
    """How far a prediction is from at least one row."""
    ms = np.array([r.ms for r in rows])
    said = np.array([predicted(r.case) for r in rows])
    off = np.abs(said - ms) / ms
    return Errors(float(off.mean()), rank_correlation(said, ms), float(off.max()), len(rows))


def rank_correlation(a: Any, b: Any) -> float | None:
    """Spearman's: the correlation of ranks, equal values sharing their mean rank."""
    ranks = [_ranks(np.asarray(x, float)) for x in (a, b)]
    if len(ranks[0]) < 2 or any(np.ptp(r) == 0 for r in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(x: Floats) -> Floats:
    _, group, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[group], float)


def _interval(name: str, likely: float, spread: float, scatter: float) -> Range:
    """Two standard deviations either way.

    Time is inverse to clock or bandwidth, whichever limits, so these two carry the scatter of the
    rows beside their own uncertainty.
    """
    if name in ("clock", "memory"):
        spread = float(np.hypot(spread, likely * scatter))
    least, most = LIMITS[name]
    low, high = max(least, likely - 2 * spread), min(most, likely + 2 * spread)
    return Range(high, likely, low) if name in MORE_IS_FASTER else Range(low, likely, high)


class _Problem(Generic[T]):
    """Residuals of the rows and of the prior, as functions of the parameters."""

    def __init__(
        self,
        rows: Sequence[Measured[T]],
        predictor: Callable[[T, Setting], float],
        prior: Calibration,
    ) -> None:
        self._rows = rows
        self._predictor = predictor
        self._log_ms = np.log([r.ms for r in rows])
        ranges = [getattr(prior, name) for name in PARAMETERS]
        self._likely = np.array([r.likely for r in ranges])
        self._starts = [[getattr(r, end) for r in ranges] for end in ("likely", "fast", "slow")]
        # One standard deviation of the prior: half its interval.
        self.width = np.array([max(abs(r.fast - r.slow) / 2, 1e-6) for r in ranges])
        self._least, self._most = np.array([LIMITS[name] for name in PARAMETERS]).T

    def solve(self, free: NDArray[np.bool_]) -> tuple[Floats, Floats, float]:
        """(parameters, their standard deviations, that of the rows' log time), from three starts.

        Parameters that are not free stay at the prior's likely value.
        """
        found = [self._from(np.where(free, start, self._likely), free) for start in self._starts]
        return min(found, key=lambda f: f[2])

    def _from(self, x: Floats, free: NDArray[np.bool_]) -> tuple[Floats, Floats, float]:
        # The scatter of the rows sets the weight of the prior, and the other way round.
        before, scatter = np.inf, 0.1
        while scatter < 0.95 * before and before > _EXACT:
            x = self._descend(x, free, scatter)
            before = scatter
            scatter = max(float(np.sqrt(np.mean(self._off(x) ** 2))), _EXACT)
        curvature = self._curvature(self._slopes(x, free), free, scatter)
        spread = np.zeros(len(x))
        spread[free] = np.sqrt(np.diag(np.linalg.inv(curvature)))
        return x, spread, scatter

    def _off(self, x: Floats) -> Floats:
        """Of the rows: logarithm of predicted over measured time."""
        setting = Setting(*x.tolist())
        said = np.log([max(self._predictor(r.case, setting), 1e-12) for r in self._rows])
        return np.asarray(said - self._log_ms)

    def _slopes(self, x: Floats, free: NDArray[np.bool_]) -> Floats:
        """[rows, free parameters]: central differences, one-sided at a limit."""
        columns = []
        for i in np.flatnonzero(free):
            step = 1e-3 * self.width[i]
            up, down = x.copy(), x.copy()
            up[i] = min(x[i] + step, self._most[i])
            down[i] = max(x[i] - step, self._least[i])
            columns.append((self._off(up) - self._off(down)) / (up[i] - down[i]))
        return np.array(columns).reshape(-1, len(self._rows)).T

    def _curvature(self, slopes: Floats, free: NDArray[np.bool_], scatter: float) -> Floats:
        return np.asarray(slopes.T @ slopes / scatter**2 + np.diag(self.width[free] ** -2.0))

    def _cost(self, x: Floats, scatter: float) -> float:
        off, drawn = self._off(x) / scatter, (x - self._likely) / self.width
        return float(off @ off + drawn @ drawn)

    def _descend(self, x: Floats, free: NDArray[np.bool_], scatter: float) -> Floats:
        """Levenberg and Marquardt's method, kept within the limits."""
        damping, cost = 1e-3, self._cost(x, scatter)
        for _ in range(_STEPS):
            found = self._step(x, free, scatter, cost, damping)
            if found is None:
                break
            x, lower, damping = found
            gained, cost = cost - lower, lower
            if gained <= 1e-9 * (cost + 1):
                break
        return x

    def _step(
        self, x: Floats, free: NDArray[np.bool_], scatter: float, cost: float, damping: float
    ) -> tuple[Floats, float, float] | None:
        """A point of lower cost, its cost, and how to damp the next step; None: there is none."""
        slopes = self._slopes(x, free)
        down = slopes.T @ self._off(x) / scatter**2
        down += ((x - self._likely) / self.width**2)[free]
        curvature = self._curvature(slopes, free, scatter)
        while damping < 1e8:
            tried = x.copy()
            tried[free] -= np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), down)
            tried = np.clip(tried, self._least, self._most)
            found = self._cost(tried, scatter)
            if found < cost:
                return tried, found, 0.2 * damping
            damping *= 5
        return None
