"""The coordinates of a kernel's tiles: those counted from its first place, all, which exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attnc.codegen.scope import Scope
from attnc.ir.geometry.layout import Layout, TileAxis

Definition = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Definitions, name and value; `local` ones are the same for all tiles."""

    local: tuple[Definition, ...]
    moving: tuple[Definition, ...]


def tile_coordinates(
    scope: Scope, layout: Layout, component: Callable[[str, str], str]
) -> Coordinates:
    """Of a rank whose tiles start at `scope.start(rank)`.

    `component` gives a coordinate of a component out of all of its rank's.
    """
    rank = layout.rank
    start, local, offsets = scope.start(rank), scope.local(rank), scope.offsets(rank)
    parts = scope.cascade.rank(rank).components
    place = (scope.inner_place(rank), scope.arange(scope.block(rank)))
    # a row tile may begin beyond all tokens
    at = start
    if layout.is_ragged and rank == scope.stage.row:
        at = f"tl.minimum({start}, {scope.extent(rank)} - 1)"
    begins = (scope.outer_place(rank), f"tl.load({scope.places(rank)} + {at})")
    if layout.is_flat:
        places: tuple[Definition, ...] = ((local, place[1]),)
    else:
        places = (place, (local, f"{place[0]}{_times(scope, layout.axes[0])}"))
    if layout.coordinates == (rank,):
        return Coordinates(
            places,
            (
                begins,
                (offsets, f"{start} + {local}"),
                (scope.inside(rank), f"{offsets} < {scope.extent(rank)}"),
                *((scope.offsets(c), component(c, rank)) for c in parts),
            ),
        )
    edges = " & ".join(f"({scope.offsets(c)} < {scope.extent(c)})" for c in parts)
    return Coordinates(
        (place, *_local_grid(scope, layout)),
        (
            begins,
            (offsets, f"{start} + {local}"),
            *(d for c in parts for d in _along(scope, c, _first(scope, c, parts, start))),
            (scope.inside(rank), edges),
        ),
    )


def _along(scope: Scope, component: str, first: str) -> tuple[Definition, ...]:
    """The coordinates of a component, which start at `first`: a box needs a name for that."""
    own = (scope.offsets(component), f"{{}} + {scope.local(component)}")
    if not scope.boxes:
        return ((own[0], own[1].format(first)),)
    start = scope.start(component)
    return ((start, first), (own[0], own[1].format(start)))


def _local_grid(scope: Scope, layout: Layout) -> tuple[Definition, ...]:
    """Places of a tile along each component, and as one number."""
    rank, parts = layout.rank, layout.coordinates
    place, found = scope.inner_place(rank), list[Definition]()
    for i, axis in enumerate(layout.axes):
        inner = " * ".join(scope.block(c) for c in parts[i + 1 :])
        inner = f"({inner})" if i + 2 < len(parts) else inner
        at = f"{place} // {inner}" if inner else place
        at = f"{at} % {scope.block(axis.coordinate)}" if i else at
        found.append((scope.local(axis.coordinate), f"{at}{_times(scope, axis)}"))
    whole = scope.local(parts[0])
    for c in parts[1:]:
        whole = f"({whole})" if "+" in whole else whole
        whole = f"{whole} * {scope.extent(c)} + {scope.local(c)}"
    return (*found, (scope.local(rank), whole))


def _times(scope: Scope, axis: TileAxis) -> str:
    return "" if axis.step is None else f" * {scope.step(axis.coordinate)}"


def _first(scope: Scope, component: str, parts: tuple[str, ...], start: str) -> str:
    """A component of a tile's first coordinate."""
    i = parts.index(component)
    inner = " * ".join(scope.extent(c) for c in parts[i + 1 :])
    inner = f"({inner})" if i + 2 < len(parts) else inner
    at = f"{start} // {inner}" if inner else start
    return f"{at} % {scope.extent(component)}" if i else at
