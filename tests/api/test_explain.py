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


def test_a_stage_says_which_keys_a_tile_visits() -> None:
    found = attnc.load("sliding_window").explain()
    (tiles,) = found.stages[0].tiles
    assert tiles.visits == "[max(0, first - window + 1), min(N, last + 1))"
    assert tiles.full == "[max(0, last - window + 1), min(N, first + 1))"
    line = f"    a tile of m = first..last visits n in {tiles.visits}, sees all of {tiles.full}"
    assert line in str(found).splitlines()


def test_a_stage_says_why_its_mask_has_no_closed_form() -> None:
    found = attnc.load("document").explain()
    assert "    no closed form: `doc` is data along `n`; lists of tiles" in str(found).splitlines()
    stage = json.loads(json.dumps(found.to_dict()))["stages"][0]
    why = "`doc` is data along `n`"
    assert stage["tiles"] == [{"pass": 1, "visits": None, "full": None, "why": why}]


def test_passes_that_need_the_same_keys_share_a_line() -> None:
    found = attnc.load("lssar").explain()
    assert len(found.stages[0].tiles) == 2
    assert str(found).count("a tile of m = first..last") == 1


def test_without_a_mask_nothing_is_said_of_tiles() -> None:
    found = attnc.load("longca_full").explain()
    assert found.stages[0].tiles == ()
    assert "a tile of" not in str(found)
