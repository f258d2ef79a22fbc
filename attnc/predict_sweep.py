"""Predictions over a range of settings: shapes, params, GPUs, and which of them fit in a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, TypeAlias

from attnc.errors import AttncError
from attnc.ir.bind import check_params
from attnc.ir.frame import ParamValue
from attnc.predict import Predicted, predict_call, show_config
from attnc.predict_setup import Chosen, Setup, chosen_configs, make_call
from attnc.runtime.cost.call import Call, Parts
from attnc.runtime.cost.predict import check_memory, predict
from attnc.runtime.cost.prediction import Interval
from attnc.tiles import show_value, table, times

if TYPE_CHECKING:
    from attnc.api import Attention

# An extent (`M`), a param, or one item of a param (`stride[0]`), and its values.
Ranges: TypeAlias = Mapping[str, Sequence[int | float]]
Values: TypeAlias = Mapping[str, ParamValue | str]

_ITEM = re.compile(r"(\w+)(?:\[(\d+)\])?")
_MOST = 4096
# What a setting may lack without the others being in vain: memory, resources of a configuration.
_TOLD = ("E851", "E852", "E855")
_TARGET = "target"
# Of what a row's prediction has in JSON.
_KEPT = (
    "target", "shape", "ms", "bottleneck", "tflops", "traffic_bytes", "baseline", "speedup",
    "end_to_end", "fits", "config",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One setting; where it cannot run there is a `lack`, and nothing predicted."""

    values: Values
    predicted: Predicted | None
    lack: str = ""

    @property
    def ms(self) -> Interval | None:
        return None if self.predicted is None else self.predicted.ms

    @property
    def fits(self) -> str:
        """As of what was predicted; what cannot run fits in no time."""
        return "no" if self.predicted is None else self.predicted.fits

    @property
    def plain_values(self) -> dict[str, object]:
        """For JSON."""
        return {n: list(v) if isinstance(v, tuple) else v for n, v in self.values.items()}

    def to_dict(self) -> dict[str, object]:
        """One entry of `rows` in the command's JSON."""
        if self.predicted is None:
            return {"values": self.plain_values, "ms": None, "error": self.lack}
        found = self.predicted.to_dict()
        return {"values": self.plain_values, **{n: found[n] for n in _KEPT if n in found}}


@dataclass(frozen=True, slots=True)
class PredictedSweep:
    """The result of `attnc predict --sweep`: a row per setting, in the order of the ranges."""

    name: str
    dtype: str
    setups: tuple[Setup, ...]
    rows: tuple[SweepRow, ...]

    @property
    def budget(self) -> float | None:
        """Milliseconds that a setting may take; None: not asked."""
        return self.setups[0].budget_ms

    def largest(self, *levels: str) -> tuple[SweepRow, ...]:
        """Of the settings that fit so well, those that no other has values at least as large as.

        Per GPU. `levels`: of `surely`, `likely`, `hardly`.
        """
        fitting = [r for r in self.rows if r.fits in levels]
        return tuple(
            r
            for r in fitting
            if not any(_at_least(other, r) for other in fitting if other is not r)
        )

    def to_dict(self) -> dict[str, object]:
        """The command's JSON."""
        found: dict[str, object] = {
            "name": self.name,
            "dtype": self.dtype,
            "fidelity": self.fidelity,
            "calibration": self.tiers,
            "rows": [r.to_dict() for r in self.rows],
        }
        if self.budget is not None:
            found["budget_ms"] = self.budget
            for key, levels in _FITTING.items():
                found[f"largest_{key}"] = [r.plain_values for r in self.largest(*levels)]
        return found

    @property
    def fidelity(self) -> str:
        """Of the rows that could be predicted; of several, all."""
        seen = [r.predicted.prediction.fidelity for r in self.rows if r.predicted is not None]
        return ", ".join(dict.fromkeys(seen))

    @property
    def tiers(self) -> dict[str, str]:
        """The tier of the calibration per GPU."""
        return {s.target.name: s.calibration.tier for s in self.setups}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        targets = ", ".join(s.target.name for s in self.setups)
        yield f"{self.name} on {targets}, {self.dtype}: {len(self.rows)} settings"
        fixed = {n: v for n, v in self.shared_shape().items() if n not in self.rows[0].values}
        yield ", ".join(f"{n}={v}" for n, v in fixed.items())
        yield ""
        configs = self.configs
        several = len(configs) > 1
        head = self._head(several)
        yield from table([head, *(self._cells(r, len(head), several) for r in self.rows)])
        yield ""
        if self.budget is not None:
            yield from self._fitting()
        if len(configs) == 1:
            yield f"tiles of {configs[0]}"
        names = dict.fromkeys(r.predicted.baseline[0] for r in self.rows if r.predicted)
        tiers = tuple(dict.fromkeys(self.tiers.values()))
        named = [f"{tier} ({target})" for target, tier in self.tiers.items()]
        calibration = ", ".join(tiers if len(tiers) == 1 else named)
        yield f"over: {', '.join(names)}; fidelity: {self.fidelity}; calibration: {calibration}"

    @property
    def configs(self) -> tuple[str, ...]:
        """The configurations of the longest kernel that occur."""
        seen = (r.predicted.config for r in self.rows if r.predicted is not None)
        return tuple(dict.fromkeys(show_config(c) for c in seen if c))

    def shared_shape(self) -> Mapping[str, int]:
        """Extents that are the same in all rows."""
        shapes = [r.predicted.prediction.shape for r in self.rows if r.predicted is not None]
        first = shapes[0] if shapes else {}
        return {n: v for n, v in first.items() if all(s.get(n) == v for s in shapes)}

    def _head(self, configs: bool) -> tuple[str, ...]:
        fits = ("fits",) if self.budget is not None else ()
        share = ("end to end",) if self.setups[0].share is not None else ()
        names = (*self.rows[0].values, "ms", "low", "high", "TFLOP/s", "over", *share)
        return (*names, "limited by", *(("config",) if configs else ()), *fits)

    def _cells(self, r: SweepRow, columns: int, configs: bool) -> tuple[str, ...]:
        names = tuple(v if isinstance(v, str) else show_value(v) for v in r.values.values())
        if r.predicted is None:
            return (*names, *["-"] * (columns - len(names) - 1), r.lack)
        p, ms = r.predicted, r.predicted.ms
        whole = () if p.end_to_end is None else (f"{p.end_to_end:.2f}x",)
        fits = () if self.budget is None else (r.fits,)
        return (
            *names,
            *(f"{x:.4g}" for x in (ms.mid, ms.low, ms.high, p.prediction.tflops)),
            times(p.speedup),
            *whole,
            p.prediction.bottleneck,
            *((show_config(p.config) if p.config else "-",) if configs else ()),
            *fits,
        )

    def _fitting(self) -> Iterator[str]:
        for key, levels in _FITTING.items():
            found = self.largest(*levels)
            shown = "; ".join(_values_text(r.values) for r in found) or "none"
            yield f"largest that {key} fits in {self.budget:g} ms: {shown}"


_FITTING = {"surely": ("surely",), "likely": ("surely", "likely")}


def predict_sweep(
    attention: Attention,
    shape: Mapping[str, int],
    ranges: Ranges,
    setups: Sequence[Setup],
    tensors: Mapping[str, object],
) -> PredictedSweep:
    """Predict each combination of values, the last name fastest, on each GPU.

    A kernel runs all settings with one configuration, as an emitted module would: that of the
    slower end of the ranges, unless a setup says which. Raises AttncError E854 for what cannot be
    swept, and what `predict_attention` raises, but for single settings that do not fit.
    """
    rows: list[SweepRow] = []
    parts: Parts = {}
    for setup in setups:
        settings = list(_settings(attention, shape, ranges))
        made = [(v, a, make_call(a, s, setup.dtype, tensors)) for v, a, s in settings]
        # What settings have in common along an axis is counted once.
        calls = [(v, a, replace(call, parts=parts)) for v, a, call in made]
        chosen = _chosen([c for _, _, c in calls], setup)
        named = {_TARGET: setup.target.name} if len(setups) > 1 else {}
        rows += (_row({**named, **v}, a, call, setup, chosen) for v, a, call in calls)
    return PredictedSweep(attention.name, setups[0].dtype, tuple(setups), tuple(rows))


def _row(
    values: Values, attention: Attention, call: Call, setup: Setup, chosen: Chosen
) -> SweepRow:
    try:
        return SweepRow(values, predict_call(attention, call, setup, chosen))
    except AttncError as e:
        if e.code not in _TOLD:
            raise
        return SweepRow(values, None, e.message)


def _chosen(calls: Sequence[Call], setup: Setup) -> Chosen:
    """The configuration of the first or the last setting, of those that fit in memory.

    Of the one that takes longer: ranges rise or fall.
    """
    fitting = [c for c in calls if _fits_in_memory(c, setup)] or list(calls[:1])
    try:
        slower = max((fitting[-1], fitting[0]), key=lambda c: _roofline(c, setup))
        return chosen_configs(slower, setup)
    except AttncError as e:
        if e.code not in _TOLD:
            raise
        return Chosen({}, "by the launcher's rule, as nothing else fits")


def _roofline(call: Call, setup: Setup) -> float:
    """Milliseconds."""
    known = setup.calibration
    return predict(call, setup.target, fidelity="roofline", calibration=known).ms.mid


def _fits_in_memory(call: Call, setup: Setup) -> bool:
    try:
        check_memory(call, setup.target)
    except AttncError:
        return False
    return True


# settings ----------------------------------------------------------------------------------------


def _settings(
    attention: Attention, shape: Mapping[str, int], ranges: Ranges
) -> Iterator[tuple[Values, Attention, Mapping[str, int]]]:
    """(what is swept, the spec with its params, the shape) of each combination."""
    count = prod(len(values) for values in ranges.values())
    if not 0 < count <= _MOST:
        what = f"{count} settings are more than {_MOST}" if count else "a range without values"
        raise AttncError("E854", what, hint="sweep fewer values, or in steps: `window=64..512:64`")
    axes = [(name, _checked(attention, name), values) for name, values in ranges.items()]
    for chosen in product(*(values for _, _, values in axes)):
        extents, params = dict(shape), dict(attention.params)
        for (name, item, _), value in zip(axes, chosen, strict=True):
            if item is None:
                extents[name] = _length(name, value)
            else:
                param, place = item
                params[param] = _put(params[param], place, value)
        other = attention
        if params != attention.params:
            other = replace(attention, params=check_params(attention.cascade, params))
        swept = dict.fromkeys(name if item is None else item[0] for name, item, _ in axes)
        yield (
            {n: extents[n] if n in ranges and n in extents else other.params[n] for n in swept},
            other,
            extents,
        )


def _checked(attention: Attention, name: str) -> tuple[str, int | None] | None:
    """The param, and item of it, that a name stands for; None for an extent. Raises E854."""
    cascade = attention.cascade
    extents = {r.extent_name for r in cascade.ranks}
    numbers = {p.name: p for p in cascade.params if p.dtype != "bool"}
    match = _ITEM.fullmatch(name)
    if name in extents:
        return None
    if match is None or match[1] not in numbers:
        known = ", ".join(f"`{n}`" for n in (*sorted(extents), *numbers))
        raise AttncError(
            "E854",
            f"`{name[:60]}` of `{cascade.name}` is nothing to sweep",
            hint=f"these are: {known}",
        )
    place = int(match[2]) if match[2] else None
    if place is not None and place >= (numbers[match[1]].length or 0):
        raise AttncError("E854", f"param `{match[1]}` has no item `{name[:60]}`")
    return match[1], place


def _length(name: str, value: int | float) -> int:
    if not isinstance(value, int) or value < 0:
        raise AttncError("E854", f"the extent `{name}` is a length, not {value}")
    return value


def _put(value: ParamValue, place: int | None, new: int | float) -> ParamValue:
    if not isinstance(value, tuple):
        return new
    return tuple(new if place in (None, i) else v for i, v in enumerate(value))


def _at_least(other: SweepRow, row: SweepRow) -> bool:
    """Whether all values of another row are at least as large, on the same GPU."""
    pairs = [(a, row.values[n]) for n, a in other.values.items()]
    if any(a != b for a, b in pairs if isinstance(a, str)):
        return False
    flat = [(x, y) for a, b in pairs for x, y in zip(_numbers(a), _numbers(b), strict=True)]
    return all(x >= y for x, y in flat) and any(x > y for x, y in flat)


def _numbers(value: ParamValue | str) -> tuple[float, ...]:
    if isinstance(value, str):
        return ()
    return tuple(map(float, value)) if isinstance(value, tuple) else (float(value),)


def _values_text(values: Values) -> str:
    return ", ".join(f"{n} {v if isinstance(v, str) else show_value(v)}" for n, v in values.items())
