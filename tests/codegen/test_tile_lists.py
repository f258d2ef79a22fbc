"""The function that lists visited tiles, run on the CPU, against every point of the mask."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnc import library
from attnc.codegen.host import Host
from attnc.codegen.tile_lists import TileLists, tile_list_helpers, write_tile_lists
from attnc.dsl import load_text
from attnc.ir.cascade import Cascade
from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.frame import ParamValue, Scope, Value
from attnc.ir.geometry.layout import Layout, tile_shape
from attnc.ir.pipeline import plan
from attnc.ir.plan import SweepStage
from attnc.ir.visibility import Visibility, joint_visibility
from attnc.runtime.modules import load_source
from tests.codegen.softmax import masked_softmax

HEADER = """import functools
import itertools
import math
import weakref
from collections.abc import Callable
from typing import NamedTuple

import torch
import triton


"""


@dataclass(frozen=True)
class Mask:
    """A kernel's mask, and the function that lists its tiles."""

    cascade: Cascade
    visibility: Visibility
    lists: TileLists
    module: ModuleType


@dataclass(frozen=True)
class Call:
    """What a mask is called with; `split`: a tile lies within one residue class."""

    extents: Mapping[str, int]
    params: Mapping[str, ParamValue]
    tensors: Mapping[str, Tensor]
    block: int
    split: bool = True


@cache
def mask(spec: str) -> Mask:
    cascade = load_text(spec if "\n" in spec else library.text(spec))
    made = plan(cascade)
    (stage,) = (s for s in made.stages if isinstance(s, SweepStage))
    return compiled(
        joint_visibility((p.visibility for p in stage.passes), made.cascade), made.cascade
    )


def compiled(visibility: Visibility, cascade: Cascade) -> Mask:
    lists = write_tile_lists(visibility, cascade, "listed")
    host = "\n\n\n".join(Host(str, set(lists.host)).sources)
    text = f"{HEADER}{host}\n\n\n{tile_list_helpers([lists])}\n\n" + "\n".join(lists.lines) + "\n"
    return Mask(cascade, visibility, lists, load_source(text, f"lists_of_{cascade.name}"))


def steps_of(m: Mask, call: Call) -> dict[str, int]:
    scope = Scope(extents=call.extents, params=call.params)
    axes = (*(m.lists.row.axes if m.lists.row else ()), *m.lists.swept.axes)
    found = {}
    for a in axes:
        step = 1 if a.step is None or not call.split else int(evaluate(a.step, scope).data)
        found[a.coordinate] = step
    return found


def shape_of(layout: Layout, steps: Mapping[str, int], call: Call) -> tuple[int, ...]:
    return tile_shape(call.block, [-(-call.extents[c] // steps[c]) for c in layout.coordinates])


def listed(m: Mask, call: Call) -> tuple[Tensor, Tensor]:
    steps = steps_of(m, call)
    tiles: dict[str, int] = {}
    for layout in (m.lists.row, m.lists.swept):
        if layout is not None:
            tiles |= zip(layout.coordinates, shape_of(layout, steps, call), strict=True)
    function: Any = m.module.listed
    found: tuple[Tensor, Tensor] = function(
        torch.device("cpu"),
        *(call.tensors[t] for t in m.lists.tensors),
        *(call.extents[r] for r in m.lists.extents),
        *(call.params[p] for p in m.lists.params),
        *(steps[c] for c in m.lists.steps),
        *(tiles[c] for c in m.lists.tiles),
    )
    return found


def tokens(layout: Layout | None, m: Mask, call: Call, base: int) -> tuple[list[int], bool]:
    """The tokens of a tile that exist, by its first one; whether all of them do."""
    if layout is None:
        return [0], True
    steps = steps_of(m, call)
    lengths = [call.extents[c] for c in layout.coordinates]
    first = np.unravel_index(base, lengths)
    places = product(*(range(t) for t in shape_of(layout, steps, call)))
    found, complete = [], True
    for place in places:
        at = [f + i * steps[c] for f, i, c in zip(first, place, layout.coordinates, strict=True)]
        if all(x < n for x, n in zip(at, lengths, strict=True)):
            found.append(int(np.ravel_multi_index(at, lengths)))
        else:
            complete = False
    return found, complete


def dense(m: Mask, predicate: Expr, call: Call) -> Any:
    """The mask at every point: [grid, row, key]."""
    v = m.visibility
    names = [*v.grid, *([v.row] if v.row else []), v.swept]
    scope = Scope(
        tensors={t: Value(x.numpy(), m.cascade.input(t).ranks) for t, x in call.tensors.items()},
        extents=call.extents,
        params=call.params,
        ranks={r.name: r for r in m.cascade.ranks},
        box={r: range(call.extents[r]) for r in names},
    )
    value = evaluate(Apply("or_else", (predicate, Number(False))), scope)
    shape = [call.extents[r] for r in names]
    whole = np.broadcast_to(np.asarray(value.data), shape)
    rows = call.extents[v.row] if v.row else 1
    return whole.reshape(prod(call.extents[r] for r in v.grid), rows, call.extents[v.swept])


def check(m: Mask, call: Call) -> None:
    """Full tiles are full, partial ones neither full nor empty, all others empty."""
    table, first = (x.tolist() for x in listed(m, call))
    some, every = (dense(m, e, call) for e in (m.visibility.some, m.visibility.every))
    assert len(table) == len(some)
    for seen, all_seen, rows in zip(some, every, table, strict=True):
        seen = seen.copy()
        lengths = [end - begin for _, begin, _, end in rows]
        assert lengths == sorted(lengths, reverse=True)
        held: list[int] = []
        for base, begin, middle, end in rows:
            if begin == end and base >= some.shape[1]:
                continue  # groups end one place apart
            at, _ = tokens(m.lists.row, m, call, base)
            held += at
            for i in range(begin, end):
                keys, complete = tokens(m.lists.swept, m, call, first[i])
                tile = np.ix_(at, keys)
                assert seen[tile].any()
                assert (complete and bool(all_seen[tile].all())) == (i < middle)
                seen[tile] = False
        assert not seen.any()
        assert sorted(set(held)) == list(range(some.shape[1]))


def random_tensors(m: Mask, extents: Mapping[str, int], seed: int, high: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for t in m.lists.tensors:
        decl = m.cascade.input(t)
        shape = [extents[r] for r in decl.ranks]
        if decl.dtype == "bool":
            found[t] = torch.rand(shape, generator=generator) < 0.3
        else:
            found[t] = torch.randint(0, high, shape, generator=generator).sort()[0]
    return found


# Extents and params under which a library mask has empty, partial and full tiles of 16 places.
LIBRARY: dict[str, tuple[dict[str, int], dict[str, ParamValue]]] = {
    "causal": ({}, {}),
    "sliding_window": ({}, {"window": 23}),
    "streaming_llm": ({}, {"window": 20, "sink": 5}),
    "document": ({"n": 131}, {}),
    "causal_document": ({"n": 131}, {}),
    "longca_share_question": ({"n": 131}, {}),
    "longca_causal_blockwise": ({"n": 131}, {}),
    "mixed_bidirectional": ({"n": 131}, {}),
    "region_mask": ({}, {}),
    "prefix_lm": ({}, {}),
    "bigbird": ({"i": 9, "j": 9}, {"block": 16, "window": 3}),
    "block_sparse": ({"i": 6, "j": 4}, {"block": (24, 37)}),
    "block_sparse_variable": ({"i": 3, "j": 3}, {}),
    "moa_window": ({}, {"block": 8, "sink": 1}),
    "dilated_causal": ({}, {"window": 12, "dilation": 3}),
    "strided": ({}, {"stride": 16}),
    "fixed_strided": ({}, {"stride": 16, "summary": 3}),
    "clear": ({}, {"radius": 4, "text": 7, "width": 12}),
    "na1d": ({"n": 131}, {"window": 9, "stride": 4, "dilation": 5, "causal": False}),
    "na2d": (
        {"my": 14, "mx": 19, "ny": 14, "nx": 19},
        {"window": (5, 4), "stride": (2, 1), "dilation": (1, 1), "causal": (False, True)},
    ),
    "na3d": (
        {"mt": 4, "my": 7, "mx": 6, "nt": 4, "ny": 7, "nx": 6},
        {
            "window": (2, 3, 3),
            "stride": (1, 2, 1),
            "dilation": (1, 2, 2),
            "causal": (False, False, True),
        },
    ),
    "gna": (
        {"mt": 1, "my": 14, "mx": 19, "nt": 1, "ny": 14, "nx": 19},
        {
            "window": (1, 5, 4),
            "stride": (1, 2, 1),
            "dilation": (1, 1, 1),
            "causal": (False, False, True),
        },
    ),
    "maxvit_grid": ({"my": 12, "mx": 18, "ny": 12, "nx": 18}, {"grid": 6}),
    "maxvit_block": ({"my": 12, "mx": 18, "ny": 12, "nx": 18}, {"window": 6}),
    "swin": ({"my": 12, "mx": 18, "ny": 12, "nx": 18}, {"window": 6, "shift": 3}),
    "halonet": ({"my": 13, "mx": 18, "ny": 13, "nx": 18}, {"block": 4, "halo": 2}),
    "temporal": ({"mf": 5, "mp": 30, "nf": 5, "np": 30}, {}),
    "spatial": ({"mf": 5, "mp": 30, "nf": 5, "np": 30}, {}),
    "titans_mac": ({}, {"persistent": 5, "window": 20, "sliding": False}),
}


def library_call(name: str, m: Mask, block: int = 16, split: bool = True) -> Call:
    sizes, params = LIBRARY[name]
    extents = {r.name: 2 for r in m.cascade.ranks} | {"m": 131, "n": 117} | sizes
    for r in m.cascade.ranks:
        if r.components:
            extents[r.name] = prod(extents[c] for c in r.components)
    return Call(extents, params, random_tensors(m, extents, 5, 3), block, split)


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("name", LIBRARY)
def test_library(name: str, split: bool) -> None:
    m = mask(name)
    if split or m.lists.steps:
        check(m, library_call(name, m, split=split))


def spec(where: str, declared: str = "") -> str:
    """A spec with a mask, and those of the declarations that it uses."""
    used = [x for x in declared.splitlines() if re.search(rf"\b{re.split('[ [:]', x)[1]}\b", where)]
    return masked_softmax(where, "\n".join(used))


SMALL = {"b": 2, "h": 2, "m": 37, "n": 43, "d": 2, "e": 2, "r": 3, "i": 3, "j": 3}
WRITTEN = {
    "heads": ("n <= m and (if h % 2 == 0 then m - n < w else m % 3 == n % 3)", ""),
    "grid": ("n + 4 * b <= m + 2 * h or n < w", ""),
    "next": ("n > 0 and doc[b, n - 1] == doc[b, n]", "input doc[b, n]: int"),
    "ends": ("n < end[b, m] and n >= end[b, m] - w", "input end[b, m]: int"),
    "whole": ("sel[h, m, n]", "input sel[h, m, n]: bool"),
    "levels": ("level[m, n] > 0", "input level[m, n]: int"),
    "unlike": (
        "doc[b, m] != doc[b, n] or not flag[n]",
        "input doc[b, n]: int\ninput flag[n]: bool",
    ),
    "equal flags": ("flag[b, m] == flag[b, n]", "input flag[b, n]: bool"),
    "values": ("max(m - w, 0) <= min(n, 30) and abs(m - 2 * n) * 2 < 40", ""),
    "product": ("m * n < 300 and (m - 5) * (n - 7) < 90", ""),
    "halves": ("n < 0.5 * M", ""),
    "any divisor": ("n // (m - 5) < 2 and n % (w - 3) == 0", ""),
    "negative": ("(m - n) // 5 % 2 == 0 and (n - m) % 7 > 1", ""),
    "nothing": ("n < m and m < n", ""),
    "rows alone": ("m % 5 == 1", ""),
    "keys alone": ("n % 20 < 17", ""),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", WRITTEN)
def test_written_masks(name: str, seed: int) -> None:
    where, declared = WRITTEN[name]
    m = mask(spec(where, f"param w: int = 3\n{declared}"))
    # ids in any order, negative ones among them; the first seed has them sorted
    tensors = random_tensors(m, SMALL, seed, 4)
    if seed:
        tensors = {
            t: x if x.dtype == torch.bool else x.flip(-1).roll(7, -1) - 2
            for t, x in tensors.items()
        }
    for block in (4, 16):
        check(m, Call(SMALL, {"w": 3 + 5 * seed}, tensors, block))


def test_one_row() -> None:
    cascade = mask("document").cascade
    doc_n, doc_last = (Read("doc", (Index("b"), i)) for i in (Index("n"), last("n")))
    same = Apply("eq", (doc_n, doc_last))
    m = compiled(Visibility(None, "n", ("b",), same, same), cascade)
    extents = {"b": 3, "h": 1, "g": 1, "m": 1, "n": 77, "d": 2, "e": 2}
    check(m, Call(extents, {}, random_tensors(m, extents, 3, 3), 16))


def last(rank: str) -> Expr:
    return Apply("sub", (Extent(rank), Number(1)))


@pytest.mark.parametrize("empty", ["b", "m", "n"])
def test_ranks_of_length_zero(empty: str) -> None:
    m = mask("document")
    extents = {"b": 2, "h": 2, "g": 1, "m": 20, "n": 20, "d": 2, "e": 2} | {empty: 0}
    table, first = listed(
        m, Call(extents, {}, {"doc": torch.zeros(extents["b"], extents["n"])}, 16)
    )
    assert table.shape == (extents["b"], -(-extents["m"] // 16), 4)
    assert not first.numel() and not table[..., 1:].any()


CONDITIONS = st.sampled_from(
    [
        "n <= m",
        "m - n < w",
        "abs(m - n) <= w",
        "m // 5 == n // 5",
        "m % w == n % w",
        "(m - n) % 3 == 0",
        "doc[b, m] == doc[b, n]",
        "doc[b, n] <= doc[b, m] + 1",
        "sel[h, m // 13, n // 15]",
        "n < 4",
        "n % 11 < m // 3",
        "min(m, n) // 4 * 4 < w",
        "clamp(m - w, 0, N - 9) <= n",
        "h == 1",
    ]
)
PREDICATES = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda x: f"({x[0]}) {x[1]} ({x[2]})"
        ),
        inner.map(lambda x: f"not ({x})"),
        st.tuples(inner, inner, inner).map(lambda x: f"(if {x[0]} then {x[1]} else {x[2]})"),
    ),
    max_leaves=5,
)


@given(PREDICATES, st.integers(1, 9), st.integers(1, 40), st.integers(1, 45), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_random_predicates(where: str, w: int, rows: int, keys: int, seed: int) -> None:
    declared = "param w: int = 3 in [1, inf)\ninput doc[b, n]: int\ninput sel[h, i, j]: bool"
    m = mask(spec(where, declared))
    extents = SMALL | {"m": min(rows, keys), "n": keys, "i": 4, "j": 4}
    check(m, Call(extents, {"w": w}, random_tensors(m, extents, seed, 5), 8))


def test_a_selection_that_does_not_fit() -> None:
    m = mask("block_sparse_variable")
    extents = {"b": 1, "h": 2, "g": 1, "m": 20, "n": 30, "d": 2, "e": 2, "i": 2, "j": 3}
    tensors = random_tensors(m, extents, 0, 2)
    check(m, Call(extents, {}, tensors, 16))
    for wrong in (2, -1):
        query_block = tensors["query_block"].clone()
        query_block[1, 7] = wrong
        changed = tensors | {"query_block": query_block}
        message = rf"query_block\[h, m\] is {wrong}, outside of 0 .. 1"
        with pytest.raises(ValueError, match=message):
            listed(m, Call(extents, {}, changed, 16))
    m = mask("block_sparse")
    extents |= {"i": 2, "j": 1}
    call = Call(extents, {"block": (10, 20)}, {"select": torch.ones(2, 2, 1).bool()}, 16)
    with pytest.raises(ValueError, match=r"n // block\[1\] is 1, outside of 0 .. 0"):
        listed(m, call)


def test_an_empty_selection_is_not_read_where_something_else_decides() -> None:
    m = mask(spec("n <= m or sel[h, m // 4, n // 4]", "input sel[h, i, j]: bool"))
    extents = SMALL | {"i": 0, "j": 0}
    table, _ = listed(m, Call(extents, {}, {"sel": torch.zeros(2, 0, 0).bool()}, 16))
    assert (table[0, :, 3] - table[0, :, 1]).tolist() == [3, 2, 1]


def test_lists_take_memory_for_what_is_visited() -> None:
    m = mask("streaming_llm")
    extents = {r.name: 1 for r in m.cascade.ranks} | {"m": 1 << 20, "n": 1 << 20}
    table, first = listed(m, Call(extents, {"window": 512, "sink": 4}, {}, 128))
    assert table.shape == (1, 1 << 13, 4)
    assert first.numel() < 7 * (1 << 13)
