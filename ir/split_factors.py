"""Move factors that do not vary out of the products inside a map: S = sum(d) q k / c is (sum(d) q
k) / c.

The scale then stands outside the product, where it can be merged with what follows (see
`use_exp2`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from attnc.ir.cascade import Cascade, Einsum, Statement
from attnc.ir.expr import Index, Read
from attnc.ir.facts import Interval
from attnc.ir.ops import REDUCTIONS
from attnc.ir.separate import ONE, multiply, separate
from attnc.ir.walk import index_ranks, reads


def split_factors(cascade: Cascade) -> Cascade:
    """Every plain sum becomes a bare sum and a pointwise statement with its constant factors."""
    taken = {s.tensor for s in cascade.statements} | cascade.input_names
    statements: list[Statement] = []
    for s in cascade.statements:
        parts = _split(s, taken, {}) if isinstance(s, Einsum) else (s,)
        statements += parts
        taken |= {p.tensor for p in parts}
    return replace(cascade, statements=tuple(statements))


def _split(s: Einsum, taken: set[str], known: Mapping[str, Interval]) -> tuple[Einsum, ...]:
    plain = all(isinstance(i, Index) for i in s.indices)
    if s.reduce is None or REDUCTIONS[s.reduce.op].combine != "add" or s.where or not plain:
        return (s,)
    reduced = frozenset(s.reduce.ranks)
    split = separate(s.expr, lambda e: bool(index_ranks(e) & reduced), known)
    # Only constants of the call: anything else may be infinite or absent where the sum is not.
    constant = tuple(f for f in split.free if not index_ranks(f) and not reads(f))
    if not constant or split.dependent == ONE:
        return (s,)
    rest = tuple(f for f in split.free if f not in constant)
    name = _fresh(f"{s.tensor}_dot", taken)
    bare = replace(s, tensor=name, expr=multiply((*rest, split.dependent)))
    scaled = replace(s, expr=multiply((Read(name, s.indices), multiply(constant))), reduce=None)
    return bare, scaled


def _fresh(wish: str, taken: set[str]) -> str:
    name = wish
    while name in taken:
        name += "_"
    return name
