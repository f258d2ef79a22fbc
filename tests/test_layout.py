"""The stage folders stand at the root and are imported through the links in attnc/."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = sorted(p.parent.name for p in ROOT.glob("*/__init__.py") if p.parent.name != "attnc")


def test_the_stages_are_the_pipeline() -> None:
    assert STAGES == ["codegen", "dsl", "ir", "library", "runtime"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_reached_through_its_link(stage: str) -> None:
    module = importlib.import_module(f"attnc.{stage}")
    assert module.__file__ is not None
    assert Path(module.__file__).resolve() == ROOT / stage / "__init__.py"
