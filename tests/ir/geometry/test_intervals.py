"""What intervals say of boxes, against all points of the boxes."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.ir.expr import Expr
from attnc.ir.geometry.intervals import Compiler, Coordinates, Truth
from attnc.ir.geometry.normalise_predicate import normalise_predicate
from attnc.ir.geometry.tile_boxes import Boxes, Tables
from attnc.ir.geometry.tile_classes import Axis, Bound
from tests.ir.geometry.pointwise import holds
from tests.ir.geometry.random_masks import Case, bounds_of, plain_predicate, random_case
from tests.ir.written import expression

COUNT = 40


def truths(case: Case, predicate: Expr, boxes: dict[str, tuple[object, object]]) -> Truth:
    rows, keys = (frozenset(a.name for a in axes) for axes in (case.rows, case.keys))
    normal = normalise_predicate(predicate, bounds_of(case), rows, frozenset())
    code = Compiler(Coordinates(rows, keys, frozenset())).truth(normal)
    with np.errstate(all="ignore"):
        found = Boxes(boxes, Tables(case.bound.tensors)).truth(code)
    return Truth(*(np.broadcast_to(x, COUNT) for x in found))


@given(st.integers(0, 1 << 32))
def test_no_box_is_misjudged(seed: int) -> None:
    r = Random(seed)
    case = random_case(r)
    predicate = plain_predicate(case)
    if predicate is None:
        return
    axes = case.rows + case.keys
    visible = holds(predicate, axes, case.bound)
    data = np.random.default_rng(seed)
    ends = [np.sort(data.integers(0, a.extent, (2, COUNT)), axis=0) for a in axes]
    boxes = {a.name: (low, high) for a, (low, high) in zip(axes, ends, strict=True)}
    found = truths(case, predicate, boxes)
    for i in range(COUNT):
        box = visible[tuple(slice(low[i], high[i] + 1) for low, high in ends)]
        maybe, must, seen, gap = (bool(x[i]) for x in found)
        assert maybe or not box.any()
        assert not must or box.all()
        assert not seen or box.any()
        assert not gap or not box.all()


@pytest.mark.parametrize(
    "text",
    [
        "n <= m",
        "m - n < 5",
        "m > 30 or n < 7",
        "m // 8 * 8 - 8 <= n",
        "m - m % 8 <= n",
        "m // 7 == n // 7",
        "m % 4 == n % 4",
        "abs(m - n) <= 3",
        "clamp(min(m // 4 * 4 + 2, 39) - 8, 0, 24) <= n",
        "end[m] > n",
        "flag[n] and m > 3",
    ],
)
def test_what_is_written_once_is_decided_exactly(text: str) -> None:
    data = np.random.default_rng(0)
    tensors = {"end": data.integers(0, 40, 40), "flag": data.random(40) < 0.5}
    axes = Axis("m", 40, 1), Axis("n", 40, 1)
    case = Case(expression(text), axes[:1], axes[1:], Bound(tensors=tensors))
    visible = holds(case.predicate, axes, case.bound)
    ends = [np.sort(data.integers(0, 40, (2, COUNT)), axis=0) for _ in axes]
    boxes = {a.name: (low, high) for a, (low, high) in zip(axes, ends, strict=True)}
    found = truths(case, case.predicate, boxes)
    for i in range(COUNT):
        box = visible[tuple(slice(low[i], high[i] + 1) for low, high in ends)]
        assert [bool(x[i]) for x in found] == [box.any(), box.all(), box.any(), not box.all()]
