"""A sweep stage made ready for whole arrays: no masks for ragged edges, no copies of shared heads.

A kernel gives each head a program of its own, so `K[b, h // (H / G), n, d]` is a pointer there.
Here heads are an axis, and that index would gather K once per head. So h is taken apart,
h = (H / G) h0 + h1: `h // (H / G)` is h0, a plain axis of K, and products broadcast over h1. Only
index arithmetic decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.plan import (
    Dot,
    Fold,
    Let,
    Load,
    Serial,
    SweepStage,
    Value,
    map_value,
)
from attnc.ir.walk import rewrite, subexprs


def stage_lets(stage: SweepStage) -> Iterator[Let]:
    """Every let of a stage, in order."""
    yield from stage.host
    yield from stage.resident
    for p in stage.passes:
        yield from p.body
        yield from p.after


def expressions(value: Value) -> tuple[Expr, ...]:
    """The expressions that a let's value evaluates, the tensor read of a load included."""
    match value:
        case Load(read):
            return (read,)
        case Dot(left, right, _, plus):
            return (left, right) if plus is None else (left, right, plus)
        case Serial(_, body, _) | Fold(_, body, _):
            return (body,)
        case _:
            return (value,)


def map_stage(stage: SweepStage, f: Callable[[Expr], Expr]) -> SweepStage:
    """Apply `f` to every expression of a stage."""

    def lets(block: tuple[Let, ...]) -> tuple[Let, ...]:
        return tuple(replace(x, value=map_value(x.value, f)) for x in block)

    return replace(
        stage,
        host=lets(stage.host),
        resident=lets(stage.resident),
        passes=tuple(
            replace(p, body=lets(p.body), full=lets(p.full), after=lets(p.after))
            for p in stage.passes
        ),
        stores=tuple(replace(s, value=f(s.value)) for s in stage.stores),
    )


def without_edges(stage: SweepStage) -> SweepStage:
    """The stage for tiles that end with their rank: `n < N` holds at every point."""
    ranks = (stage.row, stage.swept, *stage.columns, *stage.inner)
    edges = {Apply("lt", (Index(r), Extent(r))) for r in ranks if r is not None}

    def simplify(e: Expr) -> Expr | None:
        match e:
            case Apply("lt", _) if e in edges:
                return Number(True)
            case Apply("and", (Number(True), x) | (x, Number(True))):
                return x
            case Apply("select", (Number(True), x, _)):
                return x
            case _:
                return None

    return map_stage(stage, lambda e: rewrite(e, simplify))


@dataclass(frozen=True, slots=True)
class Split:
    """A grid rank taken apart into `parts`, outermost first, of lengths `sizes`."""

    rank: str
    parts: tuple[str, ...]
    sizes: tuple[int, ...]

    def leading(self, group: int) -> int | None:
        """How many leading parts make up the coordinate `rank // group`; None if no number does."""
        found = [n for n in range(1, len(self.sizes) + 1) if prod(self.sizes[n:]) == group]
        return found[-1] if found else None


def find_splits(
    stage: SweepStage, extents: Mapping[str, int], scalar: Callable[[Expr], int]
) -> dict[str, Split]:
    """The grid ranks whose coordinate is divided by a constant somewhere, taken apart accordingly.

    `scalar` evaluates an expression of extents, params and host lets.
    """
    groups: dict[str, set[int]] = {}
    for let in (*stage.resident, *(x for p in stage.passes for x in (*p.body, *p.after))):
        for read in _tensor_reads(let.value):
            for index in read.indices:
                found = _divided(index)
                if found is not None and found[0] in stage.grid and index != Index(found[0]):
                    groups.setdefault(found[0], set()).add(scalar(found[1]))
    splits = {}
    for rank, sizes in groups.items():
        ladder = (extents[rank], *sorted(sizes - {1}, reverse=True), 1)
        steps = tuple(itertools.pairwise(ladder))
        if min(ladder) > 0 and all(a % b == 0 for a, b in steps):
            parts = tuple(f"{rank}.{i}" for i in range(len(steps)))
            splits[rank] = Split(rank, parts, tuple(a // b for a, b in steps))
    return splits


def _tensor_reads(value: Value) -> Iterator[Read]:
    """Reads of tensors in memory, and possibly of lets, which have no divided index."""
    if isinstance(value, Load | Serial):
        for e in expressions(value):
            yield from (s for s in subexprs(e) if isinstance(s, Read))


def _divided(index: Expr) -> tuple[str, Expr] | None:
    """(r, c) for an index `r // c` with a constant c, or r itself with c = 1."""
    match index:
        case Index(rank):
            return rank, Number(1)
        case Apply("floordiv", (Index(rank), c)):
            varying = any(
                isinstance(s, Index) or (isinstance(s, Read) and s.indices) for s in subexprs(c)
            )
            return None if varying else (rank, c)
        case _:
            return None


@dataclass(frozen=True, slots=True)
class View:
    """A tensor seen with some axes unflattened: axis -> (parts, sizes)."""

    tensor: str
    axes: tuple[tuple[int, tuple[str, ...], tuple[int, ...]], ...]


def split_reads(
    stage: SweepStage,
    splits: Mapping[str, Split],
    shapes: Mapping[str, tuple[int, ...]],
    scalar: Callable[[Expr], int],
) -> tuple[SweepStage, dict[str, View]]:
    """The stage reading views of its tensors in which divided ranks are apart, and these views."""
    views: dict[str, View] = {}

    def look(e: Expr) -> Expr | None:
        if not isinstance(e, Read) or e.tensor not in shapes:
            return None
        if len(e.indices) != len(shapes[e.tensor]):
            return None
        axes, indices = [], []
        for axis, (index, size) in enumerate(zip(e.indices, shapes[e.tensor], strict=True)):
            found = _divided(index)
            split = splits.get(found[0]) if found is not None else None
            n = None
            if split is not None and found is not None:
                n = split.leading(scalar(found[1]))
            if split is None or n is None or prod(split.sizes[:n]) != size:
                indices.append(index)
                continue
            axes.append((axis, split.parts[:n], split.sizes[:n]))
            indices += [Index(p) for p in split.parts[:n]]
        if not axes:
            return None
        view = View(e.tensor, tuple(axes))
        name = next((k for k, v in views.items() if v == view), f"{e.tensor}.{len(views)}")
        views[name] = view
        return Read(name, tuple(indices))

    def change(let: Let) -> Let:
        if not isinstance(let.value, Load | Serial):
            return let
        return replace(let, value=map_value(let.value, lambda e: rewrite(e, look)))

    changed = replace(
        stage,
        grid=tuple(p for r in stage.grid for p in (splits[r].parts if r in splits else (r,))),
        resident=tuple(map(change, stage.resident)),
        passes=tuple(
            replace(
                p,
                body=tuple(map(change, p.body)),
                full=tuple(map(change, p.full)),
                after=tuple(map(change, p.after)),
            )
            for p in stage.passes
        ),
    )
    return changed, views
