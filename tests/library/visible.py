"""The mask of a library spec as an array, from its predicate alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from attnc.dsl import load_text
from attnc.ir.cascade import Cascade
from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Expr
from attnc.ir.frame import Scope, Value
from attnc.ir.walk import index_ranks, reads
from attnc.library import text

Array: TypeAlias = np.ndarray[Any, Any]


@cache
def predicate(spec: str) -> tuple[Cascade, Expr]:
    """The first `where` of a spec, given by name or as text."""
    cascade = load_text(spec if "\n" in spec else text(spec))
    return cascade, next(s.where for s in cascade.statements if s.where is not None)


def visible(
    spec: str,
    extents: Mapping[str, int],
    tensors: Mapping[str, Array] | None = None,
    **params: Any,
) -> Array:
    """[.., m, n]: in front are the other ranks on which the mask depends, in alphabetical order.

    `extents` are those of m and n, or of their components, and of ranks that tensors do not tell.
    """
    cascade, where = predicate(spec)
    sizes, given = dict(extents), tensors or {}
    for t in cascade.inputs:
        if t.name in given:
            sizes.update(zip(t.ranks, given[t.name].shape, strict=True))
    grid = [c for r in ("m", "n") for c in (cascade.rank(r).components or (r,))]
    used = index_ranks(where) | {r for f in reads(where) for i in f.indices for r in index_ranks(i)}
    outer = sorted(used - {"m", "n", *grid})
    for r in ("m", "n"):
        sizes[r] = int(np.prod([sizes[c] for c in cascade.rank(r).components or (r,)]))
    values: dict[str, Any] = {p.name: params.get(p.name, p.default) for p in cascade.params}
    scope = Scope(
        extents=sizes,
        params=values,
        ranks={r.name: r for r in cascade.ranks},
        tensors={t.name: Value(given[t.name], t.ranks) for t in cascade.inputs if t.name in given},
        box={r: range(sizes[r]) for r in (*outer, *grid)},
    )
    found = np.asarray(evaluate(where, scope).data)
    return found.reshape(*found.shape[: len(outer)], sizes["m"], sizes["n"])
