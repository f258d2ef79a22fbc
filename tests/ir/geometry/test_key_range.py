"""Closed forms are exact: against the predicate at every point, for all claims made of them."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc import library
from attnc.dsl.lower import lower
from attnc.dsl.parse import parse
from attnc.ir.cascade import Cascade, ParamDecl, Rank, TensorDecl
from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Apply, Expr, Index, Param
from attnc.ir.frame import Scope, Value
from attnc.ir.geometry.key_range import KeyRange, find_range, key_range
from attnc.ir.geometry.solve_for import Unsolvable
from attnc.ir.geometry.tile_range import tile_range
from attnc.ir.show import show_expr
from attnc.ir.specialise import specialise
from attnc.ir.visibility import Visibility
from attnc.ir.walk import index_ranks, reads, subexprs
from attnc.library import names
from tests.ir.written import expression

PARAMS = (
    ParamDecl("w", "int", low=1),
    ParamDecl("s", "int"),
    ParamDecl("t", "int", low=0, low_open=True, high=4),
    ParamDecl("flag", "bool"),
    ParamDecl("x", "float"),
)
NAMES = tuple(p.name for p in PARAMS)
VALUES = {"w": (1, 2, 3, 40), "s": (-3, 0, 1, 5), "t": (1, 3, 4), "flag": (True, False)}
INPUTS = (
    TensorDecl("end", ("b", "m"), "int"),
    TensorDecl("limit", ("b",), "int"),
    TensorDecl("real", ("b", "m"), "bool"),
    TensorDecl("doc", ("b", "n"), "int"),
)
CASCADE = Cascade("written", (Rank("b"), Rank("m"), Rank("n"), Rank("h")), PARAMS, INPUTS, (), ())
RNG = np.random.default_rng(7)
SIZES = ((9, 7), (5, 12), (1, 1), (8, 0))


def solve(predicate: Expr) -> KeyRange | None:
    return key_range(Visibility("m", "n", ("b",), predicate, predicate), CASCADE)


def tensors(m: int, n: int) -> dict[str, Value]:
    return {
        "end": Value(RNG.integers(-2, n + 2, (2, m)), ("b", "m")),
        "limit": Value(RNG.integers(-2, n + 2, 2), ("b",)),
        "real": Value(RNG.random((2, m)) < 0.7, ("b", "m")),
        "doc": Value(RNG.integers(0, 3, (2, n)), ("b", "n")),
    }


Array = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


def values(e: Expr, scope: Scope) -> Array:
    found = evaluate(e, scope)
    data = np.broadcast_to(found.data, tuple(len(r) for r in scope.box.values()))
    there = True if found.present is None else found.present
    return np.asarray(np.where(there, data, 0), dtype=np.int64)


def check(predicate: Expr, r: KeyRange) -> None:
    """Every point of every case; then what is claimed of the bounds along the row."""
    used = [p for p in VALUES if f"'{p}'" in repr(predicate)]
    for (m, n), chosen in product(SIZES, product(*(VALUES[p] for p in used))):
        scope = Scope(
            tensors=tensors(m, n),
            extents={"b": 2, "m": m, "n": n, "h": 3},
            params=dict(zip(used, chosen, strict=True)),
            box={"b": range(2), "m": range(m), "n": range(n)},
        )
        seen = values(predicate, scope).astype(bool)
        rows = scope.at({"b": range(2), "m": range(m)})
        low, high = values(r.low, rows), values(r.high, rows)
        keys = np.arange(n)
        np.testing.assert_array_equal(
            seen, (low[..., None] <= keys) & (keys < high[..., None]), f"{m=} {n=} {chosen}"
        )
        assert (low >= 0).all() and (high <= n).all()
        for claimed, bound in zip(r.rising, (low, high), strict=True):
            assert not claimed or (np.diff(bound, axis=-1) >= 0).all()
        longer = np.diff(np.maximum(high - low, 0), axis=-1)
        assert not r.growing or (longer >= 0).all()


ROW = ["m", "m // w", "m // w * w", "m % 3", "M - m", "m + N - M", "s", "w", "2", "0", "-1", "N"]
ROW += ["end[b, m]", "limit[b]", "min(m, s)", "max(m, limit[b])", "abs(m - s)", "m // t * t"]
ROW += ["clamp(m - w // 2, 0, N - w)", "(m if m < s else 2 * m)"]
KEY = ["n", "n", "n + s", "n // w", "n // 3", "(n + 1) // t", "2 * n", "-n", "n * w", "n - n % w"]
KEY += ["min(n, {})", "max(n, {})", "clamp(n, {}, {})", "abs(n - ({}))", "n // w * w"]
KEY += ["(n if m < s else n // 2)", "3 * (n // 2) - m", "n - w", "n // (w * t)"]
ALONE = ["m < s", "flag", "real[b, m]", "limit[b] > 2", "m % 2 == 0", "m >= limit[b]"]


def predicates() -> st.SearchStrategy[str]:
    row = st.sampled_from(ROW)
    key = st.tuples(st.sampled_from(KEY), row, row).map(lambda p: p[0].format(p[1], p[2]))
    sign = st.sampled_from(["<", "<=", ">", ">=", "=="])
    one = st.tuples(key, sign, row).map(" ".join)
    leaf = st.one_of(one, one, one, st.sampled_from(ALONE))

    def node(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        two = st.tuples(inner, inner)
        return st.one_of(
            two.map(lambda p: f"({p[0]} and {p[1]})"),
            two.map(lambda p: f"({p[0]} and {p[1]})"),
            two.map(lambda p: f"({p[0]} or {p[1]})"),
            inner.map(lambda p: f"(not {p})"),
            st.tuples(st.sampled_from(ALONE), inner, inner).map(
                lambda p: f"({p[1]} if {p[0]} else {p[2]})"
            ),
        )

    return st.recursive(leaf, node, max_leaves=4)


@given(predicates())
def test_a_range_is_the_predicate_at_every_point(text: str) -> None:
    predicate = expression(text, NAMES)
    found = solve(predicate)
    if found is not None:
        check(predicate, found)


FORMS = [
    ("n <= m", "[0, min(N, m + 1))"),
    ("n - (N - M) <= m", "[0, min(N, m + N - M + 1))"),
    ("n <= m and m - n < w", "[max(0, m - w + 1), min(N, m + 1))"),
    ("abs(m - n) <= w", "[max(0, m - w), min(N, m + w + 1))"),
    ("n // w == m // w", "[m // w * w, min(N, m // w * w + w))"),
    ("n // w <= m // w", "[0, min(N, m // w * w + w))"),
    ("n - n % w <= m", "[0, min(N, m // w * w + w))"),
    ("2 * n <= m", "[0, min(N, m // 2 + 1))"),
    ("2 * n >= m", "[(m + 1) // 2, N)"),
    ("3 - n > m - n + n", "[0, min(N, 3 - m))"),
    ("n < limit[b] or n <= m", "[0, min(N, max(limit[b], m + 1)))"),
    ("n < w or n < 2 * w", "[0, min(N, 2 * w))"),
    ("n <= end[b, m]", "[0, min(N, end[b, m] + 1))"),
    ("n <= m and m < 5", "[0, if m < 5 then min(N, m + 1) else 0)"),
    ("n <= m and limit[b] > 2", "[0, if limit[b] > 2 then min(N, m + 1) else 0)"),
    ("m < w or n < w", "[0, min(N, if m < w then N else w))"),
    ("(n <= m if flag else n < w)", "[0, min(N, if flag then m + 1 else w))"),
    ("not (n > m or m - n >= w)", "[max(0, m - w + 1), min(N, m + 1))"),
    ("m >= max(n, 3)", "[0, if 3 <= m then min(N, m + 1) else 0)"),
    ("m % 1 == n % 1 and n // 1 <= m // 1", "[0, min(N, m + 1))"),
    ("n >= 0 and n < N", "[0, N)"),
    ("n < n", "[0, 0)"),
    ("n == m and n == w", "[max(m, w), min(min(N, m + 1), w + 1))"),
]


@pytest.mark.parametrize(("text", "form"), FORMS)
def test_a_range_reads_as_a_person_would_write_it(text: str, form: str) -> None:
    predicate = expression(text, NAMES)
    found = solve(predicate)
    assert found is not None
    assert f"[{show_expr(found.low)}, {show_expr(found.high)})" == form
    check(predicate, found)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("doc[b, m] == doc[b, n]", "`doc` is data along `n`"),
        ("n % 3 == m % 3", "`n % 3 == m % 3` is not known to be one range of `n`"),
        ("not (n == m)", "`n != m` is not known to be one range of `n`"),
        ("n * n <= m", "`n * n <= m` is not known to be one range of `n`"),
        ("n * s <= m", "`n * s <= m` is not known to be one range of `n`"),
        ("n < 4 or (n <= m and m - n < w)", "there may be a gap between two ranges of `n`"),
        ("n // s <= m", "`s` may be 0 or less"),
        ("n <= m // s", "`s` may be 0 or less"),
        ("n < x", "`x` is no integer"),
        ("n < h", "`h` is a component of a rank"),
        ("n < end[b, m // 2]", "`end[b, m // 2]` is read at a computed index"),
        (" and ".join(["n < m + s"] * 200), "the mask is too long to solve"),
        ("n < " + " * ".join(["(m + s + w)"] * 30), "too many terms"),
    ],
)
def test_what_has_no_closed_form_says_why(text: str, why: str) -> None:
    predicate = expression(text, NAMES)
    needs = Visibility("m", "n", ("b",), predicate, predicate)
    assert key_range(needs, CASCADE) is None
    with pytest.raises(Unsolvable, match=re.escape(why)):
        find_range(needs, CASCADE)


@pytest.mark.parametrize(
    ("text", "rising", "growing"),
    [
        ("n <= m", (True, True), True),
        ("n < w", (True, True), True),
        ("n <= m and m - n < w", (True, True), False),
        ("n >= m", (True, True), False),
        ("n > M - m", (False, True), True),
        ("n // w == m // w", (True, True), False),
        ("n <= end[b, m]", (True, False), False),
        ("n <= m and limit[b] > 2", (True, True), True),
        ("n <= m and m < 5", (True, False), False),
        ("n <= m and m >= 5", (True, True), True),
        ("n <= m * m", (True, True), True),
        ("n <= m * s", (True, False), False),
        ("n <= m % 3", (True, False), False),
        ("n <= (m if m < 5 else 2 * m)", (True, True), True),
        ("(n <= m if flag else n < w)", (True, True), True),
        ("m - n < clamp(m // 2, 0, w)", (False, True), False),
    ],
)
def test_what_is_proved_of_the_bounds(text: str, rising: tuple[bool, bool], growing: bool) -> None:
    found = solve(expression(text, NAMES))
    assert found is not None
    assert (found.rising, found.growing) == (rising, growing)


def test_states_with_different_masks_have_no_range() -> None:
    one, two = expression("n <= m"), expression("n < m")
    assert key_range(Visibility("m", "n", (), one, two), CASCADE) is None


def test_a_rank_of_something_else_may_be_empty() -> None:
    """H is 0 here: it is no bound that `n < 1` implies, and nothing to divide by."""
    found = solve(expression("n < min(H, 1)"))
    assert found is not None
    scope = Scope(extents={"n": 4, "h": 0}, box={"m": range(3)})
    assert not values(found.high, scope).any()
    assert solve(expression("n // H <= m")) is None


def test_without_rows_to_hold_a_range_is_the_same_for_all() -> None:
    predicate = expression("n < w", NAMES)
    found = key_range(Visibility(None, "n", (), predicate, predicate), CASCADE)
    assert found is not None and found.rising == (True, True)


@pytest.mark.parametrize("tile", [1, 3, 4])
@pytest.mark.parametrize("text", [text for text, _ in FORMS])
def test_a_tile_visits_what_a_row_sees_and_is_full_where_all_do(text: str, tile: int) -> None:
    found = solve(expression(text, NAMES))
    assert found is not None
    tiles = tile_range(found, "m")
    params = {"w": 3, "s": 1, "flag": True, "t": 2}
    scope = Scope(tensors=tensors(9, 7), extents={"m": 9, "n": 7}, params=params)
    for b, first in product(range(2), range(0, 9, tile)):
        rows = range(first, min(first + tile, 9))
        at = {"b": range(b, b + 1), "m": rows}
        ends = {"first": range(first, first + 1), "last": range(rows[-1], rows[-1] + 1)}
        low, high = (values(e, scope.at(at)) for e in (found.low, found.high))
        expected = (low.min(), high.max(), low.max(), high.min())
        bounds = (tiles.start, tiles.stop, tiles.full_start, tiles.full_stop)
        for bound, value in zip(bounds, expected, strict=True):
            of = values(bound.expr, scope.at(at if bound.of_rows else {**at, **ends}))
            assert (of.min() if bound.of_rows == "least" else of.max()) == value


def window(i: int, length: int, size: int, stride: int, causal: bool) -> tuple[int, int]:
    """The keys [a, b) of query i: NATTEN's mask.hpp, one axis, no dilation."""
    if causal:
        leader = min(stride * (i // stride) + stride - 1, length - 1)
        return max(leader - size + 1, 0), i + 1
    leader = min(stride * (i // stride) + stride // 2, length - 1)
    start = min(max(leader - size // 2, 0), length - size)
    return start, start + size


NEIGHBORHOOD = """attention near
param window: int = 7 in [1, inf)
param stride: int = 1 in [1, inf)
param causal: bool = false
const param dilation: int = 1
input A[m, n]
mask near[m, n] = neighborhood(m, n, N, window, stride, dilation, causal)
O[m] = sum(n) A[m, n]  where near[m, n]
output O[m]
"""


def test_neighborhoods_without_dilation_are_those_of_natten() -> None:
    cascade = specialise(lower(parse(NEIGHBORHOOD, "near.attn")))
    predicate = cascade.statements[0].where
    assert predicate is not None
    found = key_range(Visibility("m", "n", (), predicate, predicate), cascade)
    assert found is not None and found.rising == (True, True)
    for length, causal in product(range(1, 12), (False, True)):
        for size in range(1, length + 1):
            for stride in range(1, size + 1):
                scope = Scope(
                    extents={"m": length, "n": length},
                    params={"window": size, "stride": stride, "causal": causal},
                    box={"m": range(length)},
                )
                low, high = values(found.low, scope), values(found.high, scope)
                expected = [window(i, length, size, stride, causal) for i in range(length)]
                assert list(zip(low, high, strict=True)) == expected


CLOSED = {
    "alibi": "[0, min(N, m + 1))",
    "causal": "[0, min(N, m + 1))",
    "gqa": "[0, min(N, m + N - M + 1))",
    "longca_prefix_lm_causal": "[0, min(N, max(m + 1, prefix + 1)))",
    "longca_sliding_window": "[max(0, m - window), min(N, m + window + 1))",
    "prefix_lm": "[0, min(N, max(m + 1, prefix[b])))",
    "sliding_window": "[max(0, m - window + 1), min(N, m + 1))",
}
OPEN = ("block_sparse", "document", "na2d", "strided", "streaming_llm")


@pytest.mark.parametrize("name", names())
def test_library_masks(name: str) -> None:
    """Each mask that has a closed form, at every point of small problems."""
    cascade = specialise(lower(parse(library.text(name), f"{name}.attn")))
    masks = {s.where for s in cascade.statements if s.where is not None}
    forms = set()
    for mask in masks:
        ranks = index_ranks(mask)
        grid = tuple(r.name for r in cascade.ranks if r.name in ranks - {"m", "n"} and not r.parent)
        found = key_range(Visibility("m", "n", grid, mask, mask), cascade)
        forms.add(found and f"[{show_expr(found.low)}, {show_expr(found.high)})")
        if found is not None:
            _check_library(cascade, mask, grid, found)
    assert (name in OPEN) <= (forms == {None})
    assert name not in CLOSED or forms == {CLOSED[name]}


def _check_library(cascade: Cascade, mask: Expr, grid: tuple[str, ...], r: KeyRange) -> None:
    used = {(x.name, x.item) for x in subexprs(mask) if isinstance(x, Param)}
    assert all(item is None for _, item in used)
    read = {x.tensor for x in reads(mask)}
    for (m, n), value in product(((7, 7), (5, 9), (9, 4)), (1, 2, 5)):
        extents = {**dict.fromkeys(grid, 2), "m": m, "n": n}
        tensors = {
            t.name: Value(RNG.integers(0, n + 1, [extents[i] for i in t.ranks]), t.ranks)
            for t in cascade.inputs
            if t.name in read
        }
        box = {rank: range(size) for rank, size in extents.items()}
        scope = Scope(tensors=tensors, extents=extents, params={p: value for p, _ in used}, box=box)
        keys = Apply("and", (Apply("le", (r.low, Index("n"))), Apply("lt", (Index("n"), r.high))))
        np.testing.assert_array_equal(values(keys, scope), values(mask, scope))
