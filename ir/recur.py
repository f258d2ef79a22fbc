"""Run a group of statements: once, or step by step along an iterative rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from attnc.errors import AttncError
from attnc.ir.arrays import Arrays
from attnc.ir.cascade import Einsum, Select, Statement
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


@dataclass(frozen=True, slots=True)
class _Stepped:
    """A tensor of a cycle, along the rank that is stepped.

    `written` and `read` are coordinates relative to the step's own; None: not a fixed distance.
    `empty` stands for the tensor as long as nothing of it is defined.
    """

    axis: int
    written: int | None
    read: tuple[int | None, ...]
    empty: Value

    def seen(self, parts: Sequence[Value], here: range, arrays: Arrays) -> Value:
        """What a step has to see of the parts defined so far."""
        kept = list(parts)
        offsets = [here.start + c for c in self.read if c is not None]
        if len(offsets) == len(self.read):
            low, high = min(offsets), max(offsets)
            starts = [p.start(self.axis) for p in parts]
            ends = [i + p.data.shape[self.axis] for i, p in zip(starts, parts, strict=True)]
            kept = [p for p, i, j in zip(parts, starts, ends, strict=True) if i <= high and j > low]
        return _continue(arrays, kept or parts[-1:] or [self.empty])


def _iterate(group: Group, rank: str, scope: Scope) -> dict[str, Value]:
    """Step along a rank, upwards or downwards as the reads demand."""
    tensors = {s.tensor: _stepped(group, s, rank, scope) for s in group.statements}
    parts: dict[str, list[Value]] = {s.tensor: [] for s in group.statements}
    for name in group.continued:
        # An initial value has no rank along the stepped axis, only a coordinate.
        parts[name].append(replace(scope.tensors[name], axes=tensors[name].empty.axes))
    order = _within_step(group, rank, tensors, scope)
    span = scope.box.get(rank, range(scope.extents[rank]))
    steps = [range(t, t + 1) for t in span] or [span]
    for here in reversed(steps) if _downwards(group, rank, tensors) else steps:
        at = scope.at({**scope.box, rank: here})
        for s in order:
            names = {r.tensor for r in statement_reads(s)} & tensors.keys()
            seen = {n: tensors[n].seen(parts[n], here, scope.arrays) for n in names}
            parts[s.tensor].append(run_statement(s, at.having(seen)))
    return {name: _continue(scope.arrays, found) for name, found in parts.items()}


def _stepped(group: Group, s: Statement, rank: str, scope: Scope) -> _Stepped:
    axis = output_ranks(s).index(rank)
    reads = [r for g in group.statements for r in statement_reads(g) if r.tensor == s.tensor]
    read = tuple(_offset(r.indices[axis], rank, scope) for r in reads)
    spans = [scope.box.get(r, range(scope.extents[r])) if r else range(1) for r in output_ranks(s)]
    spans[axis] = range(0)
    kind = s.dtype if isinstance(s, Einsum) else "bool" if isinstance(s, Select) else "float"
    dtype = {"int": "int64", "float": scope.dtype}.get(kind, kind)
    data = scope.arrays.full(tuple(map(len, spans)), 0, dtype)
    empty = Value(data, output_ranks(s), None, tuple(span.start for span in spans))
    return _Stepped(axis, _offset(s.indices[axis], rank, scope), read, empty)


def _offset(index: Expr, rank: str, scope: Scope) -> int | None:
    """c for an index that is the coordinate of the rank plus c; None for any other."""
    shift = shifted(index)
    if shift is None or shift[0] != rank:
        return None
    return shift[2] * int(compile_expr(shift[1])(Frame(scope, {}))[0])


def _downwards(group: Group, rank: str, tensors: Mapping[str, _Stepped]) -> bool:
    """Whether what a step reads is written by the steps above it."""
    ways = {
        (c > t.written) - (c < t.written)
        for t in tensors.values()
        for c in t.read
        if c is not None and t.written is not None
    }
    if {-1, 1} <= ways:
        raise _circular(group.statements, rank)
    return 1 in ways


def _within_step(
    group: Group, rank: str, tensors: Mapping[str, _Stepped], scope: Scope
) -> tuple[Statement, ...]:
    """The statements in an order in which each finds what the same step writes."""
    needs = {
        s: {
            r.tensor
            for r in statement_reads(s)
            if (t := tensors.get(r.tensor)) is not None
            and t.written is not None
            and _offset(r.indices[t.axis], rank, scope) == t.written
        }
        for s in group.statements
    }
    left = list(group.statements)
    order: list[Statement] = []
    while left:
        waiting = {s.tensor for s in left}
        free = [s for s in left if needs[s].isdisjoint(waiting)]
        if not free:
            raise _circular(left, rank)
        order.append(free[0])
        left.remove(free[0])
    return tuple(order)


def _circular(statements: Sequence[Statement], rank: str) -> AttncError:
    names = ", ".join(f"`{n}`" for n in sorted({s.tensor for s in statements}))
    return AttncError(
        "E603",
        f"{names} cannot be computed step by step along `{rank}`: a step needs what comes after it",
        span=statements[0].span,
        hint="let each step read earlier ones: `H[t+1] = .. H[t] ..`",
    )
