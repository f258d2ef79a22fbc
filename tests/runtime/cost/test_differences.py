"""The counts of the plan and of machine code, and the sentences on how they differ."""

from __future__ import annotations

import pytest

from attnc import library
from attnc.codegen.config import default_config
from attnc.codegen.tile_demand import kernel_demand
from attnc.compilation import complete_shape
from attnc.dsl import load_text
from attnc.ir.demand import Demand, KernelDemand, PassDemand
from attnc.ir.pipeline import plan
from attnc.ir.plan import SweepStage
from attnc.runtime.cost.differences import explain_difference
from attnc.runtime.cost.machine_demand import MachineKernel, Request, compiled_kernels
from attnc.runtime.targets import load_target

TILE = Demand(tensor=2e6, fma=1000, alu=1000, sfu=100, waits=0)


def kernel(full: Demand, partial: Demand | None = None, passes: int = 1) -> KernelDemand:
    return KernelDemand(Demand(), (PassDemand(full, partial or full),) * passes)


def test_equal_counts_need_no_words() -> None:
    assert explain_difference(kernel(TILE), kernel(TILE)) == ()


def test_a_tenth_is_no_difference_and_what_was_not_counted_is_none() -> None:
    assert explain_difference(kernel(TILE), kernel(TILE + Demand(fma=100, issue=700))) == ()


def test_a_sentence_says_how_much_per_what() -> None:
    (said,) = explain_difference(kernel(TILE), kernel(TILE + Demand(alu=1200)))
    assert said.endswith("coordinates in 64 bits: +1,200 alu per full tile (+120%)")
    (less,) = explain_difference(kernel(TILE + Demand(alu=1200)), kernel(TILE))
    assert "merged" in less and "-1,200 alu" in less


def test_what_the_plan_has_none_of_has_no_share() -> None:
    (said,) = explain_difference(kernel(TILE), kernel(TILE + Demand(waits=1)))
    assert said.endswith("+1 waits per full tile")


def test_border_tiles_and_passes_are_told_apart() -> None:
    found = explain_difference(kernel(TILE, TILE, 2), kernel(TILE, TILE + Demand(sfu=100), 2))
    assert [x.partition("sfu ")[2] for x in found] == [
        "per border tile of pass 1 (+100%)", "per border tile of pass 2 (+100%)",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "gpu", "width"), [("softcap", "h100", 64), ("na2d", "a100", 128)])
def test_both_fidelities_count_the_same(name: str, gpu: str, width: int) -> None:
    """Matrix products exactly, special functions within 10 %, the other units less closely."""
    made = plan(load_text(*library.resolve(name)))
    (stage,) = made.stages
    assert isinstance(stage, SweepStage)
    target, extents = load_target(gpu), complete_shape(made, {"D": width, "E": width})
    dims = dict.fromkeys((*stage.inner, *stage.columns), width)
    config = default_config(stage, made.cascade, dims, 2)
    params = {p.name: p.default for p in made.cascade.params if p.default is not None}
    request = Request(made, stage.name, extents, params, "bf16", target, config)
    (read,) = compiled_kernels([request])
    assert isinstance(read, MachineKernel), read
    counted = kernel_demand(stage, made.cascade, config, dims, 2, target.matrix_unit)
    for a, b in zip(counted.passes, read.demand.passes, strict=True):
        for ours, theirs in ((a.full, b.full), (a.partial, b.partial)):
            assert ours.tensor == theirs.tensor
            assert ours.sfu == pytest.approx(theirs.sfu, rel=0.1)
            assert ours.shared == pytest.approx(theirs.shared, rel=0.1)
            assert ours.fma == pytest.approx(theirs.fma, rel=0.25)
            assert ours.alu == pytest.approx(theirs.alu, rel=0.35)
