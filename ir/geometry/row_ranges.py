"""Tile classes where each row sees one range of keys: read off the first and last row of a tile.

That is exact where neither bound of the ranges ever falls from one row to the next, the rows that
see anything lie side by side, and so do the ranges of two of them. All of this is proved from the
bounds' form, or they are not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf

import numpy as np

from attnc.ir.cascade import Cascade, Rank
from attnc.ir.evaluate import compile_expr
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.frame import Frame, Scope
from attnc.ir.geometry.integers import Integers
from attnc.ir.geometry.polynomial import TooManyTerms
from attnc.ir.geometry.solve_for import Unsolvable, solve_for
from attnc.ir.geometry.tile_runs import IntArray, Runs, offsets_of
from attnc.ir.geometry.tiling import Axis
from attnc.ir.walk import rewrite, subexprs

# What a row's bounds may compute: more than this 64 bits might not hold on the way.
_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class RowRanges:
    """A row sees the keys low <= n < high, clipped to those that there are, and no others."""

    row: str
    low: Expr
    high: Expr

    def at(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Both bounds, at each of some rows."""
        frame = Frame(Scope(), {"": range(len(rows))})
        frame.coordinates[self.row] = rows
        low, high = (compile_expr(e)(frame)[0] for e in (self.low, self.high))
        return np.broadcast_to(low, rows.shape), np.broadcast_to(high, rows.shape)


@lru_cache(maxsize=1024)
def row_ranges(visible: Expr, row: tuple[str, int], key: tuple[str, int]) -> RowRanges | None:
    """The ranges of a predicate without params, over a row and a key by name and extent.

    None where a row may see no single range, or where the tiles' ends might not tell all.
    """
    if any(isinstance(x, Read) for x in subexprs(visible)):
        return None
    cascade = Cascade("", (Rank(row[0]), Rank(key[0])), (), (), (), ())
    known = Integers(cascade, key[0])
    extents: dict[Expr, Expr] = {Extent(name): Number(n) for name, n in (row, key)}
    try:
        low, high = (
            known.polynomial(rewrite(e, extents.get)).expr()
            for e in solve_for(visible, key[0], known)
        )
        return RowRanges(row[0], low, high) if _is_told_by_ends(low, high, row[1], known) else None
    except (Unsolvable, TooManyTerms):
        return None


def range_runs(ranges: RowRanges, rows: Axis, keys: Axis) -> Runs | None:
    """The runs of all tiles; None if no first or last row of a tile sees anything."""
    first = np.arange(0, rows.extent, rows.tile)
    last = np.minimum(first + rows.tile, rows.extent) - 1
    low, high = (x.reshape(2, -1) for x in ranges.at(np.concatenate([first, last])))
    sees = low < high
    if not sees.any():
        # What is seen, if anything, is seen from the middle of one tile.
        return None
    start, stop = np.where(sees.any(0), [low[0], high[1]], 0)
    for tile in np.flatnonzero(sees[0] != sees[1]):
        # The rows that see something begin or end in this tile.
        lows, highs = ranges.at(np.arange(first[tile], last[tile] + 1))
        seen = np.flatnonzero(lows < highs)
        start[tile], stop[tile] = lows[seen[0]], highs[seen[-1]]
    begin, end = start // keys.tile, -(-stop // keys.tile)
    full = -(-low[1] // keys.tile)
    # The last tile may be cut short.
    full_end = np.where(high[0] == keys.extent, keys.tiles, high[0] // keys.tile)
    has_full = full < full_end
    edges = np.stack([begin, np.where(has_full, full, end), np.where(has_full, full_end, end), end])
    starts, stops = edges[:3].T, edges[1:].T
    kept = starts < stops
    is_full = np.broadcast_to([False, True, False], kept.shape)
    offsets = offsets_of(kept.sum(1))
    return Runs(keys.tiles, offsets, starts[kept], stops[kept], is_full[kept])


def _is_told_by_ends(low: Expr, high: Expr, rows: int, known: Integers) -> bool:
    """Whether what a tile's rows see together follows from what its first and its last row see."""
    lows, highs = tuple(_operands("max", low)), tuple(_operands("min", high))
    steps = {e: _step(e) for e in (*lows, *highs)}
    if any(least < 0 for least, _ in steps.values()):
        return False
    if any(_size(e, rows) >= _LIMIT for e in (low, high)):
        return False
    for a in lows:
        for b in highs:
            width = known.polynomial(Apply("sub", (b, a)))
            least, greatest = _step(width.expr())
            # A row sees nothing where some width is 0 or less: before or after a row, not between.
            if least < 0 < greatest:
                return False
            # Of two rows that see something the ranges touch: low(r + 1) <= high(r).
            if min(steps[a][1], steps[b][1]) > max(1, known.bounds(width.expr())[0]):
                return False
    return True


def _operands(op: str, e: Expr) -> Iterator[Expr]:
    match e:
        case Apply(name, (a, b)) if name == op:
            yield from _operands(op, a)
            yield from _operands(op, b)
        case _:
            yield e


def _step(e: Expr) -> tuple[float, float]:
    """The least and the greatest change of an integer expression from one row to the next."""
    match e:
        case Number():
            return 0, 0
        case Index():
            return 1, 1
        case Apply("add", (a, b)):
            (a0, a1), (b0, b1) = _step(a), _step(b)
            return a0 + b0, a1 + b1
        case Apply("sub", (a, b)):
            (a0, a1), (b0, b1) = _step(a), _step(b)
            return a0 - b1, a1 - b0
        case Apply("neg", (a,)):
            least, greatest = _step(a)
            return -greatest, -least
        case Apply("mul", (Number(k), a)) | Apply("mul", (a, Number(k))):
            ends = [k * x if k else 0 for x in _step(a)]
            return min(ends), max(ends)
        case Apply("min" | "max" | "clamp", args):
            parts = [_step(a) for a in args]
            return min(x for x, _ in parts), max(x for _, x in parts)
        case Apply("floordiv", (a, Number(d))) if d > 0:
            least, greatest = _step(a)
            return least // d, -(-greatest // d)
        case _:
            return -inf, inf


def _size(e: Expr, rows: int) -> float:
    """At least as large as any number that computing it meets, but for its sign."""
    match e:
        case Number(value):
            return abs(value)
        case Index():
            return rows
        case Apply("mul", (a, b)):
            return _size(a, rows) * _size(b, rows)
        case Apply(_, args):
            return sum(_size(a, rows) for a in args)
        case _:
            return inf
