"""Kernels really compiled for GPUs that are not here, specialised as a launch would be."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from triton import knobs
from triton.runtime import driver

from attnc.errors import AttncError
from attnc.runtime import machine_code as machine_code_module
from attnc.runtime.compile_pool import Job, compile_many, compile_module
from attnc.runtime.compile_worker import without_torch
from attnc.runtime.machine_code import (
    Argument,
    CompiledKernel,
    Constexpr,
    Pointer,
    compile_kernel,
    machine_code,
    specialise,
    tool_path,
)
from attnc.runtime.modules import load_module, load_source
from attnc.runtime.targets import Target, load_target

FLASH = Path(__file__).parent / "kernels" / "flash.py"
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")

SMALL = """
import triton
import triton.language as tl

@triton.jit
def scale(X, Y, count, stride, factor, shift: tl.constexpr, TILE: tl.constexpr = 128):
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    x = tl.load(X + i * stride, mask=i < count, other=0.0).to(tl.float32)
    tl.store(Y + i, x * factor + shift, mask=i < count)
"""


def flash_arguments(width: int, tile_m: int, tile_n: int) -> Mapping[str, Argument]:
    """A launch on contiguous bf16 tensors: 32 heads, 4096 rows."""
    arguments: dict[str, Argument] = dict.fromkeys("QKVO", Pointer("bfloat16"))
    arguments |= {"LSE": Pointer("fp32"), "scale": 0.125, "window": 1024, "H": 32}
    arguments |= {"M": 4096, "N": 4096, "D": width, "E": width}
    strides = (32 * 4096 * width, 4096 * width, width, 1)
    for tensor, axes in (("q", "bhmd"), ("k", "bhnd"), ("v", "bhne"), ("o", "bhme")):
        arguments |= {f"{tensor}_{a}": s for a, s in zip(axes, strides, strict=True)}
    return arguments | {"TILE_M": tile_m, "TILE_N": tile_n, "TILE_D": width, "TILE_E": width}


@pytest.fixture(scope="module")
def compiled() -> dict[str, CompiledKernel]:
    """The same kernel for every target, and one whose tiles are too large for its registers."""
    usual = flash_arguments(64, 128, 64)
    jobs = {t: Job(str(FLASH), "forward", usual, load_target(t), 4, 2) for t in TARGETS}
    large = flash_arguments(128, 128, 128)
    jobs["large"] = Job(str(FLASH), "forward", large, load_target("h200"), 4, 3)
    results = dict(zip(jobs, compile_many(jobs.values()), strict=True))
    assert all(isinstance(r, CompiledKernel) for r in results.values()), results
    return {k: r for k, r in results.items() if isinstance(r, CompiledKernel)}


@pytest.mark.parametrize("target", TARGETS)
def test_resources_of_a_kernel_for_every_target(
    target: str, compiled: Mapping[str, CompiledKernel]
) -> None:
    kernel = compiled[target]
    r = kernel.resources
    assert kernel.target.arch == target
    assert kernel.binary.startswith(b"\x7fELF")
    # the accumulator of a tile is in registers, or in tensor memory; keys and values are staged
    assert 64 < r.registers <= kernel.target.registers_per_thread
    assert r.spills == 0
    assert r.shared_bytes >= 64 * 64 * 2 * 2
    assert r.threads == 4 * kernel.target.warp_size
    assert (r.tensor_bytes > 0) == (target == "sm_100")
    assert (r.scalars > 0) == (target == "gfx942")
    assert r.fits(kernel.target)


def test_tiles_too_large_for_the_registers_spill(compiled: Mapping[str, CompiledKernel]) -> None:
    resources = compiled["large"].resources
    assert resources.registers == 255
    assert resources.spills > 0


def test_a_kernel_that_needs_more_than_there_is_does_not_fit(
    compiled: Mapping[str, CompiledKernel],
) -> None:
    r = compiled["large"].resources
    assert r.fits(load_target("h200"))
    assert not r.fits(load_target("a100"))  # 224 KB of shared memory
    assert not replace(r, threads=1024).fits(load_target("h200"))
    assert not compiled["sm_100"].resources.fits(load_target("h200"))  # no tensor memory


@pytest.mark.parametrize(
    ("target", "instructions"),
    [("sm_80", ("HMMA.16816", "MUFU.EX2", "LDGSTS")), ("sm_90", ("HGMMA.64x", "MUFU.EX2")),
     ("sm_100", ("UTCHMMA", "MUFU.EX2")), ("gfx942", ("v_mfma_f32_", "v_exp_f32"))],
)  # fmt: skip
def test_the_machine_code_has_the_targets_instructions(
    target: str, instructions: tuple[str, ...], compiled: Mapping[str, CompiledKernel]
) -> None:
    text = machine_code(compiled[target])
    assert [i for i in instructions if i not in text] == []


def test_compiling_ignores_triton_interpret_and_never_imports_torch(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    script = """
        import sys
        from attnc.runtime.compile_pool import compile_module
        from attnc.runtime.machine_code import Pointer
        from attnc.runtime.targets import load_target
        x = Pointer("fp16")
        arguments = dict(X=x, Y=x, count=1000, stride=1, factor=2.0, shift=1)
        kernel = compile_module("small.py", "scale", arguments, target=load_target("sm_90"))
        print(kernel.resources.registers, "torch" in sys.modules, "triton" in sys.modules)
    """
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(p or os.getcwd() for p in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    registers, *loaded = done.stdout.split()
    assert int(registers) > 0
    assert loaded == ["False", "False"]


def small_arguments(**changed: Argument) -> Mapping[str, Argument]:
    usual: dict[str, Argument] = {"X": Pointer("fp16"), "Y": Pointer("bf16"), "count": 1000}
    return usual | {"stride": 1, "factor": 2.0, "shift": 3} | changed


def small_kernel() -> Any:
    return load_source(SMALL, "small").scale


class AbsentGpu:
    """As much of Triton's driver as its JIT asks for before it compiles."""

    def __init__(self, target: Target) -> None:
        from triton.backends.compiler import GPUTarget

        self._target = GPUTarget(target.backend, target.triton_arch, target.warp_size)

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def jit_specialisation(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Triton's JIT is about to compile, at each launch; nothing is compiled."""
    seen: list[dict[str, Any]] = []

    def hook(**given: Any) -> bool:
        seen.append(given["compile"])
        return True

    monkeypatch.setattr(knobs.runtime, "jit_cache_hook", hook)
    return seen


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize(
    ("count", "stride", "factor", "shift", "offset"),
    [(1000, 1, 2.0, 3, 0), (1024, 16, 1.0, 3, 0), (1, 17, 0.5, -1, 1), (2**31, 0, 3.0, 1.5, 3),
     (2**32, 2, 1e-9, 1, 8)],
)  # fmt: skip
def test_the_specialisation_is_that_of_tritons_jit(
    target: str, count: int, stride: int, factor: float, shift: float, offset: int,
    jit_specialisation: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(driver, "_active", AbsentGpu(load_target(target)))
    kernel = load_source(f"{SMALL}# {target}", "small").scale
    x = torch.zeros(4096, dtype=torch.float16)[offset:]
    y = torch.zeros(4096, dtype=torch.bfloat16)
    kernel.warmup(x, y, count, stride, factor, shift, grid=(1,), enable_fp_fusion=True)
    (jit,) = jit_specialisation
    arguments = small_arguments(
        X=Pointer("float16", aligned=offset % 8 == 0), Y=Pointer("bf16"),
        count=count, stride=stride, factor=factor, shift=shift,
    )  # fmt: skip
    ours = specialise(kernel, arguments, load_target(target))
    assert ours.signature == jit["signature"]
    assert ours.constexprs == jit["constants"]
    assert [ours.attrs] == jit["configs"]


def test_a_value_can_be_fixed_at_compile_time() -> None:
    special = specialise(small_kernel(), small_arguments(count=Constexpr(64)), load_target("h100"))
    assert special.signature["count"] == "constexpr"
    assert special.constexprs[(2,)] == 64


def test_compiling_in_this_process() -> None:
    kernel, target = small_kernel(), load_target("a100")
    special = specialise(kernel, small_arguments(), target)
    compiled = compile_kernel(
        kernel, signature=special.signature, constexprs=special.constexprs, attrs=special.attrs,
        target=target, num_warps=1,
    )  # fmt: skip
    assert compiled.resources.threads == 32
    assert compiled.resources.shared_bytes == 0
    assert "EXIT" in machine_code(compiled)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Z": 1}, "does not have argument `Z`"),
        ({"X": Pointer("float17")}, "float17"),
        ({"count": 2**70}, "bad argument"),
    ],
)
def test_a_wrong_argument_is_named(changed: dict[str, Argument], message: str) -> None:
    with pytest.raises(AttncError, match=message) as e:
        specialise(small_kernel(), small_arguments(**changed), load_target("h100"))
    assert e.value.code == "E811"


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(AttncError, match="lacks argument `X`"):
        specialise(small_kernel(), {}, load_target("h100"))


def test_an_interpreted_kernel_cannot_be_compiled() -> None:
    kernel = load_module(FLASH, interpret=True).forward
    with pytest.raises(AttncError, match="no compilable Triton kernel") as e:
        specialise(kernel, {}, load_target("h100"))
    assert e.value.code == "E811"


def test_an_absent_assembler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    special = specialise(small_kernel(), small_arguments(), load_target("b200"))
    monkeypatch.setattr(machine_code_module, "_triton_folder", lambda: tmp_path)
    monkeypatch.delenv("TRITON_PTXAS_BLACKWELL_PATH", raising=False)

    def compile_for(target: str) -> None:
        compile_kernel(
            small_kernel(), signature=special.signature, constexprs=special.constexprs,
            attrs=special.attrs, target=load_target(target),
        )  # fmt: skip

    with pytest.raises(AttncError, match="no compiler for `mi300x`") as e:
        compile_for("mi300x")
    assert e.value.code == "E812"
    (tmp_path / "backends" / "nvidia").mkdir(parents=True)
    with pytest.raises(AttncError, match="`ptxas-blackwell` is not there") as e:
        compile_for("b200")
    assert e.value.code == "E812"
    monkeypatch.setenv("TRITON_NVDISASM_PATH", sys.executable)
    assert tool_path("nvdisasm") == sys.executable


BROKEN = SMALL.replace("x * factor", "tl.dot(x, x)")
CRASHING = SMALL + "\nimport os\nos.write(2, b'LLVM ERROR: out of luck')\nos.abort()\n"
STUCK = SMALL + "\nimport time\ntime.sleep(60)\n"


def test_one_failing_job_does_not_harm_the_others(tmp_path: Path) -> None:
    sources = {"good": SMALL, "broken": BROKEN, "crashing": CRASHING, "again": SMALL}
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    target = load_target("h100")
    jobs = [Job(str(tmp_path / f"{n}.py"), "scale", small_arguments(), target) for n in sources]
    jobs += [replace(jobs[0], kernel="absent"), replace(jobs[0], path=str(tmp_path / "absent.py"))]
    results = compile_many(jobs, processes=2)
    got = dict(zip([*sources, "no kernel", "no file"], results, strict=True))
    errors = {k: r for k, r in got.items() if isinstance(r, AttncError)}
    assert got.keys() - errors.keys() == {"good", "again"}
    assert "`scale` does not compile for `h100`" in errors["broken"].message
    assert "LLVM ERROR: out of luck" in errors["crashing"].message
    assert "has no kernel `absent`" in errors["no kernel"].message
    assert "cannot read module" in errors["no file"].message
    assert [errors[k].code for k in errors] == ["E813", "E813", "E811", "E811"]


def test_a_compilation_can_be_given_up(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    with pytest.raises(AttncError, match="longer than 1 s") as e:
        compile_module(
            tmp_path / "stuck.py", "scale", small_arguments(), target=load_target("h100"), timeout=1
        )
    assert e.value.code == "E813"


def test_an_error_of_the_process_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(AttncError, match="cannot read module"):
        compile_module(tmp_path / "absent.py", "scale", {}, target=load_target("h100"))
    assert compile_many([]) == ()


def test_only_what_kernels_can_see_is_loaded() -> None:
    import ast

    tree = ast.parse(
        "import torch\nimport torch.nn as nn\nfrom torch import float16 as half\n"
        "import triton\nE = 2.0\nDTYPE = half\nSIZE: int = nn.SIZE\nL = [DTYPE]\n"
        "def launch(x: torch.Tensor): pass\n@torch.library.custom_op('a::b')\ndef op(): pass\n"
        "def host(): return launch()\ndef kernel(x): return x * E\n"
    )
    assert ast.unparse(without_torch(tree)) == (
        "import triton\nE = 2.0\n\ndef kernel(x):\n    return x * E"
    )
