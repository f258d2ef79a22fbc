"""Compile a Triton kernel to machine code for a GPU that need not be there, and read its resources.

Triton specialises a kernel on its arguments: pointers and ints divisible by 16 are marked so, an
int equal to 1 becomes a constant. `specialise` asks Triton's own binder, with descriptions in place
of tensors, so what is compiled here is what a launch with such arguments would run.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from attnc.errors import AttncError
from attnc.runtime.targets import Target


@dataclass(frozen=True, slots=True)
class Pointer:
    """A tensor argument: its element type as torch or Triton spells it (`float16`, `bf16`).

    `aligned`: its address is a multiple of 16 bytes; `large`: its storage exceeds 2 GiB, which
    keeps AMD from 32-bit offsets.
    """

    dtype: str
    aligned: bool = True
    large: bool = False

    # What Triton's binder asks of a tensor.
    def data_ptr(self) -> int:
        return 0 if self.aligned else 1

    def ptr_range(self) -> int:
        return 2**40 if self.large else 0


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A tensor descriptor as an argument: its element type, as `Pointer` says it, and its box."""

    dtype: str
    sides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Constexpr:
    """A value fixed at compile time, where the kernel's parameter does not say so already."""

    value: Any


# Multiply-adds are fused, Triton's default so far; 3.9 warns where a caller leaves it open.
_FUSED = {"enable_fp_fusion": True}

Argument: TypeAlias = Pointer | Descriptor | Constexpr | bool | int | float | None


@dataclass(frozen=True, slots=True)
class Specialisation:
    """What Triton compiles a kernel for: types, constants and divisibility of the parameters."""

    signature: Mapping[str, str]
    constexprs: Mapping[tuple[int, ...], Any]
    attrs: Mapping[tuple[int, ...], Any]


@dataclass(frozen=True, slots=True)
class Resources:
    """What a compiled kernel takes.

    registers:     32-bit, per thread; on AMD vector registers, the accumulators among them
    spills:        bytes of stack per thread; registers that did not fit are kept there
    shared_bytes:  shared memory per block, pipeline buffers included
    tensor_bytes:  tensor memory per block (Blackwell)
    threads:       per block
    accumulators:  the accumulation registers among `registers` (AMD)
    scalars:       scalar registers per wavefront (AMD)
    """

    registers: int
    spills: int
    shared_bytes: int
    tensor_bytes: int
    threads: int
    accumulators: int = 0
    scalars: int = 0

    def fits(self, target: Target) -> bool:
        """Whether one block can be launched: compilers do not check shared memory."""
        return (
            self.shared_bytes <= target.shared_bytes_per_block
            and self.tensor_bytes <= (target.tensor_memory_per_sm or 0)
            and self.registers * self.threads <= target.registers_per_sm
        )


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """A kernel's machine code for one target. `assembly` is PTX on NVIDIA, amdgcn on AMD.

    `seconds` is the time in the compiler.
    """

    name: str
    target: Target
    num_warps: int
    num_stages: int
    resources: Resources
    seconds: float
    binary: bytes = field(repr=False)
    assembly: str = field(repr=False)


def specialise(fn: Any, arguments: Mapping[str, Argument], target: Target) -> Specialisation:
    """The specialisation that Triton's JIT would make of these arguments on this target.

    `fn` is a `triton.JITFunction`; parameters with a default may be left out. Raises E811 for an
    argument that the kernel does not have, or lacks, or whose type Triton does not know.
    """
    from triton.compiler import make_backend
    from triton.runtime.jit import create_function_from_signature

    _check_jitted(fn)
    _check_arguments(fn, arguments)
    backend = make_backend(_gpu_target(target))
    values = {k: _value(a) for k, a in arguments.items()}
    bind = create_function_from_signature(fn.signature, fn.params, backend)
    try:
        bound, special, options = bind(**values)
    except (KeyError, TypeError, OverflowError) as e:
        raise AttncError("E811", f"kernel `{fn.__name__}`: bad argument: {e}") from None
    for place, parameter in enumerate(fn.params):
        if isinstance(arguments.get(parameter.name), Constexpr):
            special[place] = ("constexpr", values[parameter.name])
    _, signature, constexprs, attrs = fn._pack_args(
        backend, options | _FUSED, bound, special, options
    )
    return Specialisation(signature, constexprs, attrs)


def _value(argument: Argument) -> Any:
    """What Triton's binder takes for it."""
    match argument:
        case Constexpr(value):
            return value
        case Descriptor(dtype, sides):
            from triton.tools.tensor_descriptor import TensorDescriptor

            # without the checks that want a real tensor
            made = TensorDescriptor.__new__(TensorDescriptor)
            made.base, made.block_shape = Pointer(dtype), list(sides)
            return made
        case _:
            return argument


def compile_kernel(
    fn: Any,
    *,
    signature: Mapping[str, str],
    constexprs: Mapping[tuple[int, ...], Any],
    attrs: Mapping[tuple[int, ...], Any],
    target: Target,
    num_warps: int = 4,
    num_stages: int = 3,
    maxnreg: int | None = None,
) -> CompiledKernel:
    """Compile a `triton.JITFunction` down to a cubin or hsaco; no GPU is asked for anything.

    `maxnreg` caps the registers of a thread; it means nothing to AMD's assembler.
    Raises E812 where the target's assembler is absent, E813 where the compiler fails.
    """
    import triton
    from triton.compiler import ASTSource

    _check_jitted(fn)
    _check_toolchain(target)
    source = ASTSource(fn, dict(signature), dict(constexprs), dict(attrs))
    options: dict[str, object] = {"num_warps": num_warps, "num_stages": num_stages, **_FUSED}
    if maxnreg is not None and target.backend == "cuda":
        options["maxnreg"] = maxnreg
    start = time.perf_counter()
    try:
        compiled = triton.compile(source, target=_gpu_target(target), options=options)
    except Exception as e:  # Triton's passes raise whatever they like
        why = " ".join(str(e).split())[:400] or type(e).__name__
        raise AttncError(
            "E813", f"kernel `{fn.__name__}` does not compile for `{target.name}`: {why}"
        ) from e
    seconds = time.perf_counter() - start
    binary, assembly = (
        (compiled.asm["cubin"], compiled.asm["ptx"])
        if target.backend == "cuda"
        else (compiled.asm["hsaco"], compiled.asm["amdgcn"])
    )
    read = _nvidia_resources if target.backend == "cuda" else _amd_resources
    resources = read(compiled.metadata, binary, assembly)
    return CompiledKernel(
        fn.__name__, target, num_warps, num_stages, resources, seconds, binary, assembly
    )


def machine_code(kernel: CompiledKernel, *, lines: bool = False) -> str:
    """The instructions that the GPU runs: `nvdisasm -c` of the cubin, or the amdgcn text.

    `lines`: with the source line of each, which the amdgcn text always has.
    """
    if kernel.target.backend == "hip":
        return kernel.assembly
    options = ("-c", "-g") if lines else ("-c",)
    return _run_on_cubin("nvdisasm", *options, cubin=kernel.binary)


def _nvidia_resources(metadata: Any, cubin: bytes, assembly: str) -> Resources:
    # The SHARED that cuobjdump prints is what the driver reserves; Triton's is dynamic.
    text = _run_on_cubin("cuobjdump", "--dump-resource-usage", cubin=cubin)
    usage = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return Resources(
        registers=usage["REG"],
        spills=usage["STACK"] + usage["LOCAL"],
        shared_bytes=metadata.shared,
        # 128 lanes of 32 bits in each column
        tensor_bytes=(getattr(metadata, "tmem_size", None) or 0) * 128 * 4,
        threads=metadata.num_warps * 32,
    )


def _amd_resources(metadata: Any, binary: bytes, amdgcn: str) -> Resources:
    # Scalar registers spill into lanes of vector registers; only vector spills reach memory.
    usage = {
        key: int(value)
        for key, value in re.findall(r"^\s*(?:- )?\.(\w+):\s+(\d+)$", amdgcn, re.MULTILINE)
    }
    return Resources(
        registers=usage["vgpr_count"],
        spills=usage["private_segment_fixed_size"],
        shared_bytes=metadata.shared + usage["group_segment_fixed_size"],
        tensor_bytes=0,
        threads=metadata.num_warps * metadata.warp_size,
        accumulators=usage["agpr_count"],
        scalars=usage["sgpr_count"],
    )


def _gpu_target(target: Target) -> Any:
    from triton.backends.compiler import GPUTarget

    return GPUTarget(target.backend, target.triton_arch, target.warp_size)


def _check_jitted(fn: Any) -> None:
    from triton.runtime.jit import JITFunction

    if not isinstance(fn, JITFunction):
        raise AttncError(
            "E811",
            f"`{getattr(fn, '__name__', fn)}` is no compilable Triton kernel",
            hint="under TRITON_INTERPRET=1 kernels are interpreted: "
            "compile the module's file in a process of its own (`compile_module`)",
        )


def _check_arguments(fn: Any, arguments: Mapping[str, Argument]) -> None:
    known = {p.name: p for p in fn.params}
    missing = [n for n, p in known.items() if n not in arguments and not p.has_default]
    unknown = [n for n in arguments if n not in known]
    for names, word in ((missing, "lacks"), (unknown, "does not have")):
        if names:
            raise AttncError("E811", f"kernel `{fn.__name__}` {word} argument `{names[0]}`")


def _check_toolchain(target: Target) -> None:
    if not (_triton_folder() / "backends" / _FOLDERS[target.backend]).is_dir():
        raise AttncError(
            "E812", f"this Triton has no compiler for `{target.name}` ({target.backend})"
        )
    if target.backend == "cuda":
        tool_path("ptxas-blackwell" if int(target.triton_arch) >= 100 else "ptxas")


_FOLDERS = {"cuda": "nvidia", "hip": "amd"}


def tool_path(tool: str) -> str:
    """NVIDIA's `ptxas`, `cuobjdump` or `nvdisasm`: Triton's variable for it, else Triton's wheel.

    Raises E812 if it is absent.
    """
    variable = f"TRITON_{tool.upper().replace('-', '_')}_PATH"
    bundled = _triton_folder() / "backends" / "nvidia" / "bin" / tool
    for path in (os.environ.get(variable), bundled):
        if path and os.access(path, os.X_OK) and Path(path).is_file():
            return str(path)
    raise AttncError(
        "E812",
        f"`{tool}` is not there, so machine code for NVIDIA cannot be made or read",
        hint=f"Triton's Linux wheels carry it; {variable} names another one",
    )


def _triton_folder() -> Path:
    spec = importlib.util.find_spec("triton")
    if spec is None or not spec.submodule_search_locations:
        raise AttncError("E812", "Triton is not installed", hint="pip install triton")
    return Path(spec.submodule_search_locations[0])


def _run_on_cubin(tool: str, *options: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [tool_path(tool), *options, file.name], capture_output=True, text=True, timeout=120
        )
    if done.returncode:
        raise AttncError("E813", f"`{tool}` fails: {done.stderr.strip()[:400]}")
    return done.stdout
