"""What `attn.tiles` counts, for settings whose counts are published or can be read off the mask."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import torch

import attnc
from attnc.errors import AttncError
from attnc.ir.expr import Index, Read, call
from attnc.ir.geometry.tiling import Bound
from attnc.ir.visibility import Visibility
from attnc.masks import Mask
from attnc.tile_shapes import spread
from attnc.tiles import tiles

FLUX = {"MY": 256, "MX": 256}
FLUX_TILE = {"m": (16, 16), "n": (16, 8)}
HUNYUAN = {"MT": 30, "MY": 48, "MX": 80}
HUNYUAN_TILE = {"m": (4, 8, 8), "n": (2, 8, 8)}


def test_the_result_is_the_commands_json() -> None:
    found = attnc.load("na2d").tiles(FLUX, tile=FLUX_TILE).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["visited"] == {"max": 84, "mean": 18564 / 256, "min": 50, "total": 18564}
    assert (found["full"], found["partial"], found["empty"]) == (8004, 10560, 112508)
    assert found["speedup"] == {
        "flop": 10.24,
        "tile_max": 512 / 84,
        "tile_mean": 131072 / 18564,
        "tile_total": 131072 / 18564,
    }
    assert found["fully_block_sparse"] is False
    assert found["stages"] == [{k: found[k] for k in found["stages"][0]}]  # type: ignore[index]


def test_the_smallest_stride_that_is_fully_block_sparse() -> None:
    # 1-D, 32K tokens, window 2048: 256, as published; one below or half of it is not.
    strides = [1, 128, 255, 256, 257, 512]
    found = attnc.load("na1d", window=2048).sweep_tiles(
        {"M": 32768}, {"stride": strides}, tile={"m": 256, "n": 128}
    )
    full = [r.values["stride"] for r in found.rows if r.census.fully_block_sparse]
    assert full == [256, 512]


def test_speed_is_not_monotonic_in_the_stride() -> None:
    found = attnc.load("na3d").sweep_tiles(
        HUNYUAN,
        {"stride[0]": (1, 15, 16, 17), "stride[1]": (1, 8), "stride[2]": (1, 8)},
        tile=HUNYUAN_TILE,
    )
    by_stride = {r.values["stride"]: r for r in found.rows}
    assert len(by_stride) == 4 * 2 * 2
    assert round(by_stride[1, 1, 1].census.tile_max, 2) == 3.27
    best = by_stride[16, 8, 8]
    assert (round(best.census.tile_max, 2), best.census.fully_block_sparse) == (11.11, True)
    assert best.frontier and best.gains and not found.monotonic
    assert by_stride[17, 8, 8].census.visited > best.census.visited
    # Every query sees 18 x 24 x 24 keys whatever the stride: the fastest is all of the frontier.
    assert found.frontier == (best,)


def test_windows_that_visit_no_more_tiles_than_a_larger_one_are_off_the_frontier() -> None:
    found = attnc.load("sliding_window").sweep_tiles(
        {"M": 512}, {"window": (1, 2, 64, 65, 66, 128, 129, 130)}, tile={"m": 64, "n": 64}
    )
    assert found.monotonic
    # From 2 to 65 tokens two tiles are visited, from 66 to 129 three.
    assert [r.values["window"] for r in found.frontier] == [1, 65, 129, 130]


def test_key_tiles_that_start_at_the_window() -> None:
    attention = attnc.load("na2d", stride=(16, 16))
    shape = {"MY": 250, "MX": 256}
    fixed = attention.tiles(shape, tile=FLUX_TILE).main.census
    moved = attention.tiles(shape, tile=FLUX_TILE, keys="dynamic").main.census
    assert (fixed.most, moved.most) == (60, 50)
    assert moved.fully_block_sparse and not fixed.fully_block_sparse


def test_flat_tiles_cut_across_the_rows_of_a_plane() -> None:
    attention = attnc.load("na2d", window=(8, 8))
    shape = {"MY": 32, "MX": 32}
    flat = attention.tiles(shape, tile={"m": 64, "n": 32}, flat=True).main.census
    block = attention.tiles(shape, tile={"m": (8, 8), "n": (4, 8)}).main.census
    assert (flat.query_tiles, flat.key_tiles) == (block.query_tiles, block.key_tiles)
    assert (flat.visible, flat.points) == (block.visible, block.points)
    # 64 tokens are two rows, which together see nine rows of keys; all of these have a point.
    assert (flat.most, flat.fully_block_sparse) == (9, False)


def test_padding_is_counted() -> None:
    census = attnc.load("na3d", stride=(16, 8, 8)).tiles(HUNYUAN, tile=HUNYUAN_TILE).main.census
    assert census.padding == (32 / 30, 1.0)
    # 450 flat tiles of 256 queries would do for 30 frames; 480 are needed.
    assert census.tile_total == pytest.approx(census.tile_mean * 450 / 480)


def test_dilation_groups_of_unequal_length() -> None:
    census = (
        attnc.load("na1d", window=4, dilation=3).tiles({"M": 26}, tile={"m": 4, "n": 4}).main.census
    )
    # Groups of 9, 9 and 8 tokens: 3 + 3 + 2 tiles.
    assert (census.query_tiles, census.key_tiles) == (8, 8)
    assert census.parts[0].dilations[0].step == 3
    assert census.padding == (32 / 26, 32 / 26)


def test_a_mask_of_data_is_counted_per_batch() -> None:
    doc = torch.arange(256).reshape(1, 256).repeat(2, 1) // torch.tensor([[64], [128]])
    census = attnc.load("document").tiles({}, tile={"m": 64, "n": 64}, doc=doc).main.census
    assert (census.query_tiles, census.visited, census.full) == (8, 4 + 8, 12)
    assert census.fully_block_sparse


def test_no_mask_is_all_full() -> None:
    found = attnc.load("sdpa").tiles({"M": 100, "N": 70}).main.census
    assert (found.visited, found.full, found.flop, found.tile_max) == (2, 2, 1.0, 1.0)


@pytest.mark.parametrize("m", [0, 1])
def test_nothing_to_see(m: int) -> None:
    found = attnc.load("causal").tiles({"M": m, "N": 0})
    assert (found.main.census.visited, found.main.census.most) == (0, 0)
    assert "visited" in str(found)


def test_no_query_and_no_visible_key() -> None:
    nothing = attnc.load("causal").tiles({"M": 0, "N": 9})
    assert np.isnan(nothing.main.census.tile_max) and "no tile is visited" in str(nothing)
    past = attnc.load("document").tiles({"M": 2}, doc=torch.tensor([[0, 0, 1, 1]]))
    assert past.main.census.visible == 4


def test_a_kernel_with_one_query() -> None:
    short = call("lt", Index("n"), Read("length", (Index("b"),)))
    bound = Bound({"b": 2, "n": 10}, {}, {"length": np.array([3, 8])})
    mask = Mask("pool", Visibility(None, "n", ("b",), short, short), bound)
    found = tiles(attnc.load("sdpa").cascade, (mask,), tile={"n": 4})
    census = found.main.census
    assert (census.query_tiles, census.visited, census.full, census.visible) == (2, 3, 2, 11)
    assert "queries  one  1 in 2 tiles of 1" in str(found)


def test_orders_of_tokens_with_key_tiles_from_the_window() -> None:
    attention = attnc.load("na2d", window=(8, 8))
    shape, tile = {"MY": 32, "MX": 32}, {"m": 128, "n": 128}
    for keys in ("static", "dynamic"):
        orders = attention.tile_orders(shape, keys=keys).orders
        plain = next(int(counts.visited.sum()) for order, counts in orders if order.plain)
        flat = attention.tiles(shape, tile=tile, flat=True, keys=keys).main.census
        assert plain == flat.visited


def test_every_kernel_is_counted_and_the_largest_stands_first() -> None:
    found = attnc.load("lssar").tiles({"M": 512})
    largest = max(s.census.visited for s in found.stages)
    assert found.to_dict()["visited"]["total"] == largest  # type: ignore[index]
    assert len(found.to_dict()["stages"]) == len(found.stages)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "extents", "sizes"),
    [
        (128, (256, 256), (8, 16)),
        (64, (30, 48, 80), (4, 4, 4)),
        (128, (2, 1000), (2, 64)),
        (128, (3, 5), (4, 8)),
        (64, (), ()),
        (64, (0, 9), (1, 16)),
    ],
)
def test_tiles_are_spread_over_the_axes(
    tokens: int, extents: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    assert spread(tokens, extents) == sizes


@pytest.mark.parametrize(
    ("spec", "shape", "how", "code", "says"),
    [
        ("na2d", FLUX, {"tile": {"m": 128}}, "E524", "(my, mx)"),
        ("na2d", FLUX, {"tile": {"m": (16, 8)}, "flat": True}, "E524", "one number"),
        ("na2d", FLUX, {"tile": {"n": (0, 8)}}, "E524", "no token"),
        ("na2d", FLUX, {"tile": {"n": ("8", 8)}}, "E524", "whole numbers"),
        ("na2d", FLUX, {"tile": {"d": 8}}, "E524", "`d`"),
        ("na2d", FLUX, {"tile": {"my": 8}}, "E524", "`my`"),
        ("na2d", FLUX, {"keys": "some"}, "E525", "static"),
        ("na2d", {}, {}, "E504", "MY"),
        ("document", {"M": 9}, {}, "E503", "doc"),
    ],
)
def test_what_does_not_fit_is_said(
    spec: str, shape: dict[str, int], how: dict[str, Any], code: str, says: str
) -> None:
    with pytest.raises(AttncError) as e:
        attnc.load(spec).tiles(shape, **how)
    assert e.value.code == code
    assert says in e.value.message


@pytest.mark.parametrize(
    ("ranges", "code"),
    [
        ({"stied": (1,)}, "E531"),
        ({"causal": (1,)}, "E531"),
        ({"stride[2]": (1,)}, "E531"),
        ({"stride": ()}, "E531"),
        ({"stride": range(1, 30_000)}, "E531"),
        ({"stride": (0,)}, "E509"),
        ({"stride": ((1, 2, 3),)}, "E508"),
    ],
)
def test_what_cannot_be_swept_is_said(ranges: Any, code: str) -> None:
    with pytest.raises(AttncError) as e:
        attnc.load("na2d").sweep_tiles(FLUX, ranges)
    assert e.value.code == code


def test_a_volume_of_two_million_tokens_takes_no_time() -> None:
    attention = attnc.load("na3d")
    shape = {"MT": 128, "MY": 128, "MX": 128}
    attention.tiles(shape, tile={"m": (4, 8, 8), "n": (4, 4, 4)})
    start = perf_counter()
    found = attention.tiles(shape, tile={"m": (4, 8, 4), "n": (4, 4, 4)}).main.census
    assert perf_counter() - start < 3.0, "0.05 s where nothing else runs"
    assert found.points == 128**6
    assert found.visible == 128**3 * 18 * 24 * 24
    assert np.prod([p.query_tiles for p in found.parts]) == found.query_tiles == 32 * 16 * 32
