"""Run a group of statements: once, or step by step along an iterative rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from attnc.errors import AttncError
from attnc.ir.arrays import Arrays
from attnc.ir.cascade import Einsum, Statement
from attnc.ir.evaluate import compile_expr
from attnc.ir.expr import Expr
from attnc.ir.frame import Frame, Scope, Value
from attnc.ir.gather import shifted
from attnc.ir.schedule import Group
from attnc.ir.statements import join, run_statement
from attnc.ir.walk import output_ranks, statement_reads


def run_group(group: Group, scope: Scope) -> dict[str, Value]:
    """The tensors that a group defines, with the coordinates that `scope.tensors` already has."""
    if group.rank is not None:
        return _iterate(group, group.rank, scope)
    (s,) = group.statements
    value = run_statement(s, scope)
    if s.tensor in group.continued:
        value = _continue(scope.arrays, [scope.tensors[s.tensor], value])
    return {s.tensor: value}


def _continue(arrays: Arrays, parts: Sequence[Value]) -> Value:
    """Parts of one tensor that differ in one axis, where the next goes on, as one."""
    first, last = parts[0], parts[-1]
    axes = tuple(a or b for a, b in zip(first.axes, last.axes, strict=True))
    if len(parts) == 1:
        return first
    axis = next(
        i for i in range(len(axes)) if first.axes[i] != axes[i] or first.start(i) != last.start(i)
    )
    ordered = sorted(parts, key=lambda part: part.start(axis))
    for before, after in pairwise(ordered):
        end = before.start(axis) + before.data.shape[axis]
        if end != after.start(axis):
            raise AttncError(
                "E604",
                f"a tensor is defined up to {axes[axis]} = {end - 1} and again from "
                f"{after.start(axis)} on",
                hint="an initial value and a step have to meet: `H[0] = ..`, `H[t+1] = ..`",
            )
    return replace(join(arrays, ordered, axis), axes=axes)


def _iterate(group: Group, rank: str, scope: Scope) -> dict[str, Value]:
    """Step along a rank. Each step sees of the group's tensors the coordinates that it reads."""
    parts: dict[str, list[Value]] = {s.tensor: [] for s in group.statements}
    for name in group.continued:
        parts[name].append(scope.tensors[name])
    axes = {s.tensor: output_ranks(s).index(rank) for s in group.statements}
    back = {name: _farthest(group, name, axes[name], rank, scope) for name in parts}
    order = _within_step(group, rank, axes, scope)
    empty = {s.tensor: _nothing(s, axes[s.tensor], scope) for s in group.statements}
    span = scope.box.get(rank, range(scope.extents[rank]))
    for here in [range(t, t + 1) for t in span] or [span]:
        at = scope.at({**scope.box, rank: here})
        for s in order:
            seen = {
                name: _recent(parts[name] or [empty[name]], axes[name], here, back[name], at)
                for name in {r.tensor for r in statement_reads(s)} & parts.keys()
            }
            parts[s.tensor].append(run_statement(s, at.having(seen)))
    return {name: _continue(scope.arrays, found) for name, found in parts.items()}


def _recent(
    parts: Sequence[Value], axis: int, here: range, back: int | None, scope: Scope
) -> Value:
    """What a tensor holds from `back` coordinates off the present one on; None: all of it."""
    kept = parts
    if back is not None:
        kept = [p for p in parts if p.start(axis) + p.data.shape[axis] > here.start + back]
    return _continue(scope.arrays, kept or parts[-1:])


def _nothing(s: Statement, axis: int, scope: Scope) -> Value:
    """A tensor without a coordinate along an axis, as long as nothing of it is defined."""
    spans = [
        (scope.box.get(r) or range(scope.extents[r])) if r else range(1) for r in output_ranks(s)
    ]
    spans[axis] = range(0)
    kind = s.dtype if isinstance(s, Einsum) else "float"
    dtype = {"int": "int64", "bool": "bool"}.get(kind, scope.dtype)
    data = scope.arrays.full(tuple(map(len, spans)), 0, dtype)
    return Value(data, output_ranks(s), None, tuple(span.start for span in spans))


def _offset(index: Expr, rank: str, scope: Scope) -> int | None:
    """c for an index that is the coordinate of the rank plus c; None for any other."""
    shift = shifted(index)
    if shift is None or shift[0] != rank:
        return None
    return shift[2] * int(compile_expr(shift[1])(Frame(scope, {}))[0])


def _offsets(s: Statement, name: str, axis: int, rank: str, scope: Scope) -> list[int | None]:
    reads = [r for r in statement_reads(s) if r.tensor == name]
    return [_offset(r.indices[axis], rank, scope) for r in reads]


def _farthest(group: Group, name: str, axis: int, rank: str, scope: Scope) -> int | None:
    """The lowest coordinate of a tensor that a step reads, relative to the step; None: any."""
    found = [c for s in group.statements for c in _offsets(s, name, axis, rank, scope)]
    known = [c for c in found if c is not None]
    return min(known, default=0) if len(known) == len(found) else None


def _within_step(
    group: Group, rank: str, axes: Mapping[str, int], scope: Scope
) -> tuple[Statement, ...]:
    """The statements in an order in which each finds what the same step writes."""
    written = {s.tensor: _offset(s.indices[axes[s.tensor]], rank, scope) for s in group.statements}
    left = list(group.statements)
    order: list[Statement] = []
    while left:
        names = {s.tensor for s in left}
        free = [
            s
            for s in left
            if not any(
                written[name] is not None
                and written[name] in _offsets(s, name, axes[name], rank, scope)
                for name in names
            )
        ]
        if not free:
            raise AttncError(
                "E603",
                f"{', '.join(f'`{n}`' for n in sorted(names))} at one step of `{rank}` "
                "is defined by itself",
                hint="step along the rank: `H[t+1] = .. H[t] ..`",
            )
        order.append(free[0])
        left.remove(free[0])
    return tuple(order)
