"""Measure configurations of kernels: emit, load, call, time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attnc.codegen import emit
from attnc.codegen.config import Config
from attnc.ir.frame import ParamValue
from attnc.ir.plan import Plan
from attnc.runtime.launch import call_module
from attnc.runtime.modules import load_source

# Milliseconds that a call takes.
Timer: TypeAlias = Callable[[Callable[[], object]], float]
_WARM_UPS = 3
_SECONDS = 0.3
# More than any L2: clearing it leaves nothing of the inputs there.
_CLEARED_BYTES = 1 << 29


def gpu_in_use() -> int | str | None:
    """The architecture of the GPU in use (90, "gfx942"); None where there is none."""
    if not torch.cuda.is_available():
        return None
    if torch.version.hip:
        name: str = torch.cuda.get_device_properties().gcnArchName
        return name.split(":")[0]
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


@dataclass(frozen=True, slots=True)
class Bench:
    """A call to be timed: `interpret` runs the kernels in Triton's interpreter."""

    plan: Plan
    params: Mapping[str, ParamValue]
    extents: Mapping[str, int]
    tensors: Mapping[str, Tensor]
    timer: Timer
    interpret: bool = False

    def ms(self, configs: Mapping[str, Config]) -> float:
        """Of the whole call, with these configurations by stage; inf if it cannot be launched."""
        source = emit(self.plan, configs)
        module = load_source(source, self.plan.cascade.name, interpret=self.interpret)
        call = partial(
            call_module,
            module,
            self.plan.cascade,
            self.tensors,
            params=self.params,
            extents=self.extents,
        )
        try:
            return self.timer(call)
        except RuntimeError as e:
            if not _cannot_launch(e):
                raise
            return float("inf")

    def fastest(
        self, stage: str, configs: Sequence[Config], others: Mapping[str, Config]
    ) -> list[tuple[float, Config]]:
        """Each configuration of a stage with its milliseconds, the fastest first."""
        timed = [(self.ms({**others, stage: c}), c) for c in configs]
        return sorted(timed, key=lambda x: x[0])


def _cannot_launch(e: RuntimeError) -> bool:
    """Triton's OutOfResources: shared or tensor memory, registers."""
    return type(e).__name__ == "OutOfResources" or "out of resource" in str(e)


def time_on_gpu(call: Callable[[], object]) -> float:
    """The median of warm calls, by CUDA events, with nothing of the inputs in L2.

    What the host does before a launch is hidden behind clearing the L2 cache.
    """
    event: Any = torch.cuda.Event
    room = torch.empty(_CLEARED_BYTES, dtype=torch.int8, device="cuda")
    for _ in range(_WARM_UPS):
        call()
    torch.cuda.synchronize()
    samples: list[float] = []
    stop = time.perf_counter() + _SECONDS
    while len(samples) < 5 or time.perf_counter() < stop:
        room.zero_()
        begin, end = event(enable_timing=True), event(enable_timing=True)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        samples.append(float(begin.elapsed_time(end)))
    return statistics.median(samples)
