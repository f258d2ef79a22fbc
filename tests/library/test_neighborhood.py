"""Generalized neighborhood attention: the prelude's predicate against its closed form and traps.

Hassani et al. 2025, Generalized Neighborhood Attention, section 3, with the conventions of NATTEN:
even windows, even strides, borders, dilation groups of unequal length.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch

from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.evaluate import evaluate
from attnc.ir.frame import Scope
from attnc.library import text
from attnc.runtime.reference import reference
from tests.library.visible import Array, predicate, visible

ONE_AXIS = """attention one
input X[c, w, s, m, n]
param dilation: int
O[c, w, s, m, n] = X[c, w, s, m, n]
    where neighborhood(m, n, N, w + 1, s + 1, dilation, c == 1)
output O[c, w, s, m, n]
"""


def allowed(
    i: Any, j: Any, length: int, window: Any, stride: Any, dilation: int, causal: Any
) -> Any:
    """Whether query i sees key j: bounds a <= v < b inside the dilation group, as arrays."""
    g, u, v = i % dilation, i // dilation, j // dilation
    size = -((g - length) // dilation)
    middle = np.minimum(stride * (u // stride) + stride // 2, size - 1)
    last = np.minimum(stride * (u // stride) + stride - 1, size - 1)
    start = np.maximum(np.minimum(middle - window // 2, size - window), 0)
    a = np.where(causal, np.maximum(last - window + 1, 0), start)
    b = np.where(causal, u + 1, start + window)
    return (j % dilation == g) & (a <= v) & (v < b)


def of_all_settings(length: int, dilation: int, windows: int, strides: int) -> Array:
    """The prelude's predicate, [causal, window - 1, stride - 1, query, key]."""
    cascade, where = predicate(ONE_AXIS)
    extents = {"c": 2, "w": windows, "s": strides, "m": length, "n": length}
    box = {r: range(n) for r, n in extents.items()}
    ranks = {r.name: r for r in cascade.ranks}
    scope = Scope(extents=extents, params={"dilation": dilation}, ranks=ranks, box=box)
    return np.asarray(evaluate(where, scope).data)


def check_all_settings(length: int, dilation: int, windows: int, strides: int) -> None:
    shape = (2, windows, strides, length, length)
    c, w, s, i, j = np.ogrid[tuple(slice(n) for n in shape)]
    expected = allowed(i, j, length, w + 1, s + 1, dilation, c == 1)
    found = of_all_settings(length, dilation, windows, strides)
    wrong = np.argwhere(found != expected)
    assert not len(wrong), (length, dilation, "causal, window - 1, stride - 1, i, j", wrong[0])


@pytest.mark.parametrize("length", range(1, 13))
def test_every_setting_of_short_axes(length: int) -> None:
    """Windows and strides longer than the axis, dilations that do not divide it, among them."""
    for dilation in range(1, length + 2):
        check_all_settings(length, dilation, length + 2, length + 2)


@pytest.mark.slow
@pytest.mark.parametrize("length", range(13, 41))
def test_every_setting_of_long_axes(length: int) -> None:
    for dilation in range(1, length + 1):
        check_all_settings(length, dilation, length + 1, length + 1)


def along(length: int, window: int, stride: int, dilation: int, causal: bool) -> Any:
    i, j = np.ogrid[:length, :length]
    return allowed(i, j, length, window, stride, dilation, causal)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize(("name", "axes", "longest"), [("na2d", "yx", 14), ("na3d", "tyx", 7)])
def test_several_axes_are_a_product(name: str, axes: str, longest: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    lengths = [int(n) for n in random.integers(1, longest + 1, len(axes))]
    window = [int(random.integers(1, n + 2)) for n in lengths]
    stride = [int(random.integers(1, w + 2)) for w in window]
    dilation = [
        int(random.integers(1, 1 + max(1, n // w))) for n, w in zip(lengths, window, strict=True)
    ]
    causal = [bool(c) for c in random.random(len(axes)) < 0.4]
    extents = {f"{r}{a}": n for r in "mn" for a, n in zip(axes, lengths, strict=True)}
    per_axis = zip(lengths, window, stride, dilation, causal, strict=True)
    expected = reduce(np.kron, [along(*settings) for settings in per_axis])
    given: dict[str, Any] = {
        "window": tuple(window),
        "stride": tuple(stride),
        "dilation": tuple(dilation),
    }
    found = visible(name, extents, **given, causal=tuple(causal))
    np.testing.assert_array_equal(found, expected, err_msg=str((lengths, given, causal)))


@pytest.mark.parametrize("window", [1, 2, 5, 6, 11, 12])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_windows_are_shifted_inwards_at_borders(window: int, stride: int) -> None:
    """Every query has exactly `window` keys: none is cut, none is padded."""
    found = visible("na1d", {"m": 12, "n": 12}, window=window, stride=stride)
    assert (found.sum(axis=1) == window).all()


def test_an_even_window_has_one_key_more_on_the_left() -> None:
    found = visible("na1d", {"m": 20, "n": 20}, window=6)
    assert np.flatnonzero(found[10]).tolist() == [7, 8, 9, 10, 11, 12]


def test_a_stride_as_long_as_the_window_is_blocked_attention() -> None:
    """The last, ragged group sees the last whole window, not a part of one."""
    found = visible("na1d", {"m": 11, "n": 11}, window=4, stride=4)
    blocks = [np.flatnonzero(row).tolist() for row in found[[0, 3, 4, 7, 8, 10]]]
    assert blocks == [[0, 1, 2, 3]] * 2 + [[4, 5, 6, 7]] * 2 + [[7, 8, 9, 10]] * 2


def test_a_causal_stride_takes_old_keys_away() -> None:
    """The window ends where the group's last query's does, cut at the query itself."""
    found = visible("na1d", {"m": 12, "n": 12}, window=4, stride=3, causal=True)
    assert np.flatnonzero(found[6]).tolist() == [5, 6]
    assert np.flatnonzero(found[8]).tolist() == [5, 6, 7, 8]


def test_dilation_groups_of_unequal_length_have_their_own_borders() -> None:
    """255 tokens in two groups: 128 and 127, whose last blocks of 64 are not the same."""
    found = visible("na1d", {"m": 255, "n": 255}, window=64, stride=64, dilation=2)
    np.testing.assert_array_equal(found, along(255, 64, 64, 2, False))
    assert np.flatnonzero(found[254]).tolist() == list(range(128, 255, 2))
    assert np.flatnonzero(found[253]).tolist() == list(range(127, 255, 2))


@pytest.mark.parametrize("window", [9, 10, 100])
def test_a_window_of_the_whole_axis_or_more_is_full_attention(window: int) -> None:
    assert visible("na1d", {"m": 9, "n": 9}, window=window).all()
    causal = visible("na1d", {"m": 9, "n": 9}, window=window, causal=True)
    np.testing.assert_array_equal(causal, np.tri(9, dtype=bool))


def test_a_causal_stride_beyond_the_window_leaves_queries_with_nothing() -> None:
    found = visible("na1d", {"m": 12, "n": 12}, window=2, stride=6, causal=True)
    assert np.flatnonzero(found.any(axis=1)).tolist() == [4, 5, 10, 11]


def test_an_axis_of_one_token_takes_no_part() -> None:
    """So the attention over a volume is that over a plane or a sequence, too."""
    plane = visible("na2d", {"my": 5, "mx": 7, "ny": 5, "nx": 7}, window=(3, 4), stride=(2, 1))
    extents = {"mt": 1, "my": 5, "mx": 7, "nt": 1, "ny": 5, "nx": 7}
    volume = visible("gna", extents, window=(1, 3, 4), stride=(1, 2, 1))
    np.testing.assert_array_equal(plane, volume)


@pytest.mark.parametrize("extents", [{"m": 0, "n": 0}, {"m": 3, "n": 0}, {"m": 0, "n": 3}], ids=str)
def test_axes_without_tokens(extents: dict[str, int]) -> None:
    spec = load_text(text("na1d"))
    q = torch.ones(1, 1, extents["m"], 2)
    k = torch.ones(1, 1, extents["n"], 2)
    out = reference(spec, {"Q": q, "K": k, "V": k})["O"]
    assert out.shape == q.shape and not out.any()


@pytest.mark.parametrize("param", ["window", "stride", "dilation"])
@pytest.mark.parametrize(
    ("name", "value", "code"),
    [("na1d", 0, "E509"), ("na1d", -3, "E509"), ("na2d", (3, 0), "E509"), ("na3d", (3, 3), "E508")],
)
def test_settings_that_mean_nothing_are_refused(
    param: str, name: str, value: Any, code: str
) -> None:
    spec = load_text(text(name))
    q = torch.ones(1, 1, 8, 2)
    extents = {f"{r}{a}": 2 for r in "MN" for a in ("TYX" if name == "na3d" else "YX")}
    if name == "na2d":
        extents |= {"MX": 4, "NX": 4}
    with pytest.raises(AttncError) as caught:
        reference(
            spec,
            {"Q": q, "K": q, "V": q},
            params={param: value},
            extents={} if name == "na1d" else extents,
        )
    assert caught.value.code == code
