"""What may be typed after `--param` and `--shape`, and how mistakes are told."""

from __future__ import annotations

from argparse import ArgumentTypeError
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.arguments import (
    Value,
    duration,
    extents,
    parameter,
    settings_range,
    share,
    spec_and_params,
    sweep_range,
    tile_sizes,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("w=4096", 4096),
        ("w=-3", -3),
        ("w=1.5", 1.5),
        ("w=1e-5", 1e-5),
        ("w=.5", 0.5),
        ("w=inf", inf),
        ("w=-inf", -inf),
        ("w=true", True),
        ("w=False", False),
        ("w=(80,80)", (80, 80)),
        ("w=(18, 24, 24)", (18, 24, 24)),
        ("w=(1,)", (1,)),
        (" w = 4 ", 4),
    ],
)
def test_a_parameter_is_a_number_a_truth_or_a_tuple(text: str, value: Value) -> None:
    found = parameter(text)["w"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    ["w", "w=", "=3", "w=abc", "w=(1,(2,3))", "w=()", "w=[1]", "1w=3", "w=nan", "w=" + "9" * 5000],
)
def test_a_parameter_that_is_none_of_these_is_wrong_usage(text: str) -> None:
    with pytest.raises(ArgumentTypeError) as e:
        parameter(text)
    assert len(str(e.value)) < 200


def test_extents_come_by_upper_case_name() -> None:
    assert extents("B=1,H=32, M=8192") == {"B": 1, "H": 32, "M": 8192}


@pytest.mark.parametrize("text", ["m=3", "M=-1", "M=1.5", "M", "M=1,M=2", "M=1,,N=2", ""])
def test_extents_that_are_none_are_wrong_usage(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        extents(text)


def test_a_tile_has_a_size_per_component() -> None:
    assert tile_sizes("m=128, n=16x8") == {"m": (128,), "n": (16, 8)}


@pytest.mark.parametrize("text", ["m", "m=", "m=a", "m=16x", "m=1,m=2", "m=1.5", ""])
def test_tiles_that_are_none_are_wrong_usage(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        tile_sizes(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("stride=1..4", {"stride": (1, 2, 3, 4)}),
        ("stride=7", {"stride": (7,)}),
        ("stride=1,2,8..10", {"stride": (1, 2, 8, 9, 10)}),
        ("window=16..64:16", {"window": (16, 32, 48, 64)}),
        ("stride[1]=2,1,2", {"stride[1]": (2, 1)}),
        ("stride=1..2x4,8", {"stride[0]": (1, 2), "stride[1]": (4, 8)}),
    ],
)
def test_a_sweep_is_a_range_a_list_or_one_per_item(
    text: str, values: dict[str, tuple[int, ...]]
) -> None:
    assert sweep_range(text) == values


@pytest.mark.parametrize(
    "text", ["stride", "stride=", "s=4..1", "s=1..2:0", "s=a..b", "s[0]=1x2", "s=1..9999999999"]
)
def test_sweeps_that_are_none_are_wrong_usage(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        sweep_range(text)


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_wrong_usage(text: str) -> None:
    for read in (parameter, extents, tile_sizes, sweep_range):
        try:
            read(text)
        except ArgumentTypeError:
            pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("M=1024..8192", {"M": (1024, 2048, 4096, 8192)}),
        ("M=1000..5000", {"M": (1000, 2000, 4000)}),
        ("M=1..4:1", {"M": (1, 2, 3, 4)}),
        ("window=1..4", {"window": (1, 2, 3, 4)}),
        ("window=512..2048:512", {"window": (512, 1024, 1536, 2048)}),
        ("window=3..20:double", {"window": (3, 6, 12)}),
        ("tau=0.1..0.5:0.2,2", {"tau": (0.1, 0.3, 0.5, 2)}),
        ("stride=1..2x1,8", {"stride[0]": (1, 2), "stride[1]": (1, 8)}),
        ("stride[1]=4", {"stride[1]": (4,)}),
        ("M=4096", {"M": (4096,)}),
    ],
)
def test_what_predictions_are_swept_over(text: str, expected: dict[str, tuple[float, ...]]) -> None:
    assert settings_range(text) == expected


@pytest.mark.parametrize(
    "text",
    (
        *("M", "M=", "=1..2", "M=4..1", "M=0..8", "w=1..2:0", "w=1..2:-1", "w=a..b", "w[0]=1x2"),
        *("w=1..999999999", "M=1..2:double:2", "w=1...2"),
    ),
)
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        settings_range(text)


def test_times_and_shares() -> None:
    assert [duration(x) for x in ("2ms", "500us", "1.5s", "2 ms")] == [2.0, 0.5, 1500.0, 2.0]
    assert [share(x) for x in ("0.6", "60%", "1", ".25")] == [0.6, 0.6, 1.0, 0.25]
    for text in ("2", "ms", "-2ms", "0ms", "1e3ms", "inf s"):
        with pytest.raises(ArgumentTypeError):
            duration(text)
    for text in ("0", "1.5", "-1", "160%", "half", "nan"):
        with pytest.raises(ArgumentTypeError):
            share(text)


def test_a_spec_with_params_of_its_own() -> None:
    assert spec_and_params("causal") == ("causal", {})
    assert spec_and_params("my specs/a.attn w=1 s=(1,2)") == (
        "my specs/a.attn",
        {"w": 1, "s": (1, 2)},
    )
    with pytest.raises(ArgumentTypeError):
        spec_and_params("causal w=x")
