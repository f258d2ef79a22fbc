"""Which coordinates a statement visits: ranks taken apart into leaves, index expressions read.

A *leaf* is a rank without components, or a component. Two names for the same axis are one leaf
(`T[j] = A[j]` of an input `A[k]`, the parts of a concatenation), so the pass analysis does not
depend on how a spec spells its ranks. What cannot be followed is left out, never an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from attnc.ir.cascade import Cascade, Concat, Einsum, Select, Statement
from attnc.ir.expr import Apply, Expr, Index, Number, Read
from attnc.ir.presence import conjuncts
from attnc.ir.walk import (
    children,
    index_ranks,
    iteration_ranks,
    output_ranks,
    reads,
    statement_reads,
)

Bound: TypeAlias = Literal["upper", "lower"]


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks of a cascade by their leaves.

    leaves:   rank or component -> its leaves, outermost first
    families: leaf -> all leaves of the outermost rank it is part of
    labels:   tensor -> the rank of each axis ("" where a statement writes a constant)
    """

    leaves: Mapping[str, tuple[str, ...]]
    families: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, tuple[str, ...]]

    def split(self, names: frozenset[str] | tuple[str, ...]) -> frozenset[str]:
        """All leaves of some ranks."""
        return frozenset(leaf for n in names if n for leaf in self.leaves[n])

    def written(self, s: Statement) -> frozenset[str]:
        """The leaves of the tensor that a statement defines."""
        return self.split(output_ranks(s))

    def space(self, s: Statement) -> frozenset[str]:
        """The leaves of a statement's iteration space."""
        return self.split(iteration_ranks(s))

    def reduced(self, s: Statement) -> frozenset[str]:
        """The leaves of which one result needs all coordinates."""
        match s:
            case Einsum():
                return self.space(s) - self.written(s)
            case Select():
                return self.split((s.rank,))
            case Concat():
                return frozenset()

    def followed(self, read: Read) -> frozenset[str]:
        """The leaves along which a read moves with its statement; a gathered axis follows none."""
        found: set[str] = set()
        for label, index in zip(self.labels[read.tensor], read.indices, strict=True):
            if not reads(index):
                moving = self.split(index_ranks(index))
                # `sel[n // BK]` moves along the outer component of `n` only.
                found |= (moving & self.split((label,))) or moving
        return frozenset(found)


def find_ranks(cascade: Cascade) -> Ranks:
    """Take the ranks of a cascade apart; see the module for what counts as the same leaf."""
    labels = {t.name: t.ranks for t in cascade.inputs}
    for s in cascade.statements:
        axes = output_ranks(s)
        known = labels.get(s.tensor, axes)
        labels[s.tensor] = tuple(new or old for new, old in zip(axes, known, strict=True))
    components = {r.name: r.components for r in cascade.ranks if r.components}
    components |= _tilings(cascade, labels, components)
    merged = _same_axes(cascade, labels, components)

    def leaves(name: str) -> tuple[str, ...]:
        if name in components:
            return tuple(leaf for c in components[name] for leaf in leaves(c))
        return (merged.get(name, name),)

    names = {r.name for r in cascade.ranks} | {n for a in labels.values() for n in a if n}
    names |= {n for s in cascade.statements for n in iteration_ranks(s)}
    inner = {c for cs in components.values() for c in cs}
    tops = [leaves(n) for n in sorted(names - inner)]
    families = {leaf: whole for whole in tops for leaf in whole}
    return Ranks({n: leaves(n) for n in names}, families, labels)


def affine(e: Expr) -> tuple[dict[str, int], int | None] | None:
    """Coefficient of each rank, and the constant (None: known when called); None if not affine."""
    match e:
        case Index(rank):
            return {rank: 1}, 0
        case Number(int(value)):
            return {}, value
        case Apply("neg", (x,)):
            return _combine(({}, 0), affine(x), -1)
        case Apply("add" | "sub", (a, b)):
            return _combine(affine(a), affine(b), 1 if e.op == "add" else -1)
        case _:
            return None if index_ranks(e) or reads(e) else ({}, None)


def filters(s: Statement) -> tuple[Expr, ...]:
    """Conditions that hold at every point of a statement, whatever the values of its tensors."""

    def within(e: Expr) -> tuple[Expr, ...]:
        match e:
            case Apply("given", (x, condition)):
                return conjuncts(condition) + within(x)
            case Apply("or_else" | "select"):
                return ()  # present without some operand
            case _:
                return tuple(c for child in children(e) for c in within(child))

    where = () if s.where is None else conjuncts(s.where)
    return where + (within(s.expr) if isinstance(s, Einsum) else ())


def bounds(conditions: tuple[Expr, ...], rank: str, by: str) -> frozenset[Bound]:
    """How conditions bound one coordinate by another: `k <= i` bounds `k` from above."""
    found: set[Bound] = set()
    for condition in conditions:
        match condition:
            case Apply("lt" | "le" | "gt" | "ge" | "eq" as op, (a, b)):
                difference = _combine(affine(a), affine(b), -1)
            case _:
                continue
        if difference is None or set(difference[0]) != {rank, by}:
            continue
        sign = difference[0][rank]
        if sign * difference[0][by] < 0:
            below = (op in ("lt", "le")) == (sign > 0)
            if below or op == "eq":
                found.add("upper")
            if not below or op == "eq":
                found.add("lower")
    return frozenset(found)


def _combine(
    a: tuple[dict[str, int], int | None] | None,
    b: tuple[dict[str, int], int | None] | None,
    sign: int,
) -> tuple[dict[str, int], int | None] | None:
    if a is None or b is None:
        return None
    total = {r: a[0].get(r, 0) + sign * b[0].get(r, 0) for r in {**a[0], **b[0]}}
    constant = None if a[1] is None or b[1] is None else a[1] + sign * b[1]
    return {r: c for r, c in total.items() if c}, constant


def _axis_reads(
    cascade: Cascade, labels: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, Expr]]:
    """The rank of every axis that is read, with the index it is read at."""
    for s in cascade.statements:
        for read in statement_reads(s):
            yield from zip(labels[read.tensor], read.indices, strict=True)


def _tilings(
    cascade: Cascade,
    labels: Mapping[str, tuple[str, ...]],
    components: Mapping[str, tuple[str, ...]],
) -> dict[str, tuple[str, str]]:
    """Partitions that no `rank` line declares: `K[j * B + i]` tiles the rank of that axis."""
    declared = {*components, *(c for cs in components.values() for c in cs)}
    spaces = [set(iteration_ranks(s)) for s in cascade.statements]
    found: dict[str, tuple[str, str]] = {}
    for label, index in _axis_reads(cascade, labels):
        match index:
            case Apply(
                "add", (Apply("mul", args), Index(inner)) | (Index(inner), Apply("mul", args))
            ):
                outer = [a.rank for a in args if isinstance(a, Index)]
                names = {label, inner, *outer}
                # A strided convolution over the keys at each query partitions nothing.
                apart = not any(label in s and s & names != {label} for s in spaces)
                if len(names) == 3 and apart and not names & declared:
                    declared |= names
                    found[label] = (outer[0], inner)
    return found


def _same_axes(
    cascade: Cascade,
    labels: Mapping[str, tuple[str, ...]],
    components: Mapping[str, tuple[str, ...]],
) -> dict[str, str]:
    """Undivided ranks that name the same axis -> one name for all of them.

    Ranks that meet in one iteration space stay apart: `doc[n]` read at `m` relates a query to its
    key, and says nothing about the two ranks. The parts of a concatenation are the exception.
    """
    divided = {*components, *(c for cs in components.values() for c in cs)}
    spaces = [set(iteration_ranks(s)) for s in cascade.statements if not isinstance(s, Concat)]
    name: dict[str, str] = {}

    def merge(a: str, b: str) -> None:
        a, b = name.get(a, a), name.get(b, b)
        members = {a, b, *(m for m, n in name.items() if n in (a, b))}
        if a != b and not members & divided and all(len(members & s) < 2 for s in spaces):
            name.update(dict.fromkeys(members, a))

    for s in cascade.statements:
        if isinstance(s, Concat):
            for rank in s.ranks:
                merge(s.rank, rank)
    for label, index in _axis_reads(cascade, labels):
        if label and isinstance(index, Index):
            merge(label, index.rank)
    return name
