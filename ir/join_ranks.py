"""Make a product of products inside the map one product over one rank.

    S[i, m, n] = sum(d) Q[i, m, d] * K[i, n, d];  L[h, m, n] = sum(i) S[i, m, n] * W[i, h]
    L[h, m, n] = sum(c) W[c // D, h] * Q[c // D, m, c % D] * K[c // D, n, c % D]

where c = (i, d) counts all pairs. A tile of the map is then one matrix product, of what belongs to
the row and what is swept. Products distribute over sums, and a sum over i of sums over d is a sum
over pairs.
"""

from __future__ import annotations

from dataclasses import replace

from attnc.ir.cascade import Cascade, Einsum, Rank, Reduction
from attnc.ir.derived import Certificate
from attnc.ir.expr import Index
from attnc.ir.graph import used_statements
from attnc.ir.inline import body
from attnc.ir.region import Region, lineage, outermost_region
from attnc.ir.unnest import Known, dependents, find_known, unnest
from attnc.ir.walk import statement_reads, substitute_indices


def join_ranks(cascade: Cascade) -> tuple[Cascade, tuple[Certificate, ...]]:
    """The cascade with one contracted rank for each product inside the map, and the laws used.

    Left alone are products whose factors do not distribute, and ranks that belong to a grid.
    """
    known = find_known(cascade)
    region = outermost_region(known.scope, known.bounds)
    certificates: tuple[Certificate, ...] = ()
    for product in region.contractions if region is not None else ():
        assert region is not None
        flat = _flattened(product, region, known)
        assert flat.reduce is not None
        if len(flat.reduce.ranks) == 1 or any(_is_gridded(cascade, r) for r in flat.reduce.ranks):
            continue
        rank = _pairs(cascade, flat.reduce.ranks)
        made = _over(rank, flat)
        certificates += (_certificate(product, made),)
        statements = tuple(made if s == product else s for s in cascade.statements)
        ranks = cascade.ranks if rank in cascade.ranks else (*cascade.ranks, rank)
        cascade = replace(cascade, ranks=ranks, statements=statements)
    if certificates:
        cascade = replace(cascade, statements=used_statements(cascade))
    return cascade, certificates


def _flattened(product: Einsum, region: Region, known: Known) -> Einsum:
    """The product with those inside it put in, if there are any and they distribute; or itself."""
    upstream = set(lineage(known.scope, known.scope.body(product)))
    inner = {c.tensor for c in region.contractions if c in upstream}
    if not inner:
        return product
    names = dependents(known, lambda r: r.tensor in inner) | inner
    flat = unnest(product, names, known).statement
    return product if any(r.tensor in names for r in statement_reads(flat)) else flat


def _is_gridded(cascade: Cascade, rank: str) -> bool:
    found = cascade.rank(rank)
    return bool(found.components) or found.parent is not None


def _pairs(cascade: Cascade, components: tuple[str, ...]) -> Rank:
    """The rank that counts all combinations of coordinates of these."""
    for rank in cascade.ranks:
        if rank.components == components:
            return rank
    name = "_".join(components)
    while any(r.name == name for r in cascade.ranks):
        name += "_"
    return Rank(name, components)


def _over(rank: Rank, flat: Einsum) -> Einsum:
    """The reduction over one rank in place of its components."""
    assert flat.reduce is not None
    point = Index(rank.name)
    places = {c: rank.coordinate(c, point) for c in rank.components}
    where = None if flat.where is None else substitute_indices(flat.where, places)
    expr = substitute_indices(flat.expr, places)
    return replace(flat, expr=expr, where=where, reduce=Reduction(flat.reduce.op, (rank.name,)))


def _certificate(written: Einsum, made: Einsum) -> Certificate:
    assert made.reduce is not None
    (rank,) = made.reduce.ranks
    reason = f"{made.reduce.op}s inside one another are one over all pairs, here called {rank}"
    return Certificate("join", made.tensor, reason, body(written), body(made), made.span)
