"""What `benchmarks/gpu.py` times: attnc's kernels, FlexAttention and torch's attention.

Everything here runs in a child process, and is named by strings.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any

import torch
from gpu_model import chosen, device_name
from gpu_problems import CHOSEN, Problem, count_tiles, kernels, problem, visible_scores
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from attnc.codegen import emit
from attnc.codegen.config import Config
from attnc.runtime.launch import public_function
from attnc.runtime.modules import load_source

Call = Callable[[], Any]

# What `create_block_mask` may hold point by point, in points.
_HELD = 1 << 31
_SAMPLES = 512
_BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


@dataclass(frozen=True, slots=True)
class Bound:
    """What the census says of a mask in the tiles of attnc's kernel.

    visible: scores, over all batches and heads; tile_mean: the speed-up over dense attention by
    visited tiles, flop: by visible scores; visited, full: pairs of tiles
    """

    visible: int
    tile_mean: float
    flop: float
    visited: int
    full: int


@dataclass(frozen=True, slots=True)
class Timing:
    """One implementation of a problem.

    ms: median; spread: distance of the quartiles over it; lists_ms: what the first call takes
    longer, or the making of the block mask, None where nothing is made; sample: some outputs
    """

    impl: str
    ms: float
    spread: float
    lists_ms: float | None = None
    sample: tuple[float, ...] = ()


def contestants(p: Problem, gpu: bool) -> tuple[str, ...]:
    """What can compute a problem; `dense` is attention without the mask.

    `attnc chosen` has the tiles that the model chooses, for some problems; the other kernels have
    those that a module picks by itself.
    """
    plain = ("attnc gather", "attnc permuted") if p.extents else ("attnc",)
    ours = (*plain, "attnc chosen") if p.name in CHOSEN else plain
    dense = ("flash", "cudnn") if gpu else ("math",)
    square = p.shape.m == p.shape.n
    causal = dense if p.spec in ("causal", "gqa") and square else ()
    flex = {"sigmoid": (), "sdpa": ("flex",)}.get(p.spec, ("flex, our lists", "flex"))
    return (*ours, *(f"dense {x}" for x in dense), *flex, *(f"sdpa {x}" for x in causal))


def bound(name: str, tiny: bool) -> Bound:
    """The census of a problem's mask."""
    p = problem(name, tiny)
    c = count_tiles(p, 4 if tiny else 2)
    return Bound(visible_scores(p, c), c.tile_mean, c.flop, c.visited, c.full)


def measure(name: str, impl: str, tiny: bool, seconds: float) -> Timing:
    """Time one contestant for about `seconds`; 0: as briefly as can be."""
    p = problem(name, tiny)
    tensors = _tensors(p, "cpu" if tiny else "cuda")
    if impl.startswith("flex"):
        return _flex(p, tensors, impl, seconds)
    if impl.startswith("attnc"):
        return _attnc(p, tensors, impl, seconds)
    kind, backend = impl.split()
    return _timing(impl, lambda: _sdpa(tensors, _BACKENDS[backend], kind == "sdpa"), seconds)


def measure_tiles(name: str, configs: Mapping[str, Config], tiny: bool, seconds: float) -> float:
    """Milliseconds of attnc's kernels with these tiles, by stage."""
    return _timing("", _with_tiles(name, configs, tiny), seconds).ms


def prepare_tiles(name: str, configs: Mapping[str, Config], tiny: bool) -> None:
    """Compile what `measure_tiles` needs, into the cache on disk."""
    _with_tiles(name, configs, tiny)()


def prepare(name: str, impl: str, tiny: bool) -> None:
    """Compile what `measure` needs, into the caches on disk."""
    p = problem(name, tiny)
    tensors = _tensors(p, "cpu" if tiny else "cuda")
    if impl.startswith("attnc"):
        _call(p, _module(p, tensors[0], impl), tensors)()
    else:
        _flex_call(p, tensors, _block_mask(p, tensors[0]))()


def _tensors(p: Problem, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Q, K, V: bf16 on a GPU."""
    s = p.shape
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    make = torch.Generator(device).manual_seed(0)
    shapes = ((s.b, s.h, s.m, s.d), (s.b, s.g, s.n, s.d), (s.b, s.g, s.n, s.d))
    q, k, v = (torch.randn(x, generator=make, device=device, dtype=dtype) for x in shapes)
    return q, k, v


# attnc -------------------------------------------------------------------------------------------


def _attnc(p: Problem, tensors: tuple[Tensor, ...], impl: str, seconds: float) -> Timing:
    module = _module(p, tensors[0], impl)
    call = _call(p, module, tensors)
    found = _timing(impl, call, seconds)
    kept: dict[object, object] | None = getattr(module, "_KEPT", None)
    if kept is None:
        return found

    def first() -> None:
        kept.clear()
        call()

    return replace(found, lists_ms=max(0.0, _wall(first, seconds) - _wall(call, seconds)))


def _module(p: Problem, lead: Tensor, impl: str) -> ModuleType:
    """The emitted module, which picks its tiles; gathering is what it does by default."""
    tiny = lead.device.type == "cpu"
    if impl == "attnc chosen":
        return _emitted(p, lead, chosen(p.name, tiny, "h200" if tiny else device_name() or ""))
    config = kernels(p, lead.element_size()) if impl == "attnc permuted" else {}
    return _emitted(p, lead, {name: replace(c, permuted=True) for name, c in config.items()})


def _emitted(p: Problem, lead: Tensor, configs: Mapping[str, Config]) -> ModuleType:
    source = emit(p.attention.plan, configs)
    return load_source(source, p.spec, interpret=lead.device.type == "cpu")


def _with_tiles(name: str, configs: Mapping[str, Config], tiny: bool) -> Call:
    p = problem(name, tiny)
    tensors = _tensors(p, "cpu" if tiny else "cuda")
    return _call(p, _emitted(p, tensors[0], configs), tensors)


def _call(p: Problem, module: ModuleType, tensors: tuple[Tensor, ...]) -> Call:
    function = public_function(module)
    held = [x.to(tensors[0].device) for x in p.data().values()]
    settings = {**p.extents, **p.attention.run_time_params}
    return lambda: function(*tensors, *held, **settings)


# peers -------------------------------------------------------------------------------------------


def _sdpa(tensors: tuple[Tensor, Tensor, Tensor], backend: SDPBackend, causal: bool) -> Tensor:
    q, k, v = tensors
    grouped = q.shape[1] != k.shape[1]
    with sdpa_kernel([backend]):
        return scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)


def _flex(p: Problem, tensors: tuple[Tensor, Tensor, Tensor], impl: str, seconds: float) -> Timing:
    """FlexAttention with the lists that it makes itself, or with ours."""
    lead = tensors[0]
    mask = _block_mask(p, lead)

    def make() -> Any:
        return _block_mask(p, lead)

    if impl == "flex" and mask is not None:
        make = _own_lists(p, lead, mask)
        own = make()
        for counts in ("kv_num_blocks", "full_kv_num_blocks"):
            assert torch.equal(getattr(own, counts), getattr(mask, counts)), "lists differ"
        mask = own
    found = _timing(impl, _flex_call(p, tensors, mask), seconds)
    return found if mask is None else replace(found, lists_ms=_wall(make, seconds))


def _block_mask(p: Problem, lead: Tensor) -> Any:
    if p.spec == "sdpa":
        return None
    captured = {name: x.to(lead.device) for name, x in p.data().items()}
    return p.attention.block_mask(p.sizes, 128, lead.device, **captured)


def _own_lists(p: Problem, lead: Tensor, ours: Any) -> Call:
    """`create_block_mask` for the same predicate; compiled where its points cannot be held."""
    batch, heads = (None if n == 1 else n for n in ours.kv_num_blocks.shape[:2])
    points = (batch or 1) * (heads or 1) * p.shape.m * p.shape.n
    create: Any = create_block_mask if points <= _HELD else torch.compile(create_block_mask)
    sizes = (batch, heads, p.shape.m, p.shape.n)
    return lambda: create(ours.mask_mod, *sizes, device=str(lead.device), BLOCK_SIZE=128)


def _flex_call(p: Problem, tensors: tuple[Tensor, Tensor, Tensor], mask: Any) -> Call:
    """Compiled on a GPU; what an earlier problem has compiled does not count against a limit."""
    q, k, v = tensors
    score = _capped if p.spec == "softcap" else None
    grouped = q.shape[1] != k.shape[1]
    run: Any = flex_attention
    if q.device.type != "cpu":
        torch.compiler.reset()
        run = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    return lambda: run(q, k, v, score_mod=score, block_mask=mask, enable_gqa=grouped)


def _capped(s: Tensor, b: Tensor, h: Tensor, m: Tensor, n: Tensor) -> Tensor:
    return 50.0 * torch.tanh(s / 50.0)


# time --------------------------------------------------------------------------------------------


def _timing(impl: str, call: Call, seconds: float) -> Timing:
    """Repeated warm calls within about `seconds`."""
    gpu = torch.cuda.is_available()
    sample = _sampled(call())
    for _ in range(2 if seconds else 0):
        call()
    samples: list[float] = []
    stop = time.perf_counter() + seconds
    while len(samples) < (5 if seconds else 2) or time.perf_counter() < stop:
        samples.append(_once(call, gpu))
    quarters = statistics.quantiles(samples, n=4)
    median = statistics.median(samples)
    return Timing(impl, median, (quarters[2] - quarters[0]) / median, None, sample)


def _once(call: Call, gpu: bool) -> float:
    """Milliseconds of one call; on a GPU, those in which the host prepares it are not counted.

    Memory that the GPU has to clear first hides them, and leaves nothing of the tensors in L2.
    """
    if not gpu:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    _larger_than_l2().zero_()
    event: Any = torch.cuda.Event
    begin, end = event(enable_timing=True), event(enable_timing=True)
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))


@cache
def _larger_than_l2() -> Tensor:
    """Half a GB, for which the slowest of the targets needs 0.25 ms."""
    return torch.empty(1 << 29, dtype=torch.int8, device="cuda")


def _wall(run: Call, seconds: float) -> float:
    """Milliseconds until a call is done, its work on the CPU included: the median, warm."""
    times = []
    for _ in range(5 if seconds else 1):
        _wait()
        start = time.perf_counter()
        run()
        _wait()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:] or times)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _sampled(out: Any) -> tuple[float, ...]:
    """Some elements of the first output, the same for all that compute a problem."""
    x: Tensor = (out[0] if isinstance(out, tuple) else out).flatten()
    at = torch.randint(x.numel(), (_SAMPLES,), generator=torch.Generator().manual_seed(0))
    return tuple(x[at.to(x.device)].float().tolist())


def distance(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The largest difference over the largest value; inf where one is not finite."""
    if not all(map(math.isfinite, (*a, *b))):
        return math.inf
    largest = max((abs(x) for x in b), default=0.0)
    return max((abs(x - y) for x, y in zip(a, b, strict=True)), default=0.0) / (largest or 1.0)


def first_line(e: BaseException) -> str:
    """An exception in a line."""
    return f"{type(e).__name__}: {(str(e).splitlines() or [''])[0]}"
