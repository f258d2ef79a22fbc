"""The GPUs that attnc compiles for and models: data files, one per GPU, with a source per figure.

A user's own file has the form of `target_files/*.toml`. Nothing here needs torch, triton or a GPU.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attnc.errors import AttncError

if TYPE_CHECKING:
    from attnc.codegen.spread import MatrixUnit

Backend: TypeAlias = Literal["cuda", "hip"]

_FOLDER = Path(__file__).parent / "target_files"


def _figure(unit: str, *, optional: bool = False, zero: bool = False) -> Any:
    """A field that a target file gives as `{ value, unit, source }`, in this unit."""
    metadata = {"unit": unit, "zero": zero}
    return field(default=None if optional else MISSING, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One GPU. "SM" is a compute unit on AMD, a "warp" a wavefront.

    Rates are per SM and clock at the boost clock `clock_mhz`; peaks are dense bf16. `*_sustained`
    is what was measured, where somebody did; it beats the peak for modelling. An optional figure is
    None where the maker gives none. `sources` names the source of each figure.

    alu_per_clk:                integer, logic, compare, select, minimum, conversion
    special_per_clk:            exp2, logarithm, reciprocal, root
    issue_per_clk:              instructions of whatever kind that an SM's schedulers issue
    memory_bytes:               DRAM, as the maker counts it: a GB is 10^9 bytes
    l2_bytes_per_clk:           what all SMs together read from the L2 cache, measured if possible
    latency_clk:                of a load that hits the L2 cache
    shared_reserved_per_block:  shared memory that a block takes besides its own
    register_unit:              a warp is given registers in multiples of it
    """

    name: str
    title: str
    backend: Backend
    arch: str
    warp_size: int
    aliases: tuple[str, ...] = ()

    sms: float = _figure("SM")
    clock_mhz: float = _figure("MHz")
    clock_max_mhz: float | None = _figure("MHz", optional=True)
    tensor_tflops: float = _figure("TFLOP/s")
    tensor_tflops_sustained: float | None = _figure("TFLOP/s", optional=True)
    tensor_flop_per_clk: float = _figure("FLOP/clk/SM")
    fma_per_clk: float = _figure("FMA/clk/SM")
    alu_per_clk: float = _figure("op/clk/SM")
    special_per_clk: float = _figure("op/clk/SM")
    issue_per_clk: float = _figure("warp instruction/clk/SM")
    memory_bytes: float = _figure("B")
    memory_bytes_per_second: float = _figure("B/s")
    memory_sustained: float | None = _figure("B/s", optional=True)
    l2_bytes: float = _figure("B")
    l2_bytes_per_clk: float = _figure("B/clk")
    last_level_bytes: float | None = _figure("B", optional=True)
    latency_clk: float = _figure("clk")
    shared_bytes_per_sm: float = _figure("B")
    shared_bytes_per_block: float = _figure("B")
    shared_reserved_per_block: float = _figure("B", zero=True)
    shared_bytes_per_clk: float = _figure("B/clk/SM")
    tensor_memory_per_sm: float | None = _figure("B", optional=True)
    registers_per_sm: float = _figure("32-bit register")
    registers_per_thread: float = _figure("32-bit register")
    register_unit: float = _figure("32-bit register")
    warps_per_sm: float = _figure("warp/SM")
    blocks_per_sm: float = _figure("block/SM")

    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def capability(self) -> int:
        """NVIDIA's compute capability, 90 for Hopper; 0 for other makers."""
        return int(self.arch.removeprefix("sm_")) if self.backend == "cuda" else 0

    @property
    def triton_arch(self) -> int | str:
        """The architecture as Triton's GPUTarget spells it: 90 for sm_90, "gfx942" as it is."""
        return self.capability or self.arch

    @property
    def matrix_unit(self) -> MatrixUnit:
        """What runs one matrix instruction of a kernel: wgmma is Hopper's alone, tcgen05 belongs to
        the Blackwells of data centres (PTX ISA: sm_100 to sm_119)."""
        if self.backend == "hip":
            return "wave"
        if self.capability == 90:
            return "warpgroup"
        return "block" if 100 <= self.capability < 120 else "warp"


_UNITS: Mapping[str, str] = {f.name: f.metadata["unit"] for f in fields(Target) if f.metadata}
_ZERO = frozenset(f.name for f in fields(Target) if f.metadata.get("zero"))
_REQUIRED = frozenset(f.name for f in fields(Target) if f.metadata and f.default is MISSING)
_HEADER: Mapping[str, type] = {
    "name": str, "title": str, "backend": str, "arch": str, "warp_size": int, "aliases": list,
}  # fmt: skip


def target_names() -> tuple[str, ...]:
    """The built-in targets, without their aliases."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def load_target(name: str | Path) -> Target:
    """A built-in target by name or alias (`h200`, `sm_90`), or a user's own file by path.

    Raises E801 for an unknown name and E802 for a file that is not a target.
    """
    text = str(name)
    if text.endswith(".toml") or "/" in text:
        return _read(Path(text))
    known = _built_in()
    if text.lower() in known:
        return known[text.lower()]
    near = get_close_matches(text.lower(), known, n=1, cutoff=0.5)
    listed = ", ".join(f"`{n}`" for n in target_names())
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise AttncError(
        "E801",
        f"unknown target `{text[:60]}`; the targets are {listed}",
        hint=f"{hint}a file of your own is given by its path, `mygpu.toml`",
    )


def target_of_device(device: str, sms: int) -> Target | None:
    """The built-in target that a device is, by the name and the SMs that it reports of itself.

    None for another one: an `NVIDIA H100 PCIe` has fewer SMs than the `h100` here.
    """
    words = re.findall(r"[a-z]+\d+[a-z]*", device.lower())
    known = (load_target(name) for name in target_names() if name in words)
    return next((t for t in known if t.sms == sms), None)


@cache
def _built_in() -> Mapping[str, Target]:
    targets = [_read(path) for path in sorted(_FOLDER.glob("*.toml"))]
    return {name: t for t in targets for name in (t.name, *t.aliases)}


def _read(path: Path) -> Target:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise AttncError("E801", f"cannot read target file `{path}`: {e.strerror}") from None
    except (ValueError, RecursionError) as e:  # tomllib's and Unicode's errors are ValueErrors
        raise _bad(path, f"it is not TOML: {str(e)[:200]}") from None
    figures = data.pop("figures", {})
    _check_header(path, data)
    if not isinstance(figures, dict):
        raise _bad(path, "`figures` is not a table")
    _check_names(path, figures)
    values: dict[str, Any] = {key: _value(path, key, figures[key]) for key in figures}
    sources = {key: figures[key]["source"] for key in figures}
    header: dict[str, Any] = {**data, "aliases": tuple(map(str, data.get("aliases", ())))}
    return Target(**header, **values, sources=sources)


def _check_header(path: Path, data: Mapping[str, object]) -> None:
    for key, kind in _HEADER.items():
        if key not in data and key != "aliases":
            raise _bad(path, f"`{key}` is missing")
        if type(data.get(key, kind())) is not kind:
            raise _bad(path, f"`{key}` is not a {kind.__name__}")
    if unknown := sorted(data.keys() - _HEADER.keys()):
        raise _bad(path, f"`{unknown[0][:60]}` is unknown")
    if data["warp_size"] not in (32, 64):
        raise _bad(path, "`warp_size` is neither 32 nor 64")
    if data["backend"] not in ("cuda", "hip"):
        raise _bad(path, f"`backend` is `{str(data['backend'])[:60]}`, not `cuda` or `hip`")
    arch = str(data["arch"])
    digits = arch.removeprefix("sm_")
    if data["backend"] == "cuda" and not (
        arch.startswith("sm_") and digits.isascii() and digits.isdigit() and len(digits) <= 3
    ):
        raise _bad(path, f"`arch` is `{arch[:60]}`, not like `sm_90`")
    if data["backend"] == "hip" and not (arch.startswith("gfx") and arch.isalnum()):
        raise _bad(path, f"`arch` is `{arch[:60]}`, not like `gfx942`")


def _check_names(path: Path, figures: Mapping[str, object]) -> None:
    if missing := sorted(_REQUIRED - figures.keys()):
        raise _bad(path, f"figure `{missing[0]}` is missing")
    if unknown := sorted(figures.keys() - _UNITS.keys()):
        near = get_close_matches(unknown[0], _UNITS, n=1)
        raise _bad(path, f"figure `{unknown[0][:60]}` is unknown", near[0] if near else "")


def _value(path: Path, key: str, figure: object) -> float:
    if not isinstance(figure, dict) or figure.keys() != {"value", "unit", "source"}:
        raise _bad(path, f"figure `{key}` is not {{ value, unit, source }}")
    value, unit, source = figure["value"], figure["unit"], figure["source"]
    if unit != _UNITS[key]:
        raise _bad(path, f"figure `{key}` is in `{str(unit)[:60]}`, not in `{_UNITS[key]}`")
    if not isinstance(source, str) or not source.strip():
        raise _bad(path, f"figure `{key}` names no source")
    if type(value) not in (int, float) or not 0 <= value < sys.float_info.max:
        raise _bad(path, f"figure `{key}` is not a positive number")
    if value == 0 and key not in _ZERO:
        raise _bad(path, f"figure `{key}` is zero")
    return float(value)


def _bad(path: Path, what: str, near: str = "") -> AttncError:
    hint = f"did you mean `{near}`?" if near else f"see `{_FOLDER / 'h200.toml'}` for the form"
    return AttncError("E802", f"`{path}` is not a target file: {what}", hint=hint)
