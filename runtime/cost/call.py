"""One call of an attention, as far as its cost depends on it: a plan and the numbers put in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

from attnc.codegen.config import FEW_ROWS, padded
from attnc.codegen.scope import Scope
from attnc.ir.bind import with_joined
from attnc.ir.cascade import TensorDecl
from attnc.ir.frame import ParamValue
from attnc.ir.geometry.census import Census, Part, census
from attnc.ir.geometry.dilation import Problem
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.plan import Plan, SweepStage
from attnc.ir.visibility import Visibility
from attnc.ir.walk import output_ranks
from attnc.runtime.dtypes import element_bytes

# Counts of the axes of masks, by whether tiles are grouped and points counted.
Parts: TypeAlias = dict[tuple[bool, bool], dict[Problem, Part]]
# A captured int counts 8 bytes, a bool 1: as torch makes them.
_BYTES = {"int": 8, "bool": 1}


@dataclass(frozen=True)
class Call:
    """A plan with the extent of every rank, its run-time params, and the type of its floats.

    tensors: the captured int and bool tensors that masks read, as arrays of numpy; where one is not
    given, masks that read it are not known, and nothing is taken to be hidden by them
    """

    plan: Plan
    params: Mapping[str, ParamValue]
    extents: Mapping[str, int]
    dtype: str
    tensors: Mapping[str, Any] = field(default_factory=dict)
    # Counts of masks by what they depend on; shared by calls that differ in nothing else.
    known: dict[object, Any] = field(default_factory=dict, repr=False)
    # Shared by calls with the same tensors.
    parts: Parts = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.plan.cascade.name

    @property
    def itemsize(self) -> int:
        """Bytes of a floating element."""
        return element_bytes(self.dtype)

    @cached_property
    def sweeps(self) -> tuple[SweepStage, ...]:
        """The stages that are kernels."""
        return tuple(s for s in self.plan.stages if isinstance(s, SweepStage))

    @cached_property
    def bound(self) -> Bound:
        """What predicates are evaluated with."""
        cascade = self.plan.cascade
        grids = {r.name: r.components for r in cascade.ranks if r.components}
        return Bound(with_joined(cascade, self.extents), self.params, self.tensors, grids)

    def extent(self, rank: str) -> int:
        return self.bound.extents[rank]

    def widths(self, stage: SweepStage) -> dict[str, int]:
        """The extents of the ranks that are whole in a tile: head dimensions."""
        return {r: self.extent(r) for r in (*stage.inner, *stage.columns)}

    def has_few_rows(self, stage: SweepStage) -> bool:
        """Whether all rows fit in the smallest tile, which the launcher's rule then takes."""
        return stage.row is not None and self.extent(stage.row) <= FEW_ROWS

    def shape(self) -> dict[str, int]:
        """Extents by upper-case name."""
        return {r.upper(): n for r, n in self.extents.items()}

    def unknown(self, v: Visibility) -> tuple[str, ...]:
        """The captured tensors that a mask reads and that were not given."""
        return tuple(t for t in v.tensors if t not in self.tensors)

    def axis(self, rank: str, tile: int = 1) -> Axis:
        return Axis(rank, self.extent(rank), tile)

    def census(
        self,
        v: Visibility,
        grid: tuple[Axis, ...],
        rows: tuple[Axis, ...],
        keys: tuple[Axis, ...],
        *,
        grouped: bool,
        points: bool,
    ) -> Census:
        """`ir.geometry.census` of a mask, with what this call depends on."""
        known = self.parts.setdefault((grouped, points), {})
        return census(v, grid, rows, keys, self.bound, grouped=grouped, points=points, known=known)

    # memory ----------------------------------------------------------------------------------

    def tensor_bytes(self, name: str) -> int:
        """Of an input, or of what a stage stores."""
        return prod(map(self.extent, self.axes(name))) * self.element(name)

    def element(self, name: str) -> int:
        """Bytes of an element; results between stages that have no head dimension are float32."""
        declared = self.inputs.get(name)
        if declared is not None:
            return _BYTES.get(declared.dtype, self.itemsize)
        features = {r for s in self.sweeps for r in (*s.inner, *s.columns)}
        native = name in self.plan.cascade.outputs and features & set(self.axes(name))
        return self.itemsize if native or not features else 4

    def axes(self, name: str) -> tuple[str, ...]:
        """The ranks of a tensor in memory."""
        if name in self.inputs:
            return self.inputs[name].ranks
        return output_ranks(self.plan.cascade.producers(name)[0])

    @cached_property
    def inputs(self) -> dict[str, TensorDecl]:
        return {t.name: t for t in self.plan.cascade.inputs}

    @cached_property
    def total_bytes(self) -> int:
        """All tensors that a call needs at once: inputs, outputs, what goes between stages."""
        stored = dict.fromkeys(o for s in self.plan.stages for o in s.outputs)
        return sum(self.tensor_bytes(t) for t in (*self.inputs, *stored))


def column_splits(call: Call, stage: SweepStage, most: int) -> int:
    """How many programs share a row tile, each with `most` columns of the result."""
    split = Scope(call.plan.cascade, stage, {}).split
    if split is None:
        return 1
    width = max(call.extent(split), 1)
    return -(-width // min(most, padded(width)))
