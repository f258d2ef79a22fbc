"""What the ints of a call may be: indices, lengths, or ids, found from how the spec reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from attnc.ir.cascade import Cascade
from attnc.ir.expr import Apply, Expr, Index, Number, Read
from attnc.ir.frame import ParamValue
from attnc.ir.ops import OPS
from attnc.ir.reach import reach
from attnc.ir.types import dtype_of
from attnc.ir.walk import index_ranks, operands, output_ranks, rewrite, subexprs

Order: TypeAlias = Literal["sorted", "unsorted"]
# Ids are -1 .. 3: some repeat, one is negative.
_IDS = (-1, 4)


def draw_ints(
    cascade: Cascade,
    extents: Mapping[str, int],
    params: Mapping[str, ParamValue],
    random: torch.Generator,
    order: Order,
    narrow: int = 1,
) -> dict[str, Tensor]:
    """The int inputs of a call.

    Indices are within the axis that they index, lengths reach as far as what they are compared
    with, and what is only compared with other inputs and numbers is an id. All are sorted along
    the last axis, or not. `narrow` divides the range of indices and lengths.
    """
    bounds = _bounds(cascade, extents, params)
    found = {}
    for t in cascade.inputs:
        if t.dtype != "int":
            continue
        shape = tuple(extents[r] for r in t.ranks)
        low, high = (0, max(1, bounds[t.name] // narrow)) if t.name in bounds else _IDS
        x = torch.randint(low, high, shape, generator=random)
        found[t.name] = torch.sort(x, dim=-1).values if order == "sorted" and x.dim() else x
    return found


def _bounds(
    cascade: Cascade, extents: Mapping[str, int], params: Mapping[str, ParamValue]
) -> dict[str, int]:
    """Exclusive upper bounds of the int inputs that are no ids."""
    axes = {t.name: t.ranks for t in cascade.inputs}
    axes |= {s.tensor: output_ranks(s) for s in cascade.statements}
    kinds = {t.name for t in cascade.inputs if t.dtype == "int"}
    found: dict[str, int] = {}

    def bound(e: Expr, size: int) -> None:
        for x in subexprs(e):
            if isinstance(x, Read) and x.tensor in kinds:
                found[x.tensor] = min(size, found.get(x.tensor, size))

    for e in _every(cascade):
        if isinstance(e, Read):
            for rank, index in zip(axes[e.tensor], e.indices, strict=True):
                if rank and not isinstance(index, Index):
                    bound(index, extents[rank])
        elif isinstance(e, Apply) and OPS[e.op].kind == "compare":
            a, b = (_without_reads(x) for x in e.args)
            whole = all(dtype_of(x, cascade) == "int" for x in e.args)
            if whole and index_ranks(a) | index_ranks(b):
                low, high = reach(Apply("sub", (a, b)), cascade, extents, params)
                bound(e, max(abs(low), abs(high)) + 2)
    return found


def _every(cascade: Cascade) -> Iterator[Expr]:
    for s in cascade.statements:
        for whole in operands(s):
            yield from subexprs(whole)


def _without_reads(e: Expr) -> Expr:
    """An int expression with 0 for what is read: the rest of it."""
    return rewrite(e, lambda x: Number(0) if isinstance(x, Read) else None)
