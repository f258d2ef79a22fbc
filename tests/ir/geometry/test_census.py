"""Counts of tiles equal those of a mask that is written out, tile by tile and key by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.api import load
from attnc.ir.bind import check_params
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Expr, Index, Number, Read, call
from attnc.ir.geometry.census import Census, KeyTiles, Part, census
from attnc.ir.geometry.dilation import Problem
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.plan import SweepStage
from attnc.ir.presence import TRUE
from attnc.ir.visibility import Visibility, joint_visibility

Matrix = np.ndarray[Any, np.dtype[np.bool_]]


# a mask written out ------------------------------------------------------------------------------


def _neighborhood(length: int, window: int, stride: int, dilation: int, causal: bool) -> Matrix:
    """[query, key] of one axis, from the rule as the kernels of NATTEN compute it."""
    found = np.zeros((length, length), bool)
    for i in range(length):
        group = i % dilation
        u, size = i // dilation, len(range(group, length, dilation))
        if causal:
            leader = min(u // stride * stride + stride - 1, size - 1)
            low, high = max(leader - window + 1, 0), u + 1
        else:
            leader = min(u // stride * stride + stride // 2, size - 1)
            left, right = window // 2, window // 2 + (window % 2 - 1)
            low = max(leader - left, 0)
            low += (leader + right >= size) * (size - right - leader - 1)
            high = low + window
        found[i, [group + v * dilation for v in range(low, high)]] = True
    return found


def _tiles(extents: Sequence[int], tiles: Sequence[int]) -> Iterator[list[tuple[int, ...]]]:
    """The points of each tile."""
    cuts = [range(0, n, t) for n, t in zip(extents, tiles, strict=True)]
    for low in product(*cuts):
        sides = zip(low, extents, tiles, strict=True)
        yield list(product(*(range(a, min(a + t, n)) for a, n, t in sides)))


def _counts(
    seen: Any, queries: Sequence[int], keys: Sequence[int], tq: Sequence[int], tk: Sequence[int]
) -> tuple[list[int], int]:
    """(tiles visited by each query tile, full tiles) on the fixed grid; `seen(query, key)`."""
    visited, full = [], 0
    for q in _tiles(queries, tq):
        held = [[seen(a, b) for a in q for b in k] for k in _tiles(keys, tk)]
        visited.append(sum(any(h) for h in held))
        full += sum(all(h) for h in held)
    return visited, full


def _shifted(
    seen: Any, queries: Sequence[int], keys: Sequence[int], tq: Sequence[int], tk: Sequence[int]
) -> tuple[list[int], int]:
    """The same where key tiles start at the first key, axis by axis, that the query tile sees."""
    visited, full = [], 0
    for q in _tiles(queries, tq):
        every = list(product(*map(range, keys)))
        some = [k for k in every if any(seen(a, k) for a in q)]
        if not some:
            visited.append(0)
            continue
        first = [min(k[i] for k in some) for i in range(len(keys))]
        sides = list(zip(first, tk, strict=True))

        def tile(k: tuple[int, ...], sides: list[tuple[int, int]] = sides) -> tuple[int, ...]:
            return tuple((x - a) // t for x, (a, t) in zip(k, sides, strict=True))

        tiles = {tile(k) for k in some}
        visited.append(len(tiles))
        for each in tiles:
            full += all(seen(a, k) for k in every if tile(k) == each for a in q)
    return visited, full


def _check(found: Census, visited: list[int], full: int, visible: int) -> None:
    assert found.query_tiles == len(visited)
    assert found.visited == sum(visited)
    assert (found.most, found.fewest) == (max(visited, default=0), min(visited, default=0))
    assert found.full == full
    assert found.fully_block_sparse == (full == sum(visited))
    assert found.visible == visible


# neighborhoods -----------------------------------------------------------------------------------


@cache
def _sees(spec: str) -> tuple[Cascade, Visibility]:
    plan = load(spec).plan
    (sweep,) = plan.stages
    assert isinstance(sweep, SweepStage)
    return plan.cascade, joint_visibility((p.visibility for p in sweep.passes), plan.cascade)


def _axes(
    cascade: Cascade, shape: dict[str, int], tiles: Any
) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    names = [cascade.rank(r).components or (r,) for r in "mn"]
    rows, keys = (
        tuple(Axis(c, shape[c], t) for c, t in zip(parts, tile, strict=True))
        for parts, tile in zip(names, tiles, strict=True)
    )
    return rows, keys


def _census(spec: str, shape: dict[str, int], tiles: Any, start: KeyTiles, **given: Any) -> Census:
    cascade, seen = _sees(spec)
    bound = Bound(shape, check_params(cascade, given))
    return census(seen, (), *_axes(cascade, shape, tiles), bound, start=start)


_STARTS: tuple[KeyTiles, ...] = ("static", "dynamic")


@settings(max_examples=70, deadline=None)
@given(st.data())
def test_a_neighborhood_over_a_sequence(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 40))
    dilation = data.draw(st.integers(1, min(4, length)))
    window = data.draw(st.integers(1, length // dilation))
    stride = data.draw(st.integers(1, window))
    causal = data.draw(st.booleans())
    tq, tk = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    start = data.draw(st.sampled_from(_STARTS))
    params = {"window": window, "stride": stride, "dilation": dilation, "causal": causal}
    found = _census("na1d", {"m": length, "n": length}, ((tq,), (tk,)), start, **params)
    matrix = _neighborhood(length, window, stride, dilation, causal)
    count = _counts if start == "static" else _shifted
    visited: list[int] = []
    full = 0
    for group in range(dilation):
        inside = matrix[group::dilation, group::dilation]
        more = count(lambda a, b: inside[a[0], b[0]], (len(inside),), (len(inside),), (tq,), (tk,))  # noqa: B023
        visited, full = visited + more[0], full + more[1]
    _check(found, visited, full, int(matrix.sum()))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_fully_block_sparse_is_what_the_windows_say(data: st.DataObject) -> None:
    # Exactly where queries of a tile share their window, and it begins and ends with key tiles.
    length, tq, tk = (data.draw(st.integers(1, n)) for n in (48, 6, 6))
    window = data.draw(st.integers(1, length))
    stride = data.draw(st.integers(1, window))
    shape = {"m": length, "n": length}
    found = _census("na1d", shape, ((tq,), (tk,)), "static", window=window, stride=stride)
    starts = _neighborhood(length, window, stride, 1, False).argmax(axis=1)
    tiles = [set(starts[i : i + tq].tolist()) for i in range(0, length, tq)]
    ends = [(first + window) % tk == 0 or first + window == length for first, *_ in tiles]
    alike = all(len(t) == 1 and next(iter(t)) % tk == 0 for t in tiles)
    assert found.fully_block_sparse == (alike and all(ends))


def _plane(extents: tuple[int, int]) -> dict[str, int]:
    return {f"{r}{c}": n for r in "mn" for c, n in zip("yx", extents, strict=True)}


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_neighborhood_over_a_plane(data: st.DataObject) -> None:
    extents = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    window = tuple(data.draw(st.integers(1, n)) for n in extents)
    stride = tuple(data.draw(st.integers(1, w)) for w in window)
    causal = data.draw(st.tuples(st.booleans(), st.booleans()))
    tiles = [data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4))) for _ in range(2)]
    start = data.draw(st.sampled_from(_STARTS))
    shape = _plane(extents)
    found = _census("na2d", shape, tiles, start, window=window, stride=stride, causal=causal)
    y, x = (
        _neighborhood(n, w, step, 1, flag)
        for n, w, step, flag in zip(extents, window, stride, causal, strict=True)
    )
    count = _counts if start == "static" else _shifted
    seen = count(lambda a, b: y[a[0], b[0]] and x[a[1], b[1]], extents, extents, *tiles)
    _check(found, *seen, int(y.sum()) * int(x.sum()))
    assert len(found.parts) == 2


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_flat_tiles_of_a_plane(data: st.DataObject) -> None:
    extents = data.draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    window = tuple(data.draw(st.integers(1, n)) for n in extents)
    tiles = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    start = data.draw(st.sampled_from(_STARTS))
    cascade, seen = _sees("na2d")
    shape = {**_plane(extents), "m": prod(extents), "n": prod(extents)}
    bound = Bound(
        shape,
        check_params(cascade, {"window": window}),
        {},
        {"m": ("my", "mx"), "n": ("ny", "nx")},
    )
    rows, keys = (Axis(r, shape[r], t) for r, t in zip("mn", tiles, strict=True))
    found = census(seen, (), (rows,), (keys,), bound, start=start, grouped=False)
    y, x = (_neighborhood(n, w, 1, 1, False) for n, w in zip(extents, window, strict=True))
    matrix = np.kron(y, x)
    count = _counts if start == "static" else _shifted
    sides = ((len(matrix),),) * 2
    flat = count(lambda a, b: matrix[a[0], b[0]], *sides, *((t,) for t in tiles))
    _check(found, *flat, int(matrix.sum()))


@pytest.mark.parametrize(
    ("spec", "extents", "window", "tiles", "stride", "by_max", "full"),
    [
        ("na2d", (256, 256), (80, 80), ((16, 16), (16, 8)), (1, 1), 6.10, False),
        ("na2d", (256, 256), (80, 80), ((16, 16), (16, 8)), (16, 16), 10.24, True),
        ("na3d", (30, 48, 80), (18, 24, 24), ((4, 8, 8), (2, 8, 8)), (1, 1, 1), 3.27, False),
        ("na3d", (30, 48, 80), (18, 24, 24), ((4, 8, 8), (2, 8, 8)), (16, 8, 8), 11.11, True),
        ("gna", (1, 256, 256), (1, 80, 80), ((1, 16, 16), (1, 16, 8)), (1, 1, 1), 6.10, False),
        ("gna", (1, 256, 256), (1, 80, 80), ((1, 16, 16), (1, 16, 8)), (1, 16, 16), 10.24, True),
        ("gna", (30, 48, 80), (18, 24, 24), ((4, 8, 8), (2, 8, 8)), (1, 1, 1), 3.27, False),
        ("gna", (30, 48, 80), (18, 24, 24), ((4, 8, 8), (2, 8, 8)), (16, 8, 8), 11.11, True),
    ],
)
def test_published_points(
    spec: str, extents: Any, window: Any, tiles: Any, stride: Any, by_max: float, full: bool
) -> None:
    names = ("t", "y", "x")[-len(extents) :]
    shape = {f"{r}{c}": n for r in "mn" for c, n in zip(names, extents, strict=True)}
    found = _census(spec, shape, tiles, "static", window=window, stride=stride)
    assert round(found.tile_max, 2) == by_max
    assert found.fully_block_sparse == full
    assert found.flop == prod(extents) / prod(window)


# any predicate -----------------------------------------------------------------------------------

M, N, Y, X = (Index(r) for r in ("m", "n", "ny", "nx"))


def _seen(some: Expr, every: Expr, grid: tuple[str, ...] = ()) -> Visibility:
    return Visibility("m", "n", grid, some, every)


def test_no_mask_is_full() -> None:
    axes = (Axis("m", 10, 4),), (Axis("n", 7, 3),)
    found = census(_seen(TRUE, TRUE), (), *axes, Bound({"m": 10, "n": 7}))
    assert (found.visited, found.full, found.empty, found.visible) == (9, 9, 0, 70)
    assert found.padding == (12 / 10, 9 / 7)


@pytest.mark.parametrize(("m", "n"), [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("start", _STARTS)
def test_nothing_to_count(m: int, n: int, start: KeyTiles) -> None:
    axes = (Axis("m", m, 4),), (Axis("n", n, 3),)
    causal = call("le", N, M)
    found = census(_seen(causal, causal), (), *axes, Bound({"m": m, "n": n}), start=start)
    assert (found.visited, found.full, found.most, found.visible) == (0, 0, 0, 0)
    assert found.query_tiles == -(-m // 4)


def test_states_with_masks_of_their_own() -> None:
    # One state sees the past, the other a window of it: full is what both see.
    past = call("le", N, M)
    near = call("and", past, call("lt", call("sub", M, N), Number(5)))
    axes = (Axis("m", 16, 4),), (Axis("n", 16, 2),)
    for start in _STARTS:
        found = census(_seen(past, near), (), *axes, Bound({"m": 16, "n": 16}), start=start)
        tiles = [(q, k) for q in range(0, 16, 4) for k in range(0, 16, 2)]
        assert found.visited == sum(k <= q + 3 for q, k in tiles)
        assert found.full == sum(k + 1 <= q and q + 3 - k < 5 for q, k in tiles)


@pytest.mark.parametrize("start", _STARTS)
def test_key_axes_that_are_tied_together(start: KeyTiles) -> None:
    # A circle around the query, and a column that all see: no product of axes.
    def circle(m: Any, y: Any, x: Any) -> Any:
        return (y - m) ** 2 + (x - m) ** 2 < 8

    dy, dx = call("sub", Y, M), call("sub", X, M)
    inside = call("lt", call("add", call("mul", dy, dy), call("mul", dx, dx)), Number(8))
    mask = call("or", inside, call("eq", X, Number(6)))
    rows, keys = (Axis("m", 9, 2),), (Axis("ny", 9, 4), Axis("nx", 10, 3))
    count = _counts if start == "static" else _shifted
    found = census(
        _seen(mask, mask), (), rows, keys, Bound({"m": 9, "ny": 9, "nx": 10}), start=start
    )
    seen = count(lambda a, b: circle(*a, *b) or b[1] == 6, (9,), (9, 10), (2,), (4, 3))
    visible = sum(circle(m, y, x) or x == 6 for m in range(9) for y in range(9) for x in range(10))
    _check(found, *seen, visible)


@pytest.mark.parametrize("start", _STARTS)
def test_a_mask_of_data_per_batch(start: KeyTiles) -> None:
    doc = np.array([[0, 0, 1, 1, 1, 0, 2, 2, 2], [3, 3, 3, 3, 1, 1, 1, 1, 1]])
    same = call("eq", Read("doc", (Index("b"), M)), Read("doc", (Index("b"), N)))
    bound = Bound({"b": 2, "m": 9, "n": 9}, {}, {"doc": doc})
    axes = (Axis("b", 2, 1),), (Axis("m", 9, 4),), (Axis("n", 9, 2),)
    found = census(_seen(same, same, ("b",)), *axes, bound, start=start)
    count = _counts if start == "static" else _shifted
    parts = [count(lambda a, k, d=d: d[a] == d[k], (9,), (9,), (4,), (2,)) for d in doc]
    visible = int((doc[:, :, None] == doc[:, None]).sum())
    _check(found, parts[0][0] + parts[1][0], parts[0][1] + parts[1][1], visible)


def test_dilation_is_found_in_any_mask_and_not_where_a_grid_is_read_whole() -> None:
    def same(a: Expr, b: Expr) -> Expr:
        return call("eq", *(call("mod", x, Number(3)) for x in (a, b)))

    mask = call("and", same(N, M), call("le", N, M))
    axes = (Axis("m", 10, 2),), (Axis("n", 10, 2),)
    bound = Bound({"m": 10, "n": 10})
    found = census(_seen(mask, mask), (), *axes, bound)
    # Groups of 4, 3 and 3 tokens: causal in themselves.
    assert (found.query_tiles, found.key_tiles, found.visited) == (6, 6, 9)
    assert census(_seen(mask, mask), (), *axes, bound, grouped=False).query_tiles == 5
    grid = Bound({"m": 12, "my": 3, "mx": 4, "n": 4}, {}, {}, {"m": ("my", "mx")})
    mask = call("and", same(Index("mx"), N), call("ge", M, N))
    rows = (Axis("my", 3, 1), Axis("mx", 4, 2))
    assert census(_seen(mask, mask), (), rows, (Axis("n", 4, 2),), grid).query_tiles == 6


def test_what_was_counted_once_is_remembered() -> None:
    known: dict[Problem, Part] = {}
    shape = {"my": 16, "mx": 16, "ny": 16, "nx": 16}
    cascade, seen = _sees("na2d")
    axes = _axes(cascade, shape, ((4, 4), (4, 4)))
    for stride in product((1, 2, 4), repeat=2):
        params = check_params(cascade, {"window": (4, 4), "stride": stride})
        census(seen, (), *axes, Bound(shape, params), known=known)
    assert len(known) == 6


def test_dilation_groups_of_one_length_share_their_count() -> None:
    known: dict[Problem, Part] = {}
    cascade, seen = _sees("na1d")
    shape = {"m": 30, "n": 30}
    bound = Bound(shape, check_params(cascade, {"window": 3, "dilation": 4}))
    found = census(seen, (), *_axes(cascade, shape, ((2,), (2,))), bound, known=known)
    assert found.parts[0].dilations[0].step == 4
    # The whole, groups of 8 tokens, groups of 7.
    assert len(known) == 3
