"""What compiled kernels ask of each unit: they are compiled in parallel, read, and kept on disk.

Nothing here needs a GPU, and what is on disk is found without torch and triton.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from attnc.codegen import emit
from attnc.codegen.config import MAX_COLUMNS, Config, padded
from attnc.codegen.prune import needed_stages, prune
from attnc.codegen.scope import Scope
from attnc.codegen.spread import MatrixUnit
from attnc.codegen.tile_demand import kernel_demand
from attnc.codegen.visits import visit_kinds
from attnc.errors import AttncError
from attnc.ir.bind import with_joined
from attnc.ir.cascade import Cascade
from attnc.ir.demand import Demand, KernelDemand, PassDemand
from attnc.ir.frame import ParamValue
from attnc.ir.plan import Dot, Let, Plan, SweepStage
from attnc.runtime.cache import Cache, content_key
from attnc.runtime.compile_pool import Job, compile_many, cpus
from attnc.runtime.cost.kernel_key import call_classes, plan_digest, sources_digest
from attnc.runtime.cost.machine_counts import EmittedKernel, count_kernel
from attnc.runtime.dtypes import element_bytes
from attnc.runtime.machine_code import CompiledKernel, Resources
from attnc.runtime.targets import Target

_FILE = "counts.json"


@dataclass(frozen=True, slots=True)
class Request:
    """The kernel of a stage at one configuration, compiled for contiguous inputs of these extents.

    A sweep that is split over programs is two stages (`ir.split_sweep`), each a request of its own.
    extents: of every rank and component; dtype: `fp16`, `bf16`, `fp32`
    """

    plan: Plan
    stage: str
    extents: Mapping[str, int]
    params: Mapping[str, ParamValue]
    dtype: str
    target: Target
    config: Config

    @property
    def sweep(self) -> SweepStage:
        """The stage as planned."""
        sweeps = (s for s in self.plan.stages if isinstance(s, SweepStage))
        return next(s for s in sweeps if s.name == self.stage)


@dataclass(frozen=True, slots=True)
class MachineKernel:
    """A compiled kernel: what it asks of the units, and what a program takes of an SM.

    unit:    what runs its matrix products: on Hopper, single warps (small tiles) are slower than
             groups of four
    unknown: opcodes that the reader does not know; they count as `alu`
    """

    demand: KernelDemand
    resources: Resources
    unit: MatrixUnit = None
    unknown: tuple[str, ...] = ()


def compiled_kernels(
    requests: Sequence[Request], *, cached_only: bool = False
) -> tuple[MachineKernel | AttncError | None, ...]:
    """The kernels in order; a request that fails has its error in its place.

    cached_only: what is not on disk is None, and nothing is compiled
    Errors: E505 the module refuses the shape, E812 the compiler is absent, E813 it fails.
    """
    cache = Cache()
    keys = [_key(r) for r in requests]
    found: dict[str, MachineKernel | AttncError] = {}
    for key in dict.fromkeys(keys):
        if (known := _stored(cache, key)) is not None:
            found[key] = known
    if not cached_only:
        missing = {k: r for k, r in zip(keys, requests, strict=True) if k not in found}
        made = _compiled(tuple(missing.values())) if missing else ()
        for key, kernel in zip(missing, made, strict=True):
            found[key] = kernel
            if isinstance(kernel, MachineKernel):
                cache.put(key, {_FILE: json.dumps(asdict(kernel)).encode()})
    return tuple(found.get(key) for key in keys)


def _key(r: Request) -> str:
    classes = call_classes(r.sweep, r.plan.cascade, r.extents, r.params, r.config, r.dtype)
    made_for = (r.target.backend, r.target.arch, r.target.warp_size)
    return content_key(
        "machine demand",
        sources_digest(),
        plan_digest(r.plan),
        repr((r.stage, r.dtype, made_for, r.config)),
        classes,
    )


# the disk ----------------------------------------------------------------------------------------


def _stored(cache: Cache, key: str) -> MachineKernel | None:
    files = cache.get(key)
    if files is None:
        return None
    try:
        return _kernel(json.loads(files[_FILE]))
    except (KeyError, TypeError, ValueError):
        return None  # of some other form: made anew


def _kernel(data: Any) -> MachineKernel:
    demand = data["demand"]
    passes = (PassDemand(Demand(**p["full"]), Demand(**p["partial"])) for p in demand["passes"])
    return MachineKernel(
        KernelDemand(Demand(**demand["once"]), tuple(passes)),
        Resources(**data["resources"]),
        data["unit"],
        tuple(data["unknown"]),
    )


# compiling ---------------------------------------------------------------------------------------


def _compiled(requests: Sequence[Request]) -> tuple[MachineKernel | AttncError, ...]:
    found: dict[int, MachineKernel | AttncError] = {}
    jobs: dict[int, tuple[Job, EmittedKernel]] = {}
    with tempfile.TemporaryDirectory(prefix="attnc-kernels-") as folder:
        for i, request in enumerate(requests):
            try:
                jobs[i] = _job(request, Path(folder) / f"kernels_{i}.py")
            except AttncError as e:
                found[i] = e
        made = compile_many([job for job, _ in jobs.values()]) if jobs else ()
        # most of the reading is a disassembler's, a process of its own
        with ThreadPoolExecutor(cpus()) as pool:
            counted = pool.map(_counted, made, (emitted for _, emitted in jobs.values()))
            found.update(zip(jobs, counted, strict=True))
    return tuple(found[i] for i in range(len(requests)))


def _counted(
    kernel: CompiledKernel | AttncError, emitted: EmittedKernel
) -> MachineKernel | AttncError:
    if isinstance(kernel, AttncError):
        return kernel
    try:
        counts = count_kernel(kernel, emitted)
    except AttncError as e:
        return e
    return MachineKernel(counts.demand, kernel.resources, counts.unit, counts.unknown)


def _job(request: Request, path: Path) -> tuple[Job, EmittedKernel]:
    """Emits the module with the configuration fixed, and finds how it launches the kernel."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise AttncError(
            "E812",
            "torch is not installed, so no launch of a kernel can be prepared",
            hint="pip install torch",
        ) from None
    from attnc.runtime.dtypes import torch_dtype
    from attnc.runtime.launches import find_launches
    from attnc.runtime.modules import load_module

    plan, target = request.plan, request.target
    source = emit(plan, {request.stage: request.config})
    path.write_text(source, encoding="utf-8")
    launches = find_launches(
        load_module(path),
        plan.cascade,
        request.extents,
        request.params,
        torch_dtype(request.dtype),
        target.warp_size,
        target.capability,
    )
    sweeps = [s.name for s in needed_stages(plan) if isinstance(s, SweepStage)]
    assert request.config.splits == 1, "the stages of a split sweep are asked for"
    if len(launches) != len(sweeps):
        raise AttncError("E505", f"`{plan.cascade.name}` launches nothing for an empty tensor")
    launch = launches[sweeps.index(request.stage)]
    name = launch.kernel
    job = Job(
        str(path), name, launch.arguments, target, launch.num_warps, launch.num_stages,
        launch.maxnreg,
    )  # fmt: skip
    numbers = {k: v for k, v in launch.arguments.items() if isinstance(v, int)}
    return job, _emitted(request, name, job.path, source, numbers)


def _emitted(
    request: Request, name: str, path: str, source: str, numbers: Mapping[str, int]
) -> EmittedKernel:
    cascade, stage = request.plan.cascade, request.sweep
    extents = with_joined(cascade, request.extents)
    widths = {r: extents[r] for r in (*stage.inner, *stage.columns)}
    size = element_bytes(request.dtype)
    return EmittedKernel(
        name,
        path,
        source,
        visit_kinds(prune(stage), cascade),
        _products(prune(stage), cascade, widths, request.config),
        numbers,
        kernel_demand(stage, cascade, request.config, widths, size, request.target.matrix_unit),
    )


def _products(
    stage: SweepStage, cascade: Cascade, widths: Mapping[str, int], c: Config
) -> tuple[float, ...]:
    """Floating-point operations in matrix products per whole tile, for each pass."""
    split = Scope(cascade, stage, {}).split
    blocks = {r: padded(n) for r, n in widths.items()}
    if split is not None:
        blocks[split] = min(MAX_COLUMNS, blocks[split])
    blocks |= {stage.swept: c.block_n} | ({stage.row: c.block_m} if stage.row else {})
    return tuple(_product(p.full, blocks) for p in stage.passes)


def _product(lets: Iterable[Let], blocks: Mapping[str, int]) -> float:
    dots = ((x.ranks, x.value) for x in lets if isinstance(x.value, Dot))
    return sum(2.0 * prod(blocks[r] for r in {*ranks, dot.over}) for ranks, dot in dots)
