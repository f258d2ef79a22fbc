"""What operators are declared to cost is what the compiler makes of the code that is emitted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from attnc.codegen.code import INFIX
from attnc.codegen.expr import CALLS
from attnc.codegen.helpers import HELPER_NAMES, helper_sources
from attnc.ir.demand import Demand
from attnc.ir.ops import OPS
from attnc.runtime.compile_pool import Job, compile_many
from attnc.runtime.cost.sass import read_sass
from attnc.runtime.machine_code import Argument, CompiledKernel, Pointer, machine_code
from attnc.runtime.targets import load_target

_POINTS, _WARPS = 1024, 4
# Signs and absolute values go along with other instructions; integers have a test of their own.
OPERATORS = [
    name
    for name, op in OPS.items()
    if op.kind in ("arith", "function") and name not in ("neg", "abs", "clamp", "relu", "stopgrad")
    if op.result != "int"
]


def form(name: str) -> str:
    """The operator as it is emitted, of values x and y."""
    arguments = ("x", "y")[: OPS[name].arity]
    if name in INFIX:
        return f" {INFIX[name][0]} ".join(arguments)
    return f"{CALLS.get(name) or HELPER_NAMES[name]}({', '.join(arguments)})"


def source() -> str:
    """A kernel per operator, and one that only adds what all of them load."""
    forms: Mapping[str, str] = {name: form(name) for name in OPERATORS} | {"nothing": "x"}
    lines = ["import triton", "import triton.language as tl"]
    lines += [f"\n@triton.jit\n{x}" for x in helper_sources(HELPER_NAMES, HELPER_NAMES)]
    for name, text in forms.items():
        lines += [
            f"\n@triton.jit\ndef kernel_{name}(X, Y, O):",
            f"    i = tl.arange(0, {_POINTS})",
            "    x = tl.load(X + i)",
            "    y = tl.load(Y + i)",
            f"    tl.store(O + i, {text})",
            f"    tl.store(O + i + {_POINTS}, y)",
        ]
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_declared_costs_are_those_of_machine_code(tmp_path: Path) -> None:
    path, target = tmp_path / "operators.py", load_target("h100")
    path.write_text(source(), encoding="utf-8")
    arguments: dict[str, Argument] = dict.fromkeys(("X", "Y", "O"), Pointer("fp32"))
    names = ["nothing", *OPERATORS]
    jobs = [Job(str(path), f"kernel_{n}", arguments, target, num_warps=_WARPS) for n in names]
    plain, *found = (_counted(x) for x in compile_many(jobs))
    far = {}
    for name, all_of_it in zip(OPERATORS, found, strict=True):
        cost = OPS[name].cost
        for unit, declared in (("fma", cost.fma), ("alu", cost.alu), ("sfu", cost.sfu)):
            read = (getattr(all_of_it, unit) - getattr(plain, unit)) * 32 * _WARPS / _POINTS / 32
            # constants and what ptxas schedules differ by a few
            if abs(read - declared) > max(2.0, 0.15 * declared):
                far[name, unit] = (declared, read)
    assert far == {}


def _counted(kernel: object) -> Demand:
    """Of one thread's instructions, in lanes of a warp."""
    assert isinstance(kernel, CompiledKernel), kernel
    found = Demand()
    for instruction in read_sass(machine_code(kernel), ""):
        found += instruction.work
    return found
