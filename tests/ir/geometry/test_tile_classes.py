"""Tile classes against the evaluation of every point, and what must hold of them at any size."""

from __future__ import annotations

from functools import reduce as fold
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.cascade import Einsum
from attnc.ir.expr import Expr, Extent, Index, Number, Param
from attnc.ir.geometry import refine_tiles
from attnc.ir.geometry.tile_classes import Axis, Bound, TileClasses, tile_classes
from attnc.ir.presence import conjunction
from attnc.ir.walk import substitute
from tests.ir.geometry.pointwise import classes
from tests.ir.geometry.random_masks import Case, random_case
from tests.ir.written import expression


def check(case: Case) -> TileClasses:
    """Classify and compare everything with the classes of all points."""
    with np.errstate(all="ignore"):
        expected = classes(case.predicate, case.rows, case.keys, case.bound, case.exists)
    found = tile_classes(case.predicate, case.rows, case.keys, case.bound, case.exists)
    runs = found.runs()
    np.testing.assert_array_equal(runs.classes(), expected, err_msg=repr(case))
    visited = (expected > 0).sum(axis=1)
    assert (found.rows, found.keys) == expected.shape
    assert (found.visited, found.full) == (visited.sum(), (expected == 2).sum())
    if expected.size:
        assert (found.most, found.fewest) == (visited.max(), visited.min())
    np.testing.assert_array_equal(runs.visited(), visited)
    return found


@given(st.integers(0, 1 << 32), st.sampled_from([1, 4, 32]))
def test_random_predicates(seed: int, points: int) -> None:
    with patch.object(refine_tiles, "_POINTS", points):
        check(random_case(Random(seed)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_many_random_predicates(seed: int) -> None:
    r = Random(seed)
    for _ in range(100):
        check(random_case(r))


def line(text: str, m: int, n: int, tile: tuple[int, int], **tensors: object) -> Case:
    bound = Bound({"m": m, "n": n}, {"w": 5}, tensors)
    rows, keys = (Axis("m", m, tile[0]),), (Axis("n", n, tile[1]),)
    return Case(expression(text, ["w"]), rows, keys, bound)


@pytest.mark.parametrize("m, n", [(0, 5), (5, 0), (0, 0), (1, 1), (13, 29)])
def test_any_extent(m: int, n: int) -> None:
    for text in ("True", "False", "n <= m", "n < w", "m > 7", "n <= m and m - n < w"):
        check(line(text, m, n, (4, 3)))


def test_divisors_of_zero_hide_and_negative_ones_round_down() -> None:
    for text in (
        "n // 0 == 0",
        "n % (m - 3) == 1",
        "m // (n - 5) < 2",
        "n % (0 - 4) > m // (0 - 3)",
    ):
        check(line(text, 9, 11, (2, 3)))
    check(line("m == 1 if n == 0 else m % n == 1", 9, 11, (4, 3)))
    assert tile_classes(*_axes("not n // 0 == 0", 4), Bound()).visited == 0


def _axes(text: str, size: int) -> tuple[Expr, tuple[Axis, ...], tuple[Axis, ...]]:
    return expression(text), (Axis("m", size, 2),), (Axis("n", size, 2),)


def test_an_index_outside_its_tensor_reads_the_edge() -> None:
    end = np.array([3, 9, 4])
    check(line("n < end[m - 2]", 9, 11, (2, 3), end=end))
    check(line("m < 3 and n < end[m]", 9, 11, (2, 3), end=end))


def test_floats_are_compared_as_the_language_does() -> None:
    for text in ("m * 0.1 + n * 0.2 <= 0.3", "float_(m) / (n - 2) < 1.5", "(m - n) ** 2 * 0.5 < 2"):
        check(line(text, 9, 11, (2, 3)))
    # Nothing varies, and intervals, which are rounded outwards, do not tell 1.0 from less.
    check(line("float_(some[m]) * 0.5 < 1", 1, 1, (1, 1), some=np.array([2])))


def test_values_beyond_64_bits_are_refused() -> None:
    with pytest.raises(AttncError, match="64 bits") as e:
        tile_classes(*_axes("m * m * m * 1000000007 * 1000000007 * n > 5", 1 << 20), Bound())
    assert e.value.code == "E518"
    check(line("m * 4000000000 - n * 3000000000 > 0", 9, 11, (2, 3)))


def test_division_with_a_remainder_is_refused() -> None:
    with pytest.raises(AttncError, match="leaves a remainder") as e:
        tile_classes(*_axes("m % (M @ 3) == n", 10), Bound({"m": 10}))
    assert e.value.code == "E602"


def test_a_conjunction_over_axes_is_never_multiplied_out() -> None:
    size = 1 << 30
    rows, keys = (tuple(Axis(f"{s}{c}", size, size // 64) for c in "tyx") for s in "mn")
    near = " and ".join(f"m{c} - n{c} <= 5 and n{c} - m{c} <= 5" for c in "tyx")
    found = tile_classes(expression(near), rows, keys, Bound())
    assert len(found.factors) == 3
    assert found.visited == (64 + 2 * 63) ** 3 and found.full == 0
    assert (found.most, found.fewest) == (27, 8)


def test_a_million_tokens() -> None:
    size, tile, window = 1 << 20, 128, 1024
    axes = (Axis("m", size, tile),), (Axis("n", size, tile),)
    tiles = size // tile
    causal = tile_classes(expression("n <= m"), *axes, Bound())
    assert causal.visited == tiles * (tiles + 1) // 2 and causal.partial == tiles
    assert len(causal.runs().start) == 2 * tiles - 1
    bound = Bound(params={"w": window})
    near = tile_classes(expression("n <= m and m - n < w", ["w"]), *axes, bound)
    across = window // tile
    assert near.visited == sum(min(i, across) + 1 for i in range(tiles))
    assert near.partial == tiles + tiles - across


SAME = ("doc[m] == doc[n]", "n <= m and doc[m] == doc[n]", "doc[n] != doc[m] or m < 5")


@given(st.data(), st.sampled_from(SAME), st.sampled_from(["any", "rising", "falling", "whole"]))
def test_documents_in_order_or_not(data: st.DataObject, text: str, order: str) -> None:
    size, documents = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 40))
    numbers = np.random.default_rng(data.draw(st.integers(0, 99)))
    ids = numbers.integers(-3, documents, size)
    if order != "any":
        ids = np.sort(ids)[:: -1 if order == "falling" else 1]
    if order == "whole":
        ids = numbers.permutation(documents + 3)[ids]
    check(line(text, size, size, (data.draw(st.integers(1, 40)), 16), doc=ids))


def test_a_million_tokens_of_documents_in_no_order() -> None:
    size, tile, length = 1 << 20, 128, 100
    order = np.random.default_rng(0).permutation(size // length + 1)
    bound = Bound(tensors={"doc": order[np.arange(size) // length]})
    axes = (Axis("m", size, tile),), (Axis("n", size, tile),)
    found = tile_classes(expression("doc[m] == doc[n]"), *axes, bound)
    cuts = np.arange(tile, size, tile)
    assert found.visited == size // tile + 2 * np.count_nonzero(cuts % length)


def test_batches_have_documents_of_their_own() -> None:
    doc = np.random.default_rng(1).integers(0, 6, (3, 50))
    bound = Bound(tensors={"doc": doc})
    rows = (Axis("b", 3, 1), Axis("m", 50, 8))
    check(Case(expression("doc[b, m] == doc[b, n]"), rows, (Axis("n", 50, 4),), bound))
    check(Case(expression("doc[b, m] == doc[2 - b, n] or n < b"), rows, (Axis("n", 50, 4),), bound))


def test_points_that_do_not_exist_are_neither_visible_nor_missing() -> None:
    # 11 tokens in two dilation groups, as (group, position): the second group is shorter.
    rows, keys = ((Axis(s, 2, 1), Axis(f"{s}u", 6, 3)) for s in "rs")
    visible = expression("ru >= su and r == s")
    exists = expression("r + 2 * ru < 11 and s + 2 * su < 11")
    found = check(Case(visible, rows, keys, Bound(), exists)).runs().classes()
    assert found[3, 3] == 1 and found[3, 2] == 2
    check(Case(expression("r == s"), rows, keys, Bound(), exists))
    check(Case(expression("True"), rows, keys, Bound(), expression("ru < 3 and su > 4")))


SPEC = """attention near
param w: int = 3
param s: int = 1
param dilation: int = 1
param c: bool = false
input Q[m, d]
input K[n, d]
mask near[m, n] = neighborhood(m, n, N, w, s, dilation, c)
O[m] = sum(n, d) Q[m, d] * K[n, d] where near[m, n]
output O[m]
"""


@pytest.fixture(scope="module")
def neighborhood() -> Expr:
    (statement,) = load_text(SPEC).statements
    assert isinstance(statement, Einsum) and statement.where is not None
    return statement.where


def sees(
    i: int, j: int, length: int, window: int, stride: int, dilation: int, causal: bool
) -> bool:
    """NATTEN's definition (mask.hpp), query by query in plain integers."""
    group = i % dilation
    if j % dilation != group:
        return False
    u, v = i // dilation, j // dilation
    inside = (length - group + dilation - 1) // dilation
    if causal:
        leader = min(u // stride * stride + stride - 1, inside - 1)
        return max(leader - window + 1, 0) <= v < u + 1
    leader = min(u // stride * stride + stride // 2, inside - 1)
    left = window // 2
    right = window // 2 + window % 2 - 1
    start = max(leader - left, 0)
    if leader + right >= inside:
        start += inside - right - leader - 1
    return start <= v < start + window


@given(st.data())
def test_neighborhood_is_the_published_one(neighborhood: Expr, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 40))
    dilation = data.draw(st.integers(1, length))
    window = data.draw(st.integers(1, length // dilation))
    stride = data.draw(st.integers(1, window))
    causal = data.draw(st.booleans())
    tiles = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    params = {"w": window, "s": stride, "dilation": dilation, "c": causal}
    rows, keys = (Axis("m", length, tiles[0]),), (Axis("n", length, tiles[1]),)
    found = tile_classes(neighborhood, rows, keys, Bound({"n": length}, params)).runs().classes()
    every = range(length)
    seen = [[sees(i, j, length, window, stride, dilation, causal) for j in every] for i in every]
    np.testing.assert_array_equal(found, in_tiles(np.array(seen), tiles))


def in_tiles(seen: Any, tiles: tuple[int, int]) -> list[list[int]]:
    """The class of each tile of a matrix of points."""
    cut = [
        [seen[i : i + tiles[0], j : j + tiles[1]] for j in range(0, seen.shape[1], tiles[1])]
        for i in range(0, seen.shape[0], tiles[0])
    ]
    return [[2 if part.all() else 1 if part.any() else 0 for part in row] for row in cut]


@given(st.data(), st.sampled_from([2, 3]))
def test_neighborhoods_of_several_axes(neighborhood: Expr, data: st.DataObject, axes: int) -> None:
    sizes: dict[str, int] = {}
    rows, keys, conditions, alone = [], [], [], []
    for c in "tyx"[:axes]:
        length = data.draw(st.integers(1, 9 if axes == 2 else 5))
        window = data.draw(st.integers(1, length))
        stride = data.draw(st.integers(1, window))
        causal = data.draw(st.booleans())
        sizes |= {f"m{c}": length, f"n{c}": length}
        rows.append(Axis(f"m{c}", length, data.draw(st.integers(1, 4))))
        keys.append(Axis(f"n{c}", length, data.draw(st.integers(1, 4))))
        put_in: dict[Expr, Expr] = {
            Index("m"): Index(f"m{c}"),
            Index("n"): Index(f"n{c}"),
            Extent("n"): Number(length),
            Param("w"): Number(window),
            Param("s"): Number(stride),
            Param("dilation"): Number(1),
            Param("c"): Number(causal),
        }
        conditions.append(substitute(neighborhood, put_in))
        every = range(length)
        alone.append(
            [[sees(i, j, length, window, stride, 1, causal) for j in every] for i in every]
        )
    predicate = conjunction(tuple(conditions))
    grids = {s: tuple(f"{s}{c}" for c in "tyx"[:axes]) for s in "mn"}
    bound = Bound(sizes, components=grids)
    # Cut along each axis.
    check(Case(predicate, tuple(rows), tuple(keys), bound))
    # Cut as a line: the mask is the Kronecker product of those of the axes.
    seen = fold(np.kron, map(np.array, alone))
    tiles = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    lines = (Axis("m", len(seen), tiles[0]),), (Axis("n", len(seen), tiles[1]),)
    found = tile_classes(predicate, *lines, bound).runs().classes()
    np.testing.assert_array_equal(found, in_tiles(seen, tiles))
