"""Counting visible points tile by tile gives what counting them one by one gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.ir.expr import Expr, Index, Number, Param, Read, call
from attnc.ir.geometry import count_points as module
from attnc.ir.geometry.count_points import count_points
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.presence import TRUE

M, N, X = Index("m"), Index("n"), Index("x")
PREDICATES: dict[str, Expr] = {
    "all": TRUE,
    "causal": call("le", N, M),
    "window": call(
        "and", call("le", N, M), call("lt", call("sub", M, N), Param("window")),
    ),
    "every third": call("eq", call("mod", call("sub", M, N), Number(3)), Number(0)),
    "tied": call("lt", call("add", call("mul", N, N), call("mul", X, X)), call("mul", M, M)),
    "apart": call("and", call("lt", N, M), call("ge", X, Number(2))),
    "documents": call("eq", Read("doc", (M,)), Read("doc", (N,))),
    "nothing": call("lt", N, Number(0)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def tile_by_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FEW", 0)
    monkeypatch.setattr(module, "_CHUNK", 3000)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_points_counted_by_tiles(data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(sorted(PREDICATES)))
    m, n, x = (data.draw(st.integers(0, 40)) for _ in range(3))
    x = min(x, 9)
    doc = np.array(data.draw(st.lists(st.integers(0, 3), min_size=40, max_size=40)), np.int64)
    window = data.draw(st.integers(-2, 45))
    bound = Bound({"m": m, "n": n, "x": x}, {"window": window}, {"doc": doc})
    found = count_points(
        PREDICATES[chosen], (Axis("m", m, 5),), (Axis("n", n, 3), Axis("x", x, 1)), bound
    )
    i, j, k = np.ogrid[:m, :n, :x]
    expected = {
        "all": i == i,
        "causal": j <= i,
        "window": (j <= i) & (i - j < window),
        "every third": (i - j) % 3 == 0,
        "tied": j * j + k * k < i * i,
        "apart": (j < i) & (k >= 2),
        "documents": doc[i] == doc[j],
        "nothing": j < 0,
    }
    assert found == np.broadcast_to(expected[chosen], (m, n, x)).sum()


@settings(max_examples=60, deadline=None)
@given(*(st.integers(0, 40) for _ in range(2)), *(st.integers(-45, 45) for _ in range(2)))
def test_points_of_rows_that_see_one_range(m: int, n: int, before: int, after: int) -> None:
    seen = call(
        "and",
        call("le", call("sub", M, N), Number(before)),
        call("lt", N, call("add", call("floordiv", M, Number(2)), Number(after))),
    )
    found = count_points(seen, (Axis("m", m, 5),), (Axis("n", n, 3),), Bound({"m": m, "n": n}))
    i, j = np.ogrid[:m, :n]
    assert found == ((i - j <= before) & (j < i // 2 + after)).sum()


def test_a_million_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    million = 1 << 20
    axes = (Axis("m", million, 1),), (Axis("n", million, 1),)
    bound = Bound({"m": million, "n": million})
    monkeypatch.setattr(module, "_CHUNK", 1 << 22)
    assert count_points(PREDICATES["causal"], *axes, bound) == million * (million + 1) // 2


def test_blocks_chosen_per_head_are_counted_without_looking_at_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    select = np.random.default_rng(0).random((4, 8, 8)) < 0.3
    block = Number(32)
    chosen = Read("select", (Index("h"), call("floordiv", M, block), call("floordiv", N, block)))
    bound = Bound({"h": 4, "m": 256, "n": 256}, {}, {"select": select})
    monkeypatch.setattr(module, "evaluate", None)
    rows = (Axis("h", 4, 1), Axis("m", 256, 64))
    assert count_points(chosen, rows, (Axis("n", 256, 64),), bound) == 32 * 32 * select.sum()
