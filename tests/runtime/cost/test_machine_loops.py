"""Loops, ways and counts read in machine code that the tests write themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from attnc.ir.demand import Demand
from attnc.runtime.cost.amdgcn import read_amdgcn
from attnc.runtime.cost.instructions import Instruction
from attnc.runtime.cost.loop_counters import iterations, unrolled
from attnc.runtime.cost.machine_loops import ROUNDS, Code, Loop, Step, find_loops, walk
from attnc.runtime.cost.round_trips import round_trips, round_trips_per_iteration
from attnc.runtime.cost.sass import read_sass

# programs as trees -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """So many instructions."""

    length: int


@dataclass(frozen=True)
class Choice:
    """Two arms that meet again; the second one is not there where a branch only skips."""

    taken: tuple[Tree, ...]
    other: tuple[Tree, ...]


@dataclass(frozen=True)
class Repeat:
    """A loop that tests at its end, or at its start."""

    body: tuple[Tree, ...]
    at_end: bool


Tree: TypeAlias = "Run | Choice | Repeat"


def trees(depth: int) -> st.SearchStrategy[tuple[Tree, ...]]:
    run = st.builds(Run, st.integers(1, 4))
    if depth == 0:
        return st.lists(run, min_size=1, max_size=2).map(tuple)
    inner = trees(depth - 1)
    node = st.one_of(
        run,
        st.builds(Choice, inner, st.one_of(st.just(()), inner)),
        st.builds(Repeat, inner, st.booleans()),
    )
    return st.lists(node, min_size=1, max_size=3).map(tuple)


def instruction(opcode: str = "FADD", operands: str = "R1, R1, R2") -> str:
    return f"        /*0000*/                   {opcode} {operands} ;"


def branch(target: str, guard: str = "@P0") -> str:
    return f"        /*0000*/              {guard:>4} BRA `({target}) ;"


def written(tree: Sequence[Tree], labels: Iterator[int]) -> list[str]:
    """As nvdisasm prints it."""
    rows: list[str] = []
    for node in tree:
        match node:
            case Run(length):
                rows += [instruction()] * length
            case Choice(taken, other):
                skip, end = f".L_x_{next(labels)}", f".L_x_{next(labels)}"
                rows += [branch(skip), *written(taken, labels)]
                rows += [branch(end, "")] if other else []
                rows += [f"{skip}:", *written(other, labels), f"{end}:"]
                rows.append(instruction())
            case Repeat(body, at_end):
                start, end = f".L_x_{next(labels)}", f".L_x_{next(labels)}"
                test = [] if at_end else [branch(end)]
                back = branch(start, "@P0" if at_end else "")
                rows += [f"{start}:", instruction(), *test, *written(body, labels), back]
                rows += [f"{end}:", instruction()]
    return rows


def longest(tree: Sequence[Tree]) -> int:
    """Instructions on the longest way, every loop walked `ROUNDS` times."""
    total = 0
    for node in tree:
        match node:
            case Run(length):
                total += length
            case Choice(taken, other):
                first = longest(taken) + bool(other)
                total += 1 + max(first, longest(other)) + 1
            case Repeat(body, at_end):
                total += ROUNDS * (1 + (not at_end) + longest(body) + 1) + 1
    return total


def rounds(way: Sequence[Step]) -> dict[int, float]:
    """`ROUNDS` for every loop on a way."""
    loops = [x for x in way if isinstance(x, Loop)]
    inner = [item for x in loops for item in rounds(x.way).items()]
    return {x.header: float(ROUNDS) for x in loops} | dict(inner)


def read(rows: Sequence[str]) -> Code:
    return find_loops(read_sass("\n".join([*rows, instruction("EXIT", "")]), "module.py"))


@given(trees(3))
def test_the_way_through_nested_loops_and_branches_is_the_longest(tree: tuple[Tree, ...]) -> None:
    code = read(written(tree, count()))
    assert walk(code, code.way, 1, rounds(code.way)).issue == longest(tree) + 1


@given(trees(2))
def test_a_loop_counts_as_often_as_it_goes_round(body: tuple[Tree, ...]) -> None:
    inside = Repeat(body, True)
    code = read(written((Repeat((inside,), True),), count()))
    (outer,) = code.loops()
    (inner,) = outer.inner
    times = rounds(inner.way)
    once = longest(body) + 2
    assert walk(code, inner.way, 1, times).issue == once
    times[inner.header] = 5
    assert walk(code, outer.way, 8, times).issue == 8 * (1 + 5 * once + 1 + 1)


# particular code ---------------------------------------------------------------------------------


def one_loop(rows: Sequence[str]) -> tuple[Code, Loop]:
    code = read([".L_x_0:", *rows, branch(".L_x_0")])
    (loop,) = code.loops()
    return code, loop


def work_of(opcode: str, operands: str = "R0, R1, R2", guard: str = "") -> Demand:
    (found,) = read_sass(instruction(f"{guard} {opcode}".strip(), operands), "module.py")
    return found.work


def test_what_instructions_ask_for() -> None:
    assert work_of("HMMA.16816.F32.BF16").tensor == 2 * 16 * 8 * 16
    assert work_of("HMMA.1688.F32.TF32").tensor == 2 * 16 * 8 * 8
    both = work_of("HGMMA.64x128x16.F32.BF16", "R24, gdesc[UR8], R24")
    # a warp is a quarter of the four that share it
    assert (both.tensor, both.shared) == (2 * 64 * 128 * 16 / 4, (64 + 128) * 16 * 2 / 4)
    one = work_of("HGMMA.64x128x16.F32.BF16", "R24, R4, gdesc[UR8].tnspB, R24")
    assert one.shared == 128 * 16 * 2 / 4
    assert work_of("FFMA2").fma == 2 * work_of("FFMA").fma == 64
    assert work_of("IMAD.WIDE.U32").fma == 2 * work_of("IMAD.MOV.U32").fma
    assert work_of("MUFU.EX2").sfu == work_of("I2F.RP").sfu == 32
    assert work_of("FMNMX3").alu == work_of("F2FP.BF16.F32.PACK_AB").alu == 32
    assert work_of("LDS.128").shared == work_of("LDSM.16.M88.4").shared == 512
    assert work_of("LDG.E.U16").l2 == 64
    assert work_of("LDGSTS.E.BYPASS.LTC128B.128") == Demand(l2=512, shared=512, issue=1)
    assert work_of("UIADD3", "UR4, UR4, 0x1, URZ") == Demand(issue=1)
    # switched off for good: it keeps a barrier company
    assert work_of("LDS", "RZ, [RZ]", "@!PT") == Demand(issue=1)


def test_an_unknown_opcode_counts_and_is_named() -> None:
    (found,) = read_sass(instruction("FROBNICATE.X2", "R0, R1"), "module.py")
    assert (found.work, found.known) == (Demand(alu=32, issue=1), False)
    (other,) = read_amdgcn("\tfrobnicate_b32 v0, v1\n", "module.py")
    assert not other.known


def test_lines_are_those_of_the_module() -> None:
    listing = (
        '//## File "/a/module.py", line 7', instruction(),
        '//## File "/triton/standard.py", line 9', instruction(),
        '//## File "/triton/standard.py", line 9 inlined at "/a/module.py", line 8', instruction(),
    )  # fmt: skip
    assert [i.line for i in read_sass("\n".join(listing), "/a/module.py")] == [7, None, 8]
    amd = """
        .file 1 "/a" "module.py"
        .file 2 "/triton" "standard.py"
        .loc 1 7 0          ; module.py:7:0
        v_add_f32_e32 v0, v1, v2
        .loc 2 9 17         ; standard.py:9:17 @[ module.py:8:25 ]
        v_add_f32_e32 v0, v1, v2
    """
    assert [i.line for i in read_amdgcn(amd, "/a/module.py")] == [7, 8]


def test_a_matrix_product_of_tensor_memory_has_its_shape_in_a_descriptor() -> None:
    rows = [
        instruction("UMOV", "UR31, 0x8210490"),
        instruction("UTCHMMA", "tmem[UR5], gdesc[UR22], tmem[UR8], tmem[UR30], idesc[UR31], UPT"),
        instruction("UTCHMMA", "gdesc[UR4], gdesc[UR22], tmem[UR8], tmem[UR30], idesc[UR31], UPT"),
    ]
    _, one, two = read_sass("\n".join(rows), "module.py")
    assert one.work.tensor == two.work.tensor == 2 * 128 * 128 * 16
    assert (one.work.shared, two.work.shared) == (128 * 16 * 2, 2 * 128 * 16 * 2)


def test_one_warp_starts_products_and_copies_for_all() -> None:
    core = instruction("UTCHMMA", "tmem[UR5], gdesc[UR2], tmem[UR8], tmem[UR0], idesc[UR1], UPT")
    code, loop = one_loop([branch(".L_x_9"), instruction(), core, ".L_x_9:", instruction()])
    # its block is skipped by the other warps
    assert walk(code, loop.way, 8, {}).issue == 8 + 2 + 16
    # with a predicate it is alone in its block
    copy = instruction("@UP0 UTMALDG.4D", "[UR8], [UR6]")
    code, loop = one_loop([instruction(), copy])
    assert walk(code, loop.way, 8, {}).issue == 8 + 1 + 8


def test_a_copy_by_descriptor_brings_what_was_announced() -> None:
    rows = [
        instruction("@P2 IMAD.MOV.U32", "R8, RZ, RZ, 0x4000"),
        instruction("@P2 SYNCS.ARRIVE.TRANS64", "RZ, [UR19+0x18000], R8"),
        instruction("@UP0 UTMALDG.4D", "[UR24], [UR14]"),
    ]
    code, loop = one_loop(rows)
    work = walk(code, loop.way, 8, {})
    assert (work.l2, work.shared) == (0x4000, 0x4000)


def test_loops_that_wait_count_nothing() -> None:
    rows = [
        instruction("SYNCS.PHASECHK.TRANS64.TRYWAIT", "P1, [UR16], R12"),
        branch(".L_x_7", "@!P1"), ".L_x_8:", instruction(), branch(".L_x_9"),
        branch(".L_x_0", ""), ".L_x_7:",
        instruction("SYNCS.PHASECHK.TRANS64.TRYWAIT", "P1, [UR16], R12"),
        branch(".L_x_7", "@!P1"), branch(".L_x_8", ""), ".L_x_9:",
    ]  # fmt: skip
    code = read([".L_x_0:", *rows])
    (loop,) = code.loops()
    assert walk(code, loop.way, 1, {}).issue == 6


def test_a_far_branch_is_written_as_a_call() -> None:
    rows = [".L_x_0:", instruction(), instruction("@!P2 CALL.REL.NOINC", "`(.L_x_1)")]
    code = read([*rows, branch(".L_x_0", ""), ".L_x_1:", instruction()])
    (loop,) = code.loops()
    assert walk(code, loop.way, 1, {}).issue == 3


def test_a_subroutine_counts_where_it_is_called() -> None:
    body = [
        "$__internal_0_$divide:",
        *[instruction("FFMA")] * 5,
        instruction("RET.REL.NODEC", "R2"),
    ]
    call = instruction("CALL.REL.NOINC", "`($__internal_0_$divide)")
    text = [".L_x_0:", call, branch(".L_x_0"), instruction("EXIT", ""), *body]
    code = read(text)
    (loop,) = code.loops()
    assert walk(code, loop.way, 1, {}).fma == 5 * 32


# round trips -------------------------------------------------------------------------------------

LOAD, USE = instruction("LDG.E.128", "R4, desc[UR4][R2.64]"), instruction("STS.128", "[R9], R4")
OTHER = instruction("LDG.E.128", "R8, desc[UR4][R12.64]")
USE_OTHER = instruction("STS.128", "[R9], R8")
PRODUCT = instruction("HMMA.16816.F32.BF16", "R20, R40, R44, R20")
COPY = instruction("LDGSTS.E.BYPASS.128", "[R50], desc[UR4][R2.64]")
GROUP, LATEST = instruction("LDGDEPBAR", ""), instruction("DEPBAR.LE", "SB0, 0x0")


def waits(rows: Sequence[str]) -> float:
    code, loop = one_loop(rows)
    return round_trips_per_iteration(code, loop, {})


def test_loads_that_are_under_way_together_are_one_round_trip() -> None:
    assert waits([LOAD, OTHER, USE, USE_OTHER]) == 1
    assert waits([LOAD, USE, OTHER, USE_OTHER]) == 2


def test_what_a_product_or_the_iteration_before_hides_is_no_round_trip() -> None:
    assert waits([LOAD, PRODUCT, USE]) == 0
    assert waits([USE, LOAD]) == 0
    assert waits([LOAD, USE, PRODUCT]) == 1


def test_a_copy_is_waited_for_where_its_group_is() -> None:
    assert waits([LATEST, COPY, GROUP, PRODUCT]) == 0
    assert waits([COPY, GROUP, LATEST, PRODUCT]) == 1
    assert waits([COPY, GROUP, instruction("DEPBAR.LE", "SB0, 0x1"), PRODUCT]) == 0


def test_an_announced_copy_is_waited_for_at_its_barrier() -> None:
    announced = [
        instruction("IMAD.MOV.U32", "R8, RZ, RZ, 0x4000"),
        instruction("SYNCS.ARRIVE.TRANS64", "RZ, [UR19+0x18000], R8"),
    ]
    arrived = instruction("SYNCS.PHASECHK.TRANS64.TRYWAIT", "P0, [UR17+0x18000], R9")
    another = instruction("SYNCS.PHASECHK.TRANS64.TRYWAIT", "P0, [UR17+0x18010], R9")
    assert waits([*announced, arrived, PRODUCT]) == 1
    assert waits([*announced, another, PRODUCT]) == 0
    assert waits([arrived, PRODUCT, *announced]) == 0
    # of two buffers the one that was announced first
    assert waits([*announced, *announced, PRODUCT, arrived, arrived]) == 0


def test_round_trips_inside_a_tile_count_as_often_as_the_loop_goes_round() -> None:
    inner = [".L_x_1:", LOAD, USE, branch(".L_x_1")]
    code = read([".L_x_0:", instruction(), *inner, LOAD, USE, branch(".L_x_0")])
    (loop,) = code.loops()
    (inside,) = loop.inner
    assert round_trips_per_iteration(code, loop, {inside.header: 16}) == 17
    assert round_trips(code, code.way, {loop.header: 0}) == 0


# counters ----------------------------------------------------------------------------------------


def counted(*rows: str) -> tuple[Code, Loop]:
    return one_loop(list(rows))


def test_an_unrolled_loop_is_told_by_its_counter() -> None:
    test = instruction("UISETP.GE.AND", "UP0, UPT, UR4, UR7, UPT")
    plain = counted(instruction("UIADD3", "UR4, UR4, 0x40, URZ"), test)
    assert unrolled(*plain, step=64, most=4) == 1
    twice = counted(instruction("UIADD3", "UR4, UPT, UPT, UR4, 0x80, URZ"), test)
    assert unrolled(*twice, step=64, most=4) == 2
    assert unrolled(*twice, step=64, most=1) == 1
    # by way of another register
    moved = counted(
        instruction("VIADD", "R9, R4, 0x20"), instruction("ISETP.GE.AND", "P0, PT, R9, R7, PT"),
        instruction("IMAD.MOV.U32", "R4, RZ, RZ, R9"),
    )  # fmt: skip
    assert unrolled(*moved, step=32, most=8) == 1
    # something that grows and is not tested
    assert unrolled(*counted(instruction("VIADD", "R9, R9, 0x100")), step=64, most=4) == 1


def test_how_often_an_inner_loop_goes_round() -> None:
    add = instruction("UIADD3", "UR5, UP0, UR5, 0x2, URZ")
    known = counted(add, instruction("UISETP.NE.U32.AND", "UP0, UPT, UR5, 0x80, UPT"))
    assert iterations(*known, count=64) == 64
    fourfold = counted(
        instruction("VIADD", "R5, R5, 0x4"), instruction("ISETP.NE.AND", "P0, PT, R5, 0x40, PT")
    )
    assert iterations(*fourfold, count=64) == 16
    unknown = counted(add, instruction("UISETP.NE.U32.AND", "UP0, UPT, UR5, UR9, UPT"))
    assert iterations(*unknown, count=64) == 64


# AMD ---------------------------------------------------------------------------------------------


def amd(text: str) -> Instruction:
    (found,) = read_amdgcn(f"\t{text}\n", "module.py")
    return found


def test_what_amd_instructions_ask_for() -> None:
    assert amd("v_mfma_f32_32x32x8_bf16 v[0:15], v[16:17], v[18:19], v[0:15]").work == Demand(
        tensor=2 * 32 * 32 * 8, issue=1
    )
    assert amd("v_mfma_f32_4x4x4_16b_f16 v[0:3], v[4:5], v[6:7], v[0:3]").work.tensor == 2 * 64 * 16
    assert amd("v_pk_mul_f32 v[0:1], v[2:3], v[4:5]").work.fma == 128
    assert amd("v_fmac_f32_e32 v64, v245, v220").work.fma == 64
    assert amd("v_exp_f32_e32 v1, v2").work.sfu == 64
    assert amd("v_cndmask_b32_e32 v1, v2, v3, vcc").work.alu == 64
    assert amd("ds_read2_b64 v[94:97], v64 offset1:16").work.shared == 64 * 16
    assert amd("ds_bpermute_b32 v1, v2, v3").work.shared == 64 * 4
    load = amd("buffer_load_dwordx4 v[164:167], v64, s[4:7], 0 offen")
    assert (load.work.l2, load.fills) == (64 * 16, ("v164", "v165", "v166", "v167"))
    assert amd("buffer_load_ushort v1, v64, s[4:7], 0 offen").work.l2 == 64 * 2
    assert amd("s_add_i32 s27, s27, 64").work == Demand()
    assert amd("s_add_i32 s27, s27, 64").sum == ("s27", 64)
    assert amd("s_cmp_lt_i32 s27, s20").compared == (("s27", "s20"), None)


def test_an_amd_loop() -> None:
    text = """
kernel:
        v_mov_b32_e32 v1, 0
.LBB0_5:                                ; =>This Inner Loop Header: Depth=1
        s_add_i32 s27, s27, 64
        v_exp_f32_e32 v1, v2
        s_cmp_lt_i32 s27, s20
        s_cbranch_scc1 .LBB0_5
        s_endpgm
.Lfunc_end0:
        v_exp_f32_e32 v1, v2
    """
    code = find_loops(read_amdgcn(text, "module.py"))
    (loop,) = code.loops()
    assert walk(code, loop.way, 4, {}) == Demand(sfu=4 * 64, issue=4)
    assert unrolled(code, loop, step=64, most=2) == 1
