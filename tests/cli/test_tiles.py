"""`attnc tiles` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

Command = Callable[..., tuple[int, str, str]]
FLUX = ("na2d", "--shape", "MY=256,MX=256", "--tile", "m=16x16,n=16x8")


@pytest.fixture
def tiles(in_folder: Command) -> Command:
    """`attnc tiles`."""
    return partial(in_folder, "tiles")


def test_the_census_as_text(tiles: Command) -> None:
    status, out, err = tiles(*FLUX)
    assert (status, err) == (0, "")
    assert "visited   84 at most, 72.52 on average, 50 at least, of 512 per query tile" in out
    assert "6.10x  by the query tile that visits most" in out
    assert "my ny           16         16    7   6.38    5   57%" in out


def test_the_census_as_json(tiles: Command) -> None:
    found: Any = json.loads(tiles(*FLUX, "--param", "stride=(16,16)", "--json")[1])
    assert found["visited"] == {"max": 50, "mean": 50.0, "min": 50, "total": 12800}
    assert (found["full"], found["partial"], found["empty"]) == (12800, 0, 118272)
    assert found["fully_block_sparse"] is True
    assert found["speedup"] == dict.fromkeys(("flop", "tile_max", "tile_mean", "tile_total"), 10.24)


def test_key_tiles_and_flat_tiles(tiles: Command) -> None:
    moved: Any = json.loads(tiles(*FLUX, "--keys", "dynamic", "--json")[1])
    assert moved["visited"]["max"] == 72
    flat: Any = json.loads(
        tiles("na2d", "--shape", "MY=64,MX=64", "--param", "window=(8,8)", "--flat", "--json")[1]
    )
    assert flat["tile"] == {"m": [128], "n": [64]}


def test_a_sweep_marks_what_is_worth_it(tiles: Command) -> None:
    status, out, _ = tiles(*FLUX, "--sweep", "stride=15..17")
    assert status == 0
    rows = [line.split() for line in out.splitlines() if line.startswith("(1")]
    assert [row[-1] for row in rows] == ["+", "=+*", "90.23%"]
    assert "not always faster" in out
    found: Any = json.loads(tiles(*FLUX, "--sweep", "stride=15..17x16", "--json")[1])
    assert [r["values"]["stride"] for r in found["rows"]] == [[15, 16], [16, 16], [17, 16]]
    assert [r["fully_block_sparse"] for r in found["rows"]] == [False, True, False]
    assert found["monotonic"] is False


def test_orders_of_tokens(tiles: Command) -> None:
    plane = ("na2d", "--shape", "MY=64,MX=96", "--param", "window=(24,24)", "--orders")
    status, out, _ = tiles(*plane)
    assert status == 0
    assert "cheapest: blocks of" in out
    found: Any = json.loads(tiles(*plane, "--json")[1])
    totals = [o["visited"]["total"] for o in found["orders"]]
    assert totals == sorted(totals)
    assert found["best"] == found["orders"][0]["order"]
    plain = next(o for o in found["orders"] if o["order"] == "row-major")
    flat: Any = json.loads(tiles(*plane[:-1], "--flat", "--tile", "m=128,n=128", "--json")[1])
    assert (plain["visited"], plain["full"]) == (flat["visited"], flat["full"])
    assert plain["speedup"] == flat["speedup"]


def test_masks_of_data_come_from_files(tiles: Command) -> None:
    doc = np.repeat([[0, 1, 2, 3]], 64, axis=1)
    np.save("doc.npy", np.sort(doc))
    torch.save(torch.from_numpy(np.sort(doc)), "doc.pt")
    command = ("document", "--tile", "m=64,n=64", "--json")
    for file in ("doc.npy", "doc.pt"):
        found: Any = json.loads(tiles(*command, "--data", f"doc={file}")[1])
        assert (found["visited"]["total"], found["fully_block_sparse"]) == (4, True)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("document", "--shape", "M=64"), "E503"),
        (("document", "--data", "doc=none.npy"), "E715"),
        (("document", "--data", "doc=empty.npy"), "E715"),
        (("document", "--data", "doc=empty.pt"), "E715"),
        (("document", "--data", "doc=objects.npy"), "E715"),
        (("document", "--data", "doc=doc.txt"), "E715"),
        (("na2d", "--shape", "MY=4"), "E504"),
        (("na2d", "--shape", "MY=4,MX=4", "--tile", "m=16"), "E524"),
        (("na2d", "--shape", "MY=4,MX=4", "--tile", "n=0x2"), "E524"),
        (("na2d", "--shape", "MY=4,MX=4", "--sweep", "step=1..2"), "E531"),
        (("na2d", "--shape", "MY=4,MX=4", "--sweep", "stride=0..2"), "E509"),
        (("causal", "--shape", "M=64", "--orders"), "E533"),
    ],
)
def test_mistakes(tiles: Command, args: tuple[str, ...], code: str) -> None:
    Path("empty.npy").touch()
    Path("empty.pt").touch()
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    status, out, err = tiles(*args)
    assert (status, out) == (1, "")
    assert f"error[{code}]" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "args",
    [("--tile", "m"), ("--sweep", "stride"), ("--keys", "x"), ("--orders", "--sweep", "s=1")],
)
def test_wrong_usage(tiles: Command, args: tuple[str, ...]) -> None:
    status, out, _ = tiles("na2d", *args)
    assert (status, out) == (2, "")
