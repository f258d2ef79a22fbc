"""What a tile asks of each unit: by hand, against the emitted text, and what must always hold."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc import library
from attnc.codegen.config import Config, default_config
from attnc.codegen.demand_form import Form, kernel_form
from attnc.codegen.prune import needed_stages
from attnc.codegen.spread import MatrixUnit
from attnc.codegen.tile_demand import kernel_demand
from attnc.dsl import load_text
from attnc.ir.demand import UNITS, Demand, KernelDemand
from attnc.ir.pipeline import plan
from attnc.ir.plan import Plan, SweepStage
from attnc.ir.work import count_work

CONFIG = Config(128, 64, 8, 2)
UNITS_OF_MATRICES: tuple[MatrixUnit, ...] = ("warp", "warpgroup", "block", "wave")
GOLDEN = Path(__file__).parent.parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.py"))


@cache
def planned(name: str) -> Plan:
    return plan(load_text(*library.resolve(name)))


def sweeps(name: str) -> list[SweepStage]:
    return [s for s in planned(name).stages if isinstance(s, SweepStage)]


def demand(
    stage: SweepStage,
    made: Plan,
    config: Config | None = None,
    width: int = 64,
    itemsize: int = 2,
    unit: MatrixUnit = "warpgroup",
) -> KernelDemand:
    """Of a kernel, with feature ranks of `width`."""
    dims = dict.fromkeys((*stage.inner, *stage.columns), width)
    config = config or default_config(stage, made.cascade, dims, itemsize)
    return kernel_demand(stage, made.cascade, config, dims, itemsize, unit)


def first(name: str, config: Config = CONFIG, **given: object) -> KernelDemand:
    return demand(sweeps(name)[0], planned(name), config, **given)  # type: ignore[arg-type]


def test_a_full_tile_of_causal_attention_by_hand() -> None:
    """Per thread of 256: 32 points in 2 rows of 16, and 32 elements of the accumulator."""
    full = first("causal").passes[0].full
    assert full.tensor == 2 * 128 * 64 * (64 + 64)
    # exp2 of each point, and of how far each row moves
    assert full.sfu == 256 * (32 + 2)
    # per point (score - base) * scale and a sum; two exchanges per row in place of one sum;
    # per row how far it moves (2), z * rescale + tile (1); the accumulator rescaled; addresses
    assert full.fma == 256 * (2 * 32 + 32 + 2 * (2 - 1) + 2 * 3 + 32 + 13 + 4 * 1)
    # a maximum per point, exchanged; per row the larger, two for the base; weights packed in pairs;
    # addresses of two tiles in two pieces each
    assert full.alu == 256 * (32 + 2 * (2 - 1) + 2 * 3 + 16 + 4 + 4 * 2)
    assert full.l2 == 2 * 64 * 64 * 2
    # two warpgroups read all keys and all values, and each its half of the queries; tiles stored
    exchanged = 256 * 2 * 2 * 2 * 4
    assert full.shared == 2 * (2 * 64 * 64 * 2 + 128 * 64 + 2 * 64 * 64) + exchanged
    assert full.waits == 0 and full.issue == 0


def test_a_border_tile_asks_for_its_mask_and_waits() -> None:
    tile = first("causal").passes[0]
    assert (tile.partial.tensor, tile.partial.sfu) == (tile.full.tensor, tile.full.sfu)
    # per point a comparison, a conjunction and a choice; per key its coordinate and one comparison
    assert tile.partial.alu == tile.full.alu + 256 * (3 * 32 + 2 * 16)
    assert tile.partial.waits == 1


def test_one_program_loads_its_rows_and_stores_its_result_once() -> None:
    once = first("causal").once
    assert once.l2 == 2 * (128 * 64 + 128 * 64)
    assert once.waits == 2
    # a reciprocal per row, in each of four lanes; in each thread, those of H / G, H and the tiles
    assert once.sfu == 4 * 128 + 256 * 3 * 3


def test_what_goes_between_stages_is_stored_in_full_precision() -> None:
    once = first("talking_heads").once
    # the rows and their weights of one head of 64; the result as float32
    assert once.l2 == 2 * (128 * 64 + 64) + 4 * 128 * 64


def test_warps_without_rows_compute_what_others_do() -> None:
    """wgmma takes 64 rows: of 8 warps with one such tile, both halves compute the map."""
    small, large = (first("causal", Config(rows, 64, 8, 2)).passes[0].full for rows in (64, 128))
    assert small.tensor == 2 * 64 * 64 * (2 * 64 + 64)
    assert small.sfu == large.sfu
    assert small.shared > large.shared / 2
    half = first("causal", Config(64, 64, 4, 2)).passes[0].full
    assert half.tensor == 2 * 64 * 64 * (64 + 64)


def test_full_precision_uses_no_matrix_unit() -> None:
    full = first("causal", Config(32, 32, 4, 2), itemsize=4).passes[0].full
    assert full.tensor == 0
    assert full.fma > 32 * 32 * (64 + 64)
    assert full.sfu == 32 * 32 + 128 * 4


def test_descriptors_spare_addresses_only() -> None:
    plain, spared = (first("causal", Config(128, 64, 8, 2, descriptors=x)) for x in (False, True))
    a, b = plain.passes[0].full, spared.passes[0].full
    assert a.fma > b.fma and a.alu > b.alu
    assert replace(a, fma=0, alu=0) == replace(b, fma=0, alu=0)


def test_integers_are_converted_by_another_unit_before_hopper() -> None:
    old, new = (first("alibi", unit=u).passes[0].full for u in ("warp", "warpgroup"))
    assert old.sfu - new.sfu == 128 * 64 == new.alu - old.alu


def test_what_no_product_takes_is_not_loaded_ahead() -> None:
    assert first("additive_bias").passes[0].full.waits == 1
    assert first("causal").passes[0].full.waits == 0


def test_a_component_is_divided_once_per_column_and_not_per_point() -> None:
    """The mask of a plane takes less per point than its divisions would."""
    tile = first("na2d", Config(64, 64, 4, 2), unit="warp").passes[0]
    assert tile.partial.alu - tile.full.alu < 12 * 64 * 64
    assert tile.partial.sfu > tile.full.sfu


@pytest.mark.parametrize("name", NAMES)
def test_library(name: str) -> None:
    """Against the emitted text and the formulas, and with every unit."""
    made = planned(name)
    stages = [s for s in needed_stages(made) if isinstance(s, SweepStage)]
    found = [kernel_form(s, made.cascade) for s in stages]
    emitted_loops_are_counted(name, found)
    if len(made.stages) == 1:
        formulas_agree(made, found[0])
    for stage in stages:
        for unit in UNITS_OF_MATRICES:
            for itemsize in (2, 4):
                border_tiles_ask_for_no_less(demand(stage, made, None, 64, itemsize, unit))


def emitted_loops_are_counted(name: str, found: list[Form]) -> None:
    """The first loop of each kernel has the matrix products and loads that are counted."""
    module = (GOLDEN / f"{name}.py").read_text(encoding="utf-8")
    kernels = re.findall(r"^def \w+_kernel\(.*?^\):\n(.*?)\n\n\n", module, re.M | re.S)
    assert len(kernels) == len(found)
    for text, form in zip(kernels, found, strict=True):
        loop = re.split(r"^    for .*\n", text, flags=re.M)[1]
        body = re.split(r"^    (?! )", loop, flags=re.M)[0]
        section, kind = form.sweeps[0].full, form.sweeps[0].kind
        assert body.count("tl.dot(") == sum(x.matrix for x in section.products)
        assert body.count("tl.load(") == len(section.tiles) + (kind == "lists")


def formulas_agree(made: Plan, form: Form) -> None:
    """Their coefficient of (row, swept) is what full tiles compute at each point."""
    s = form.stage
    if s.row is None or any(p.kind == "all" for p in form.sweeps):
        return
    tiles = [t for p in form.sweeps for t in p.full.terms]
    points = [cost for axes, cost in tiles if {r for r, _ in axes} == {s.row, s.swept}]
    counted = {
        "fma": sum(c.fma for c in points),
        "alu": sum(c.alu + c.casts for c in points),
        "sfu": sum(c.sfu for c in points),
    }
    for pipe, formula in count_work(made).pipes.items():
        terms = {frozenset(ranks): n for n, ranks in formula.terms}
        assert terms.get(frozenset({*s.grid, s.row, s.swept}), 0) == counted[pipe]


def border_tiles_ask_for_no_less(found: KernelDemand) -> None:
    assert all(getattr(found.once, u) >= 0 for u in UNITS)
    for p in found.passes:
        for u in UNITS:
            assert getattr(p.partial, u) >= getattr(p.full, u) >= 0, u


def scaled(a: Demand, b: Demand, unit: str) -> float:
    return float(getattr(b, unit) / getattr(a, unit))


@given(
    st.sampled_from(("causal", "softcap", "clipped_softmax", "na2d", "alibi")),
    st.sampled_from((16, 32, 64, 128)),
    st.sampled_from((16, 32, 64)),
    st.sampled_from((1, 2, 4, 8)),
    st.sampled_from(UNITS_OF_MATRICES),
)
def test_twice_the_keys_is_at_most_twice_the_work(
    name: str, rows: int, keys: int, warps: int, unit: MatrixUnit
) -> None:
    """Rows are moved once per tile; loads double exactly."""
    small, large = (
        first(name, Config(rows, n, warps, 2), unit=unit).passes[-1].full for n in (keys, 2 * keys)
    )
    assert scaled(small, large, "l2") == 2
    for u in ("tensor", "sfu", "fma"):
        assert 1 <= scaled(small, large, u) <= 2, u


@given(st.integers(1, 300), st.sampled_from((2, 4)))
def test_padding_is_computed_and_not_loaded(width: int, itemsize: int) -> None:
    found = first("causal", width=width, itemsize=itemsize).passes[0].full
    programs = -(-width // 256)
    assert found.l2 == 64 * itemsize * (width + -(-width // programs))
    assert found == first("causal", width=width, itemsize=itemsize).passes[0].full
