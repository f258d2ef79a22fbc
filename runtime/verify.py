"""Check what runs against what was written: emitted kernels against the cascade in float64.

How far a kernel may be off is measured, not chosen. With x the inputs rounded to the dtype, ref(x)
the cascade as written in float64, and plain(x) the same evaluated by torch in the dtype, an output
passes if, at the points where ref is finite,

    max |kernel(x) - ref(x)|  <=  2 max |plain(x) - ref(x)|  +  4 eps max |ref(x)|

with eps the spacing of the dtype's numbers at 1. All three see the same numbers, so the first term
is the error that the dtype itself makes on this input: a kernel gets twice that, since it sums in
another order and rounds at other places. The maximum is over the tensor because rounding errors of
different points are exchangeable, and a single point's may be 0 by luck. The second term is a few
roundings of the largest value, for outputs that torch gets exactly. NaN and infinities must be
where ref has them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from attnc.errors import AttncError
from attnc.ir.bind import check_params
from attnc.ir.frame import ParamValue
from attnc.ir.plan import Plan
from attnc.runtime.cases import LARGE, USUAL, Case, draw, make_cases, small_params
from attnc.runtime.execute import execute
from attnc.runtime.interpreter import interpreter_available
from attnc.runtime.launch import call_module
from attnc.runtime.modules import load_source
from attnc.runtime.reference import reference

Backend: TypeAlias = Literal["gpu", "interpreter", "cpu"]
Tensors: TypeAlias = Mapping[str, Tensor]
# Replaces some inputs of a case.
Override: TypeAlias = Callable[[Case, Tensors], Tensors]


@dataclass(frozen=True, slots=True)
class Check:
    """One output of one case: errors are maxima over the points where the reference is finite.

    `rel` is relative to the reference's largest value; `misplaced` counts points whose NaN or
    infinity the reference does not have, or the other way round.
    """

    case: str
    output: str
    max_abs: float
    rel: float
    allowed: float
    misplaced: int

    @property
    def ok(self) -> bool:
        return self.misplaced == 0 and self.max_abs <= self.allowed

    @property
    def badness(self) -> float:
        """How much of what is allowed is used up."""
        if self.misplaced:
            return inf
        return self.max_abs / self.allowed if self.allowed else float(self.max_abs > 0) * inf

    def to_dict(self) -> dict[str, object]:
        return {
            "case": self.case,
            "output": self.output,
            "ok": self.ok,
            "max_abs": self.max_abs,
            "rel": self.rel,
            "allowed": self.allowed,
            "misplaced": self.misplaced,
        }


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """All checks of one spec in one dtype."""

    name: str
    dtype: str
    backend: Backend
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(c.ok for c in self.checks)

    @property
    def outputs(self) -> dict[str, Check]:
        """The check of each output that came closest to failing, or failed worst."""
        worst: dict[str, Check] = {}
        for c in self.checks:
            if c.output not in worst or c.badness > worst[c.output].badness:
                worst[c.output] = c
        return worst

    def to_dict(self) -> dict[str, object]:
        """What `attnc verify --json` prints."""
        keys = ("max_abs", "rel", "allowed", "misplaced", "case")
        return {
            "ok": self.ok,
            "outputs": {
                name: {k: v for k, v in c.to_dict().items() if k in keys}
                for name, c in self.outputs.items()
            },
            "backend": self.backend,
            "name": self.name,
            "dtype": self.dtype,
            "cases": [c.to_dict() for c in self.checks],
        }

    def __str__(self) -> str:
        lines = [
            f"{self.name} in {self.dtype} on {_PLACES[self.backend]}: "
            + ("verified" if self.ok else "WRONG"),
            f"  {'case':14s} {'output':8s} {'max error':>10s} {'allowed':>10s} {'relative':>10s}",
        ]
        for c in self.checks:
            note = "" if c.ok else f"  WRONG, {c.misplaced} misplaced" if c.misplaced else "  WRONG"
            errors = f"{c.max_abs:10.2e} {c.allowed:10.2e} {c.rel:10.2e}"
            lines.append(f"  {c.case:14s} {c.output:8s} {errors}{note}")
        return "\n".join(lines)


_PLACES: Mapping[Backend, str] = {
    "gpu": "the GPU",
    "interpreter": "Triton's interpreter",
    "cpu": "the CPU engine",
}


def verify(
    plan: Plan,
    source: Callable[[], str],
    *,
    dtype: torch.dtype = torch.float32,
    params: Mapping[str, ParamValue] | None = None,
    shape: Mapping[str, int] | None = None,
    seed: int = 0,
    backend: Literal["auto", "gpu", "interpreter", "cpu"] = "auto",
    cases: Collection[str] | None = None,
    override: Override | None = None,
) -> VerifyReport:
    """Run a plan on awkward inputs and compare with the cascade as written, in float64.

    `source` gives the emitted module (not asked on the CPU engine). `params` are those the user
    set; others take their default, lengths smaller ones. `shape` fixes extents, `cases` picks cases
    by name, `override` replaces some of a case's inputs. `auto` is the GPU, else the interpreter.
    Raises AttncError E831 if no shape fits the spec, E832 if the backend is not here.
    """
    place = _backend(backend)
    given = dict(params or {})
    values = small_params(plan, given, check_params(plan.cascade, given))
    compute = _compute(plan, source, place, values)
    checks: list[Check] = []
    for case in make_cases(plan, values, shape):
        if cases is None or case.name in cases:
            checks += _check(plan, case, values, dtype, seed, override, compute)
    name = str(dtype).removeprefix("torch.")
    return VerifyReport(plan.cascade.name, name, place, tuple(checks))


def _backend(wanted: str) -> Backend:
    here: dict[Backend, bool] = {
        "gpu": torch.cuda.is_available(),
        "interpreter": interpreter_available(),
        "cpu": True,
    }
    for name, available in here.items():
        if wanted in (name, "auto") and available:
            return name
    raise AttncError("E832", f"cannot verify on {_PLACES.get(wanted, wanted)} here")  # type: ignore[call-overload]


_Compute: TypeAlias = Callable[[Tensors, Mapping[str, int]], Tensors]


def _compute(
    plan: Plan, source: Callable[[], str], place: Backend, params: Mapping[str, ParamValue]
) -> _Compute:
    if place == "cpu":
        return lambda tensors, extents: execute(plan, tensors, params, extents)
    module = load_source(source(), plan.cascade.name, interpret=place == "interpreter")
    device = "cuda" if place == "gpu" else "cpu"

    def run(tensors: Tensors, extents: Mapping[str, int]) -> Tensors:
        there = {name: x.to(device) for name, x in tensors.items()}
        found = call_module(module, plan.cascade, there, params=params, extents=extents)
        return {name: x.cpu() for name, x in found.items()}

    return run


def _check(
    plan: Plan,
    case: Case,
    params: Mapping[str, ParamValue],
    dtype: torch.dtype,
    seed: int,
    override: Override | None,
    compute: _Compute,
) -> list[Check]:
    # Every tensor of the cascade: what overflows halfway may come out finite, and wrong.
    every = tuple(dict.fromkeys(s.tensor for s in plan.written.statements))
    cascade = replace(plan.written, outputs=every)
    evaluate = partial(reference, cascade, params=params, extents=case.extents)
    tensors, exact, plain = _inputs(plan, case, dtype, seed, override, evaluate)
    found = compute(tensors, case.extents)
    return [
        _compare(case.name, name, found[name], exact[name], plain[name], dtype)
        for name in plan.cascade.outputs
    ]


def _inputs(
    plan: Plan,
    case: Case,
    dtype: torch.dtype,
    seed: int,
    override: Override | None,
    evaluate: Callable[..., dict[str, Tensor]],
) -> tuple[Tensors, Tensors, Tensors]:
    """Inputs, as large as torch in the dtype bears; what follows in float64, and in the dtype."""
    scales = LARGE if case.large else USUAL
    for scale in scales:
        tensors, exact = _drawn(plan, case, dtype, seed, scale, override, evaluate)
        plain = evaluate(tensors, dtype=dtype)
        if scale == scales[-1] or _survives(plain, exact):
            return tensors, exact, plain
    raise AssertionError("the last scale is taken")


def _drawn(
    plan: Plan,
    case: Case,
    dtype: torch.dtype,
    seed: int,
    scale: float,
    override: Override | None,
    evaluate: Callable[..., dict[str, Tensor]],
) -> tuple[Tensors, Tensors]:
    """Inputs and what follows in float64; ints as small as the indices made of them need."""
    narrowest = 1 << 40
    for narrow in (1, 4, 16, narrowest):
        tensors: Tensors = draw(plan, case, dtype, seed, scale, narrow)
        if override is not None:
            tensors = {**tensors, **override(case, tensors)}
        try:
            return tensors, evaluate(tensors)
        except AttncError as e:
            if e.code != "E601" or narrow == narrowest:
                raise
    raise AssertionError("the narrowest range raises or returns")


def _survives(plain: Tensors, exact: Tensors) -> bool:
    """Whether torch in the dtype is finite wherever it should be."""
    return all(bool((plain[t].isfinite() | ~exact[t].isfinite()).all()) for t in exact)


def _compare(
    case: str, output: str, found: Tensor, exact: Tensor, plain: Tensor, dtype: torch.dtype
) -> Check:
    if not exact.is_floating_point():
        return Check(case, output, 0.0, 0.0, 0.0, int((found != exact).sum()))
    if found.shape != exact.shape:
        return Check(case, output, 0.0, 0.0, 0.0, max(1, exact.numel()))
    finite = exact.isfinite()
    rounded = exact.to(dtype).to(torch.float64)
    found, plain = found.to(torch.float64), plain.to(torch.float64)
    same = (found == rounded) | (found.isnan() & rounded.isnan()) | (finite & found.isfinite())
    scale = _largest(exact, finite)
    error = _largest(found - exact, finite & found.isfinite())
    measured = _largest(plain - exact, finite & plain.isfinite())
    allowed = 2 * measured + 4 * torch.finfo(dtype).eps * scale
    return Check(
        case, output, error, error / scale if scale else error, allowed, int((~same).sum())
    )


def _largest(x: Tensor, where: Tensor) -> float:
    chosen = x[where]
    return float(chosen.abs().max()) if chosen.numel() else 0.0
