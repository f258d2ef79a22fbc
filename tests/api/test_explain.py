"""Explaining: every law that the library needs holds, and what is derived is what was written."""

from __future__ import annotations

import json

import pytest

import attnc
from attnc.errors import AttncError
from attnc.library import names


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_every_law_holds_when_checked_again(name: str) -> None:
    try:
        found = attnc.load(name).explain(check=True)
    except AttncError as e:
        assert e.code == "E901"
        return
    assert found.ok, str(found)
    assert found.error is not None
    assert found.error < 1e-12
    assert json.loads(json.dumps(found.to_dict()))["name"] == name


def test_components_merged_into_their_rank_are_swept_with_it() -> None:
    passes = attnc.load("sdpa_2pass").explain().passes
    assert {rank: (p.written, p.derived) for rank, p in passes.items()} == {
        "n": (2, 1),
        "n1": (3, 1),
        "n0": (3, 1),
        "d": (1, 1),
    }


def test_a_rank_that_no_kernel_sweeps_stays_as_written() -> None:
    found = attnc.load("qk_norm").explain().passes["d"]
    assert (found.written, found.derived) == (2, 2)
    assert found.forced_by == found.written_forced_by != ()
