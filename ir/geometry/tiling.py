"""How a space of points is cut into tiles, and what a predicate over it is evaluated with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attnc.ir.frame import ParamValue


@dataclass(frozen=True, slots=True)
class Axis:
    """A coordinate cut into tiles, which start at multiples of `tile`; the last may be cut short.

    `name` is that of a rank, of a component, or of a coordinate that a predicate was given by
    substitution. `extent` is its length in points.
    """

    name: str
    extent: int
    tile: int

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return -(-self.extent // self.tile)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a predicate depends on besides its coordinates.

    extents:     of every rank and component
    params:      scalars, or tuples of them
    tensors:     captured int and bool tensors, as numpy arrays
    components:  of the ranks that are row-major grids, outermost first
    """

    extents: Mapping[str, int] = field(default_factory=dict)
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    tensors: Mapping[str, Any] = field(default_factory=dict)
    components: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
