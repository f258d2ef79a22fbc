"""Run what was derived against what was written: both as cascades, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import inf, isfinite
from typing import Any

import numpy as np

from attnc.ir.as_cascade import as_cascade
from attnc.ir.build_plan import sweeps
from attnc.ir.cascade import Cascade, Einsum, TensorDecl
from attnc.ir.expr import Apply, Extent, Param, Read
from attnc.ir.frame import ParamValue, Scope
from attnc.ir.interpret import interpret
from attnc.ir.plan import Plan
from attnc.ir.reach import reach, reads_at
from attnc.ir.walk import operands, reads, subexprs

_TILE = 3  # divides none of the extents


def recheck(plan: Plan, seed: int = 0, written: Cascade | None = None) -> float:
    """The largest error of the derived cascade, relative to the largest output of the written one.

    The inputs are random, with -inf where they enter a map (so rows without a visible key occur);
    the last tile of the swept rank is a partial one. Where the written cascade is NaN nothing is
    compared; where it is infinite the derived one must be, too. `written` defaults to the plan's.
    """
    cascade = plan.cascade if written is None else written
    random = np.random.default_rng(seed)
    params = {p.name: _param(p.default) for p in cascade.params}
    extents = _extents(cascade, params)
    inputs = {t.name: _tensor(t, plan, extents, random) for t in cascade.inputs}
    whole = {r.name: extents[r.name] for r in cascade.ranks}
    tiles = {s.swept + "0": _TILE for s in sweeps(plan)}
    tiles |= {s.swept + "1": -(-extents[s.swept] // _TILE) for s in sweeps(plan)}
    known = {p.name for p in plan.cascade.params}
    expected = interpret(cascade, inputs, params=params, extents=whole)
    found = interpret(
        _with_partial_tiles(as_cascade(plan)),
        inputs,
        params={p: x for p, x in params.items() if p in known},
        extents=whole | tiles,
    )
    return max(_error(expected[t], found[t]) for t in expected)


def _extents(cascade: Cascade, params: Mapping[str, ParamValue]) -> dict[str, int]:
    """Small, mostly different extents; one that must be a multiple of another is.

    A table has the places that it is read at.
    """
    sizes = {r.name: 2 + i % 3 for i, r in enumerate(cascade.ranks)}
    for s in cascade.statements:
        if isinstance(s, Einsum) and s.reduce is not None:
            sizes |= {r: 7 for r in s.reduce.ranks}
    for x in (x for s in cascade.statements for e in operands(s) for x in subexprs(e)):
        match x:
            case Apply("exactdiv", (Extent(whole), Extent(part))):
                sizes[part] = 2
                sizes[whole] = 4
            case _:
                pass
    for r in cascade.ranks:
        if r.components:
            sizes |= {c: 2 + i for i, c in enumerate(r.components)}
    for whole, value in _multiples(cascade, params):
        sizes[whole] = value
    for r in cascade.ranks:
        if r.components:
            sizes[r.name] = int(np.prod([sizes[c] for c in r.components]))
    tables = {r for t in cascade.inputs for r in t.ranks if cascade.rank(r).parent is None}
    for axis, index in reads_at(cascade):
        if axis in tables and not reads(index) and not cascade.rank(axis).components:
            sizes[axis] = max(sizes[axis], 1 + reach(index, cascade, sizes, params)[1])
    return sizes


def _multiples(cascade: Cascade, params: Mapping[str, ParamValue]) -> Iterator[tuple[str, int]]:
    """Extents that a param must divide, as large as the param."""
    for x in (x for s in cascade.statements for e in operands(s) for x in subexprs(e)):
        match x:
            case Apply("exactdiv", (Extent(whole), Param(name, item))):
                yield whole, int(Scope(params=params).param(name, item))
            case _:
                pass


def _param(default: ParamValue | None) -> ParamValue:
    return 1 if default is None else default


def _tensor(
    t: TensorDecl, plan: Plan, extents: Mapping[str, int], random: np.random.Generator
) -> Any:
    shape = tuple(extents[r] for r in t.ranks)
    if t.dtype == "bool":
        return random.random(shape) < 0.5
    if t.dtype == "int":
        return random.integers(0, 2, shape)
    x = random.normal(size=shape)
    return np.where(random.random(shape) < 0.2, -inf, x) if _is_bias(t.name, plan) else x


def _is_bias(tensor: str, plan: Plan) -> bool:
    """Added to a score, nothing else: where it is -inf the key is hidden."""
    uses = [
        parent
        for s in plan.cascade.statements
        for e in operands(s)
        for parent in subexprs(e)
        if isinstance(parent, Apply)
        and any(isinstance(a, Read) and a.tensor == tensor for a in parent.args)
    ]
    times = sum(
        r.tensor == tensor for s in plan.cascade.statements for e in operands(s) for r in reads(e)
    )
    added = all(isinstance(p, Apply) and p.op == "add" for p in uses)
    return bool(uses) and len(uses) == times and added


def _with_partial_tiles(cascade: Cascade) -> Cascade:
    """Tiles that need not divide their rank: it stops being declared as a grid of them."""
    tiled = {r.name for r in cascade.ranks if set(r.components) == {f"{r.name}1", f"{r.name}0"}}
    ranks = tuple(
        replace(r, components=())
        if r.name in tiled
        else replace(r, parent=None)
        if r.parent in tiled
        else r
        for r in cascade.ranks
    )
    return replace(cascade, ranks=ranks)


def _error(expected: Any, found: Any) -> float:
    infinite = np.isinf(expected)
    if (expected[infinite] != found[infinite]).any():
        return inf
    usable = np.isfinite(expected)
    if not usable.any():
        return 0.0
    scale = float(np.abs(expected[usable]).max()) or 1.0
    worst = float(np.abs(expected[usable] - found[usable]).max()) / scale
    return worst if isfinite(worst) else inf
