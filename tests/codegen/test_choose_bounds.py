"""A choice between masks, made of their bounds, hides and shows the same points."""

from __future__ import annotations

import numpy as np
import pytest

from attnc.codegen.choose_bounds import choose_bounds
from attnc.codegen.prune import prune
from attnc.dsl import load_text
from attnc.ir.expr import Apply, Expr
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.pipeline import plan
from attnc.ir.plan import SweepStage, value_exprs
from attnc.ir.walk import index_ranks, subexprs
from tests.ir.geometry.pointwise import classes

SPEC = """attention chosen
input X[b, m]
input Y[b, n]
param c: bool = false
param w: int = 3
S[b, m, n] = X[b, m] * Y[b, n]
O[b, m] = logsumexp(n) S[b, m, n]  where {where}
output O[b, m]
"""


def masks(where: str) -> tuple[Expr, Expr]:
    """The mask of the body as written, and as it is emitted."""
    made = plan(load_text(SPEC.format(where=where)))
    (stage,) = (s for s in made.stages if isinstance(s, SweepStage))
    return tuple(  # type: ignore[return-value]
        _mask(s) for s in (prune(stage), choose_bounds(prune(stage), made.cascade))
    )


def _mask(stage: SweepStage) -> Expr:
    found = [
        e.args[0]
        for let in stage.passes[0].body
        for x in value_exprs(let.value)
        for e in subexprs(x)
        if isinstance(e, Apply) and e.op == "select" and {"m", "n"} & index_ranks(e.args[0])
    ]
    return found[0]


def choices(mask: Expr) -> list[Apply]:
    """The choices between masks of keys."""
    return [
        e
        for e in subexprs(mask)
        if isinstance(e, Apply) and e.op == "select" and "n" in index_ranks(e)
    ]


@pytest.mark.parametrize(
    "where",
    [
        "(if c then n <= m else n < m - w)",
        "(if c then m - w < n and n <= m else m // 2 <= n and m + w > n)",
        "(if c then n // 3 < m and m <= n // 3 else m > n // 3 and n // 3 >= w)",
        "(if m % 2 == 0 then n <= m else n < w)",
        "(if c then n > m else n > w) and n != m",
    ],
)
def test_choices_of_a_row_are_made_of_bounds(where: str) -> None:
    written, emitted = masks(where)
    assert choices(written) and not choices(emitted)
    for c in (False, True):
        bound = Bound({"m": 9, "n": 11}, {"c": c, "w": 3})
        axes = (Axis("m", 9, 1),), (Axis("n", 11, 1),)
        np.testing.assert_array_equal(*(classes(e, *axes, bound) for e in (written, emitted)))


@pytest.mark.parametrize(
    "where",
    [
        "(if n < w then n <= m else n < m - w)",
        "(if c then n <= m else n > m - w)",
        "(if c then n <= m else n // 2 < m)",
        "(if c then n <= 0.5 * M else n <= 0.25 * M)",
        "(if c then n <= m and n < w else n < m)",
    ],
)
def test_choices_that_are_no_bounds_stay(where: str) -> None:
    """Of the key, of other sides, of other integers of the key, of floats, of two at once."""
    written, emitted = masks(where)
    assert written == emitted
