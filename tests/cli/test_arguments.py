"""What may be typed after `--param` and `--shape`, and how mistakes are told."""

from __future__ import annotations

from argparse import ArgumentTypeError
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.arguments import Value, extents, parameter


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


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_wrong_usage(text: str) -> None:
    for read in (parameter, extents):
        try:
            read(text)
        except ArgumentTypeError:
            pass
