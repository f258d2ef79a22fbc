"""Closures that compute the lets of a sweep stage in a tile, on torch tensors.

All values of a tile are laid out on the same axes (grid, row, swept, the rest), length 1 where they
do not vary, so operands broadcast. The operators are the evaluator's; a plan has made absence
explicit. A value that nothing reads again is overwritten: scores are the size of a tile, and each
copy of them costs as much as an addition.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from attnc.ir.arrays import Array, is_scalar
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.frame import Frame, Pair
from attnc.ir.gather import read as gather
from attnc.ir.operators import RULES
from attnc.ir.ops import REDUCTIONS
from attnc.ir.plan import Dot, Fold, Load, Serial, Value
from attnc.ir.statements import split
from attnc.runtime.hidden import is_mark
from attnc.runtime.products import Product
from attnc.runtime.tile_frame import Tile, cut_out

# Points of a tile, all grid points together: its few temporaries stay in the cache.
TILE_POINTS = 1 << 19


Code: TypeAlias = Callable[[Tile], Array]
Reader: TypeAlias = Callable[[Read], Code]
# The lets that may be overwritten where they are read: it is the last time, and the only holder.
Spent: TypeAlias = frozenset[str]


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


def _extremum(function: Callable[..., Tensor], bound: str) -> Callable[..., Tensor]:
    """`max` or `min` of two tensors, or of a tensor and a number."""

    def apply(a: Array, b: Array, out: Tensor) -> Tensor:
        if is_scalar(a) or is_scalar(b):
            x, limit = (b, a) if is_scalar(a) else (a, b)
            return torch.clamp(x, **{bound: limit}, out=out)
        return function(a, b, out=out)

    return apply


def _subtract(a: Array, b: Array, out: Tensor) -> Tensor:
    return torch.sub(b, a, out=out).neg_() if is_scalar(a) else torch.sub(a, b, out=out)


def _product(a: Array, b: Array, out: Tensor) -> Tensor:
    return torch.mul(b, a, out=out) if is_scalar(a) else torch.mul(a, b, out=out)


def _sum(a: Array, b: Array, out: Tensor) -> Tensor:
    return torch.add(b, a, out=out) if is_scalar(a) else torch.add(a, b, out=out)


# Operators that can put their result in the place of an operand.
_IN_PLACE: dict[str, Callable[..., Tensor]] = {
    "add": _sum,
    "sub": _subtract,
    "mul": _product,
    "max": _extremum(torch.maximum, "min"),
    "min": _extremum(torch.minimum, "max"),
    "exp": torch.exp,
    "exp2": torch.exp2,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": lambda x, out: torch.relu_(x),
}


def compile_tile_expr(e: Expr, read: Reader, spent: Spent = frozenset()) -> Code:
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
            codes = tuple(compile_tile_expr(a, read, spent) for a in args)
            return _choice(e, codes, spent) if op == "select" else _in_place(e, codes, spent)


def _operator(e: Apply, codes: tuple[Code, ...]) -> Code:
    if e.op in _PLAIN:
        plain, (a, b) = _PLAIN[e.op], codes
        return lambda tile: plain(a(tile), b(tile))
    rule = RULES[e.op](e, tuple(map(_paired, codes)))
    return lambda tile: rule(tile)[0]


def fresh(e: Expr, spent: Spent) -> bool:
    """Whether the value of an expression is one that nothing else holds."""
    match e:
        case Read(name, _):
            return name in spent
        case Apply("float" | "stopgrad", (x,)):
            return fresh(x, spent)
        case Apply("select", (test, a, b)):
            return is_mark(test) or (fresh(a, spent) and fresh(b, spent))
        case Apply(op, _):
            return op not in ("or_else", "given")
        case _:
            return False


def _in_place(e: Apply, codes: tuple[Code, ...], spent: Spent) -> Code:
    """The operator with its result in the place of an operand, where one has the result's form."""
    place = next((i for i, a in enumerate(e.args) if fresh(a, spent)), None)
    function = _IN_PLACE.get(e.op)
    if place is None or function is None:
        return _operator(e, codes)
    plain = _operator(e, tuple(_operand(i) for i in range(len(codes))))

    def run(tile: Tile) -> Array:
        values = [code(tile) for code in codes]
        x = values[place]
        if not is_scalar(x) and x.is_floating_point() and all(covers(x, y) for y in values):
            return function(*values, out=x)
        tile.operands = values
        return plain(tile)

    return run


def _operand(i: int) -> Code:
    return lambda tile: tile.operands[i]


def covers(x: Tensor, y: Array) -> bool:
    """Whether y, broadcast against x, has x's shape."""
    if x is y or is_scalar(y) or x.shape == y.shape:
        return True
    return all(n in (1, m) for m, n in zip(x.shape, y.shape, strict=True))


def _choice(e: Apply, codes: tuple[Code, ...], spent: Spent) -> Code:
    test, then, _ = e.args
    if isinstance(test, Read) and is_mark(test):
        return _masked(test.tensor, codes[1], codes[2], fresh(then, spent))
    return _select(*codes)


def _masked(mask: str, then: Code, otherwise: Code, owned: bool) -> Code:
    """`then` but in the parts of the tile where the mask has to be looked at."""

    def run(tile: Tile) -> Array:
        parts = tile.hidden[mask]
        x = tile.lift(then(tile))
        shape = parts[0].shape(tile.shape)
        if not all(n in (1, m) for m, n in zip(x.shape, shape, strict=True)):
            x = x.expand([max(m, n) for m, n in zip(x.shape, shape, strict=True)]).clone()
        elif not owned:
            x = x.clone()
        fill = otherwise(tile)
        for part in parts:
            part.hide(x, fill)
        return x

    return run


def _select(condition: Code, then: Code, otherwise: Code) -> Code:
    def run(tile: Tile) -> Array:
        chosen = condition(tile)
        if is_scalar(chosen):
            return (then if chosen else otherwise)(tile)
        a = then(tile)
        # Away from the mask's boundary nothing is hidden; a mask is small beside the scores.
        if not is_scalar(a) and chosen.numel() < a.numel() and holding(chosen) == chosen.numel():
            return a
        b = otherwise(tile)
        if is_scalar(a) and not is_scalar(b) and b.is_floating_point() and covers(b, chosen):
            return b.masked_fill(chosen, a)
        return torch.where(chosen, a, tile.lift(b))

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


def _load(e: Read, inside: Reader) -> Code:
    """A part of a tensor in memory, in the computation's precision; `inside` reads for indices."""
    code = gather(e, lambda index: _paired(compile_tile_expr(index, inside)))
    nowhere: list[Array] = []

    def run(tile: Tile) -> Array:
        # No point counts: as in a kernel, what an index hidden by a mask reads does not matter.
        if not nowhere:
            nowhere.append(tile.lift(False))
        tile.guard = nowhere[0]
        x, _ = code(tile)
        tile.guard = None
        return tile.arrays.asarray(x, tile.dtype) if tile.arrays.is_float(x) else x

    return run


# values of lets ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where lets are computed: `axes` numbers the ranks, `memory` names the tensors that are no
    lets, `row` is the rank whose tiles follow one another.
    """

    axes: Mapping[str, int]
    memory: frozenset[str]
    row: str | None


def compile_value(value: Value, place: Place, spent: Spent = frozenset()) -> Code:
    """The closure that computes a let in a tile, overwriting what is `spent`."""
    axes = place.axes
    match value:
        case Load(read):
            return _slice(read, place) or _load(read, read_let)
        case Dot(left, right, over, plus):
            a, b = (compile_tile_expr(x, read_let, spent) for x in (left, right))
            if plus is None:
                return _dot(a, b, axes[over])
            c = compile_tile_expr(plus, read_let, spent)
            return _dot_plus(a, b, axes[over], c, fresh(plus, spent))
        case Fold(op, body, over):
            return _fold(op, compile_tile_expr(body, read_let, spent), axes[over])
        case Serial(op, body, over):
            return _serial(op, compile_tile_expr(body, _either(place.memory)), over, axes[over])
        case _:
            return compile_tile_expr(value, read_let, spent)


def _slice(e: Read, place: Place) -> Code | None:
    """A load that only cuts along ranks: of a view on the axes of tiles, made once per call."""
    ranks = tuple(i.rank for i in e.indices if isinstance(i, Index))
    if len(set(ranks)) < len(e.indices) or not set(ranks) <= place.axes.keys():
        return None
    key, gathered = object(), _load(e, read_let)
    cuts = sorted((place.axes[r], r) for r in ranks)
    often = place.row not in ranks

    def run(tile: Tile) -> Array:
        held = tile.scope.tensors[e.tensor].data
        if held.shape != tuple(tile.scope.extents[r] for r in ranks):
            return gathered(tile)
        x = tile.whole.view(key, lambda: _laid_out(held, ranks, tile, often))
        x = cut_out(x, cuts, tile)
        return x if often or not x.is_floating_point() else tile.arrays.asarray(x, tile.dtype)

    return run


def _laid_out(x: Tensor, ranks: tuple[str, ...], tile: Tile, often: bool) -> Tensor:
    """x with an axis per axis of the tile; what is read `often` in the tile's type, in a row.

    Nothing is copied that grows with rows x swept: what is read by each row tile lacks the rows.
    """
    if often and x.is_floating_point():
        x = tile.arrays.asarray(x, tile.dtype)
        x = x if 0 in x.stride() else x.contiguous()
    order = sorted(range(len(ranks)), key=lambda i: tile.axis[ranks[i]])
    x = x.permute(order)
    for axis, rank in enumerate(tile.box):
        if rank not in ranks:
            x = x.unsqueeze(axis)
    return x


def is_fresh(value: Value, spent: Spent) -> bool:
    """Whether a let's value is one that nothing else holds: not a part of a tensor in memory."""
    match value:
        case Dot():
            return True
        case Load() | Serial() | Fold():
            return False
        case _:
            return fresh(value, spent)


def _either(tensors: frozenset[str]) -> Reader:
    """Reads of tensors in memory by name, and of lets."""

    def read(e: Read) -> Code:
        return _load(e, read) if e.tensor in tensors else read_let(e)

    return read


def _dot(left: Code, right: Code, over: int) -> Code:
    product = Product(over)
    return lambda tile: product(tile.lift(left(tile)), tile.lift(right(tile)), tile.shape)


def _dot_plus(left: Code, right: Code, over: int, plus: Code, owned: bool) -> Code:
    product = Product(over)

    def run(tile: Tile) -> Array:
        a, b = tile.lift(left(tile)), tile.lift(right(tile))
        c = plus(tile)
        if owned and not is_scalar(c) and product.add_to(c, a, b):
            return c
        return c + product(a, b, tile.shape)

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
            inner.hidden = tile.hidden
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
