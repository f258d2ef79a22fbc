"""Dilation groups: tokens that a mask lets see only tokens of the same remainder.

Where a mask asks `x % d == y % d` of a query coordinate x and a key coordinate y, no query sees a
key of another remainder. Tiles of tokens of one remainder are then denser than tiles of neighbours:
the tokens r, r + d, r + 2 d, .. make up group r, and x // d counts within it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from attnc.ir.expr import Apply, Expr, Index, Number
from attnc.ir.geometry.put_in_numbers import fold_numbers
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.presence import conjuncts
from attnc.ir.walk import index_ranks, rewrite, substitute


@dataclass(frozen=True, slots=True)
class Dilation:
    """Query coordinate `row` and key coordinate `key` have the same remainder modulo `step`."""

    row: str
    key: str
    step: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Predicates, numbers put in, over tiles of queries and tiles of keys."""

    predicates: tuple[Expr, ...]
    rows: tuple[Axis, ...]
    keys: tuple[Axis, ...]


def dilations(problem: Problem, bound: Bound) -> tuple[Dilation, ...]:
    """The dilations that all predicates ask for, at most one per axis."""
    rows, keys = (frozenset(a.name for a in axes) for axes in (problem.rows, problem.keys))
    first, *others = (conjuncts(e) for e in dict.fromkeys(problem.predicates))
    found: list[Dilation] = []
    for condition in first:
        d = _dilation(condition, rows, keys)
        if d is None or not all(condition in other for other in others):
            continue
        taken = {name for other in found for name in (other.row, other.key)}
        read = frozenset(r for e in problem.predicates for r in index_ranks(e))
        if taken.isdisjoint((d.row, d.key)) and not _read_otherwise(d, read, bound):
            found.append(d)
    return tuple(found)


def _dilation(condition: Expr, rows: frozenset[str], keys: frozenset[str]) -> Dilation | None:
    match condition:
        case Apply(
            "eq",
            (
                Apply("mod", (Index(a), Number(int(step)))),
                Apply("mod", (Index(b), Number(int(other)))),
            ),
        ) if step == other > 1:
            if a in rows and b in keys:
                return Dilation(a, b, step)
            if b in rows and a in keys:
                return Dilation(b, a, step)
    return None


def _read_otherwise(d: Dilation, read: frozenset[str], bound: Bound) -> bool:
    """Whether a coordinate is also read through the grid that it belongs to, or its components."""
    for whole, parts in bound.components.items():
        for name in (d.row, d.key):
            if (name in parts and whole in read) or (name == whole and read & set(parts)):
                return True
    return False


def dilation_groups(problem: Problem, found: tuple[Dilation, ...]) -> Iterator[Problem]:
    """The groups that have a query, each a problem of its own with axes over `x // step`."""
    lengths = {a.name: a.extent for a in (*problem.rows, *problem.keys)}
    for remainders in product(*(range(min(d.step, lengths[d.row])) for d in found)):
        inside: dict[Expr, Expr] = {}
        extents: dict[str, int] = {}
        for d, r in zip(found, remainders, strict=True):
            for name in (d.row, d.key):
                inside |= _counting(name, d.step, r)
                extents[name] = max(0, -(-(lengths[name] - r) // d.step))
        yield Problem(
            tuple(rewrite(substitute(e, inside), fold_numbers) for e in problem.predicates),
            _resized(problem.rows, extents),
            _resized(problem.keys, extents),
        )


def _counting(name: str, step: int, remainder: int) -> dict[Expr, Expr]:
    """What a coordinate is in terms of the place in its group, which takes over its name."""
    x, by = Index(name), Number(step)
    point = Apply("add", (Apply("mul", (by, x)), Number(remainder)))
    return {
        Apply("mod", (x, by)): Number(remainder),
        Apply("floordiv", (x, by)): x,
        x: point,
    }


def _resized(axes: tuple[Axis, ...], extents: dict[str, int]) -> tuple[Axis, ...]:
    return tuple(replace(a, extent=extents.get(a.name, a.extent)) for a in axes)
