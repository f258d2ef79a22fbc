"""How the launcher gets the lists of a kernel: shapes of tiles, then the call that lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from attnc.codegen.tile_lists import TileLists
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Expr, Extent, Param
from attnc.ir.geometry.layout import Layout


@dataclass(frozen=True, slots=True)
class ListCaller:
    """Writes the calls; the functions tell what the launcher calls things.

    number: an expression of extents and params; local: a name of its own
    """

    cascade: Cascade
    tensor: Callable[[str], str]
    number: Callable[[Expr], str]
    block: Callable[[str], str]
    local: Callable[[str], str]
    lead: str

    def lines(
        self, lists: TileLists, permuted: frozenset[str], sides: Mapping[str, str]
    ) -> list[str]:
        """Shapes of tiles, the table of row tiles, the list of key tiles.

        `permuted`: ranks whose tokens some tensor has in the order of tiles; `sides`: by rank, the
        sides of tiles, or the name of what has them or is None.
        """
        found = []
        for layout in (lists.row, lists.swept):
            if layout is not None and not layout.is_flat:
                found += self._shape(layout, sides.get(layout.rank))
                found += self._order(layout) if layout.rank in permuted else []
        tensors = ", ".join(self.tensor(t) for t in lists.tensors)
        tensors += "," if len(lists.tensors) == 1 else ""
        numbers = [
            *(self.number(Extent(r)) for r in lists.extents),
            *(self._param(p) for p in lists.params),
            *(self.step(c) for c in lists.steps),
            *(self.block(c) for c in lists.tiles),
        ]
        made = f"{self.local('row_table')}, {self.local('key_tiles')}"
        arguments = ", ".join((lists.name, self.lead, f"({tensors})", *numbers))
        return [*found, f"{made} = _kept({arguments})"]

    def step(self, coordinate: str) -> str:
        """How far apart the places of a tile are."""
        return self.local(f"step_{coordinate}")

    def _shape(self, layout: Layout, given: str | None) -> list[str]:
        lines, block = [], self.block(layout.rank)
        lengths = [self.number(Extent(c)) for c in layout.coordinates]
        if layout.is_stepped:
            wished = ["1" if a.step is None else self.number(a.step) for a in layout.axes]
            names = ["_" if a.step is None else self.step(a.coordinate) for a in layout.axes]
            target = f"{', '.join(names)}{',' if len(names) == 1 else ''}"
            lines.append(f"{target} = _steps({block}, {_tuple(lengths)}, {_tuple(wished)})")
            lengths = [
                n if name == "_" else f"triton.cdiv({n}, {name})"
                for n, name in zip(lengths, names, strict=True)
            ]
        if len(layout.axes) > 1:
            target = ", ".join(self.block(c) for c in layout.coordinates)
            rule = f"_tile_shape({block}, {_tuple(lengths)})"
            if given is None:
                lines.append(f"{target} = {rule}")
            elif given.startswith("("):
                lines.append(f"{target} = {given[1:-1]}")
            else:
                lines.append(f"{target} = {given} or {rule}")
        return lines

    def order(self, rank: str) -> str:
        """The tokens in the order of tiles."""
        return self.local(f"order_{rank}")

    def places(self, rank: str) -> str:
        """Of each token, where it stands in that order."""
        return self.local(f"places_{rank}")

    def _order(self, layout: Layout) -> list[str]:
        lengths = [self.number(Extent(c)) for c in layout.coordinates]
        steps = ["1" if a.step is None else self.step(a.coordinate) for a in layout.axes]
        sides = [self.block(c) for c in layout.coordinates]
        numbers = ", ".join(map(_tuple, (lengths, steps, sides)))
        target = f"{self.order(layout.rank)}, {self.places(layout.rank)}"
        return [f"{target} = _kept(_tile_order, {self.lead}, (), {numbers})"]

    def _param(self, name: str) -> str:
        """Hashable: torch passes several items as a list."""
        declared = next(p for p in self.cascade.params if p.name == name)
        text = self.number(Param(name))
        return f"tuple({text})" if declared.length else text


def _tuple(items: list[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
