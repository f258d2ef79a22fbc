"""The end of the last program, against a list of places that is walked program by program."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.runtime.cost.schedule import makespan

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=30)


def _walked(lengths: list[int], places: int) -> float:
    ends = [0.0] * places
    for length in lengths:
        first = ends.index(min(ends))
        ends[first] += length
    return max(ends)


@given(LENGTHS, st.integers(1, 4), st.integers(1, 40))
def test_few_programs_are_followed_exactly(lengths: list[int], repeats: int, places: int) -> None:
    array = np.array(lengths, float)
    if len(lengths) * repeats <= 4 * places:
        assert makespan(array, repeats, places) == _walked(lengths * repeats, places)


@given(LENGTHS, st.integers(1, 60), st.integers(1, 12))
def test_many_programs_end_about_when_they_do(
    lengths: list[int], repeats: int, places: int
) -> None:
    array = np.array(lengths, float)
    found, exact = makespan(array, repeats, places), _walked(lengths * repeats, places)
    # off by no more than the places are apart when the last rounds begin
    assert abs(found - exact) <= max(lengths)
    assert found >= array.sum() * repeats / places - max(lengths)


def test_the_longest_first_end_sooner() -> None:
    falling = np.arange(100, 0, -1).astype(float)
    assert makespan(falling, 1, 16) < makespan(falling[::-1], 1, 16)


def test_no_program_takes_no_time() -> None:
    assert makespan(np.zeros(0), 5, 8) == 0.0
    assert makespan(np.ones(3), 0, 8) == 0.0


@pytest.mark.parametrize("count", [132, 133, 264])
def test_a_round_more_takes_as_long_as_a_round(count: int) -> None:
    assert makespan(np.full(count, 7.0), 1, 132) == 7.0 * -(-count // 132)
