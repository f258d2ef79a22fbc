"""`attnc mask`: the picture says what brute force says, and the file is whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from attnc import panels
from attnc.api import load
from attnc.ir.geometry.tile_runs import make_runs
from attnc.mask_view import MaskView, first_mask, mask_view
from attnc.masks import masks
from attnc.panels import EMPTY, FULL, HIDDEN, KINDS, PARTIAL, VISIBLE, tile_shares
from attnc.picture import draw


def view_of(name: str, shape: dict[str, int], tile: Any, **how: Any) -> MaskView:
    """What a picture of a library mask shows; params and captured tensors by name."""
    attention = load(name, **how.pop("params", {}))
    found = masks(attention.plan, attention.run_time_params, shape, how.pop("data", {}))
    mask = first_mask(found, attention.cascade)
    how = {"query": {}, "at": {}, **how}
    return mask_view(mask, attention.plan.cascade, tile, **how)


def kinds(visible: NDArray[np.bool_], tile: tuple[int, int]) -> NDArray[np.float64]:
    """[rows, columns, kinds]: what each point is, tile by tile."""
    found = np.zeros((*visible.shape, len(KINDS)))
    for y in range(0, visible.shape[0], tile[0]):
        for x in range(0, visible.shape[1], tile[1]):
            place = slice(y, y + tile[0]), slice(x, x + tile[1])
            seen, into = visible[place], found[place]
            if seen.all() or not seen.any():
                into[..., FULL if seen.all() else EMPTY] = 1
            else:
                into[..., VISIBLE], into[..., HIDDEN] = seen, ~seen
    return found


def means(x: NDArray[np.float64], cell: tuple[int, int]) -> NDArray[np.float64]:
    rows = [x[i : i + cell[0]] for i in range(0, x.shape[0], cell[0])]
    cells = [
        [r[:, j : j + cell[1]].mean((0, 1)) for j in range(0, x.shape[1], cell[1])] for r in rows
    ]
    return np.array(cells)


@pytest.mark.parametrize("cells", [5, 20, 900])
@pytest.mark.parametrize(("rows", "keys"), [(32, 32), (61, 43), (7, 90), (1, 1)])
def test_every_cell_is_the_mean_of_its_points(
    rows: int, keys: int, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single points, several points to a cell, or whole tiles: nothing is left out."""
    monkeypatch.setattr(panels, "CELLS", cells)
    shape, tile = {"M": rows, "N": keys}, {"m": 8, "n": 6}
    view = view_of("sliding_window", shape, tile, params={"window": 19})
    m, n = np.ogrid[:rows, :keys]
    points = kinds((n <= m) & (m - n < 19), (8, 6))
    cell = view.matrix.cell
    assert max(view.matrix.shares.shape[:2]) <= cells
    if view.resolved:
        want = means(points, cell)
        np.testing.assert_allclose(view.matrix.shares, want, atol=1e-6)
    else:
        assert cell[0] % 8 == cell[1] % 6 == 0


@given(
    st.integers(1, 12).flatmap(
        lambda rows: st.lists(
            st.lists(st.sampled_from([0, 1, 2]), min_size=11, max_size=11),
            min_size=rows,
            max_size=rows,
        )
    ),
    st.integers(1, 5),
    st.integers(1, 13),
)
def test_cells_of_tiles_hold_the_share_of_each_class(
    rows: list[list[int]], high: int, wide: int
) -> None:
    classes = np.array(rows)
    row, key = np.nonzero(classes)
    runs = make_runs(len(rows), 11, row, key, key + 1, classes[row, key] == 2)
    points = np.zeros((*classes.shape, len(KINDS)))
    for kind, of in ((EMPTY, 0), (PARTIAL, 1), (FULL, 2)):
        points[..., kind] = classes == of
    got = tile_shares(runs, (high, wide))
    np.testing.assert_allclose(got, means(points, (high, wide)), atol=1e-6)


def window(length: int, at: int, size: int) -> range:
    """The keys of a query of neighborhood attention with stride and dilation 1."""
    start = min(max(at - size // 2, 0), length - size)
    return range(start, start + size)


def neighbors(shape: tuple[int, int], query: tuple[int, int], size: tuple[int, int]) -> Any:
    seen = np.zeros(shape, bool)
    spans = [window(*each) for each in zip(shape, query, size, strict=True)]
    seen[spans[0].start : spans[0].stop, spans[1].start : spans[1].stop] = True
    return seen


@pytest.mark.parametrize("keys", ["static", "dynamic"])
@pytest.mark.parametrize("query", [(0, 0), (9, 11), (19, 5)])
def test_a_query_of_a_plane(query: tuple[int, int], keys: str) -> None:
    shape, size, tile = (20, 25), (7, 10), ((4, 5), (3, 4))
    view = view_of(
        "na2d", {"MY": 20, "MX": 25}, {"m": tile[0], "n": tile[1]}, params={"window": size},
        query={"my": query[0], "mx": query[1]}, keys=keys,
    )  # fmt: skip
    corner = [q // t * t for q, t in zip(query, tile[0], strict=True)]
    each = [
        neighbors(shape, (y, x), size)
        for y in range(corner[0], min(corner[0] + tile[0][0], 20))
        for x in range(corner[1], min(corner[1] + tile[0][1], 25))
    ]
    some, every = np.any(each, 0), np.all(each, 0)
    first = [0, 0] if keys == "static" else [int(i.min()) for i in np.nonzero(some)]
    want = np.zeros((*shape, len(KINDS)))
    want[..., EMPTY] = 1
    mine = neighbors(shape, query, size)
    for y in range(first[0], 20, tile[1][0]):
        for x in range(first[1], 25, tile[1][1]):
            place = slice(y, y + tile[1][0]), slice(x, x + tile[1][1])
            if some[place].any():
                want[place] = 0
                want[place][..., FULL] = every[place].all()
                want[place][..., VISIBLE] = mine[place] & ~every[place].all()
                want[place][..., HIDDEN] = ~mine[place] & ~every[place].all()
    (panel,) = view.query
    np.testing.assert_array_equal(panel.shares, want)
    assert panel.point == query and panel.box is not None and panel.box[:2] == tuple(corner)
    assert view.matrix.marked == corner[0] // 4 * 5 + corner[1] // 5


def test_slices_of_a_volume_hold_the_query() -> None:
    shape = {"MT": 30, "MY": 6, "MX": 8}
    view = view_of("na3d", shape, {"m": (4, 2, 4), "n": (2, 2, 4)}, params={"window": (18, 3, 3)})
    assert 6 <= len(view.query) <= 12
    assert [p.title for p in view.query if p.point is not None] == ["nt = 15"]
    visible = [float(p.shares[..., [VISIBLE, FULL]].sum()) for p in view.query if p.point]
    assert visible == [9.0]


def test_each_head_has_its_mask() -> None:
    data = {"span": np.array([1, 3])}
    views = [
        view_of(
            "moa_window",
            {"H": 2, "M": 64},
            {"m": 8, "n": 8},
            params={"block": 8},
            data=data,
            at={"h": h},
        )
        for h in (0, 1)
    ]
    assert views[0].counts.visited < views[1].counts.visited
    assert "h = 1" in views[1].sizes


@pytest.mark.parametrize("shape", [{"M": 0, "N": 5}, {"M": 5, "N": 0}, {"M": 0, "N": 0}], ids=str)
def test_no_tokens(shape: dict[str, int], tmp_path: Path) -> None:
    view = view_of("causal", shape, {"m": 4, "n": 4})
    assert view.counts.visited == 0
    draw(view, tmp_path / "empty.svg")
    plane = {
        f"{c}{x}": n for c, n in zip("MN", (shape["M"], shape["N"]), strict=True) for x in "YX"
    }
    draw(view_of("na2d", plane, {}), tmp_path / "plane.svg")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def attnc(in_folder: Run) -> Run:
    """`attnc mask`."""
    return partial(in_folder, "mask")


WINDOW = ("sliding_window", "--shape", "M=32", "--tile", "m=8,n=8", "--param", "window=10")


def test_svg_and_png_by_suffix(attnc: Run) -> None:
    for file, begin in (("a.svg", b"<?xml"), ("a.png", b"\x89PNG"), ("b.SVG", b"<?xml")):
        status, out, err = attnc(*WINDOW, "-o", file)
        assert (status, err) == (0, "")
        assert out.startswith(f"{file}: ") and "9 partial" in out
        assert Path(file).read_bytes().startswith(begin)
    assert sorted(os.listdir()) == ["a.png", "a.svg", "b.SVG"]
    text = Path("a.svg").read_text()
    assert "near[m, n] = n &lt;= m and m - n &lt; window" in text
    assert "<dc:date>" not in text and "image-rendering:pixelated" in text


def test_the_same_picture_has_the_same_bytes(attnc: Run) -> None:
    for suffix in ("svg", "png"):
        attnc(*WINDOW, "-o", f"a.{suffix}")
        attnc(*WINDOW, "-o", f"b.{suffix}")
        assert Path(f"a.{suffix}").read_bytes() == Path(f"b.{suffix}").read_bytes()


def test_json(attnc: Run) -> None:
    status, out, err = attnc(*WINDOW, "-o", "a.png", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found.keys() == {"file", "width", "height", "counts"}
    assert found["counts"]["visited"] == {"max": 3, "mean": 2.25, "min": 1, "total": 9}
    head = Path("a.png").read_bytes()[16:24]
    size = int.from_bytes(head[:4]), int.from_bytes(head[4:])
    assert size == (found["width"], found["height"])


def test_captured_tensors_from_files(attnc: Run) -> None:
    np.save("doc.npy", np.repeat([0, 1, 2], [10, 30, 8])[None])
    flags = ("--data", "doc=doc.npy", "--tile", "m=8,n=8", "--json", "-o", "a.png")
    status, out, _ = attnc("document", *flags)
    assert status == 0
    # Tiles 1..4 lie inside the second document: 3 x 3 full, its edges partial.
    assert json.loads(out)["counts"]["full"] == 3 * 3 + 1 + 1


WRONG = {
    "E714": ("-o", "a.jpg"),
    "E713": ("-o", "nowhere/a.png"),
    "E523": ("-o", "a.png", "--at", "h=0"),
    "E524": ("-o", "a.png", "--tile", "m=8x8"),
}


@pytest.mark.parametrize("code", WRONG)
def test_mistakes_leave_no_file(code: str, attnc: Run) -> None:
    status, out, err = attnc("causal", "--shape", "M=32", *WRONG[code])
    assert (status, out) == (1, "")
    assert err.startswith(f"error[{code}]")
    assert os.listdir() == []


@pytest.mark.parametrize("query", ["my=64", "my=-1", "q=1"])
def test_a_query_that_is_none(query: str, attnc: Run) -> None:
    flags = ("--shape", "MY=64,MX=64", "--query", query, "-o", "a.png")
    status, _, err = attnc("na2d", *flags, "--param", "window=(8,8)")
    assert status == 1 and "E523" in err


def test_wrong_usage(attnc: Run) -> None:
    assert attnc("causal", "--shape", "M=32")[0] == 2
    assert attnc("causal", "-o", "a.png", "--shape", "M=32", "--query", "m=x")[0] == 2
    assert attnc("causal", "-o", "a.png", "--shape", "M=32", "--at", "h=1,h=2")[0] == 2
    assert os.listdir() == []
