"""The modelled accelerators: a cascade, and which of its Einsums runs on which array, and when.

One data file per design (`design_files/*.toml`). All have the same arrays, clock and memory:
Nayak et al. 2024, FuseMax (MICRO 2024), and its artifact.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from attnc.errors import AttncError

Traffic: TypeAlias = Literal["resident", "mapped", "streamed"]

# All of them, by one word.
ALL_DESIGNS = "spatial"
_FOLDER = Path(__file__).parent / "design_files"


@dataclass(frozen=True, slots=True)
class Machine:
    """An `edge` x `edge` array (2d) and one of `edge` elements (1d) beside a buffer and a DRAM."""

    buffer_bytes: int
    edge: int = 256
    clock_hz: float = 940e6
    bytes_per_second: float = 400 * 2**30
    word_bytes: int = 2


@dataclass(frozen=True, slots=True)
class Step:
    """Einsums that run at the same time on the two arrays: it takes as long as the longer array.

    drained: Einsums whose results leave the 2d array row by row while nothing else can run
    """

    array_2d: tuple[str, ...] = ()
    array_1d: tuple[str, ...] = ()
    drained: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kernel:
    """Steps one after another, over memory that is read and written meanwhile."""

    name: str
    steps: tuple[Step, ...]

    def einsums(self) -> tuple[str, ...]:
        """All Einsums that it computes."""
        return tuple(e for s in self.steps for e in (*s.array_2d, *s.array_1d))

    def on_1d(self) -> tuple[str, ...]:
        """Those of the 1d array."""
        return tuple(e for s in self.steps for e in s.array_1d)


@dataclass(frozen=True, slots=True)
class Design:
    """A cascade and its binding.

    spec:    the library spec of the cascade
    cycles:  per operator and point; 1 for those that are not given
    spatial: the ranks laid on the two sides of the 2d array; () if a mapping decides
    traffic: resident: the rows of one tile stay on chip, and nothing between the Einsums leaves;
             mapped: as a mapping found by FLAT says; streamed: every kernel reads and writes DRAM
    rereads: how often a kernel reads an operand that all rows share and that does not fit, by the
             operand's width
    """

    name: str
    title: str
    spec: str
    machine: Machine
    cycles: Mapping[str, int]
    spatial: tuple[str, ...]
    traffic: Traffic
    kernels: tuple[Kernel, ...]
    rereads: Mapping[int, int]


def design_names() -> tuple[str, ...]:
    """The modelled accelerators."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def named_designs(targets: Iterable[str]) -> tuple[str, ...]:
    """The modelled accelerators among targets, `spatial` being all; none if all are others.

    Raises E854 if they name both kinds.
    """
    known = design_names()
    named = [d for t in targets for d in (known if t.lower() == ALL_DESIGNS else (t.lower(),))]
    found = tuple(dict.fromkeys(d for d in named if d in known))
    if found and len(found) < len(set(named)):
        raise AttncError("E854", "GPUs and modelled arrays are not put in one table")
    return found


def load_design(name: str) -> Design:
    """A design by name. Raises E841 if there is none of that name."""
    if name.lower() in design_names():
        return _read(name.lower())
    near = get_close_matches(name.lower(), design_names(), n=1, cutoff=0.5)
    listed = ", ".join(f"`{n}`" for n in design_names())
    raise AttncError(
        "E841",
        f"unknown accelerator `{name[:60]}`; the modelled ones are {listed}",
        hint=f"did you mean `{near[0]}`?" if near else "give one of these names",
    )


@cache
def _read(name: str) -> Design:
    data = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    return Design(
        name,
        data["title"],
        data["spec"],
        Machine(data["buffer_mib"] << 20),
        data["cycles"],
        tuple(data.get("spatial", ())),
        data["traffic"],
        tuple(Kernel(k["name"], tuple(map(_step, k["steps"]))) for k in data["kernels"]),
        {int(width): times for width, times in data.get("rereads", {}).items()},
    )


def _step(data: Mapping[str, Any]) -> Step:
    return Step(*(tuple(data.get(key, ())) for key in ("2d", "1d", "drained")))
