"""What compiled kernels ask of each unit, beside an independent reader and the emitted source."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pytest

import attnc
from attnc.codegen.config import Config
from attnc.codegen.prune import needed_stages
from attnc.compilation import complete_shape
from attnc.errors import AttncError
from attnc.ir.plan import SweepStage
from attnc.runtime.cache import Cache
from attnc.runtime.compile_pool import Job, compile_many
from attnc.runtime.cost import machine_demand
from attnc.runtime.cost.kernel_key import sources_digest
from attnc.runtime.cost.machine_demand import MachineKernel, Request, compiled_kernels
from attnc.runtime.machine_code import CompiledKernel, machine_code
from attnc.runtime.targets import load_target

M, N, D = 64, 32, 64
WARPS = 4
CONFIG = Config(M, N, WARPS, 2)
FLOPS = 2 * M * N * (D + D)
# In registers of matrix instructions, four lanes hold each row.
ROW_COPIES = 4
BOTH_READERS = [
    (spec, target) for spec in ("sliding_window", "sigmoid") for target in ("sm_80", "sm_90")
]
UNITS = {"sm_80": "warp", "sm_90": "warpgroup", "sm_100": "block", "gfx942": "warp"}
OTHERS = [("sliding_window", "sm_100"), ("sliding_window", "gfx942")]


def request_of(spec: str, target: str, **shape: int) -> Request:
    attention = attnc.load(spec)
    sizes = {"B": 1, "H": 2, "G": 2, "M": 1024, "N": 1024, "D": D, "E": D, **shape}
    # grids of tokens are as square as they come
    known = {r.name.upper() for r in attention.plan.cascade.ranks if not r.components}
    extents = complete_shape(attention.plan, {k: n for k, n in sizes.items() if k in known})
    return Request(
        attention.plan,
        attention.plan.stages[0].name,
        extents,
        attention.run_time_params,
        "bf16",
        load_target(target),
        CONFIG,
    )


@dataclass(frozen=True)
class Made:
    """A kernel as counted, and as compiled."""

    counted: MachineKernel
    compiled: CompiledKernel

    @cached_property
    def text(self) -> str:
        return machine_code(self.compiled)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("ATTNC_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def made(root: Path) -> Mapping[tuple[str, str], Made]:
    """All kernels of this file, compiled once; the compiler's results are kept on the way."""
    compiled: list[CompiledKernel] = []

    def compile_and_keep(jobs: list[Job]) -> tuple[CompiledKernel | AttncError, ...]:
        found = compile_many(jobs)
        compiled.extend(x for x in found if isinstance(x, CompiledKernel))
        return found

    cases = [*BOTH_READERS, *OTHERS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine_demand, "compile_many", compile_and_keep)
        counted = compiled_kernels([request_of(*case) for case in cases])
    kernels = [x for x in counted if isinstance(x, MachineKernel)]
    assert len(kernels) == len(compiled) == len(cases), counted
    return {c: Made(k, b) for c, k, b in zip(cases, kernels, compiled, strict=True)}


# another reader ----------------------------------------------------------------------------------


def loops_of(text: str) -> list[list[str]]:
    """The opcodes of the loops with matrix products of a listing: what stands between a label and
    the last branch back to it."""
    rows = text.splitlines()
    labels = {m[1]: n for n, row in enumerate(rows) if (m := re.match(r"(\.L_x_\d+):", row))}
    ends: dict[int, int] = {}
    for n, row in enumerate(rows):
        target = re.search(r"\b(?:BRA|CALL\.REL\.NOINC) `\((\.L_x_\d+)\)", row)
        if target and labels[target[1]] < n:
            ends[labels[target[1]]] = n
    bodies = [rows[a : b + 1] for a, b in sorted(ends.items())]
    opcodes = [[m[1] for row in body if (m := re.match(OPCODE, row))] for body in bodies]
    return [x for x in opcodes if any(o.startswith(("HMMA", "HGMMA")) for o in x)]


OPCODE = r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9a-z_.]*)"


def flops(opcodes: list[str]) -> int:
    """Of all warps; four of them share a HGMMA."""
    total = 0
    for opcode in opcodes:
        if opcode.startswith("HMMA.16816"):
            total += 2 * 16 * 8 * 16 * WARPS
        if opcode.startswith("HGMMA"):
            m, n, k = map(int, opcode.split(".")[1].split("x"))
            total += 2 * m * n * k * WARPS // 4
    return total


@pytest.mark.parametrize("case", BOTH_READERS, ids="-".join)
def test_a_tile_costs_what_a_reader_counts_in_the_emitted_loop(
    case: tuple[str, str], made: Mapping[tuple[str, str], Made]
) -> None:
    kernel = made[case]
    bodies = loops_of(kernel.text)
    (tile,) = kernel.counted.demand.passes
    threads = 32 * WARPS
    for opcodes, demand in zip(bodies, (tile.full, tile.partial), strict=True):
        names = Counter(x.split(".")[0] for x in opcodes)
        assert demand.issue == len(opcodes) * WARPS
        assert demand.tensor == flops(opcodes) == FLOPS
        assert demand.sfu == names["MUFU"] * threads
        wide = sum(x.startswith(("IMAD.WIDE", "IMAD.HI")) for x in opcodes)
        arithmetic = sum(names[x] for x in ("FADD", "FMUL", "FFMA", "IMAD", "HFMA2", "HADD2"))
        assert demand.fma == (arithmetic + wide) * threads
        moved = sum(16 for x in opcodes if re.match(r"(LDG|LDGSTS|STG)\b.*\.128", x))
        assert demand.l2 == moved * threads == 2 * N * D * 2


@pytest.mark.parametrize("case", BOTH_READERS, ids="-".join)
def test_a_tile_costs_what_the_emitted_source_says(
    case: tuple[str, str], made: Mapping[tuple[str, str], Made]
) -> None:
    (tile,) = made[case].counted.demand.passes
    # softmax: an exp2 of each score and, to rescale, of each row; sigmoid: exp2 and reciprocal
    expected = M * N + M * ROW_COPIES if case[0] == "sliding_window" else 2 * M * N
    assert tile.full.sfu == tile.partial.sfu == expected
    assert tile.full.tensor == tile.partial.tensor == FLOPS


@pytest.mark.parametrize("case", BOTH_READERS, ids="-".join)
def test_only_tiles_at_a_border_select_scores(
    case: tuple[str, str], made: Mapping[tuple[str, str], Made]
) -> None:
    full, partial = (
        sum(x.startswith(("FSEL", "SEL")) for x in opcodes) for opcodes in loops_of(made[case].text)
    )
    scores = M * N // (32 * WARPS)
    assert partial >= full + scores
    if case[0] == "sliding_window":
        # whether a row has seen anything
        assert full <= M * ROW_COPIES // (32 * WARPS)
    (tile,) = made[case].counted.demand.passes
    assert tile.partial.alu - tile.full.alu >= M * N


@pytest.mark.parametrize("case", [*BOTH_READERS, *OTHERS], ids="-".join)
def test_every_target(case: tuple[str, str], made: Mapping[tuple[str, str], Made]) -> None:
    kernel = made[case].counted
    (tile,) = kernel.demand.passes
    assert kernel.unknown == ()
    assert kernel.unit == UNITS[case[1]]
    assert kernel.resources == made[case].compiled.resources
    for demand in (tile.full, tile.partial):
        assert demand.tensor == FLOPS
        assert demand.sfu >= M * N
        assert demand.fma >= M * N
        assert demand.shared > 2 * N * D * 2
        assert demand.l2 == 2 * N * D * 2
        assert demand.issue > 0
    assert tile.partial.alu > tile.full.alu
    # copies are under way during the whole tiles, and not during the others
    assert tile.full.waits <= tile.partial.waits
    once = kernel.demand.once
    assert once.tensor == 0
    assert once.l2 == 2 * M * D * 2


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_every_loop_is_found_and_every_opcode_is_known(target: str, root: Path) -> None:
    specs = ("talking_heads", "document", "lssar")
    requests = [
        replace(r, stage=sweep.name)
        for spec in specs
        for r in [request_of(spec, target)]
        for sweep in needed_stages(r.plan)
        if isinstance(sweep, SweepStage)
    ]
    for found in compiled_kernels(requests):
        assert isinstance(found, MachineKernel), found
        assert found.unknown == ()
        for tile in found.demand.passes:
            assert tile.full.tensor > 0 and tile.full.tensor == tile.partial.tensor


# the disk ----------------------------------------------------------------------------------------


def test_what_is_on_disk_needs_neither_torch_nor_triton(
    root: Path, made: Mapping[tuple[str, str], Made]
) -> None:
    script = f"""
        import json, sys
        import attnc
        from attnc.codegen.config import Config
        from attnc.compilation import complete_shape
        from attnc.runtime.cost import machine_demand
        from attnc.runtime.cost.machine_demand import Request, compiled_kernels
        from attnc.runtime.targets import load_target
        # sources may be edited while the tests run
        machine_demand.sources_digest = lambda: {sources_digest()!r}
        attention = attnc.load("sliding_window")
        # other lengths, the same machine code
        shape = dict(B=3, H=4, G=2, M=2048, N=4096, D={D}, E={D})
        extents = complete_shape(attention.plan, shape)
        request = Request(
            attention.plan, attention.plan.stages[0].name, extents, attention.run_time_params,
            "bf16", load_target("sm_90"), Config({M}, {N}, {WARPS}, 2),
        )
        (kernel,) = compiled_kernels([request], cached_only=True)
        loaded = [x for x in ("torch", "triton") if x in sys.modules]
        print(json.dumps([kernel.demand.passes[0].full.tensor, kernel.resources.registers, loaded]))
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    registers = made["sliding_window", "sm_90"].counted.resources.registers
    assert json.loads(done.stdout) == [FLOPS, registers, []]


def test_what_is_not_on_disk_is_not_compiled_if_only_that_is_wanted(root: Path) -> None:
    request = replace(request_of("sliding_window", "sm_90"), config=Config(32, 32, 4, 2))
    assert compiled_kernels([request], cached_only=True) == (None,)


def test_an_entry_of_another_form_is_made_anew(
    root: Path, made: Mapping[tuple[str, str], Made]
) -> None:
    request = request_of("sliding_window", "sm_80")
    assert (
        compiled_kernels([request], cached_only=True)[0] == made["sliding_window", "sm_80"].counted
    )
    for path in root.rglob("counts.json"):
        entry = path.read_bytes()
        assert json.loads(entry)["resources"]["threads"] > 0
    Cache().put(machine_demand._key(request), {"counts.json": b"[1]"})
    assert compiled_kernels([request], cached_only=True) == (None,)


def test_a_request_that_fails_has_its_error_in_its_place(root: Path) -> None:
    request = request_of("sliding_window", "sm_90")
    empty = replace(request, extents={**request.extents, "m": 0})
    found = compiled_kernels([empty, request])
    assert isinstance(found[0], AttncError) and found[0].code == "E505"
    assert isinstance(found[1], MachineKernel)
