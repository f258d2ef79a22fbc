"""Choosing a configuration: compiling is replaced by a model of a compiler, but for one test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from attnc.codegen.config import Config
from attnc.errors import AttncError
from attnc.runtime.cost import prove
from attnc.runtime.cost.calibration import specs_only
from attnc.runtime.cost.call import Call
from attnc.runtime.cost.machine_demand import MachineKernel, Request
from attnc.runtime.cost.pinned import check_pins, config_text
from attnc.runtime.cost.predict import planned
from attnc.runtime.cost.tile_choice import choose, finalists, ranked_configs
from attnc.runtime.machine_code import Resources
from attnc.runtime.targets import load_target

SHAPE = {"B": 2, "H": 8, "G": 2, "M": 2048, "N": 2048, "D": 64, "E": 64}
H100, A100 = load_target("h100"), load_target("a100")

# Of a configuration: the resources that "compiling" it gives, or the error.
Compiler = Callable[[Config], Resources | AttncError]
Compiled = list[Config]


@pytest.fixture
def call(make_call: Callable[..., Call]) -> Call:
    return make_call("causal", SHAPE)


@pytest.fixture
def compile_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Compiler], Compiled]:
    """Replace the compiler; gives the list of what is compiled."""

    def install(compiler: Compiler) -> Compiled:
        seen: Compiled = []

        def compiled(requests: Sequence[Request]) -> tuple[MachineKernel | AttncError, ...]:
            return tuple(one(r) for r in requests)

        def one(r: Request) -> MachineKernel | AttncError:
            seen.append(r.config)
            found = compiler(r.config)
            if isinstance(found, AttncError):
                return found
            call = Call(r.plan, r.params, r.extents, r.dtype)
            plain = replace(r.config, descriptors=False)
            return MachineKernel(planned(call, r.sweep, r.target, plain).demand, found)

        monkeypatch.setattr(prove, "compiled_kernels", compiled)
        return seen

    return install


def resources(c: Config, registers: int = 128, spills: int = 0) -> Resources:
    return Resources(registers, spills, 1024 * c.num_stages, 0, 32 * c.num_warps)


def test_the_model_chooses_among_what_was_compiled(
    call: Call, compile_by: Callable[[Compiler], Compiled]
) -> None:
    seen = compile_by(resources)
    (found,) = choose(call, H100)
    assert len(seen) == found.compiled == 4
    assert found.config in seen and found.runner_up in seen
    assert found.candidates > 50
    assert found.time.ms.mid > 0 and found.tier == "specs only"
    assert found.why.startswith(f"{config_text(found.runner_up)} loses: ")
    assert found.kernel is not None and found.kernel.resources.spills == 0
    compile_by(resources)
    assert choose(call, H100) == (found,)


def test_first_proofs_differ_in_tile_and_warps(
    call: Call, compile_by: Callable[[Compiler], Compiled]
) -> None:
    seen = compile_by(resources)
    choose(call, A100)
    assert len({c.num_warps for c in seen}) > 1
    assert len({(c.block_m, c.block_n, c.num_warps) for c in seen}) == len(seen) == 3
    assert not any(c.descriptors for c in seen)


def test_what_spills_is_never_taken(call: Call, compile_by: Callable[[Compiler], Compiled]) -> None:
    def spilling(c: Config) -> Resources:
        return resources(c, spills=8 * (c.block_m * c.block_n > 32 * 32))

    seen = compile_by(spilling)
    (found,) = choose(call, A100)
    assert found.config.block_m * found.config.block_n <= 32 * 32
    assert found.compiled == len(seen)
    assert all(p.reason == "it spills 8 bytes per thread" for p in found.rejected)
    assert len(seen) < 20


def test_with_descriptors_the_kernel_without_them_is_proven_too(
    call: Call, compile_by: Callable[[Compiler], Compiled]
) -> None:
    seen = compile_by(lambda c: resources(c, spills=8 * (not c.descriptors and c.block_m > 32)))
    (found,) = choose(call, H100)
    assert found.config.block_m <= 32
    assert {replace(found.config, descriptors=x) for x in (False, True)} <= {*seen}
    reasons = {p.reason for p in found.rejected if p.config.descriptors}
    assert reasons == {"without descriptors, it spills 8 bytes per thread"}


def test_where_descriptors_gain_nothing_they_are_not_taken(
    call: Call, compile_by: Callable[[Compiler], Compiled]
) -> None:
    compile_by(resources)
    (found,) = choose(call, H100)
    assert not found.config.descriptors
    assert found.runner_up == replace(found.config, descriptors=True)
    assert found.why.endswith("the same time, and its descriptors have to be made")


def test_where_everything_spills_the_least_is_taken_and_told(
    call: Call, compile_by: Callable[[Compiler], Compiled]
) -> None:
    compile_by(lambda c: resources(c, spills=c.block_m + c.block_n))
    (found,) = choose(call, A100)
    assert found.kernel is not None
    least = found.kernel.resources.spills
    assert found.note.startswith(f"it spills {least} bytes per thread, and the other")
    assert all(p.spills >= least for p in found.rejected)


def test_nothing_fits(call: Call, compile_by: Callable[[Compiler], Compiled]) -> None:
    compile_by(lambda c: replace(resources(c), shared_bytes=300_000))
    with pytest.raises(AttncError) as e:
        choose(call, H100)
    assert e.value.code == "E855"
    assert "shared memory" in e.value.message


def test_without_a_compiler_the_plan_decides(
    call: Call, compile_by: Callable[[Compiler], Compiled]
) -> None:
    compile_by(lambda c: AttncError("E812", "no ptxas here"))
    (found,) = choose(call, H100)
    assert found.kernel is None and found.compiled == 0
    assert found.note == "not compiled: no ptxas here"
    stage = call.sweeps[0]
    assert found.config == ranked_configs(call, stage, H100, specs_only(H100))[0][0]


def test_what_is_pinned_stays(call: Call, compile_by: Callable[[Compiler], Compiled]) -> None:
    seen = compile_by(resources)
    (found,) = choose(call, H100, pins={"m": 32, "stages": 4})
    assert {(c.block_m, c.num_stages) for c in seen} == {(32, 4)}
    assert (found.config.block_m, found.config.num_stages) == (32, 4)


def test_a_whole_configuration_is_taken_though_it_spills(
    call: Call, compile_by: Callable[[Compiler], Compiled]
) -> None:
    seen = compile_by(lambda c: resources(c, spills=512))
    pins = {"m": 256, "n": 128, "warps": 4, "stages": 2}
    (found,) = choose(call, H100, pins=pins)
    assert seen == [found.config] == [Config(256, 128, 4, 2)]
    assert found.note == "it spills 512 bytes per thread"


def test_a_pinned_configuration_that_cannot_be_launched_says_what_is_lacking(call: Call) -> None:
    with pytest.raises(AttncError) as e:
        choose(call, H100, pins={"n": 1024, "stages": 4})
    assert e.value.code == "E852"
    assert "it takes 786432 bytes of shared memory, 553984 more than the 232448" in str(e.value)


@pytest.mark.parametrize("pins", [{"m": 48}, {"n": 0}, {"warps": 64}, {"stages": 9}, {"rows": 1}])
def test_what_is_no_configuration_is_refused(pins: dict[str, int]) -> None:
    with pytest.raises(AttncError) as e:
        check_pins(pins)
    assert e.value.code == "E852"


def test_few_rows_get_small_tiles(
    make_call: Callable[..., Call], compile_by: Callable[[Compiler], Compiled]
) -> None:
    compile_by(resources)
    (found,) = choose(make_call("causal", SHAPE | {"M": 1}), H100)
    assert found.config.block_m == 16


def test_finalists_can_all_be_taken(call: Call, compile_by: Callable[[Compiler], Compiled]) -> None:
    compile_by(lambda c: resources(c, spills=16 * (c.num_warps == 4)))
    found = finalists(call, call.sweeps[0], H100, 5)
    assert len(found) == 5
    assert all(not p.reason and p.config.num_warps != 4 for p in found)
    times = [p.time.ms.mid for p in found if p.time is not None]
    assert times == pytest.approx(sorted(times), rel=0.01)


def test_what_the_compiler_refuses_whatever_the_tiles_is_its_error(
    call: Call, compile_by: Callable[[Compiler], Compiled]
) -> None:
    seen = compile_by(lambda c: AttncError("E813", "it does not compile"))
    with pytest.raises(AttncError) as e:
        choose(call, A100)
    assert e.value.code == "E813"
    assert len(seen) < 10


def test_where_descriptors_spill_everywhere_tiles_are_loaded_by_pointers(
    call: Call, compile_by: Callable[[Compiler], Compiled]
) -> None:
    compile_by(lambda c: resources(c, spills=64 if c.descriptors else 0))
    (choice,) = choose(call, H100)
    assert not choice.config.descriptors
    assert choice.kernel is not None and choice.kernel.resources.spills == 0
    assert any("spills 64 bytes" in p.reason for p in choice.rejected)


def test_the_smallest_tile_is_tried_where_the_estimate_leaves_none(
    make_call: Callable[..., Call], compile_by: Callable[[Compiler], Compiled]
) -> None:
    """Heads that are contracted together: 1024 at once."""
    wide = make_call("talking_heads", {"D": 128, "E": 128})
    compile_by(resources)
    (choice,) = choose(wide, H100)
    assert (choice.config.block_m, choice.config.block_n) == (16, 16)
