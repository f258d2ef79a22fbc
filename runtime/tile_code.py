"""Closures that compute the lets of a sweep stage in a tile, on torch tensors.

All values of a tile are laid out on the same axes (grid, row, swept, the rest), length 1 where they
do not vary, so operands broadcast. The operators are the evaluator's; a plan has made absence
explicit.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from attnc.ir.arrays import Array, is_scalar
from attnc.ir.contract import contract
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.frame import Box, Frame, Pair, Scope
from attnc.ir.gather import read as gather
from attnc.ir.operators import RULES
from attnc.ir.ops import REDUCTIONS
from attnc.ir.plan import Dot, Fold, Load, Serial, Value
from attnc.ir.statements import split

# Points of a tile, all grid points together: its few temporaries stay in the cache.
TILE_POINTS = 1 << 18


class Tile(Frame):
    """The frame of one tile, with the lets and states known in it.

    `window` restricts a let's axis: a serial loop visits a contracted rank piece by piece.
    """

    __slots__ = ("values", "window")

    def __init__(self, scope: Scope, box: Box, values: Mapping[str, Array]) -> None:
        super().__init__(scope, box)
        self.values = dict(values)
        self.window: tuple[int, range] | None = None


Code: TypeAlias = Callable[[Tile], Array]


# expressions -------------------------------------------------------------------------------------


def _paired(code: Code) -> Callable[[Frame], Pair]:
    """As the evaluator's operators want it: with a presence (a plan has made absence explicit)."""

    def run(frame: Frame) -> Pair:
        assert isinstance(frame, Tile)
        return code(frame), None

    return run


def _divide(a: Array, b: Array) -> Array:
    # A scalar that divides by 0 is absent, and so is what it would be used for; or it was taken out
    # of sums over nothing, which any positive number scales to 0 (and leaves -inf what it is).
    return 1.0 if is_scalar(b) and b == 0 else a / b


# Where the evaluator looks for absent points, which a plan does not have.
_PLAIN: dict[str, Callable[[Array, Array], Array]] = {"sub": operator.sub, "div": _divide}


def compile_tile_expr(e: Expr, read: Callable[[Read], Code]) -> Code:
    """The closure that evaluates an expression in a tile; `read` says what a read means."""
    match e:
        case Number(value):
            return lambda tile: value
        case Index(rank):
            return lambda tile: tile.coordinate(rank)
        case Extent(rank):
            return lambda tile: tile.scope.extents[rank]
        case Param(name, item):
            return lambda tile: tile.scope.param(name, item)
        case Read():
            return read(e)
        case Apply(op, args):
            codes = tuple(compile_tile_expr(a, read) for a in args)
            if op == "select":
                return _select(*codes)
            if op in _PLAIN:
                plain, (a, b) = _PLAIN[op], codes
                return lambda tile: plain(a(tile), b(tile))
            rule = RULES[op](e, tuple(map(_paired, codes)))
            return lambda tile: rule(tile)[0]


def _select(condition: Code, then: Code, otherwise: Code) -> Code:
    def run(tile: Tile) -> Array:
        chosen = condition(tile)
        if is_scalar(chosen):
            return (then if chosen else otherwise)(tile)
        a = then(tile)
        # Away from the mask's boundary nothing is hidden; a mask is small beside the scores.
        if not is_scalar(a) and chosen.numel() < a.numel() and holding(chosen) == chosen.numel():
            return a
        return torch.where(chosen, a, tile.lift(otherwise(tile)))

    return run


def holding(mask: Tensor) -> int:
    """At how many points a mask holds; much faster than torch's `any` and `all`."""
    return int(torch.count_nonzero(mask))


def read_let(e: Read) -> Code:
    """A read of a let or a state: it is laid out on the tile's axes already."""
    name = e.tensor

    def run(tile: Tile) -> Array:
        x = tile.values[name]
        if tile.window is None or is_scalar(x):
            return x
        axis, span = tile.window
        return x if x.shape[axis] == 1 else x.narrow(axis, span.start, len(span))

    return run


def read_memory(e: Read) -> Code:
    """A part of a tensor in memory; what an index reads is in memory, too."""
    return _load(e, read_memory)


def _load(e: Read, inside: Callable[[Read], Code]) -> Code:
    """A part of a tensor in memory, in the computation's precision; `inside` reads for indices."""
    code = gather(e, lambda index: _paired(compile_tile_expr(index, inside)))
    computed = any(isinstance(i, Apply | Read) for i in e.indices)

    def run(tile: Tile) -> Array:
        # No point counts: as in a kernel, what an index hidden by a mask reads does not matter.
        tile.guard = tile.lift(False) if computed else None
        x, _ = code(tile)
        tile.guard = None
        return tile.arrays.asarray(x, tile.dtype) if tile.arrays.is_float(x) else x

    return run


# values of lets ----------------------------------------------------------------------------------


def compile_value(value: Value, axes: Mapping[str, int], tensors: frozenset[str]) -> Code:
    """The closure that computes a let in a tile. `axes` places ranks, `tensors` are in memory."""
    match value:
        case Load(read):
            return _load(read, read_let)
        case Dot(left, right, over, plus):
            added = None if plus is None else compile_tile_expr(plus, read_let)
            factors = (compile_tile_expr(left, read_let), compile_tile_expr(right, read_let))
            return _dot(*factors, axes[over], added)
        case Fold(op, body, over):
            return _fold(op, compile_tile_expr(body, read_let), axes[over])
        case Serial(op, body, over):
            return _serial(op, compile_tile_expr(body, _either(tensors)), over, axes[over])
        case _:
            return compile_tile_expr(value, read_let)


def _either(tensors: frozenset[str]) -> Callable[[Read], Code]:
    """Reads of tensors in memory by name, and of lets."""

    def read(e: Read) -> Code:
        return _load(e, read) if e.tensor in tensors else read_let(e)

    return read


def _dot(left: Code, right: Code, over: int, plus: Code | None) -> Code:
    reduced = frozenset({over})

    def run(tile: Tile) -> Array:
        factors = [tile.lift(left(tile)), tile.lift(right(tile))]
        product = contract(tile.arrays, factors, reduced, tile.shape)
        return product if plus is None else product + plus(tile)

    return run


def _fold(op: str, body: Code, axis: int) -> Code:
    declared = REDUCTIONS[op]

    def run(tile: Tile) -> Array:
        x, n = tile.lift(body(tile)), tile.shape[axis]
        if n == 0:
            return tile.lift(declared.identity)
        if x.shape[axis] == n:
            return tile.arrays.reductions[op](x, (axis,))
        if declared.idempotent:
            return x
        return x * n if declared.combine == "add" else x**n

    return run


def _serial(op: str, body: Code, over: str, axis: int) -> Code:
    """In pieces of the contracted rank: all of it at once would hold rows x swept x over points."""
    fold = _fold(op, body, axis)
    combine = _combine(op)

    def run(tile: Tile) -> Array:
        whole = tile.box[over]
        points = prod(n for i, n in enumerate(tile.shape) if i != axis)
        total: Array = None
        for span in split(whole, -(-len(whole) * max(1, points) // TILE_POINTS)):
            inner = Tile(tile.scope, {**tile.box, over: span}, tile.values)
            inner.window = (axis, span)
            piece = fold(inner)
            total = piece if total is None else combine(total, piece)
        return total

    return run


def _combine(op: str) -> Callable[[Tensor, Tensor], Tensor]:
    merge: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "add": torch.add,
        "mul": torch.mul,
        "max": torch.maximum,
        "min": torch.minimum,
        "or": torch.logical_or,
        "and": torch.logical_and,
    }
    return merge[REDUCTIONS[op].combine]
