"""What the machine code of a kernel depends on, told without emitting it and without torch.

Triton specialises a kernel on its arguments: strides that are 1 or divisible by 16, numbers of more
than 32 bits. Calls of the same plan that agree in these, in the configuration and in the extents
that are compiled in have the same machine code; their other extents may differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod
from pathlib import Path

from attnc.codegen.config import MAX_WIDTH, Config, tile_sides
from attnc.codegen.identity import Same
from attnc.codegen.overflow import Overflow, overflow
from attnc.codegen.prune import all_lets, prune, used_names
from attnc.codegen.tile_lists import listed_visibility
from attnc.ir.bind import with_joined
from attnc.ir.cascade import Cascade
from attnc.ir.evaluate import compile_expr
from attnc.ir.expr import Expr
from attnc.ir.frame import Frame, ParamValue, Scope
from attnc.ir.geometry.key_range import key_range
from attnc.ir.geometry.layout import Layout, layouts
from attnc.ir.plan import Load, Plan, Serial, SweepStage, value_exprs
from attnc.ir.walk import output_ranks
from attnc.runtime.dtypes import element_bytes

_TEXTS = (".py", ".j2")
# What finds launches, compiles, and reads machine code.
_MODULES = (
    "compile_worker", "launches", "machine_code",
    *(f"cost/{x}" for x in (
        "amdgcn", "instructions", "kernel_key", "loop_counters", "machine_counts",
        "machine_demand", "machine_loops", "round_trips", "sass", "source_loops",
    )),
)  # fmt: skip
_INT = 2**31
# Above this AMD's compiler may not use 32-bit offsets into a tensor.
_LARGE_BYTES = 2**31


@cache
def sources_digest() -> str:
    """Of the code that makes kernels and counts them: a checkout changes without its version."""
    root = Path(__file__).parents[2]
    parts = (p for d in ("ir", "codegen") for p in (root / d).rglob("*") if p.suffix in _TEXTS)
    own = (root / "runtime" / f"{name}.py" for name in _MODULES)
    digest = hashlib.sha256()
    for path in (*sorted(parts), *own):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def plan_digest(plan: Plan) -> str:
    """Of all that a plan says; where in the spec it comes from is left out."""
    return _plan_digest(Same(plan))


@lru_cache(maxsize=256)
def _plan_digest(plan: Same[Plan]) -> str:
    return hashlib.sha256(repr(plan.value).encode()).hexdigest()


def call_classes(
    stage: SweepStage,
    cascade: Cascade,
    extents: Mapping[str, int],
    params: Mapping[str, ParamValue],
    config: Config,
    dtype: str,
) -> str:
    """As text what a kernel's machine code depends on besides its plan, configuration and target:
    equal texts mean equal code. Inputs are contiguous; `extents` has all ranks and components."""
    form = _form(Same(stage), Same(cascade))
    known = _Classes(form, with_joined(cascade, extents), params, config)
    return repr(
        (
            known.widths(),
            known.blocks(),
            tuple(known.strides()),
            tuple(known.numbers()),
            known.wide(),
            tuple(known.large(element_bytes(dtype))),
        )
    )


@dataclass(frozen=True, slots=True)
class _Form:
    """What does not depend on a call.

    tensors:  the axes of those that the kernel reads or writes, as ranks
    widths:   ranks whose extents are compiled in, or that a loop inside a tile runs over
    shaped:   how tiles that have several sides, or gaps, are shaped
    host:     integers that the caller computes
    """

    row: str | None
    tensors: tuple[tuple[str, ...], ...]
    widths: tuple[str, ...]
    shaped: tuple[Layout, ...]
    host: tuple[Expr, ...]
    overflow: Overflow


@lru_cache(maxsize=256)
def _form(stage: Same[SweepStage], cascade: Same[Cascade]) -> _Form:
    s, c = prune(stage.value), cascade.value
    seen = listed_visibility(s, c)
    shapes = () if seen is None else layouts(seen, c)
    loops = (x.value.over for x in all_lets(s) if isinstance(x.value, Serial))
    ranges = (key_range(p.visibility, c) for p in s.passes)
    return _Form(
        s.row,
        tuple(_tensors(s, c)),
        (*s.inner, *s.columns, *loops),
        tuple(x for x in shapes if x is not None and not x.is_flat),
        tuple(e for x in s.host if x.dtype == "int" for e in value_exprs(x.value)),
        overflow(s, ranges, c),
    )


def _tensors(stage: SweepStage, cascade: Cascade) -> Iterator[tuple[str, ...]]:
    lets = all_lets(stage)
    names = [x.value.read.tensor for x in lets if isinstance(x.value, Load)]
    names += [t for x in lets for t in sorted(used_names(x) - {x.name for x in lets})]
    inputs = {t.name: t.ranks for t in cascade.inputs}
    for t in dict.fromkeys((*names, *stage.outputs)):
        producers = cascade.producers(t)
        if t in inputs or producers:
            ranks = inputs[t] if t in inputs else output_ranks(producers[0])
            yield tuple(r for r in ranks if r)


class _Classes:
    def __init__(
        self,
        form: _Form,
        extents: Mapping[str, int],
        params: Mapping[str, ParamValue],
        config: Config,
    ) -> None:
        self.form, self.config = form, config
        self.extents, self.params = extents, params
        self.frame = Frame(Scope(extents=extents, params=params), {})
        self.shapes = [tuple(extents[r] for r in ranks) for ranks in form.tensors]

    def widths(self) -> tuple[int, ...]:
        return tuple(self.extents[r] for r in self.form.widths)

    def blocks(self) -> tuple[object, ...]:
        """The sides of tiles that have several, or gaps."""
        return tuple(self._sides(x) for x in self.form.shaped)

    def _sides(self, layout: Layout) -> object:
        lengths = [self.extents[c] for c in layout.coordinates]
        if layout.is_stepped:
            return lengths, [a.step and self._value(a.step) for a in layout.axes]
        return tile_sides(self.config, layout.rank == self.form.row, lengths)

    def strides(self) -> Iterator[tuple[bool, ...]]:
        """Of every axis: whether its stride is 1, how it can be divided (Triton asks for 16
        elements, a tensor descriptor for 16 bytes), whether it has 64 bits or may make offsets
        inside a tile need them; whether its length is 0, or needs 64 bits."""
        reach = max([2 * MAX_WIDTH, *(self.extents[x.rank] for x in self.form.shaped)])
        for shape in self.shapes:
            for i, length in enumerate(shape):
                step = prod(max(n, 1) for n in shape[i + 1 :])
                divisible = (step % n == 0 for n in (4, 8, 16))
                large = step >= _INT, reach * step > _INT
                yield step == 1, *divisible, *large, length == 0, length >= _INT

    def numbers(self) -> Iterator[object]:
        """Of numbers passed: which need 64 bits, and the kinds of parameters."""
        yield tuple(n >= _INT for n in self.extents.values())
        for value in self.params.values():
            items = value if isinstance(value, tuple) else (value,)
            yield tuple((type(x).__name__, abs(x) >= _INT) for x in items)
        yield tuple(abs(self._value(e)) >= _INT for e in self.form.host)

    def wide(self) -> bool:
        """Whether what is calculated with coordinates may need 64 bits."""
        found = self.form.overflow
        most = max((self._value(x) for x in found.terms), default=0)
        return bool(found.nodes) and most > found.limits[0]

    def large(self, itemsize: int) -> Iterator[bool]:
        """Which tensors are of 2 GiB or more, whatever they hold."""
        for shape in self.shapes:
            yield from (prod(shape) * n >= _LARGE_BYTES for n in sorted({itemsize, 1, 4, 8}))

    def _value(self, e: Expr) -> float:
        return float(compile_expr(e)(self.frame)[0])
