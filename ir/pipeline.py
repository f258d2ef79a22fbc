"""The order of the passes, one name per stage."""

from __future__ import annotations

from attnc.ir.build_plan import build_plan
from attnc.ir.cascade import Cascade
from attnc.ir.plan import Plan


def plan(cascade: Cascade) -> Plan:
    """How a cascade runs: derived, laid out in stages."""
    return build_plan(cascade)
