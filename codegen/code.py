"""A piece of Python text that knows how tightly it binds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import e, isinf, isnan, log, log2
from typing import Final

# Loosest first: comparison, or-bar, and, sum, product, sign, atom.
COMPARE, BAR, AND, SUM, PRODUCT, SIGN, ATOM = range(7)

# Operators that Python numbers, Triton blocks and tensors write alike, and how tightly each binds.
INFIX: Final[Mapping[str, tuple[str, int]]] = {
    "add": ("+", SUM),
    "sub": ("-", SUM),
    "mul": ("*", PRODUCT),
    "div": ("/", PRODUCT),
    "exactdiv": ("//", PRODUCT),
    "lt": ("<", COMPARE),
    "le": ("<=", COMPARE),
    "gt": (">", COMPARE),
    "ge": (">=", COMPARE),
    "eq": ("==", COMPARE),
    "ne": ("!=", COMPARE),
    "and": ("&", AND),
    "or": ("|", BAR),
}
# On tensors, and only there, `//` and `%` round down as in the language.
TENSOR_INFIX: Final[Mapping[str, tuple[str, int]]] = {
    **INFIX,
    "floordiv": ("//", PRODUCT),
    "mod": ("%", PRODUCT),
}

# Numbers that the module gives a name.
CONSTANTS: Final = {log2(e): "LOG2E", log(2.0): "LN2"}


@dataclass(frozen=True, slots=True)
class Code:
    """Python text; `binds` is the level of its outermost operator."""

    text: str
    binds: int = ATOM

    def inside(self, least: int) -> str:
        """The text as an operand of something that binds with `least`."""
        return self.text if self.binds >= least else f"({self.text})"


def number(value: bool | int | float) -> Code:
    """A literal, or the name of a constant."""
    if isinstance(value, float) and value in CONSTANTS:
        return Code(CONSTANTS[value])
    if isinstance(value, float) and (isinf(value) or isnan(value)):
        return Code(f'float("{value}")')
    text = repr(value)
    return Code(text, SIGN if text.startswith("-") else ATOM)
