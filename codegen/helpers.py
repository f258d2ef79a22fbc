"""Triton functions for operators that Triton's core lacks, emitted into a module that uses them.

libdevice has most of them, but the interpreter has no libdevice. Each is accurate to a few units in the
last place near 0 and for large arguments, and gives no NaN for +-inf.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Polynomials: Cephes 2.8, single precision (S. Moshier), tanhf; others as commented.
_SOURCES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "floor_div": (
        (),
        '''
def floor_div(a, b):
    """a // b rounded down; Triton's rounds towards zero."""
    q = a // b
    return tl.where((a % b != 0) & ((a < 0) != (b < 0)), q - 1, q)
''',
    ),
    "floor_mod": (
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
    """A polynomial near 0, where 1 - 2 / (exp(2x) + 1) would cancel."""
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
    exact = (u == 1.0) | (u == float("inf"))
    return tl.where(exact, tl.where(u == 1.0, x, u), tl.log(u) * (x / tl.where(exact, 1.0, u - 1.0)))
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
    "power": (
        (),
        '''
def power(x, y):
    """x ** y as IEEE: the exponent of |x| is split off, so that y * log2 keeps its digits."""
    x, y = x + 0.0 * y, y + 0.0 * x
    scaled = tl.where(tl.abs(x) < 1.17549435e-38, tl.abs(x) * 16777216.0, tl.abs(x))
    bits = scaled.to(tl.int32, bitcast=True)
    whole = (bits - 0x3F3504F3) >> 23
    part = y * tl.log2((bits - (whole << 23)).to(tl.float32, bitcast=True))
    whole = whole.to(tl.float32) - tl.where(scaled == tl.abs(x), 0.0, 24.0)
    # y = high + low with few enough digits that high * whole is exact
    high = (y.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)
    rest = (y - high) * whole + part
    steps = tl.floor(high * whole + 0.5)
    value = tl.exp2(steps) * tl.exp2(high * whole - steps + rest)
    value = tl.where((x == 0) | (tl.abs(x) == float("inf")), special_power(tl.abs(x), y), value)
    odd = tl.abs(y) % 2.0 == 1.0
    signed = tl.where(tl.floor(y) == y, tl.where(odd, -value, value), float("nan"))
    value = tl.where(x < 0, signed, value)
    return tl.where((y == 0) | (x == 1.0), 1.0, value)
''',
    ),
}


def helper_sources(used: Iterable[str]) -> tuple[str, ...]:
    """The functions' texts, what each needs before it, without decorators."""
    found: dict[str, str] = {}

    def add(name: str) -> None:
        if name not in found:
            needs, source = _SOURCES[name]
            for other in needs:
                add(other)
            found[name] = source.strip()

    for name in sorted(used):
        add(name)
    return tuple(found.values())
