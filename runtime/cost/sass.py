"""NVIDIA's machine code as `nvdisasm -c -g` prints it: what each instruction asks of which unit.

Which opcode runs in which pipe: the kernel profiling guide of Nsight Compute, "Pipelines". There
`alu` has logic, compare, select, minimum and integer addition; `fma` has single and half precision
arithmetic *and integer multiply-adds* (IMAD, also where it only moves or shifts); `xu` has
transcendentals, conversions between integers and floats, and bit counts; `lsu` has shuffles beside
loads and stores: a shuffle of 32 lanes takes as long as 128 bytes of shared memory, and so do
registers that are spilled (LDL, STL), since the L1 cache is the same memory. Conversions
that pack two floats (F2FP) are at the rate of `alu` in the throughput table of the CUDA
programming guide.
Uniform instructions (U..) have a data path of their own, so they are issued and cost no lane
anything, like branches, barriers and loads of constants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from math import prod

from attnc.ir.demand import Demand
from attnc.runtime.cost.instructions import Flow, Instruction

LANES = 32

_FMA = frozenset(
    "FADD FMUL FFMA FFMA32I FADD32I FMUL32I HADD2 HMUL2 HFMA2 HADD2_32I HMUL2_32I HFMA2_32I "
    "IMAD IMUL IDP IDP4A".split()
)
_PACKED = frozenset("FADD2 FMUL2 FFMA2".split())
# The FMA pipes take these at half their rate or less.
_SLOW_FMA = frozenset("DADD DMUL DFMA DSETP".split())
_ALU = frozenset(
    "FMNMX FMNMX3 FSEL FSET FSETP FCHK FSWZADD HSET2 HSETP2 HMNMX2 ISETP IADD IADD3 IADD32I VIADD "
    "VIADDMNMX VIMNMX VIMNMX3 IMNMX LOP3 LOP LOP32I PLOP3 PRMT SHF SHL SHR LEA MOV MOV32I SEL SGXT "
    "BMSK IABS VABSDIFF VABSDIFF4 P2R R2P CS2R F2FP I2FP I2IP R2UR VOTE VOTEU REDUX CREDUX "
    "MATCH ISCADD MOVM".split()
)
_XU = frozenset("MUFU I2F F2I F2F FRND I2I POPC FLO BREV".split())
# Issued, and no work for a unit that is modelled. Tensor memory (LDTM, STTM) is not.
_OTHER = frozenset(
    "BAR BRA BRX BRXU JMP CALL RET EXIT KILL NOP YIELD BSSY BSYNC BREAK BMOV WARPSYNC NANOSLEEP "
    "DEPBAR LDGDEPBAR LDC LDCU S2R S2UR B2R R2B MEMBAR FENCE ERRBAR CCTL CCTLL WARPGROUP BPT "
    "ELECT SYNCS ARRIVES LDTM STTM GETLMEMBASE SETCTAID LEPC ENDCOLLECTIVE ACQBULK PREEXIT "
    "WARPGROUPSET USETMAXREG RPCMOV UCGABAR_WAIT UCGABAR_ARV".split()
)
_SHAPES = {
    "884": (8, 8, 4), "1684": (16, 8, 4), "1688": (16, 8, 8), "16816": (16, 8, 16),
    "16832": (16, 8, 32), "16864": (16, 8, 64), "8816": (8, 8, 16), "8832": (8, 8, 32),
}  # fmt: skip
_WARP_TENSOR = frozenset("HMMA IMMA DMMA QMMA OMMA BMMA".split())
_GROUP_TENSOR = frozenset("HGMMA IGMMA QGMMA".split())
_CORE_TENSOR = frozenset("UTCHMMA UTCIMMA UTCQMMA UTCOMMA".split())
# One elected warp starts these for the whole program.
_ELECTED = _CORE_TENSOR | frozenset("UTCBAR UTMALDG UTMASTG UTMAREDG UBLKCP UTMACMDFLUSH".split())
# Says how many bytes the copy engine is about to bring.
_EXPECTS = ["SYNCS", "ARRIVE", "TRANS64"]
_GLOBAL = frozenset("LDG STG LD ST ATOM ATOMG RED REDG".split())
_SHARED = frozenset("LDS STS ATOMS LDL STL".split())
_MATRICES = frozenset("LDSM STSM".split())

_LABEL = re.compile(r"^([.$\w]+):\s*$")
# Subroutines, which follow the kernel; its own places are `.L_x_0`, ..
_FUNCTION = re.compile(r"^(\$[\w$]+):", re.MULTILINE)
_PLACE = re.compile(r'^\s*//## File "([^"]*)", line (\d+)(?: inlined at "([^"]*)", line (\d+))?')
_CODE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
_REGISTER = re.compile(r"\bR(\d+)\b")
_ANY_REGISTER = re.compile(r"-?U?R\d+")
_NUMBER = re.compile(r"-?0x[0-9a-f]+")
_ADD = frozenset("IADD IADD3 VIADD UIADD3".split())
_MOVE = frozenset("MOV UMOV".split())
_COMPARE = frozenset("ISETP UISETP".split())
_PLACED = re.compile(r"\[UR\d+\+(0x[0-9a-f]+)\]")
_TARGET = re.compile(r"`\(([^)]+)\)")
_NEVER = ("!PT", "!UPT")
_IMMEDIATE = re.compile(r"(?:U?MOV|IMAD\.MOV\.U32) U?R\d+, (?:RZ, RZ, )?(0x[0-9a-f]+)")


def read_sass(text: str, module: str) -> tuple[Instruction, ...]:
    """The instructions of a listing in order; `module` is the path that its lines are of."""
    found: list[Instruction] = []
    labels: list[str] = []
    line: int | None = None
    constants: dict[str, int] = {}
    functions = frozenset(_FUNCTION.findall(text))
    for row in text.splitlines():
        if label := _LABEL.match(row):
            labels.append(label[1])
        elif place := _PLACE.match(row):
            line = _line(place, module)
        elif code := _CODE.match(row):
            guard, opcode, operands = code[1] or "", code[2], code[3]
            made = _instruction(guard, opcode, operands, constants, functions)
            constants.pop(made.writes, None)
            if moved := _IMMEDIATE.fullmatch(f"{opcode} {operands}"):
                constants[made.writes] = int(moved[1], 16)
            found.append(replace(made, line=line, labels=tuple(labels)))
            labels = []
    return tuple(found)


def _line(place: re.Match[str], module: str) -> int | None:
    for path, number in ((place[1], place[2]), (place[3], place[4])):
        if path == module:
            return int(number)
    return None


def _instruction(
    guard: str,
    opcode: str,
    operands: str,
    constants: Mapping[str, int],
    functions: frozenset[str],
) -> Instruction:
    parts = opcode.split(".")
    name = parts[0]
    never = guard in _NEVER
    flow, target = _flow(guard, parts, operands, functions)
    work, known = _work(parts, operands, constants)
    fills: tuple[str, ...] = ()
    if name in ("LDG", "LD") and not never:
        first = _REGISTER.match(operands)
        count = max(1, _width(parts) // 4)
        fills = tuple(f"R{int(first[1]) + i}" for i in range(count)) if first else ()
    operand = [x.strip().replace(".reuse", "") for x in operands.split(",")]
    limit = re.search(r", 0x([0-9a-f]+)", operands) if name == "DEPBAR" else None
    return Instruction(
        opcode,
        Demand(issue=1) if never else work,
        flow=flow,
        target=target,
        fills=fills,
        reads=tuple(f"R{n}" for n in _REGISTER.findall(operands)),
        writes=operand[0] if _ANY_REGISTER.fullmatch(operand[0]) else "",
        sum=_sum(parts, operand),
        compared=_compared(operand) if name in _COMPARE else None,
        commits=name == "LDGDEPBAR",
        awaits=int(limit[1], 16) if limit else None,
        barrier=_barrier(parts, operands),
        lone=name in _ELECTED or parts[:3] == _EXPECTS,
        guarded=bool(guard),
        spins=name == "NANOSLEEP" or "TRYWAIT" in parts,
        known=known,
    )


def _barrier(parts: list[str], operands: str) -> str:
    """The place of a barrier in shared memory; those of the buffers of a pipeline are one."""
    used = parts[:3] == _EXPECTS or (parts[0] == "SYNCS" and "TRYWAIT" in parts)
    place = _PLACED.search(operands) if used else None
    return place[1] if place else ""


def _flow(
    guard: str, parts: list[str], operands: str, functions: frozenset[str]
) -> tuple[Flow, str]:
    if guard in _NEVER:
        return "next", ""
    target = _TARGET.search(operands)
    conditional = bool(guard) or bool(re.match(r"!?U?P\d", operands)) or "DIV" in parts
    match parts[0]:
        case "CALL" if target and target[1] in functions:
            return "call", target[1]
        # a far branch is written as a call to a place that does not return
        case "BRA" | "JMP" | "CALL" if target:
            return ("branch" if conditional else "jump"), target[1]
        case "EXIT" | "RET" | "BRX" | "BRXU" | "KILL" if not guard:
            return "end", ""
    return "next", ""


def _sum(parts: list[str], operand: list[str]) -> tuple[str, int] | None:
    """`R1 + 0x40` where that is what is written; a move adds nothing."""
    if parts[0] not in _ADD | _MOVE and parts[:2] != ["IMAD", "MOV"]:
        return None
    given = [x for x in operand[1:] if not re.fullmatch(r"!?U?P(T|\d)|U?RZ", x)]
    registers = [x for x in given if _ANY_REGISTER.fullmatch(x) and not x.startswith("-")]
    numbers = [int(x, 16) for x in given if _NUMBER.fullmatch(x)]
    if len(registers) != 1 or len(registers) + len(numbers) != len(given) or "X" in parts:
        return None
    return registers[0], sum(numbers)


def _compared(operand: list[str]) -> tuple[tuple[str, ...], int | None]:
    numbers = [int(x, 16) for x in operand if _NUMBER.fullmatch(x)]
    registers = tuple(x for x in operand if _ANY_REGISTER.fullmatch(x))
    return registers, numbers[0] if numbers else None


def _work(parts: list[str], operands: str, constants: Mapping[str, int]) -> tuple[Demand, bool]:
    """What one warp asks for, and whether the opcode is known."""
    name = parts[0]
    if name in _FMA:
        wide = name == "IMAD" and len(parts) > 1 and parts[1] in ("WIDE", "HI")
        return Demand(fma=LANES * (2 if wide else 1), issue=1), True
    if name in _PACKED or name in _SLOW_FMA:
        return Demand(fma=2 * LANES, issue=1), True
    if name in _XU:
        return Demand(sfu=LANES, issue=1), True
    if name in _ALU:
        return Demand(alu=LANES, issue=1), True
    if parts[:3] == _EXPECTS:
        size = constants.get(operands.split(", ")[-1], 0)
        return Demand(l2=size, shared=size, issue=1), True
    if (memory := _memory(parts)) is not None:
        return memory, True
    if (tensor := _tensor(parts, operands, constants)) is not None:
        return tensor, True
    if name in _OTHER or name.startswith("U"):
        return Demand(issue=1), True
    return Demand(alu=LANES, issue=1), False


def _memory(parts: list[str]) -> Demand | None:
    """Loads, stores, shuffles. Lanes that are switched off count: it is the tile's bytes."""
    name, every = parts[0], LANES * _width(parts)
    if name in _GLOBAL:
        return Demand(l2=every, issue=1)
    if name == "LDGSTS":
        return Demand(l2=every, shared=every, issue=1)
    if name in _SHARED:
        return Demand(shared=every, issue=1)
    if name == "SHFL":
        return Demand(shared=4 * LANES, issue=1)
    if name in _MATRICES:
        # eight rows of eight halves, one to four times
        count = int(parts[-1]) if parts[-1] in ("2", "4") else 1
        return Demand(shared=128 * count, issue=1)
    return None


def _width(parts: list[str]) -> int:
    """Bytes per lane."""
    for part in parts[1:]:
        if part in ("128", "64", "32", "U8", "S8", "U16", "S16"):
            return int(part.lstrip("US")) // 8
    return 4


def _tensor(parts: list[str], operands: str, constants: Mapping[str, int]) -> Demand | None:
    name = parts[0]
    if name in _WARP_TENSOR:
        shape = next((_SHAPES[p] for p in parts[1:] if p in _SHAPES), None)
        return None if shape is None else Demand(tensor=2 * prod(shape), issue=1)
    if name in _GROUP_TENSOR:
        m, n, k = (int(x) for x in parts[1].split("x"))
        # A descriptor names a matrix in shared memory, which four warps read together.
        rows = m if re.match(r"R\d+, gdesc", operands) else 0
        size = {"HGMMA": 2}.get(name, 1)
        size = 4 if "TF32" in parts else size
        return Demand(tensor=2 * m * n * k / 4, shared=(rows + n) * k * size / 4, issue=1)
    if name in _CORE_TENSOR:
        m, n, k, size = _core_shape(name, operands, constants)
        rows = m if operands.startswith("gdesc") else 0
        return Demand(tensor=2 * m * n * k, shared=(rows + n) * k * size, issue=1)
    return None


def _core_shape(
    name: str, operands: str, constants: Mapping[str, int]
) -> tuple[int, int, int, int]:
    """Rows, columns, depth, bytes of an element, out of the instruction descriptor of tcgen05.

    PTX ISA, "Instruction descriptor": bits 17..22 are N / 8, bits 24..28 are M / 16; the format of
    A in bits 7..9 is 2 for tf32, whose elements have 4 bytes. An instruction is 32 bytes deep.
    """
    register = re.search(r"idesc\[(UR\d+)\]", operands)
    word = constants.get(register[1], 0) if register else 0
    size = 1 if name != "UTCHMMA" else 4 if word >> 7 & 7 == 2 else 2
    return (word >> 24 & 31) * 16, (word >> 17 & 63) * 8, 32 // size, size
