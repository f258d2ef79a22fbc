"""`attnc predict --target fusemax`: attention on the modelled spatial arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnc.array_tables import BASELINES, mean_lines, mean_speedups, row_lines
from attnc.compilation import complete_shape
from attnc.errors import AttncError
from attnc.ir.plan import SweepStage
from attnc.masks import given_extents, share_extents
from attnc.runtime.spatial.designs import load_design
from attnc.runtime.spatial.match_spec import Roles, match_spec, model_of
from attnc.runtime.spatial.models import LENGTHS, Model, load_model, model_names
from attnc.runtime.spatial.simulate import Prediction, simulate

if TYPE_CHECKING:
    from attnc.api import Attention

ALL_MODELS = "all"
_UNFUSED = "unfused"
_LIMITS = {
    "2d": "the square array",
    "1d": "the row of elements beside it",
    "drain": "results that leave the square array",
    "memory": "memory",
}
_BAR = 40


@dataclass(frozen=True, slots=True)
class ArrayPrediction:
    """One shape on one array.

    unfused: the same on the design that leaves attention in three kernels; None where that is not
             known
    model:   the model that the shape is a layer of, if it was named
    """

    name: str
    prediction: Prediction
    shape: Model
    unfused: Prediction | None
    model: str | None
    share: float | None

    @property
    def flops(self) -> float:
        """Of both matrix products."""
        s, length = self.shape, self.prediction.length
        return 4.0 * s.batch * s.heads * s.head_dim * length**2

    @property
    def speedup(self) -> float | None:
        return None if self.unfused is None else self.unfused.ms / self.prediction.ms

    def to_dict(self) -> dict[str, object]:
        """The command's JSON."""
        p, s = self.prediction, self.shape
        machine = load_design(p.design).machine
        busy = {
            u: sum(e.cycles for e in p.einsums if e.unit == u) * 1e3 / machine.clock_hz
            for u in ("2d", "1d")
        }
        base = None if self.unfused is None else {"name": _UNFUSED, "ms": self.unfused.ms}
        found: dict[str, object] = {
            "name": self.name,
            "target": p.design,
            "model": self.model,
            "dtype": "bf16",
            "shape": {"B": s.batch, "H": s.heads, "M": p.length, "N": p.length, "D": s.head_dim},
            "fidelity": "spatial array",
            "calibration": {"tier": "specs only", "source": _SOURCE},
            "ms": dict.fromkeys(("low", "mid", "high"), p.ms),
            "bottleneck": p.bottleneck,
            "limited_ms": dict(p.limited_ms),
            "tflops": self.flops / p.ms / 1e9,
            "pipes": {**busy, "memory": p.traffic_bytes / machine.bytes_per_second * 1e3},
            "traffic_bytes": p.traffic_bytes,
            "utilisation": dict(p.utilisation),
            "passes": p.passes,
            "baseline": base,
            "speedup": self.speedup,
            "config": {},
        }
        if self.model is not None:
            found["end_to_end_ms"] = p.end_to_end_ms
        if self.share is not None and self.speedup is not None:
            whole = 1 / (1 - self.share + self.share / self.speedup)
            found |= {"share": self.share, "end_to_end": whole}
        return found

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        p, s, found = self.prediction, self.shape, self.to_dict()
        yield f"{self.name} on {p.design} ({load_design(p.design).title}): {p.ms:.4g} ms"
        model = f", a layer of {self.model}" if self.model else ""
        yield f"B={s.batch}, H={s.heads}, M=N={p.length}, D=E={s.head_dim}{model}"
        yield ""
        yield f"limited by  {_LIMITS[p.bottleneck]}; {found['tflops']:.4g} TFLOP/s"
        if self.unfused is not None:
            yield f"over        unfused, {self.unfused.ms:.4g} ms: {self.speedup:.2f}x"
        if "end_to_end" in found:
            was = f"attention having been {self.share:.0%} of it"
            yield f"end to end  {found['end_to_end']:.2f}x, {was}"
        if self.model is not None:
            yield f"layer       {p.end_to_end_ms:.4g} ms with the linear layers around it"
        passes = "one pass" if p.passes == 1 else f"{p.passes} passes"
        yield f"traffic     {p.traffic_bytes / 1e9:.4g} GB; {passes} over the keys"
        yield ""
        for unit, used in p.utilisation.items():
            yield f"  {unit:8s}  {used:6.1%}  {'#' * round(_BAR * used)}".rstrip()
        yield ""
        yield "fidelity     spatial array: counted in the cascade, timed by the design's binding"
        yield f"calibration  specs only: {_SOURCE}"


_SOURCE = "a model of published designs, equal to their artifact's tables: no interval"


@dataclass(frozen=True, slots=True)
class ArrayTable:
    """Several models, lengths or designs: tables like those of the paper."""

    name: str
    rows: tuple[ArrayPrediction, ...]

    @property
    def by_design(self) -> dict[str, list[Prediction]]:
        """The predictions of each design, of the same shapes in the same order."""
        designs = dict.fromkeys(r.prediction.design for r in self.rows)
        return {d: [r.prediction for r in self.rows if r.prediction.design == d] for d in designs}

    def to_dict(self) -> dict[str, object]:
        """The command's JSON."""
        rows = self.by_design
        return {
            "name": self.name,
            "rows": [r.to_dict() for r in self.rows],
            "means": {d: self._means(rows, own) for d, own in rows.items()},
        }

    def __str__(self) -> str:
        # Of a shape that is no model's, what is around attention is not known.
        linear = all(r.model is not None for r in self.rows)
        lines = [
            x
            for d, rows in self.by_design.items()
            for x in (*row_lines(d, rows, linear=linear), "")
        ]
        means = mean_lines(self.by_design, linear=linear)
        return "\n".join([*lines, "means over all rows above", *means])

    def _means(
        self, rows: Mapping[str, Sequence[Prediction]], own: Sequence[Prediction]
    ) -> dict[str, object]:
        over = {b: mean_speedups(rows[b], own) for b in BASELINES if b in rows}
        if any(r.model is None for r in self.rows):
            return {b: {"attention": alone} for b, (alone, _) in over.items()}
        return {b: {"attention": a, "end_to_end": whole} for b, (a, whole) in over.items()}


def predict_arrays(
    attention: Attention,
    shape: Mapping[str, int],
    designs: Sequence[str],
    *,
    models: Sequence[str] = (),
    sweep: Mapping[str, Sequence[int | float]] | None = None,
    share: float | None = None,
) -> ArrayPrediction | ArrayTable:
    """A spec on modelled arrays: at a shape, or as layers of models.

    models: names, or `all`; else the shape says batch, heads and widths
    sweep:  values of the length, by the name of its extent; else that of the shape counts, or for
            models all that were published
    Raises AttncError E843 a length that no multiple of 256 is, E844 a shape for which a design's
    mapping is not known, E845 a spec that the arrays do not run, E854 extents that a model gives,
    and what is no length.
    """
    # Designs of one cascade differ in where they run it.
    cascades = {design.spec: design for design in map(load_design, designs)}
    matched = [match_spec(attention.plan, attention.params, d) for d in cascades.values()]
    roles = matched[0]
    lengths = _swept(sweep or {}, shape, roles)
    shapes: list[tuple[Model, str | None, tuple[int, ...]]]
    if models:
        given = _lengths(attention, shape, roles) or lengths or LENGTHS
        shapes = [(m, m.name, given) for m in _models(models)]
    else:
        own, length = model_of(roles, _extents(attention, shape), attention.plan.written)
        shapes = [(own, None, lengths or (length,))]
    rows = tuple(
        _predict(attention.name, design, model, name, length, share)
        for design in designs
        for model, name, of_it in shapes
        for length in of_it
    )
    return rows[0] if len(rows) == 1 else ArrayTable(attention.name, rows)


def predict_array(
    attention: Attention, shape: Mapping[str, int], design: str, *, share: float | None = None
) -> ArrayPrediction:
    """A spec at one shape on one array. Raises AttncError as `predict_arrays` does."""
    found = predict_arrays(attention, shape, (design,), share=share)
    assert isinstance(found, ArrayPrediction)
    return found


def _models(names: Sequence[str]) -> list[Model]:
    chosen = [m for name in names for m in (model_names() if name == ALL_MODELS else (name,))]
    return [load_model(m) for m in dict.fromkeys(chosen)]


def _swept(
    sweep: Mapping[str, Sequence[int | float]], shape: Mapping[str, int], roles: Roles
) -> tuple[int, ...]:
    """The lengths that are swept."""
    names = (roles.row.upper(), roles.swept.upper())
    values = tuple(x for each in sweep.values() for x in each)
    known = all(n in names and n not in shape for n in sweep) and len(sweep) < 2
    if not known or not all(isinstance(x, int) for x in values):
        hint = f"`--sweep {names[0]}=1024..1048576`, and no length in `--shape`"
        raise AttncError("E854", "on modelled arrays, only the length is swept", hint=hint)
    return tuple(int(x) for x in values)


def _lengths(attention: Attention, shape: Mapping[str, int], roles: Roles) -> tuple[int, ...]:
    """The one length that a shape gives beside a model."""
    named = {roles.row.upper(), roles.swept.upper()}
    if others := sorted(set(shape) - named):
        raise AttncError(
            "E854",
            f"a model gives all extents but the length: `{others[0]}` is given, too",
            hint=f"leave it out, or `--model`; `--shape {roles.row.upper()}=65536` is the length",
        )
    if len(given := set(shape.values())) > 1:
        raise AttncError("E845", "the modelled arrays take as many keys as queries")
    return tuple(given)


def _extents(attention: Attention, shape: Mapping[str, int]) -> dict[str, int]:
    plan = attention.plan
    extents = given_extents(plan.cascade, shape, {})
    for s in plan.stages:
        if isinstance(s, SweepStage):
            share_extents(plan.cascade, s.row, s.swept, extents)
    named = {name.upper(): n for name, n in extents.items()}
    return complete_shape(plan, named, attention.run_time_params)


def _predict(
    spec: str, design: str, model: Model, name: str | None, length: int, share: float | None
) -> ArrayPrediction:
    found = simulate(design, model, length)
    try:
        unfused = simulate(_UNFUSED, model, length)
    except AttncError as e:
        if e.code != "E844":
            raise
        unfused = None
    return ArrayPrediction(spec, found, model, unfused, name, share)
