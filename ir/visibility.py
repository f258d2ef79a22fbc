"""Which points of a sweep count: the predicates that decide whether a tile is empty, full, partial.

Only conditions of coordinates, extents, params and captured int and bool tensors are predicates: a
condition on computed values (a divisor of 0) is known once the values are, and stays in every tile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce as fold

from attnc.ir.cascade import Cascade
from attnc.ir.derived import Derived
from attnc.ir.expr import Apply, Expr, Read
from attnc.ir.presence import TRUE, conjunction, conjuncts
from attnc.ir.types import dtype_of
from attnc.ir.walk import index_ranks, reads, subexprs


@dataclass(frozen=True, slots=True)
class Visibility:
    """Which points of (`row`, `swept`) a pass needs, at each point of the ranks in `grid`.

    A tile is empty where `some` holds nowhere: no state has a point in it. It is full where `every`
    holds everywhere: all states have all points. The two differ only if states have other masks.
    """

    row: str | None
    swept: str
    grid: tuple[str, ...]
    some: Expr
    every: Expr

    @property
    def tensors(self) -> tuple[str, ...]:
        """The captured tensors on which it depends."""
        return tuple(dict.fromkeys(r.tensor for e in (self.some, self.every) for r in reads(e)))


def visibility(derived: Derived, sweep: int, row: str | None, grid: Iterable[str]) -> Visibility:
    """What the states of one pass need to see.

    Derivation takes conditions on the row alone out of the states: where they fail, a statistic is
    absent whatever was gathered. Rows at which all statistics are absent need to see nothing.
    """
    cascade = derived.cascade
    rows = _common(mask_conjuncts(t.present, cascade) for t in derived.statistics)
    own = (mask_conjuncts(s.present, cascade) for s in derived.states if s.sweep == sweep)
    masks = tuple(dict.fromkeys(conjunction((*rows, *conditions)) for conditions in own))
    return _visibility(masks, masks, row, derived.rank, grid, cascade)


def joint_visibility(parts: Iterable[Visibility], cascade: Cascade) -> Visibility:
    """What several passes over the same ranks need to see, taken together."""
    first, *others = parts = tuple(parts)
    if not others:
        return first
    some = tuple(dict.fromkeys(p.some for p in parts))
    every = tuple(dict.fromkeys(p.every for p in parts))
    grid = dict.fromkeys(r for p in parts for r in p.grid)
    return _visibility(some, every, first.row, first.swept, grid, cascade)


def _visibility(
    some: tuple[Expr, ...],
    every: tuple[Expr, ...],
    row: str | None,
    swept: str,
    grid: Iterable[str],
    cascade: Cascade,
) -> Visibility:
    anywhere = TRUE if TRUE in some else fold(lambda a, b: Apply("or", (a, b)), some)
    everywhere = conjunction(tuple(c for e in every for c in conjuncts(e)))
    found = _ranks(anywhere, cascade) | _ranks(everywhere, cascade)
    return Visibility(
        row, swept, tuple(r for r in grid if r in found and r != row), anywhere, everywhere
    )


def _common(sets: Iterable[tuple[Expr, ...]]) -> tuple[Expr, ...]:
    """What is in all of them, in the order of the first."""
    first, *others = sets
    return tuple(c for c in first if all(c in other for other in others))


def mask_conjuncts(present: Expr, cascade: Cascade) -> tuple[Expr, ...]:
    """The conditions of a presence that are a mask's: of coordinates, in integer arithmetic."""
    return tuple(c for c in dict.fromkeys(conjuncts(present)) if _is_mask(c, cascade))


def _is_mask(condition: Expr, cascade: Cascade) -> bool:
    captured = {t.name for t in cascade.inputs if t.dtype != "float"}
    return bool(index_ranks(condition)) and all(
        x.tensor in captured if isinstance(x, Read) else dtype_of(x, cascade) != "float"
        for x in subexprs(condition)
    )


def _ranks(e: Expr, cascade: Cascade) -> frozenset[str]:
    return frozenset(cascade.rank(r).parent or r for r in index_ranks(e))
