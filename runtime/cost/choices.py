"""Configurations that were chosen before, on disk: by the cost model, or by measuring.

A choice belongs to a plan, a GPU's architecture, a dtype, the widths of feature blocks, the powers
of 2 between which the lengths lie, and the run-time params: a window decides how many tiles a
program visits, and so how large they should be. It does not depend on captured data, of which a
choice sees none or one example. A module picks its tiles when it is called, by what costs nothing
to look at: the GPU, the element size, the widest block, whether rows are few.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from attnc.codegen.config import Chosen, Config, widest
from attnc.ir.frame import ParamValue
from attnc.ir.plan import Plan, SweepStage
from attnc.runtime.cache import Cache, content_key
from attnc.runtime.cost.call import Call
from attnc.runtime.targets import Target

Origin: TypeAlias = Literal["model", "measured"]
_FILE = "choices.json"
# Of one plan on one GPU; the oldest go first.
_MOST = 256


@dataclass(frozen=True, slots=True)
class Kind:
    """The kind of call for which a configuration was chosen.

    width, few: the widest feature block; whether there are at most `FEW_ROWS` rows
    lengths:    of each rank, the power of 2 that it does not exceed
    params:     as text
    """

    stage: str
    dtype: str
    itemsize: int
    width: int
    few: bool
    lengths: str
    params: str


@dataclass(frozen=True, slots=True)
class Record:
    """A stored choice; `ms` is the time that was predicted, or measured."""

    kind: Kind
    origin: Origin
    config: Config
    ms: float


def kind_of(call: Call, stage: SweepStage) -> Kind:
    """What a call is to one of its stages."""
    lengths = {r: max(call.extent(r) - 1, 0).bit_length() for r in sorted(call.extents)}
    return Kind(
        stage.name,
        call.dtype,
        call.itemsize,
        widest(stage, call.widths(stage)),
        call.has_few_rows(stage),
        json.dumps(lengths),
        params_text(call.params),
    )


def params_text(params: Mapping[str, ParamValue]) -> str:
    """Params as a part of a key."""
    return json.dumps({name: params[name] for name in sorted(params)})


def gpu_of(target: Target) -> int | str:
    """The architecture by which a module knows a GPU."""
    return target.triton_arch


def stored_configs(call: Call, target: Target) -> dict[str, Config]:
    """By stage, what was chosen for calls like this one; what was measured counts most."""
    return _matching(call, _read(call.plan, gpu_of(target)))


def measured_configs(call: Call, target: Target) -> dict[str, Config]:
    """By stage, what was found by measuring for calls like this one."""
    records = _read(call.plan, gpu_of(target))
    return _matching(call, [r for r in records if r.origin == "measured"])


def _matching(call: Call, records: Iterable[Record]) -> dict[str, Config]:
    ranked = _by_rank(records, params_text(call.params))
    found: dict[str, Config] = {}
    for stage in call.sweeps:
        kind = kind_of(call, stage)
        same = (r.config for r in ranked if r.kind == kind)
        if (config := next(same, None)) is not None:
            found[stage.name] = config
    return found


def stored_choices(
    plan: Plan, gpu: int | str, params: Mapping[str, ParamValue]
) -> tuple[Chosen, ...]:
    """What a module for this GPU should carry: one configuration per stage and kind it can tell.

    Measured ones go before predicted ones, then those for these params, then later ones.
    """
    found: dict[tuple[str, int, int, bool], Chosen] = {}
    for r in _by_rank(_read(plan, gpu), params_text(params)):
        k = r.kind
        chosen = Chosen(k.stage, gpu, k.itemsize, k.width, k.few, r.config)
        found.setdefault((k.stage, k.itemsize, k.width, k.few), chosen)
    return tuple(found.values())


def store(
    call: Call, target: Target, origin: Origin, found: Mapping[str, tuple[Config, float]]
) -> None:
    """Keep configurations by stage, each with its milliseconds.

    Two processes that store at once may lose one's records: they are found anew.
    """
    gpu = gpu_of(target)
    stages = {s.name: s for s in call.sweeps}
    new = [Record(kind_of(call, stages[n]), origin, c, ms) for n, (c, ms) in found.items()]
    taken = {(r.kind, r.origin) for r in new}
    kept = [r for r in _read(call.plan, gpu) if (r.kind, r.origin) not in taken]
    text = json.dumps([asdict(r) for r in (*kept, *new)][-_MOST:], indent=1)
    Cache().put(_key(call.plan, gpu), {_FILE: text.encode()})


def _by_rank(records: Iterable[Record], params: str) -> list[Record]:
    """The best first."""
    latest = list(records)[::-1]
    return sorted(latest, key=lambda r: (r.origin != "measured", r.kind.params != params))


def _read(plan: Plan, gpu: int | str) -> tuple[Record, ...]:
    files = Cache().get(_key(plan, gpu))
    if files is None or _FILE not in files:
        return ()
    return tuple(
        Record(Kind(**x["kind"]), x["origin"], _config(x["config"]), x["ms"])
        for x in json.loads(files[_FILE])
    )


def _config(data: Mapping[str, Any]) -> Config:
    """JSON has no tuples."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return Config(**fields)


def _key(plan: Plan, gpu: int | str) -> str:
    return content_key("choices", repr(plan), str(gpu))
