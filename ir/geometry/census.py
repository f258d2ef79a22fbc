"""Count the tiles that a mask visits, exactly: what a setting can gain before any kernel is run.

A query tile visits the key tiles that hold a point which one of its queries sees; a visited tile is
full if every query of the tile sees every key of it. Counts of independent axes multiply, so only
single axes, or those that a condition ties together, are ever enumerated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Literal, TypeAlias

import numpy as np

from attnc.ir.expr import Expr
from attnc.ir.geometry.count_flat_tiles import SeenTokens, count_flat_tiles, seen_tokens
from attnc.ir.geometry.count_points import count_points
from attnc.ir.geometry.dilation import Dilation, Problem, dilation_groups, dilations
from attnc.ir.geometry.put_in_numbers import put_in_numbers
from attnc.ir.geometry.shifted_tiles import shifted_tiles
from attnc.ir.geometry.tile_classes import axis_groups, conditions_on, tile_classes
from attnc.ir.geometry.tile_runs import IntArray, Runs
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.presence import conjunction, conjuncts
from attnc.ir.visibility import Visibility
from attnc.ir.walk import index_ranks

# Where key tiles start: at multiples of their size, or at the first key that a query tile sees.
KeyTiles: TypeAlias = Literal["static", "dynamic"]


@dataclass(frozen=True, slots=True)
class Part:
    """The counts of axes that no condition ties to the others, over all dilation groups of theirs.

    visited:    [query tiles] key tiles that each visits
    full:       [query tiles] of these, those that are full
    key_tiles:  key tiles on the fixed grid
    visible:    pairs of a query and a key that it sees, of `points`
    padded:     points of the query tiles and of the key tiles, those past an end included
    dilations:  the axes that are taken apart into groups, if any are
    """

    rows: tuple[Axis, ...]
    keys: tuple[Axis, ...]
    visited: IntArray
    full: IntArray
    key_tiles: int
    visible: int
    padded: tuple[int, int]
    dilations: tuple[Dilation, ...] = ()

    @property
    def query_tiles(self) -> int:
        return len(self.visited)

    @property
    def points(self) -> int:
        return prod(a.extent for a in (*self.rows, *self.keys))


@dataclass(frozen=True, slots=True)
class Census:
    """The counts of a mask under a tile shape, over all query tiles.

    With dilation groups, a query tile and a key tile hold tokens of one group; maximum, mean and
    minimum are over the query tiles of all groups alike, whatever their lengths.
    """

    grid: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    keys: tuple[Axis, ...]
    parts: tuple[Part, ...]

    @property
    def query_tiles(self) -> int:
        return prod(p.query_tiles for p in self.parts)

    @property
    def key_tiles(self) -> int:
        return prod(p.key_tiles for p in self.parts)

    @property
    def visited(self) -> int:
        """Pairs of tiles that are visited."""
        return prod(int(p.visited.sum()) for p in self.parts)

    @property
    def full(self) -> int:
        """Pairs of tiles that are full."""
        return prod(int(p.full.sum()) for p in self.parts)

    @property
    def partial(self) -> int:
        return self.visited - self.full

    @property
    def empty(self) -> int:
        """Pairs of tiles, on the fixed grid, less those that are visited."""
        return self.query_tiles * self.key_tiles - self.visited

    @property
    def most(self) -> int:
        """The most key tiles that a query tile visits; 0 without query tiles."""
        return prod(int(p.visited.max()) for p in self.parts) if self.query_tiles else 0

    @property
    def fewest(self) -> int:
        return prod(int(p.visited.min()) for p in self.parts) if self.query_tiles else 0

    @property
    def mean(self) -> float:
        return self.visited / self.query_tiles if self.query_tiles else 0.0

    @property
    def fully_block_sparse(self) -> bool:
        """Whether every visited tile is full, so that no kernel needs the mask."""
        return self.visited == self.full

    @property
    def visible(self) -> int:
        """Pairs of a query and a key that it sees."""
        return prod(p.visible for p in self.parts)

    @property
    def points(self) -> int:
        """All pairs of a query and a key."""
        return prod(a.extent for a in (*self.grid, *self.rows, *self.keys))

    @property
    def padding(self) -> tuple[float, float]:
        """Tokens that the tiles hold, per token that there is: of queries, of keys."""
        queries, keys = (prod(p.padded[i] for p in self.parts) for i in (0, 1))
        there = prod(a.extent for a in (*self.grid, *self.rows))
        return _ratio(queries, there, 1.0), _ratio(keys, prod(a.extent for a in self.keys), 1.0)

    # what can be gained over attention without a mask -------------------------------------------

    @property
    def flop(self) -> float:
        """By the points alone: what a kernel could gain that skips single points."""
        return _ratio(self.points, self.visible)

    @property
    def tile_max(self) -> float:
        """By the query tile with most work: all tiles at once, the slowest decides."""
        return _ratio(prod(a.tiles for a in self.keys) * bool(self.query_tiles), self.most)

    @property
    def tile_mean(self) -> float:
        """By the work of a query tile on average: tiles keep all processors busy."""
        return _ratio(prod(a.tiles for a in self.keys) * self.query_tiles, self.visited)

    @property
    def tile_total(self) -> float:
        """By all the work: tiles of one token order without a mask, over those visited.

        Dense attention cuts the flat sequence, so only the mask's tiles pay for the padding of
        several axes and groups.
        """
        grid = prod(a.extent for a in self.grid)
        return _ratio(grid * _flat_tiles(self.rows) * _flat_tiles(self.keys), self.visited)


def _ratio(a: int, b: int, nothing: float = float("nan")) -> float:
    if b:
        return a / b
    return float("inf") if a else nothing


def _flat_tiles(axes: tuple[Axis, ...]) -> int:
    """Tiles of the same number of tokens along the flat rank."""
    return -(-prod(a.extent for a in axes) // prod(a.tile for a in axes))


def census(
    visibility: Visibility,
    grid: tuple[Axis, ...],
    rows: tuple[Axis, ...],
    keys: tuple[Axis, ...],
    bound: Bound,
    *,
    start: KeyTiles = "static",
    grouped: bool = True,
    points: bool = True,
    known: dict[Problem, Part] | None = None,
) -> Census:
    """Count the tiles of `rows` and `keys` (ranks or components) at each point of `grid`.

    `grouped`: tiles hold tokens of one dilation group. `points`: visible points are counted, too
    (else they are 0), which takes longer than the tiles. `known` remembers parts between calls that
    differ in the mask or in the tiles, and in nothing else.
    """
    known = {} if known is None else known
    tokens = _tokens_of_grids(visibility, grid, rows, keys, bound)
    if tokens is not None:
        return Census(grid, rows, keys, (_flat_part(tokens, rows, keys, start),))
    queries, components = (*grid, *rows), tuple(bound.components.items())
    parts = []
    for names, some, every in _apart(visibility, (*queries, *keys), components):
        here = put_in_numbers(some, bound)
        whole = here if every == some else put_in_numbers(every, bound)
        mine, swept = (tuple(a for a in axes if a.name in names) for axes in (queries, keys))
        problem = Problem((here, whole), mine, swept)
        parts.append(_part(problem, bound, (start, grouped, points), known))
    return Census(grid, rows, keys, tuple(parts))


@lru_cache(maxsize=256)
def _apart(
    visibility: Visibility,
    axes: tuple[Axis, ...],
    components: tuple[tuple[str, tuple[str, ...]], ...],
) -> tuple[tuple[frozenset[str], Expr, Expr], ...]:
    """(axes by name, `some`, `every`) of each group of axes that no condition connects."""
    bound = Bound(components=dict(components))
    sides = [conjuncts(e) for e in (visibility.some, visibility.every)]
    groups = axis_groups(tuple(dict.fromkeys((*sides[0], *sides[1]))), axes, bound)
    found = []
    for names in groups:
        some, every = (conjunction(conditions_on(side, names, bound)) for side in sides)
        found.append((names, some, every))
    return tuple(found)


def _part(
    problem: Problem, bound: Bound, how: tuple[KeyTiles, bool, bool], known: dict[Problem, Part]
) -> Part:
    """The counts of one group of axes; those of its dilation groups together."""
    part = known.get(problem)
    start, grouped, points = how
    if part is None:
        found = dilations(problem, bound) if grouped else ()
        if found:
            groups = dilation_groups(problem, found)
            each = [_part(g, bound, (start, False, points), known) for g in groups]
            part = _together(problem, found, each)
        else:
            part = _count(problem, bound, start, points)
        known[problem] = part
    return part


def _together(problem: Problem, found: tuple[Dilation, ...], groups: list[Part]) -> Part:
    return Part(
        problem.rows,
        problem.keys,
        np.concatenate([np.zeros(0, np.int64), *(g.visited for g in groups)]),
        np.concatenate([np.zeros(0, np.int64), *(g.full for g in groups)]),
        sum(g.key_tiles for g in groups),
        sum(g.visible for g in groups),
        (sum(g.padded[0] for g in groups), sum(g.padded[1] for g in groups)),
        found,
    )


def _count(problem: Problem, bound: Bound, start: KeyTiles, points: bool) -> Part:
    rows, keys = problem.rows, problem.keys
    visited = full = np.ones(1, np.int64)
    for each in _classified(problem, bound, start):
        more = shifted_tiles(*each) if start == "dynamic" else fixed_tiles(*each)
        visited, full = (np.outer(a, b).ravel() for a, b in zip((visited, full), more, strict=True))
    visible = count_points(problem.predicates[0], rows, keys, bound) if points else 0
    padded = tuple(prod(a.tiles * a.tile for a in axes) for axes in (rows, keys))
    return Part(
        rows,
        keys,
        visited,
        full,
        prod(a.tiles for a in keys),
        visible,
        (padded[0], padded[1]),
    )


def _classified(
    problem: Problem, bound: Bound, start: KeyTiles
) -> Iterator[tuple[Runs, Runs, tuple[Axis, ...]]]:
    """Per independent group of axes: where something is visible, where everything is, the keys."""
    some, every = problem.predicates
    rows, keys = problem.rows, problem.keys
    cut = _points(keys) if start == "dynamic" else keys
    classes = tile_classes(some, rows, cut, bound)
    if some != every:
        yield classes.runs(), tile_classes(every, rows, cut, bound).runs(), keys
        return
    for factor in classes.factors:
        names = {a.name for a in factor.keys}
        yield factor.runs, factor.runs, tuple(a for a in keys if a.name in names)


def fixed_tiles(some: Runs, every: Runs, keys: tuple[Axis, ...]) -> tuple[IntArray, IntArray]:
    """(visited, full) key tiles of each query tile, on the fixed grid on which the runs are."""
    return some.visited(), every.full_tiles()


def _tokens_of_grids(
    visibility: Visibility,
    grid: tuple[Axis, ...],
    rows: tuple[Axis, ...],
    keys: tuple[Axis, ...],
    bound: Bound,
) -> SeenTokens | None:
    """What flattened grids see, if the predicates read their components, and few at a time."""
    flat = [a.name for a in (*rows, *keys) if a.name in bound.components]
    if not flat or len(rows) != 1 or len(keys) != 1:
        return None
    read = index_ranks(visibility.some) | index_ranks(visibility.every)
    if all(read.isdisjoint(bound.components[name]) for name in flat):
        return None
    sides = (bound.components.get(a.name, (a.name,)) for a in (*rows, *keys))
    apart = [tuple(Axis(c, bound.extents[c], 1) for c in parts) for parts in sides]
    some, every = (put_in_numbers(e, bound) for e in (visibility.some, visibility.every))
    return seen_tokens(some, every, grid, apart[0], apart[1], bound)


def _flat_part(
    tokens: SeenTokens, rows: tuple[Axis, ...], keys: tuple[Axis, ...], start: KeyTiles
) -> Part:
    sizes = rows[0].tile, keys[0].tile
    found = count_flat_tiles(tokens, sizes, shifted=start == "dynamic")
    padded = prod(a.extent for a in tokens.grid) * rows[0].tiles * rows[0].tile
    return Part(
        (*tokens.grid, *rows),
        keys,
        found.visited,
        found.full,
        found.key_tiles,
        tokens.visible,
        (padded, keys[0].tiles * keys[0].tile),
    )


def _points(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    return tuple(replace(a, tile=1) for a in axes)
