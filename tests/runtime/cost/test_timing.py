"""Properties of the time model that hold for any kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.ir.demand import Demand, KernelDemand, PassDemand
from attnc.runtime.cost.calibration import Setting
from attnc.runtime.cost.tile_visits import PassVisits, Visits
from attnc.runtime.cost.timing import Work, busy_ms, kernel_ms, total_demand
from attnc.runtime.targets import load_target

H100 = load_target("h100")
IDEAL = Setting(clock=1.0, memory=1.0, overlap=1.0, masked=1.0, launch=0.0)
SIZES = st.floats(1.0, 1e6)
DEMANDS = st.builds(
    Demand, tensor=SIZES, fma=SIZES, alu=SIZES, sfu=SIZES, shared=SIZES, l2=SIZES, issue=SIZES
)
WORK = st.builds(
    lambda once, full, extra, tiles, borders, repeats, per_sm, traffic: Work(
        KernelDemand(once, (PassDemand(full, full + extra),)),
        Visits((PassVisits(np.array(tiles), np.array(borders)),), repeats),
        per_sm,
        4,
        traffic,
    ),
    DEMANDS,
    DEMANDS,
    DEMANDS,
    st.lists(st.integers(0, 40), min_size=3, max_size=3),
    st.lists(st.integers(0, 5), min_size=3, max_size=3),
    st.integers(1, 300),
    st.integers(1, 4),
    st.floats(0.0, 1e9),
)


@given(WORK)
def test_no_kernel_beats_its_roofline(work: Work) -> None:
    assert kernel_ms(work, H100, IDEAL) >= max(busy_ms(work, H100).values()) * (1 - 1e-9)


@given(WORK, st.floats(0.0, 1.0), st.floats(0.5, 1.0), st.floats(1.0, 2.0))
def test_worse_settings_are_slower(work: Work, overlap: float, share: float, masked: float) -> None:
    best = kernel_ms(work, H100, IDEAL)
    for worse in (
        replace(IDEAL, overlap=overlap),
        replace(IDEAL, clock=share),
        replace(IDEAL, memory=share),
        replace(IDEAL, masked=masked),
        replace(IDEAL, launch=5.0),
    ):
        assert kernel_ms(work, H100, worse) >= best * (1 - 1e-9)


@given(WORK)
def test_twice_the_clock_takes_half_as_long_unless_memory_decides(work: Work) -> None:
    still = replace(work, traffic=0.0)
    faster = replace(H100, clock_mhz=2 * H100.clock_mhz)
    assert kernel_ms(still, faster, IDEAL) == pytest.approx(kernel_ms(still, H100, IDEAL) / 2)


@given(WORK)
def test_all_demands_are_counted(work: Work) -> None:
    v, d = work.visits, work.demand
    full, border = v.total("full"), v.total("partial")
    (p,) = d.passes
    for unit in ("tensor", "sfu", "l2"):
        once, inner, outer = (getattr(x, unit) for x in (d.once, p.full, p.partial))
        expected = once * v.programs + inner * full + outer * border
        assert getattr(total_demand(work), unit) == pytest.approx(expected)


def test_units_in_turn_overlap_better_the_more_programs_there_are() -> None:
    """At d = 128 products and exponentials take 2 : 1; two programs hide more than one."""
    tile = Demand(tensor=4 * 128 * 64 * 128, sfu=128 * 64, fma=3 * 128 * 64)
    visits = Visits((PassVisits(np.full(132, 100), np.zeros(132, int)),), 4)
    alone, both = (
        kernel_ms(
            Work(KernelDemand(Demand(), (PassDemand(tile, tile),)), visits, n, 8, 0.0),
            H100,
            replace(IDEAL, overlap=0.2),
        )
        for n in (1, 2)
    )
    assert both < alone
    peak = 4 * 128 * 64 * 128 * 100 * 132 * 4 / H100.tensor_flop_per_clk / H100.sms
    assert both > peak / (H100.clock_mhz * 1e3)
