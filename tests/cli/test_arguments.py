"""What may be typed after `--param` and `--shape`, and how mistakes are told."""

from __future__ import annotations

from argparse import ArgumentTypeError
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.arguments import Value, extents, parameter, sweep_range, tile_sizes


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
