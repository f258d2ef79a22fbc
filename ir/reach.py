"""How far index expressions reach: what tables and vectors must hold of a call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from attnc.errors import AttncError
from attnc.ir.cascade import Cascade
from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Expr, Index, Read
from attnc.ir.frame import ParamValue, Scope
from attnc.ir.walk import index_ranks, operands, output_ranks, subexprs

# Coordinates of a rank that are tried.
_TRIED = 512


def reach(
    e: Expr, cascade: Cascade, extents: Mapping[str, int], params: Mapping[str, ParamValue]
) -> tuple[int, int]:
    """The least and largest value of an int expression without reads, at the coordinates tried.

    (0, 0) where there are none, or where its divisions leave remainders.
    """
    ranks = index_ranks(e)
    outer = [r for r in ranks if cascade.rank(r).parent not in ranks]
    scope = Scope(
        extents=extents,
        params=params,
        ranks={r.name: r for r in cascade.ranks},
        box={r: range(min(extents[r], _TRIED)) for r in outer},
    )
    try:
        values = np.asarray(evaluate(e, scope).data)
    except AttncError:
        return 0, 0
    return (int(values.min()), int(values.max())) if values.size else (0, 0)


def reads_at(cascade: Cascade) -> Iterator[tuple[str, Expr]]:
    """(axis of a tensor, the index at which it is read), for each that is not the axis's own."""
    axes = {t.name: t.ranks for t in cascade.inputs}
    axes |= {s.tensor: output_ranks(s) for s in cascade.statements}
    for s in cascade.statements:
        for e in (x for whole in operands(s) for x in subexprs(whole)):
            if isinstance(e, Read):
                for rank, index in zip(axes[e.tensor], e.indices, strict=True):
                    if rank and index != Index(rank):
                        yield rank, index
