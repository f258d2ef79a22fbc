"""Our predictions beside speeds that others published. No GPU is needed.

    python benchmarks/published.py [--target h100] [--rule] [--fidelity roofline] [--json FILE]

Kernels have the tiles that the model chooses, as `attnc compile` has it, or what a module picks by
itself (`--rule`). The measured kernels are not ours: they have other tiles, other schedules, and
ran on GPUs of their own. `triton` marks those written in Triton, as ours are, `specialised` those
written by hand for the GPU. Of the first, a prediction should be near; of the second, slower.
Speed-ups of windows are compared as ratios to attention without a mask: NATTEN's over cuDNN's, ours
over ours; NATTEN masks all tiles unless none needs it, ours only those at borders.

This is no independent test: one assumed parameter, the overlap of units, was read off these speeds
(`runtime/cost/calibration.py`).

The figures and their sources are in `published.toml`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import attnc
from attnc.codegen.config import Config
from attnc.compilation import complete_shape
from attnc.errors import AttncError
from attnc.files import replace_text
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.fit import Measured, errors
from attnc.runtime.cost.predict import predict, rule
from attnc.runtime.cost.prediction import Fidelity, Interval, Prediction
from attnc.runtime.cost.tile_choice import choose
from attnc.runtime.targets import Target, load_target

_DATA = Path(__file__).with_name("published.toml")


@dataclass(frozen=True, slots=True)
class Row:
    """One published figure and the same quantity as we predict it.

    style: `triton`, `specialised` or `window`; unit: `TFLOP/s` or `x`, the speed-up
    """

    what: str
    kernel: str
    style: str
    target: str
    unit: str
    published: float
    low: float
    likely: float
    high: float
    limit: str
    source: str

    @property
    def ratio(self) -> float:
        return self.likely / self.published


@dataclass(frozen=True, slots=True)
class Model:
    """How kernels are predicted: the fidelity, and whether the model chooses their tiles."""

    fidelity: Fidelity
    chooses: bool

    def configs(self, call: Call, target: Target) -> dict[str, Config]:
        if self.chooses:
            return {c.stage: c.config for c in choose(call, target)}
        return {s.name: rule(call, s) for s in call.sweeps}

    def predict(self, call: Call, target: Target, configs: Mapping[str, Config]) -> Prediction:
        return predict(call, target, fidelity=self.fidelity, configs=configs)


def rows(model: Model, targets: Sequence[str]) -> Iterator[Row]:
    """Everything that was published for the targets."""
    data = tomllib.loads(_DATA.read_text(encoding="utf-8"))
    for entry in data["speeds"]:
        if entry["target"] in targets:
            yield from _speeds(entry, model)
    for name in targets:
        for entry in (e for e in data["windows"] if name in e["kernel"]):
            yield from _windows(entry, load_target(name), model)


def _speeds(entry: Mapping[str, Any], model: Model) -> Iterator[Row]:
    target, d = load_target(entry["target"]), entry["d"]
    spec = "causal" if entry["causal"] else "sdpa"
    for (b, h, n), tflops in zip(entry["shapes"], entry["tflops"], strict=True):
        shape = {"B": b, "H": h, "G": h, "M": n, "N": n, "D": d, "E": d}
        call = _call(spec, shape, entry["dtype"], {})
        found = model.predict(call, target, model.configs(call, target))
        speeds = _each(found.ms, lambda ms, p=found: p.longest.flops / ms / 1e9)
        what = f"{spec} d {d}, {b} x {h} x {n}"
        yield Row(
            what, entry["kernel"], entry["style"], target.name, "TFLOP/s", tflops,
            *speeds, found.bottleneck, entry["source"],
        )  # fmt: skip


def _windows(entry: Mapping[str, Any], target: Target, model: Model) -> Iterator[Row]:
    params = {k: tuple(v) if isinstance(v, list) else v for k, v in entry["params"].items()}
    call = _call(entry["spec"], entry["shape"], "fp16", params)
    own = model.predict(call, target, _permuted(call, target, model, "permuted" in entry))
    shape = {x.upper(): call.extent(x) for x in ("b", "h", "g", "m", "n", "d", "e")}
    full = _call("sdpa", shape, call.dtype, {})
    dense = model.predict(full, target, model.configs(full, target))
    kernel = _kernels(own)
    for what, took in (("kernel", kernel), ("permuted", own.ms)):
        if what in entry:
            ratios = [d / o for d, o in zip(_ends(dense.ms), _ends(took), strict=True)]
            yield Row(
                f"{entry['problem']}, {what}", "NATTEN", "window", target.name, "x",
                entry[what][target.name], min(ratios), ratios[1], max(ratios), own.bottleneck,
                "Hassani et al. 2025, arXiv:2504.16922, and NATTEN",
            )  # fmt: skip


def _permuted(call: Call, target: Target, model: Model, permuted: bool) -> dict[str, Config]:
    found = model.configs(call, target)
    return {name: replace(c, permuted=permuted) for name, c in found.items()}


def _call(spec: str, shape: Mapping[str, int], dtype: str, params: Mapping[str, Any]) -> Call:
    attn = attnc.load(spec, **params)
    return Call(attn.plan, attn.run_time_params, complete_shape(attn.plan, shape), dtype)


def _kernels(p: Prediction) -> Interval:
    """Without the permutation of tokens."""
    total = Interval(0.0, 0.0, 0.0)
    for stage in p.stages:
        total += stage.ms if stage.family != "permute" else Interval(0.0, 0.0, 0.0)
    return total


def _ends(ms: Interval) -> tuple[float, float, float]:
    return ms.low, ms.mid, ms.high


def _each(ms: Interval, f: Any) -> tuple[float, float, float]:
    """A falling function of an interval: slowest, likely, fastest."""
    return f(ms.high), f(ms.mid), f(ms.low)


def table(found: Iterable[Row]) -> Iterator[str]:
    """Lines for people, by kernel, as soon as there are any."""
    yield "predicted: attnc's kernels; published: others' kernels, on their GPUs"
    for (kernel, target, source), group in groupby(found, lambda r: (r.kernel, r.target, r.source)):
        yield f"\n{kernel}, {target} ({source})"
        for r in group:
            inside = "" if r.low <= r.published <= r.high else "  outside"
            yield (
                f"  {r.what:52s} {r.published:7.1f} {r.unit:7s} predicted {r.likely:7.1f} "
                f"({r.low:.1f} to {r.high:.1f}) {r.ratio:5.2f}  {r.limit}{inside}"
            )


def summary(found: Sequence[Row]) -> Iterator[str]:
    """How far all rows of a kind are off, as if the kernels were ours."""
    for style in dict.fromkeys(r.style for r in found):
        alike = [r for r in found if r.style == style]
        off = errors([Measured(r, r.published) for r in alike], lambda r: r.likely)
        yield f"{style}: {off}"


def _kept(made: Iterable[Row], found: list[Row]) -> Iterator[Row]:
    """Rows as they come, remembered in `found`."""
    for r in made:
        found.append(r)
        yield r


def main() -> int:
    """Print the comparison, write it if asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fidelity", choices=("roofline", "machine code"), default="machine code")
    parser.add_argument("--rule", action="store_true", help="tiles that a module picks by itself")
    parser.add_argument("--target", action="append", metavar="NAME", help="only this; repeatable")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    try:
        model = Model(args.fidelity, not args.rule)
        found: list[Row] = []
        made = rows(model, args.target or ("a100", "h100", "b200"))
        for text in table(_kept(made, found)):
            print(text, flush=True)
        print("\n".join(("", *summary(found))))
        if args.json is not None:
            data = [{**asdict(r), "ratio": r.ratio} for r in found]
            replace_text(args.json, json.dumps({"not_our_kernels": data}, indent=1) + "\n")
    except AttncError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
