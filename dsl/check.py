"""Everything that is wrong with a spec."""

from __future__ import annotations

from attnc.dsl.lower import Lowering
from attnc.dsl.tree import Spec
from attnc.errors import AttncError


def check(spec: Spec) -> tuple[AttncError, ...]:
    """Every mistake of a spec in order of place; none if `lower` takes it."""
    return Lowering(spec).report.errors
