"""The float64 oracle: a cascade evaluated as it is written, in bounded memory.

Nothing is derived or reordered here except what the semantics make invisible: the cascade is run in
chunks of the ranks along which its statements are independent, found by `chunk_ranks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from attnc.errors import AttncError
from attnc.ir.arrays import NUMPY, Array, Arrays
from attnc.ir.bind import bind_extents, check_params
from attnc.ir.cascade import Cascade, Concat, Einsum, Select, Statement
from attnc.ir.evaluate import evaluate
from attnc.ir.frame import Box, Scope, Value
from attnc.ir.recur import run_group
from attnc.ir.schedule import Group, chunk_ranks, groups
from attnc.ir.statements import join, run_einsum, run_statement, split
from attnc.ir.walk import output_ranks

__all__ = [
    "NUMPY",
    "Arrays",
    "Box",
    "Scope",
    "Value",
    "bind_extents",
    "check_params",
    "evaluate",
    "interpret",
    "run_einsum",
    "run_statement",
]


def interpret(
    cascade: Cascade,
    inputs: Mapping[str, Array],
    *,
    params: Mapping[str, object] | None = None,
    extents: Mapping[str, int] | None = None,
    arrays: Arrays = NUMPY,
    dtype: str = "float64",
    memory_bytes: int = 256 << 20,
) -> dict[str, Array]:
    """The outputs by name; absent points are 0. Inputs are cast to `dtype`, int64 or bool.

    Intermediate tensors and temporaries stay within about `memory_bytes`, unless a single point of
    every chunked rank needs more. Raises AttncError E5xx (the call does not fit the cascade) and
    E6xx (an index leaves its tensor, a remainder, an iteration that does not advance).
    """
    shapes = {name: tuple(x.shape) for name, x in inputs.items()}
    sizes = bind_extents(cascade, shapes, extents or {})
    kinds = {"float": dtype, "int": "int64", "bool": "bool"}
    tensors = {
        t.name: Value(arrays.asarray(inputs[t.name], kinds[t.dtype]), t.ranks)
        for t in cascade.inputs
    }
    scope = Scope(
        arrays=arrays,
        dtype=dtype,
        tensors=tensors,
        extents=sizes,
        params=check_params(cascade, params or {}),
        ranks={r.name: r for r in cascade.ranks},
        memory_bytes=max(1, memory_bytes // 2),
    )
    order = groups(cascade)
    chunks = _chunks(cascade, order, sizes, max(1, memory_bytes // 2))
    try:
        found = _run(order, tuple(chunks.items()), scope, frozenset(cascade.outputs))
    except AttncError as error:
        error.source = error.source or cascade.source
        raise
    return {name: _dense(arrays, {**tensors, **found}[name]) for name in cascade.outputs}


def _dense(arrays: Arrays, value: Value) -> Array:
    data = value.data
    if value.present is not None:
        data = arrays.where(value.present, data, arrays.zeros_like(data, ()))
    return arrays.contiguous(data)


def _chunks(
    cascade: Cascade, order: Sequence[Group], extents: Mapping[str, int], budget: int
) -> dict[str, int]:
    """How many chunks of each rank, outermost first, keep intermediate tensors in the budget."""
    sizes = dict(extents)
    statements = [s for group in order for s in group.statements]

    def stored() -> int:
        return sum(_weight(s) * prod(sizes[r] for r in output_ranks(s) if r) for s in statements)

    chunks: dict[str, int] = {}
    for rank in chunk_ranks(cascade, order):
        need = stored()
        if need <= budget:
            break
        if sizes[rank] > 1:
            chunks[rank] = min(sizes[rank], -(-need // budget))
            sizes[rank] = -(-sizes[rank] // chunks[rank])
    return chunks


def _weight(s: Statement) -> int:
    """Bytes per point of a statement's tensor, with what is needed all at once to make it."""
    match s:
        case Einsum():
            return 8
        case Concat():
            return 24
        case Select():
            return 64


def _run(
    order: Sequence[Group],
    chunks: Sequence[tuple[str, int]],
    scope: Scope,
    outputs: frozenset[str],
) -> dict[str, Value]:
    """Run the groups that no remaining chunked rank touches, then the others chunk by chunk.

    What a group depends on carries no chunked rank that the group does not, so each is run once per
    chunk of its own ranks.
    """
    ranks = {rank for rank, _ in chunks}
    now = [g for g in order if ranks.isdisjoint(g.ranks)]
    later = [g for g in order if not ranks.isdisjoint(g.ranks)]
    made: dict[str, Value] = {}
    for group in now:
        made.update(run_group(group, scope.having(made)))
    results = {name: value for name, value in made.items() if name in outputs}
    if not later:
        return results
    (rank, pieces), *inner = chunks
    inside = scope.having(made)
    parts = [
        _run(later, inner, inside.at({**scope.box, rank: span}), outputs)
        for span in split(scope.box.get(rank, range(scope.extents[rank])), pieces)
    ]
    for name in parts[0]:
        found = [part[name] for part in parts]
        if rank in found[0].axes:
            results[name] = join(scope.arrays, found, found[0].axes.index(rank))
        else:
            results[name] = found[0]
    return results
