"""Triton functions for operators that Triton's core lacks, emitted into a module that uses them.

libdevice has most of them, but the interpreter has no libdevice. Each is accurate to a few units in
the last place near 0 and for large arguments, and gives no NaN for +-inf where there is a limit.
Triton has sin and cos, but theirs keep a table on the stack of each thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# operator -> (operators it builds on, source)
_SOURCES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "floordiv": (
        (),
        '''
def floor_div(a, b):
    """a // b rounded down; Triton's rounds towards zero."""
    q = a // b
    return tl.where((a % b != 0) & ((a < 0) != (b < 0)), q - 1, q)
''',
    ),
    "mod": (
        (),
        '''
def floor_mod(a, b):
    """a % b with the sign of b; Triton's has that of a."""
    r = a % b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)
''',
    ),
    "multiply": (
        (),
        '''
def multiply(a, b):
    """For tl.reduce."""
    return a * b
''',
    ),
    "sign": (
        (),
        '''
def sign(x):
    """-1, 0 or 1."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x))
''',
    ),
    "tanh": (
        (),
        '''
def tanh(x):
    """Cephes' polynomial near 0, where 1 - 2 / (exp(2x) + 1) would cancel."""
    z = x * x
    near = -5.70498872745e-3
    near = near * z + 2.06390887954e-2
    near = near * z - 5.37397155531e-2
    near = near * z + 1.33314422036e-1
    near = near * z - 3.33332819422e-1
    far = 1.0 - 2.0 / (tl.exp(2.0 * tl.abs(x)) + 1.0)
    return tl.where(tl.abs(x) < 0.625, x + x * (z * near), tl.where(x < 0, -far, far))
''',
    ),
    "log1p": (
        (),
        '''
def log1p(x):
    """log(1 + x); the quotient undoes the rounding of 1 + x (Kahan)."""
    u = 1.0 + x
    plain = (u == 1.0) | (u == float("inf"))
    quotient = x / tl.where(plain, 1.0, u - 1.0)
    return tl.where(plain, tl.where(u == 1.0, x, u), tl.log(u) * quotient)
''',
    ),
    "softplus": (
        ("log1p",),
        '''
def softplus(x):
    """log(1 + exp(x)) without overflow."""
    return tl.maximum(x, 0.0) + log1p(tl.exp(-tl.abs(x)))
''',
    ),
    "silu": (
        (),
        '''
def silu(x):
    """x * sigmoid(x); 0 at -inf."""
    return tl.where(x == -float("inf"), 0.0, x / (1.0 + tl.exp(-x)))
''',
    ),
    "gelu": (
        (),
        '''
def gelu(x):
    """x times the normal distribution function; 0 at -inf."""
    return tl.where(x == -float("inf"), 0.0, 0.5 * x * (1.0 + tl.erf(0.7071067811865476 * x)))
''',
    ),
    "angle": (
        (),
        '''
def quarter_wave(x, quarters):
    """sin(x + quarters * pi / 2); reduced in float64, so that large angles keep their digits."""
    wide = tl.cast(x, tl.float64)
    turns = tl.floor(wide * 0.6366197723675814 + 0.5)
    r = (wide - turns * 1.5707963267948966).to(tl.float32)
    z = r * r
    odd = r + r * z * (-1.6666654611e-1 + z * (8.3321608736e-3 + z * -1.9515295891e-4))
    even = 4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5)
    even = 1.0 - 0.5 * z + z * z * even
    quadrant = turns.to(tl.int32) + quarters
    value = tl.where((quadrant & 1) == 0, odd, even)
    return tl.where((quadrant & 2) == 0, value, -value)
''',
    ),
    "sin": (
        ("angle",),
        '''
def sine(x):
    """sin(x)"""
    return quarter_wave(x, 0)
''',
    ),
    "cos": (
        ("angle",),
        '''
def cosine(x):
    """cos(x)"""
    return quarter_wave(x, 1)
''',
    ),
    "pow": (
        (),
        '''
def power(x, y):
    """x ** y; the exponent of |x| is split off, so that log2 keeps its digits."""
    x, y = tl.cast(x, tl.float32), tl.cast(y, tl.float32)
    size, bound = tl.abs(x), tl.minimum(tl.maximum(y, -1.0e12), 1.0e12)
    tiny = size < 1.1754944e-38
    bits = tl.where(tiny, size * 16777216.0, size).to(tl.int32, bitcast=True)
    whole = (bits - 0x3F3504F3) >> 23
    part = (bits - (whole << 23)).to(tl.float32, bitcast=True)
    whole = whole.to(tl.float32) - tl.where(tiny, 24.0, 0.0)
    head = (bound.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)
    steps = tl.floor(head * whole + 0.5)
    rest = (head * whole - steps) + ((bound - head) * whole + bound * tl.log2(part))
    value = tl.exp2(rest - tl.floor(rest)) * tl.exp2(steps + tl.floor(rest))
    extreme = tl.where((size == 0.0) == (y > 0.0), 0.0, float("inf"))
    value = tl.where((size == 0.0) | (size == float("inf")), extreme, value)
    sign = tl.where(tl.abs(bound) % 2.0 == 1.0, -1.0, 1.0)
    negative = tl.where(tl.floor(bound) == bound, sign * value, float("nan"))
    value = tl.where(x < 0.0, negative, value)
    value = tl.where(x == 1.0, 1.0, tl.where(y == 0.0, 1.0, value))
    return tl.where(x == x, tl.where(y == y, value, y), x)
''',
    ),
}


HELPER_NAMES: Mapping[str, str] = {
    op: source.split("(")[0].removeprefix("\ndef ") for op, (_, source) in _SOURCES.items()
}


def helper_sources(used: Iterable[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """The functions' texts under the given names, each after those it calls, without decorators."""
    found: dict[str, str] = {}

    def add(op: str) -> None:
        if op in found:
            return
        needs, source = _SOURCES[op]
        for other in needs:
            add(other)
        for callee in (op, *needs):
            call = rf"(?<![\w.]){HELPER_NAMES[callee]}(?=\()"
            source = re.sub(call, names[callee], source)
        found[op] = source.strip()

    for op in sorted(used):
        add(op)
    return tuple(found.values())
