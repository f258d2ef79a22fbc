"""`attnc compile`: the standalone module in a file, and what a GPU's compiler made of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from attnc.codegen import emit
from attnc.codegen.config import Chosen
from attnc.errors import AttncError
from attnc.files import replace_text
from attnc.ir.bind import bind_extents, check_params
from attnc.ir.cascade import Cascade, Rank
from attnc.ir.exact_extents import are_exact, exact_extents
from attnc.ir.frame import ParamValue
from attnc.ir.plan import Plan, SweepStage
from attnc.runtime.cost.call import Call

if TYPE_CHECKING:
    from attnc.runtime.cost.tile_choice import Choice
    from attnc.runtime.launches import Launch
    from attnc.runtime.machine_code import Resources
    from attnc.runtime.targets import Target


# What a report is made for where no shape is given: the common size of today's models.
_LENGTH, _FEATURES, _OTHER = 4096, 128, 8


@dataclass(frozen=True, slots=True)
class ChoiceReport:
    """Why a kernel has the tiles that it has.

    ms, limit:  the time that is predicted, and what limits it; `tier`: of the model's calibration
    runner_up:  the next best configuration, `why` it lost
    candidates: configurations that were ranked; `compiled`: those of them that were compiled
    rejected:   those that cannot be taken, each with the reason
    """

    ms: float
    limit: str
    tier: str
    runner_up: str
    why: str
    candidates: int
    compiled: int
    rejected: tuple[str, ...]
    note: str

    def __str__(self) -> str:
        compiled = f"{self.compiled} compiled" if self.compiled else "none compiled"
        lines = [
            f"chosen from {self.candidates} ({compiled}): {self.ms:.3g} ms, limited by "
            f"{self.limit} ({self.tier})"
        ]
        lines += [x for x in (self.why, self.note) if x]
        return "\n    ".join(lines)


@dataclass(frozen=True, slots=True)
class KernelReport:
    """One kernel on one target.

    registers: per thread; spills: bytes per thread; shared_bytes: per block; threads: per block;
    fits: whether a block of it can be launched there; choice: where its configuration is from, None
    for a kernel that merges the parts of the one before.
    """

    name: str
    target: str
    config: Mapping[str, int]
    registers: int
    spills: int
    shared_bytes: int
    threads: int
    programs: int
    fits: bool
    choice: ChoiceReport | None

    def __str__(self) -> str:
        tiles = ", ".join(f"{name} {n}" for name, n in self.config.items())
        spills = f"spills {self.spills} bytes" if self.spills else "spills nothing"
        fits = "" if self.fits else "; TOO LARGE to be launched there"
        head = (
            f"{self.name} on {self.target}: {self.registers} registers, {spills}, "
            f"{self.shared_bytes} bytes shared{fits}"
        )
        return "\n    ".join([head, tiles, *([str(self.choice)] if self.choice else [])])


@dataclass(frozen=True, slots=True)
class Compilation:
    """The result of `attnc compile`: paths of module and report, and one entry per kernel."""

    name: str
    module: str
    report: str
    dtype: str
    shape: Mapping[str, int]
    kernels: tuple[KernelReport, ...]
    lines: int
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """The command's JSON, and the content of the report."""
        return asdict(self)

    def __str__(self) -> str:
        shape = ", ".join(f"{name}={n}" for name, n in self.shape.items())
        kernels = [f"  {kernel}" for kernel in self.kernels]
        done = f"compiled in {self.seconds:.1f} s for {shape}, {self.dtype}"
        return "\n".join(
            [f"{self.module}: {self.lines} lines", *kernels, *([done] if kernels else [])]
        )


def compile_plan(
    plan: Plan,
    params: Mapping[str, ParamValue],
    shape: Mapping[str, int],
    *,
    dtype: str,
    targets: Iterable[str],
    folder: Path,
    config: Mapping[str, int] | None = None,
) -> Compilation:
    """Write `folder`/NAME.py and NAME.json. `shape` has extents by upper-case name, some or all.

    The cost model chooses the kernels' tiles for each target; what `config` has of `m`, `n`,
    `warps`, `stages` is fixed.
    Raises AttncError: E50x the shape does not fit the spec, E713 the folder cannot be written, E80x
    no such target, E81x its compiler is absent or fails, E851 the tensors do not fit in its memory,
    E852 the configuration cannot be launched, E855 none can.
    """
    from attnc.runtime.targets import load_target

    start = time.perf_counter()
    cascade = plan.cascade
    machines = tuple(map(load_target, targets))
    if config and not machines:
        raise AttncError("E852", "tiles are fixed for a target, and there is none", hint="--target")
    extents = complete_shape(plan, shape, params)
    call = Call(plan, params, extents, dtype)
    folder = _made(folder)
    choices = _choices(call, machines, config or {})
    source = emit(plan, chosen=tuple(_chosen(call, choices)))
    path = folder / f"{cascade.name}.py"
    replace_text(path, source)
    kernels = tuple(_kernels(path, call, machines, choices))
    made = Compilation(
        cascade.name,
        str(path),
        str(path.with_suffix(".json")),
        dtype,
        {name.upper(): n for name, n in extents.items()},
        kernels,
        source.count("\n"),
        round(time.perf_counter() - start, 3),
    )
    replace_text(path.with_suffix(".json"), json.dumps(made.to_dict(), indent=2) + "\n")
    return made


def _choices(
    call: Call, targets: Iterable[Target], pins: Mapping[str, int]
) -> dict[int | str, tuple[Choice, ...]]:
    """By GPU architecture, the configuration of each kernel; what was measured there stays."""
    from attnc.runtime.cost.choices import gpu_of, measured_configs, store
    from attnc.runtime.cost.tile_choice import choose

    found: dict[int | str, tuple[Choice, ...]] = {}
    for target in targets:
        gpu = gpu_of(target)
        if gpu in found:
            continue
        known = {} if pins else measured_configs(call, target)
        found[gpu] = choose(call, target, pins=pins, known=known)
        if not pins:
            made = {c.stage: (c.config, c.time.ms.mid) for c in found[gpu] if c.stage not in known}
            store(call, target, "model", made)
    return found


def _chosen(call: Call, choices: Mapping[int | str, tuple[Choice, ...]]) -> Iterator[Chosen]:
    """What the module carries."""
    from attnc.runtime.cost.choices import kind_of

    stages = {s.name: s for s in call.sweeps}
    for gpu, made in choices.items():
        for c in made:
            kind = kind_of(call, stages[c.stage])
            yield Chosen(c.stage, gpu, kind.itemsize, kind.width, kind.few, c.config)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise AttncError("E713", f"cannot write `{folder}`: {e.strerror or e}") from None
    return folder


def _kernels(
    path: Path,
    call: Call,
    targets: tuple[Target, ...],
    choices: Mapping[int | str, tuple[Choice, ...]],
) -> Iterator[KernelReport]:
    """What the module launches on each target; it was compiled when its tiles were chosen.

    A sweep in parts is two launches; what merges is compiled here.
    """
    if not targets:
        return
    from attnc.runtime.cost.choices import gpu_of
    from attnc.runtime.cost.split_call import split_call
    from attnc.runtime.dtypes import torch_dtype
    from attnc.runtime.launches import find_launches
    from attnc.runtime.modules import load_module

    module, kind, cascade = load_module(path), torch_dtype(call.dtype), call.plan.cascade
    for target in targets:
        gpu = gpu_of(target)
        launches = find_launches(
            module, cascade, call.extents, call.params, kind,
            target.warp_size, target.capability, gpu,
        )  # fmt: skip
        waiting = iter(launches)
        for choice in choices[gpu]:
            if choice.kernel is None:
                raise AttncError("E812", choice.note)
            why = _choice_report(choice, target)
            yield _report(target, next(waiting), choice.kernel.resources, why)
            _, launched = split_call(call, {choice.stage: choice.config})
            for merge in islice(waiting, len(launched) - 1):
                yield _report(target, merge, _compiled(path, merge, target), None)


def _compiled(path: Path, launch: Launch, target: Target) -> Resources:
    """Of a kernel that was not compiled when tiles were chosen."""
    from attnc.runtime.compile_pool import compile_module

    return compile_module(
        path,
        launch.kernel,
        launch.arguments,
        target=target,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    ).resources


def _report(
    target: Target, launch: Launch, r: Resources, choice: ChoiceReport | None
) -> KernelReport:
    return KernelReport(
        launch.kernel,
        target.name,
        {**launch.config, "num_warps": launch.num_warps, "num_stages": launch.num_stages},
        r.registers,
        r.spills,
        r.shared_bytes,
        r.threads,
        launch.programs,
        r.fits(target),
        choice,
    )


def _choice_report(choice: Choice, target: Target) -> ChoiceReport:
    from attnc.runtime.cost.pinned import config_text

    notes = [choice.note] if choice.note else []
    if choice.target != target.name:
        notes.append(f"chosen for {choice.target}, which runs the same machine code")
    return ChoiceReport(
        choice.time.ms.mid,
        choice.time.limit,
        choice.tier,
        "" if choice.runner_up is None else config_text(choice.runner_up),
        choice.why,
        choice.candidates,
        choice.compiled,
        tuple(f"{config_text(p.config)}: {p.reason}" for p in choice.rejected),
        "; ".join(notes),
    )


def complete_shape(
    plan: Plan, shape: Mapping[str, int], params: Mapping[str, ParamValue] | None = None
) -> dict[str, int]:
    """An extent for every rank: as given, the others by what the plan does with the rank.

    Where the spec divides extents exactly, those that were not given are such that it can.
    `params`: those that are not given have their defaults. Raises AttncError E504 for a name that
    is no rank, E505 for a grid that does not fit, E506 .. E509 for wrong params.
    """
    cascade = plan.written
    given = {name.lower(): n for name, n in shape.items()}
    sizes = dict(given)
    sweeps = [s for s in plan.stages if isinstance(s, SweepStage)]
    lengths = {r for s in sweeps for r in (s.row, s.swept) if r is not None}
    features = {r for s in sweeps for r in (*s.inner, *s.columns)}
    # Of ranks that are contracted together the last is the feature.
    features |= {c for r in features for c in plan.cascade.rank(r).components[-1:]}
    for rank in cascade.ranks:
        if rank.parent is None:
            default = (
                _LENGTH if rank.name in lengths else _FEATURES if rank.name in features else _OTHER
            )
            _fill(rank, default, sizes)
    for rank in cascade.ranks:
        if rank.name not in sizes:
            hint = f"--shape {rank.extent_name}=..., or leave out the extent of `{rank.parent}`"
            raise AttncError("E504", f"nothing gives the extent of `{rank.name}`", hint=hint)
    _make_exact(cascade, check_params(plan.cascade, params or {}), frozenset(given), sizes)
    shapes = {t.name: tuple(sizes[r] for r in t.ranks) for t in cascade.inputs}
    return bind_extents(cascade, shapes, sizes)


def _fill(rank: Rank, default: int, sizes: dict[str, int]) -> None:
    """The default of a rank that was not given; a grid's is as square as it comes."""
    missing = [c for c in rank.components if c not in sizes]
    if rank.name not in sizes and missing:
        side = max(1, round(default ** (1 / len(rank.components))))
        sizes.update(dict.fromkeys(missing, side))
        missing = []
    if rank.components and not missing:
        sizes.setdefault(rank.name, prod(sizes[c] for c in rank.components))
    sizes.setdefault(rank.name, default)


def _make_exact(
    cascade: Cascade,
    params: Mapping[str, ParamValue],
    given: frozenset[str],
    sizes: dict[str, int],
) -> None:
    """Change sizes that were not given until what the spec divides exactly leaves no remainder.

    Where no sizes do they stay as they are: whoever uses them says what does not fit.
    """
    if are_exact(cascade, params, sizes):
        return
    sizes.update(exact_extents(cascade, params, sizes, frozenset(), given) or {})
    for rank in cascade.ranks:
        if rank.components and rank.name not in given:
            sizes[rank.name] = prod(sizes[c] for c in rank.components)
