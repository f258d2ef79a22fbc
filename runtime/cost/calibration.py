"""The few physical parameters of the time model, each with an interval and its source.

Where nothing was measured on a device, `specs_only` argues them from the target file and from
measurements that others publish. A calibration fitted to a sweep (`fit.py`) is kept as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from attnc.errors import AttncError
from attnc.files import replace_text
from attnc.runtime.targets import Target, load_target, target_names

Tier: TypeAlias = Literal["specs only", "one sweep"]

_STORED = Path(__file__).parent / "calibrations"


@dataclass(frozen=True, slots=True)
class Range:
    """A parameter: its most favourable value for speed, the likeliest, the least favourable."""

    fast: float
    likely: float
    slow: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What no datasheet says.

    tier:     `specs only`: nothing was measured on the device; `one sweep`: fitted to a sweep
    clock:    sustained clock under load, of the target's clock
    memory:   bandwidth that kernels reach, of the target's
    overlap:  of what a lone program could overlap between its units, the share that it does
    masked:   time of a tile at a border, of what its instructions say
    launch:   from one kernel's launch to the next one's, empty kernels, in microseconds
    source:   who measured it, or why these values are assumed
    """

    tier: Tier
    clock: Range
    memory: Range
    overlap: Range
    masked: Range
    launch: Range
    source: str = ""

    def certain(self) -> Calibration:
        """The likely values alone: what suffices to rank."""

        def point(r: Range) -> Range:
            return Range(r.likely, r.likely, r.likely)

        clock, memory, overlap = map(point, (self.clock, self.memory, self.overlap))
        masked, launch = point(self.masked), point(self.launch)
        return Calibration(self.tier, clock, memory, overlap, masked, launch, self.source)

    def at(self, choose: Callable[[Range], float]) -> Setting:
        """One value per parameter: `at(lambda r: r.likely)`."""
        return Setting(*(choose(getattr(self, name)) for name in PARAMETERS))


@dataclass(frozen=True, slots=True)
class Setting:
    """A value for each parameter of a `Calibration`."""

    clock: float
    memory: float
    overlap: float
    masked: float
    launch: float


PARAMETERS: tuple[str, ...] = tuple(f.name for f in fields(Setting))

# What each parameter can be, and whether more of it is faster.
LIMITS: Mapping[str, tuple[float, float]] = {
    "clock": (0.1, 2.0),
    "memory": (0.1, 2.0),
    "overlap": (0.0, 1.0),
    "masked": (0.5, 10.0),
    "launch": (0.0, 1e4),
}
MORE_IS_FASTER = frozenset({"clock", "memory", "overlap"})


# specs only --------------------------------------------------------------------------------------

# Dense products of random bf16 matrices ran at 0.79 of the peak on an H200 (`h200.toml`); power
# limits the clock there more than in attention, whose matrix units rest during the exponentials.
_POWER_LIMITED = 0.79
# Reads and writes of whole arrays: 0.81 (H200), 0.85 (A100 80GB; both gpu-benches), 0.82 and 0.90
# (H100 SXM), 0.75 and 0.83 (MI300X; both MT4G), copies 0.90 (H200, measured).
_MEMORY = Range(0.92, 0.85, 0.75)
# Nobody measures it as such: it is read off published speeds of Triton kernels without a window,
# with the tiles that the model chooses and the other parameters at their likely values
# (`benchmarks/published.py`). At 16K tokens Triton's tutorial needs 0.10 on H100 (d 128) and 0.03
# to 0.16 on B200 (d 64 and 128, causal and not), where its warps may have roles as ours have not.
# Older kernels need 0 or less on H100: FlexAttention (408 TFLOP/s), Triton in FlashAttention-3's
# figure 5 (395). FlashAttention-3 itself, which overlaps by hand, would be 0.5.
_OVERLAP = Range(0.3, 0.1, 0.0)
# The instructions that a mask takes are counted; what is not is the second loop's start and end.
_MASKED = Range(0.95, 1.0, 1.15)
# Queued empty kernels start 2.1 (MI210) to 2.7 us (A100) after one another, 2.5 on an H200
# (gpu-benches, gpu-small-kernels); a host that falls behind takes longer.
_LAUNCH = Range(2.1, 3.0, 8.0)
_ARGUED = (
    "assumed: clock between the highest and what dense products leave at the power limit, memory "
    "as measured on whole arrays, the rest as argued in `runtime/cost/calibration.py`"
)


def specs_only(target: Target) -> Calibration:
    """What to assume of a device on which nothing was measured, from the figures of its file."""
    return Calibration(
        "specs only", _clock(target), _bandwidth(target), _OVERLAP, _MASKED, _LAUNCH, _ARGUED
    )


def _clock(target: Target) -> Range:
    """From the highest clock to the one at which dense products meet the power limit."""
    fast = (target.clock_max_mhz or target.clock_mhz) / target.clock_mhz
    sustained = target.tensor_tflops_sustained
    slow = min(fast, _POWER_LIMITED if sustained is None else sustained / target.tensor_tflops)
    return Range(fast, (fast + slow) / 2, slow)


def _bandwidth(target: Target) -> Range:
    if target.memory_sustained is None:
        return _MEMORY
    likely = target.memory_sustained / target.memory_bytes_per_second
    return Range(max(_MEMORY.fast, likely), likely, min(_MEMORY.slow, likely))


# files -------------------------------------------------------------------------------------------


def stored_calibration(target: Target) -> Calibration | None:
    """What was measured on such a device and comes with attnc; None where nothing does."""
    path = _STORED / f"{target.name}.json"
    if target.name not in target_names() or not path.exists():
        return None
    # A user's own file may bear the name of another device.
    return load_calibration(path) if load_target(target.name) == target else None


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration as JSON, in one step. Raises E713 if it cannot be written."""
    replace_text(path, json.dumps(asdict(calibration), indent=1) + "\n")


def load_calibration(path: Path) -> Calibration:
    """A calibration from its JSON file. Raises E853 for a file that is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise AttncError("E853", f"cannot read calibration `{path}`: {e.strerror}") from None
    except (ValueError, RecursionError) as e:  # json's and Unicode's errors are ValueErrors
        raise _bad(path, f"it is not JSON: {str(e)[:200]}") from None
    if not isinstance(data, dict):
        raise _bad(path, "it is not an object")
    names = {f.name for f in fields(Calibration)}
    if missing := sorted(names - {"source"} - data.keys()):
        raise _bad(path, f"`{missing[0]}` is missing")
    if unknown := sorted(data.keys() - names):
        raise _bad(path, f"`{unknown[0][:60]}` is unknown")
    if data["tier"] not in get_args(Tier):
        tiers = " or ".join(f"`{t}`" for t in get_args(Tier))
        raise _bad(path, f"`tier` is `{str(data['tier'])[:60]}`, not {tiers}")
    if not isinstance(data.get("source", ""), str):
        raise _bad(path, "`source` is not text")
    return Calibration(**{**data, **{name: _range(path, name, data[name]) for name in PARAMETERS}})


def _range(path: Path, name: str, data: Any) -> Range:
    parts = tuple(f.name for f in fields(Range))
    if not isinstance(data, dict) or data.keys() != set(parts):
        raise _bad(path, f"`{name}` is not {{ {', '.join(parts)} }}")
    least, most = LIMITS[name]
    for part, value in data.items():
        # Comparisons are false for NaN, and exact for integers of any length.
        if type(value) not in (int, float) or not least <= value <= most:
            shown = str(value)[:60]
            raise _bad(path, f"`{name}.{part}` is {shown}, not between {least:g} and {most:g}")
    found = Range(*(float(data[part]) for part in parts))
    ends = (found.slow, found.fast) if name in MORE_IS_FASTER else (found.fast, found.slow)
    if not ends[0] <= found.likely <= ends[1]:
        order = "slow <= likely <= fast" if name in MORE_IS_FASTER else "fast <= likely <= slow"
        raise _bad(path, f"`{name}` is not in the order {order}")
    return found


def _bad(path: Path, what: str) -> AttncError:
    return AttncError(
        "E853",
        f"`{path}` is not a calibration: {what}",
        hint="docs/calibration.md shows one; `benchmarks/gpu.py` makes one on a GPU",
    )
