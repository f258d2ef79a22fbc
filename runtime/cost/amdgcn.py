"""AMD's machine code as LLVM writes it: what each instruction asks of which unit.

A compute unit issues one vector instruction a clock, whatever it does, and beside it scalar,
memory and branch instructions of other wavefronts (ROCm Compute Profiler, "pipeline
descriptions"): so vector and matrix instructions are what counts as issued. Transcendentals run in
the vector unit at a quarter of its rate. Packed arithmetic (v_pk_) is two operations a lane.
A lane's permutation through the local data share is 4 bytes of it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod

from attnc.ir.demand import Demand
from attnc.runtime.cost.instructions import Flow, Instruction

LANES = 64

_FMA = re.compile(
    r"v_(?:pk_)?(?:fma|fmac|fmamk|fmaak|mad|mac|mul|mul_legacy|add|sub|subrev|dot2c?|fma_mix)"
    r"(?:_\w+?)?_(?:f32|f16|f64|bf16)(?:_\w+)?"
)
_SFU = re.compile(r"v_(?:exp|log|rcp|rcp_iflag|rsq|sqrt|sin|cos)_(?:f32|f16|f64)")
_MATRIX = re.compile(r"v_(?:s?mfma\w*?)_(\d+)x(\d+)x(\d+)(?:_(\d+)b)?")
_DWORDS = re.compile(r"dword(?:x(\d))?$")
_WORDS = {"ubyte": 1, "sbyte": 1, "byte": 1, "ushort": 2, "sshort": 2, "short": 2}
_BITS = re.compile(r"_[biu](8|16|32|64|96|128)\b")

_LABEL = re.compile(r"^([.$\w]+):")
_FILE = re.compile(r'^\s*\.file\s+(\d+)\s+"([^"]*)"(?:\s+"([^"]*)")?')
_LOCATION = re.compile(r"^\s*\.loc\s+(\d+)\s+(\d+)[^;]*(?:;(.*))?")
_CODE = re.compile(r"^\s+([a-z]+_[a-z0-9_]+)\s*([^;]*)")
_REGISTER = re.compile(r"\bv(?:(\d+)|\[(\d+):(\d+)\])")
_BRANCHES = ("s_cbranch", "s_branch", "s_endpgm", "s_setpc")


def read_amdgcn(text: str, module: str) -> tuple[Instruction, ...]:
    """The instructions of a kernel in order; `module` is the path that its lines are of."""
    found: list[Instruction] = []
    labels: list[str] = []
    files: dict[str, str] = {}
    line: int | None = None
    stem = module.rsplit("/", 1)[-1]
    for row in text.splitlines():
        if row.startswith(".Lfunc_end"):
            break
        if file := _FILE.match(row):
            files[file[1]] = f"{file[2]}/{file[3]}" if file[3] else file[2]
        elif location := _LOCATION.match(row):
            line = _line(location, files, module, stem)
        elif label := _LABEL.match(row):
            labels.append(label[1])
        elif code := _CODE.match(row):
            made = _instruction(code[1], code[2].strip())
            found.append(replace(made, line=line, labels=tuple(labels)))
            labels = []
    return tuple(found)


def _line(location: re.Match[str], files: dict[str, str], module: str, stem: str) -> int | None:
    """The module's line, or the one from which another file's function was called."""
    number = int(location[2])
    if files.get(location[1]) == module:
        return number or None
    calls = re.findall(rf"(?<![\w.]){re.escape(stem)}:(\d+):", location[3] or "")
    return int(calls[-1]) if calls and int(calls[-1]) else None


def _instruction(opcode: str, operands: str) -> Instruction:
    flow: Flow = "next"
    if opcode.startswith("s_cbranch"):
        flow = "branch"
    elif opcode == "s_branch":
        flow = "jump"
    elif opcode in ("s_endpgm", "s_setpc_b64"):
        flow = "end"
    work, known = _work(opcode, operands)
    registers = [x for m in _REGISTER.finditer(operands) for x in _names(m)]
    loads = re.match(r"(?:buffer|global|flat)_load", opcode) and not re.search(r"\blds\b", operands)
    first = _REGISTER.match(operands)
    fills = tuple(_names(first)) if loads and first else ()
    operand = [x.strip() for x in operands.split(",")]
    compares = opcode.startswith(("s_cmp_", "s_cmpk_", "v_cmp_"))
    return Instruction(
        opcode,
        work,
        flow=flow,
        target=operands if flow in ("branch", "jump") else "",
        fills=fills,
        reads=tuple(registers),
        writes="" if compares else operand[0],
        sum=_sum(opcode, operand),
        compared=_compared(operand) if compares else None,
        known=known,
    )


def _sum(opcode: str, operand: list[str]) -> tuple[str, int] | None:
    """`s1 + 64` where that is what is written; a move adds nothing."""
    if not re.match(r"(?:s|v)_(?:add_[iu]32|addk_i32|add_u32_e\d\d|mov_b32)", opcode):
        return None
    given = operand[1:] if not opcode.startswith("s_addk") else operand
    registers, number = _compared(given)
    return (registers[0], number or 0) if len(registers) == 1 else None


def _compared(operand: list[str]) -> tuple[tuple[str, ...], int | None]:
    numbers = [int(x, 0) for x in operand if re.fullmatch(r"-?(?:0x[0-9a-f]+|\d+)", x)]
    registers = tuple(x for x in operand if re.fullmatch(r"[sv]\d+", x))
    return registers, numbers[0] if numbers else None


def _names(register: re.Match[str]) -> list[str]:
    if register[1]:
        return [f"v{register[1]}"]
    return [f"v{i}" for i in range(int(register[2]), int(register[3]) + 1)]


def _work(opcode: str, operands: str) -> tuple[Demand, bool]:
    """What one wavefront asks for, and whether the opcode is known."""
    if shape := _MATRIX.match(opcode):
        return Demand(tensor=2 * prod(int(x) for x in shape.groups("1")), issue=1), True
    if opcode.startswith("v_"):
        return _vector(opcode), True
    if opcode.startswith("ds_"):
        return Demand(shared=LANES * _shared_bytes(opcode)), True
    if re.match(r"(?:buffer|global|flat|scratch)_(?:load|store|atomic)", opcode):
        size = LANES * _global_bytes(opcode)
        direct = re.search(r"\blds\b", operands) is not None
        return Demand(l2=size, shared=size if direct else 0), True
    return Demand(), opcode.startswith(("s_", "buffer_", "global_"))


def _vector(opcode: str) -> Demand:
    twice = 2 if opcode.startswith("v_pk_") else 1
    if _SFU.match(opcode):
        return Demand(sfu=LANES, issue=1)
    if _FMA.fullmatch(opcode):
        return Demand(fma=LANES * twice, issue=1)
    return Demand(alu=LANES * twice, issue=1)


def _shared_bytes(opcode: str) -> int:
    if "permute" in opcode or "swizzle" in opcode:
        return 4
    bits = _BITS.search(opcode)
    pair = 2 if re.match(r"ds_(?:read|write)2", opcode) else 1
    return pair * int(bits[1]) // 8 if bits else 0


def _global_bytes(opcode: str) -> int:
    if dwords := _DWORDS.search(opcode):
        return 4 * int(dwords[1] or 1)
    kind = next((n for word, n in _WORDS.items() if f"_{word}" in opcode), 0)
    return kind or (8 if opcode.endswith("_x2") else 4)
