"""Sum along the swept rank first, and mix afterwards: a normalised map is then swept once.

    U[j, m, n] = sum(h) P[h, m, n] * W[h, j];  O[j, m, e] = sum(n) U[j, m, n] * V[j, n, e]
    T[h, j, m, e] = sum(n) P[h, m, n] * V[j, n, e];  O[j, m, e] = sum(h) T[h, j, m, e] * W[h, j]

where P depends on reductions over n. As written, P must be final for every h at each n before any
of it is used; exchanged, it is one more normalised map whose normaliser leaves the sum. The price
is the product with V, once for each h.

Sums commute and products distribute over them. Where P is absent both forms skip the point; where
it is absent for all n or all h, a sum over nothing is 0 on either side, and so is what it enters.
"""

from __future__ import annotations

from dataclasses import replace

from attnc.ir.cascade import Cascade, Einsum, Reduction
from attnc.ir.derived import Certificate
from attnc.ir.expr import Expr, Index, Read
from attnc.ir.graph import used_statements
from attnc.ir.inline import body
from attnc.ir.presence import split_presence
from attnc.ir.region import lineage, outermost_region
from attnc.ir.separate import factors, multiply
from attnc.ir.unnest import Known, dependents, find_known, unnest
from attnc.ir.walk import reads, statement_reads


def exchange_sums(cascade: Cascade) -> tuple[Cascade, tuple[Certificate, ...]]:
    """The cascade without sums of normalised maps inside the map, and the laws used."""
    certificates: tuple[Certificate, ...] = ()
    while (found := _exchanged(cascade)) is not None:
        cascade, certificate = found
        certificates += (certificate,)
    return cascade, certificates


def _exchanged(cascade: Cascade) -> tuple[Cascade, Certificate] | None:
    known = find_known(cascade)
    region = outermost_region(known.scope, known.bounds)
    if region is None:
        return None
    gathered = {s.tensor for s in region.reductions}
    for mixed in region.contractions:
        if gathered.isdisjoint(s.tensor for s in lineage(known.scope, known.scope.body(mixed))):
            continue
        for outer in region.reductions:
            pair = _exchange(outer, mixed, region.rank, known)
            if pair is not None:
                return _rebuilt(cascade, outer, pair), _certificate(outer, mixed, pair)
    return None


def _exchange(
    outer: Einsum, mixed: Einsum, rank: str, known: Known
) -> tuple[Einsum, Einsum] | None:
    """The sum over `rank` of each term of `mixed`, and their sum; None if that is not `outer`."""
    assert outer.reduce is not None and mixed.reduce is not None
    names = dependents(known, lambda r: r.tensor == mixed.tensor) | {mixed.tensor}
    flat = unnest(outer, names, known).statement
    whole = Reduction(outer.reduce.op, (*outer.reduce.ranks, *mixed.reduce.ranks))
    if flat.reduce != whole or any(r.tensor in names for r in statement_reads(flat)):
        return None
    ranks = known.scope.ranks
    free = tuple(f for f in factors(flat.expr) if rank not in ranks(f) and _is_whole(f, known))
    inside = replace(flat, expr=multiply(tuple(f for f in factors(flat.expr) if f not in free)))
    used = ranks(body(inside))
    kept = tuple(i for i in outer.indices if isinstance(i, Index) and i.rank in used)
    first = replace(
        inside,
        tensor=_fresh("_".join([outer.tensor, *mixed.reduce.ranks]), known.scope.cascade),
        # Foremost: what is tiled beside the swept rank is an axis of the result.
        indices=(*map(Index, mixed.reduce.ranks), *kept),
        reduce=outer.reduce,
    )
    summed: Expr = multiply((Read(first.tensor, first.indices), *free))
    over = Reduction(outer.reduce.op, mixed.reduce.ranks)
    return first, replace(outer, expr=summed, reduce=over, where=None)


def _is_whole(e: Expr, known: Known) -> bool:
    """Present at every point: then it may be multiplied after the sum."""
    scope = known.scope
    _, conditions = split_presence(e, known.bounds, known.finite)
    present = scope.cascade.input_names | scope.reductions.keys()
    return not conditions and all(r.tensor in present for r in reads(e))


def _fresh(wish: str, cascade: Cascade) -> str:
    taken = {s.tensor for s in cascade.statements} | cascade.input_names
    while wish in taken:
        wish += "_"
    return wish


def _rebuilt(cascade: Cascade, outer: Einsum, pair: tuple[Einsum, Einsum]) -> Cascade:
    statements = tuple(x for s in cascade.statements for x in (pair if s == outer else (s,)))
    exchanged = replace(cascade, statements=statements)
    return replace(exchanged, statements=used_statements(exchanged))


def _certificate(outer: Einsum, mixed: Einsum, pair: tuple[Einsum, Einsum]) -> Certificate:
    assert outer.reduce is not None and mixed.reduce is not None
    swept, heads = ", ".join(outer.reduce.ranks), ", ".join(mixed.reduce.ranks)
    reason = (
        f"summed over {swept} before {heads}, so that no pass over {swept} waits for the maps of "
        f"all {heads}: one pass, at as many products along {swept} as {heads} is long"
    )
    return Certificate("exchange", pair[0].tensor, reason, body(outer), body(pair[1]), outer.span)
