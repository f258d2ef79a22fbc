"""Which tiles of rows and of keys hold an equal value: document ids that are in no order.

Intervals of values say little there. The values themselves are joined instead: every row tile with
every key tile that has one of its values, in time of the tokens and of the pairs found. Values in
order need none of this, since their intervals touch only where a value is shared.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from attnc.ir.geometry.intervals import Code
from attnc.ir.geometry.tile_boxes import Boxes, Cut, Tables, blocks_of, digits_of
from attnc.ir.geometry.tile_runs import BoolArray, IntArray, expand, offsets_of

# Points that are evaluated, and pairs that are found, at most; beyond them intervals must do.
_POINTS = 1 << 23
_PAIRS = 1 << 22
# Where a pair of tiles has so many equal values, points that witness them are found sooner.
_COMMON = 64


@dataclass(frozen=True, slots=True)
class EqualTiles:
    """Pairs of tiles, of the axes that the two sides depend on, that share a value.

    row, key:  the pairs, as row-major tiles of `rows` and of `keys`
    known:     per sizes of blocks, the sorted pairs of blocks, each as one number
    """

    rows: tuple[Cut, ...]
    keys: tuple[Cut, ...]
    row: IntArray
    key: IntArray
    known: dict[tuple[int, ...], IntArray] = field(default_factory=dict)

    def holds(self, at: dict[str, IntArray], sizes: dict[str, int]) -> BoolArray:
        """Whether blocks of `sizes` tiles of both sides share a value, by the names of the axes."""
        cuts = (*self.rows, *self.keys)
        mine = tuple(sizes[c.axis.name] for c in cuts)
        counts = [-(-c.axis.tiles // s) for c, s in zip(cuts, mine, strict=True)]
        pairs = self.known.get(mine)
        if pairs is None:
            tiles = [tuple(c.axis.tiles for c in side) for side in (self.rows, self.keys)]
            digits = (*digits_of(self.row, tiles[0]), *digits_of(self.key, tiles[1]))
            places = [d // s for d, s in zip(digits, mine, strict=True)]
            pairs = self.known[mine] = np.unique(_place(list(zip(places, counts, strict=True))))
        wanted = _place([(at[c.axis.name], n) for c, n in zip(cuts, counts, strict=True)])
        if not len(pairs):
            return wanted < 0
        nearest = pairs[np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)]
        found: BoolArray = nearest == wanted
        return found


def equal_tiles(
    a: Code, b: Code, rows: tuple[Cut, ...], keys: tuple[Cut, ...], tables: Tables
) -> EqualTiles | None:
    """The pairs of tiles in which `a`, of rows, equals `b`, of keys and rows that never vary.

    None where intervals are as good, since the values are in order, or where there is too much.
    """
    common = tuple(c for c in rows if b.coordinates & set(c.coordinates))
    used = tuple(c for c in rows if (a.coordinates | b.coordinates) & set(c.coordinates))
    swept = tuple(c for c in keys if b.coordinates & set(c.coordinates))
    if any(c.parts for c in (*used, *swept)):
        return None
    sides = [(a, used), (b, (*common, *swept))]
    if max(prod(c.axis.extent for c in cuts) for _, cuts in sides) > _POINTS:
        return None
    if all(_in_order(code, cuts, common, tables) for code, cuts in sides):
        return None
    left, right = (_values(code, cuts, common, tables) for code, cuts in sides)
    low = min(left.value.min(), right.value.min())
    width = max(left.value.max(), right.value.max()) - low + 1
    if width * prod(c.axis.extent for c in common) >= 1 << 62:
        return None
    counts = [prod(c.axis.tiles for c in cuts) for cuts in (used, (*common, *swept))]
    pairs = _joined(
        _entries(left, low, width, counts[0]),
        _entries(right, low, width, counts[1]),
        min(_PAIRS, _COMMON * counts[0] * counts[1]),
    )
    if pairs is None:
        return None
    return EqualTiles(used, swept, pairs[0], pairs[1] % prod(c.axis.tiles for c in swept))


@dataclass(frozen=True, slots=True)
class _Values:
    """Of each point: its value, its tile, and the coordinates that both sides share as a number."""

    value: IntArray
    tile: IntArray
    group: IntArray


def _values(code: Code, cuts: tuple[Cut, ...], common: tuple[Cut, ...], tables: Tables) -> _Values:
    points = tuple(replace(c, axis=replace(c.axis, tile=1)) for c in cuts)
    spans = blocks_of(points, (1,) * len(points)).spans
    value = np.asarray(Boxes(spans, tables, witness=False).span(code)[0])
    at = {c.axis.name: spans[c.axis.name][0] for c in cuts}
    tile = _place([(at[c.axis.name] // c.axis.tile, c.axis.tiles) for c in cuts])
    return _Values(np.broadcast_to(value, tile.shape), tile, _group(at, common, len(tile)))


def _group(at: dict[str, IntArray], common: tuple[Cut, ...], count: int) -> IntArray:
    if not common:
        return np.zeros(count, np.int64)
    return _place([(at[c.axis.name], c.axis.extent) for c in common])


def _place(digits: list[tuple[IntArray, int]]) -> IntArray:
    """A row-major position."""
    place: IntArray = np.zeros(1, np.int64)
    for at, count in digits:
        place = place * count + at
    return place


def _in_order(code: Code, cuts: tuple[Cut, ...], common: tuple[Cut, ...], tables: Tables) -> bool:
    """Whether values never fall from tile to tile, where the common coordinates stay the same."""
    spans = blocks_of(cuts, (1,) * len(cuts)).spans
    low, high = Boxes(spans, tables, witness=False).span(code)
    at = {c.axis.name: spans[c.axis.name][0] for c in cuts}
    group = _group(at, common, prod(c.axis.tiles for c in cuts))
    low, high = (np.broadcast_to(x, group.shape) for x in (low, high))
    return bool(((high[:-1] <= low[1:]) | (group[:-1] != group[1:])).all())


def _entries(side: _Values, low: int, width: int, tiles: int) -> tuple[IntArray, IntArray]:
    """(value, tile), each pair once, by value; a value counts apart in each group."""
    value = side.group * width + (side.value - low)
    if value.max() < (1 << 62) // tiles:
        both = np.unique(value * tiles + side.tile)
        return both // tiles, both % tiles
    order = np.lexsort((side.tile, value))
    value, tile = value[order], side.tile[order]
    new = np.append(True, (value[1:] != value[:-1]) | (tile[1:] != tile[:-1]))
    return value[new], tile[new]


def _joined(
    a: tuple[IntArray, IntArray], b: tuple[IntArray, IntArray], most: int
) -> tuple[IntArray, IntArray] | None:
    """(tile of a, tile of b) wherever the values are equal; None: more than `most`."""
    first, end = (np.searchsorted(b[0], a[0], side) for side in ("left", "right"))
    if offsets_of(end - first)[-1] > most:
        return None
    return np.repeat(a[1], end - first), b[1][expand(first, end)]
