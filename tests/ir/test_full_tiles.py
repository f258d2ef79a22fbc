"""The body for full tiles: no mask arithmetic, the same results where nothing is hidden."""

from __future__ import annotations

import pytest

from attnc.api import load
from attnc.ir.cascade import DType
from attnc.ir.expr import Apply, Expr, Extent, Index
from attnc.ir.plan import Let, Load, Pass, SweepStage, map_value
from attnc.ir.walk import subexprs
from attnc.library import names


def passes(name: str) -> list[tuple[SweepStage, Pass]]:
    stages = [s for s in load(name).plan.stages if isinstance(s, SweepStage)]
    return [(s, p) for s in stages for p in s.passes]


def expressions(lets: tuple[Let, ...]) -> list[Expr]:
    found: list[Expr] = []

    def note(e: Expr) -> Expr:
        found.extend(subexprs(e))
        return e

    for let in lets:
        if not isinstance(let.value, Load):
            map_value(let.value, note)
    return found


def dtypes(lets: tuple[Let, ...]) -> dict[str, DType]:
    return {x.name: x.dtype for x in lets}


@pytest.mark.parametrize("name", names())
def test_full_tiles_have_no_edge_and_no_mask(name: str) -> None:
    for stage, p in passes(name):
        inside = Apply("lt", (Index(stage.swept), Extent(stage.swept)))
        masks = [c for c in subexprs(p.visibility.every) if isinstance(c, Apply)]
        found = expressions(p.full)
        assert inside not in found
        comparisons = [c for c in masks if c.op in ("le", "lt", "ge", "gt", "eq", "ne")]
        assert not any(c in found for c in comparisons)


@pytest.mark.parametrize("name", names())
def test_full_tiles_define_the_same_updates(name: str) -> None:
    for _, p in passes(name):
        full, body = dtypes(p.full), dtypes(p.body)
        assert {c.update for c in p.carries} <= full.keys() <= body.keys()
        assert all(body[n] == t for n, t in full.items())
        assert [x for x in body if x in full] == list(full)


def test_a_map_without_a_mask_only_loses_its_edge() -> None:
    ((_, p),) = passes("sdpa")
    assert len(p.full) == len(p.body) - 1
