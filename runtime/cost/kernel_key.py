"""What the machine code of a kernel depends on, told without emitting it and without torch.

Triton specialises a kernel on its arguments: strides that are 1 or divisible by 16, numbers of more
than 32 bits. Calls of the same plan that agree in these, in the configuration and in the extents
that are compiled in have the same machine code; their other extents may differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from math import prod
from pathlib import Path

from attnc.codegen.config import MAX_WIDTH, Config
from attnc.codegen.overflow import overflow
from attnc.codegen.prune import all_lets, prune, used_names
from attnc.codegen.tile_lists import listed_visibility
from attnc.ir.bind import with_joined
from attnc.ir.cascade import Cascade
from attnc.ir.evaluate import compile_expr
from attnc.ir.expr import Expr
from attnc.ir.frame import Frame, ParamValue, Scope
from attnc.ir.geometry.key_range import key_range
from attnc.ir.geometry.layout import Layout, layouts, tile_shape
from attnc.ir.plan import Load, Serial, SweepStage
from attnc.ir.walk import output_ranks
from attnc.runtime.dtypes import element_bytes

_INT = 2**31
# Above this AMD's compiler may not use 32-bit offsets into a tensor.
_LARGE_BYTES = 2**31


@cache
def sources_digest() -> str:
    """Of the code that makes kernels and counts them: a checkout changes without its version."""
    root = Path(__file__).parents[2]
    own = (root / "runtime").glob("*.py")
    parts = (p for d in ("ir", "codegen", "runtime/cost") for p in (root / d).rglob("*"))
    digest = hashlib.sha256()
    for path in sorted((*own, *parts)):
        if path.suffix in (".py", ".j2"):
            digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


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
    known = _Classes(prune(stage), cascade, with_joined(cascade, extents), params, config)
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


class _Classes:
    def __init__(
        self,
        stage: SweepStage,
        cascade: Cascade,
        extents: Mapping[str, int],
        params: Mapping[str, ParamValue],
        config: Config,
    ) -> None:
        self.stage, self.cascade, self.config = stage, cascade, config
        self.extents, self.params = extents, params
        self.frame = Frame(Scope(extents=extents, params=params), {})
        seen = listed_visibility(stage, cascade)
        shapes = () if seen is None else layouts(seen, cascade)
        self.shaped = tuple(x for x in shapes if x is not None and not x.is_flat)

    def widths(self) -> tuple[int, ...]:
        """Extents that are compiled in, or that a loop inside a tile runs over."""
        loops = (x.value.over for x in all_lets(self.stage) if isinstance(x.value, Serial))
        return tuple(self.extents[r] for r in (*self.stage.inner, *self.stage.columns, *loops))

    def blocks(self) -> tuple[object, ...]:
        """The sides of tiles that have several, or gaps."""
        return tuple(self._sides(x) for x in self.shaped)

    def _sides(self, layout: Layout) -> object:
        lengths = [self.extents[c] for c in layout.coordinates]
        if layout.is_stepped:
            return lengths, [a.step and self._value(a.step) for a in layout.axes]
        c = self.config
        return tile_shape(c.block_m if layout.rank == self.stage.row else c.block_n, lengths)

    def strides(self) -> Iterator[tuple[bool, bool, bool, bool]]:
        """Of every axis: whether its stride is 1, divisible by 16, of 64 bits, or may make offsets
        inside a tile need 64."""
        reach = max([2 * MAX_WIDTH, *(self.extents[x.rank] for x in self.shaped)])
        for shape in self._shapes().values():
            for i in range(len(shape)):
                step = prod(max(n, 1) for n in shape[i + 1 :])
                yield step == 1, step % 16 == 0, step >= _INT, reach * step > _INT

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the tensors that the kernel reads or writes."""
        lets = all_lets(self.stage)
        names = [x.value.read.tensor for x in lets if isinstance(x.value, Load)]
        names += [t for x in lets for t in sorted(used_names(x) - {x.name for x in lets})]
        inputs = {t.name: t.ranks for t in self.cascade.inputs}
        found = {}
        for t in dict.fromkeys((*names, *self.stage.outputs)):
            producers = self.cascade.producers(t)
            if t in inputs or producers:
                ranks = inputs[t] if t in inputs else output_ranks(producers[0])
                found[t] = tuple(self.extents[r] for r in ranks if r)
        return found

    def numbers(self) -> Iterator[object]:
        """Of numbers passed: which need 64 bits, and the kinds of parameters."""
        yield tuple(n >= _INT for n in self.extents.values())
        for value in self.params.values():
            items = value if isinstance(value, tuple) else (value,)
            yield tuple((type(x).__name__, abs(x) >= _INT) for x in items)
        for let in self.stage.host:
            assert not isinstance(let.value, Load | Serial)
            if let.dtype == "int":
                yield abs(self._value(let.value)) >= _INT  # type: ignore[arg-type]

    def wide(self) -> bool:
        """Whether what is calculated with coordinates may need 64 bits."""
        ranges = (key_range(p.visibility, self.cascade) for p in self.stage.passes)
        found = overflow(self.stage, ranges, self.cascade)
        most = max((self._value(x) for x in found.terms), default=0)
        return bool(found.nodes) and most > found.limits[0]

    def large(self, itemsize: int) -> Iterator[bool]:
        """Which tensors are of 2 GiB or more, at 8 bytes an int and 4 a result between stages."""
        for shape in self._shapes().values():
            yield from (prod(shape) * n >= _LARGE_BYTES for n in sorted({itemsize, 1, 4, 8}))

    def _value(self, e: Expr) -> float:
        found = compile_expr(e)(self.frame)[0]
        return float(found)
