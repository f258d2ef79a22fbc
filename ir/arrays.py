"""What the evaluator needs of an array library, and numpy as the first of them.

An `Arrays` holds only what libraries spell differently; operators, `reshape`, indexing, `any`,
`min` and `max` are written once, in their common dialect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

# An array of the library in use; its type is not known here.
Array: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Arrays:
    """An array library. Axes are counted from 0; dtypes are named `float64 .. int64 bool`.

    functions:   the pointwise functions of one argument of `ir.ops.OPS`, by name
    reductions:  those of `ir.ops.REDUCTIONS`, `(x, axes) -> x`; reduced axes stay, of length 1
    where:       `(condition, a, b)`; a or b may be a Python scalar, which takes the other's dtype
    minimum:     of two arrays, or an array and a Python scalar (also `maximum`)
    argsort:     stable, ascending, NaN last
    tracked:     whether gradients flow through the array: only then are absent points made safe
    quiet:       a context in which floating-point exceptions pass silently
    """

    name: str
    functions: Mapping[str, Callable[[Array], Array]]
    reductions: Mapping[str, Callable[[Array, tuple[int, ...]], Array]]
    asarray: Callable[[Any, str], Array]
    arange: Callable[[int, int], Array]
    full: Callable[[tuple[int, ...], bool | int | float, str], Array]
    zeros_like: Callable[[Array, tuple[int, ...]], Array]
    where: Callable[[Array, Array, Array], Array]
    minimum: Callable[[Array, Array], Array]
    maximum: Callable[[Array, Array], Array]
    permute: Callable[[Array, Sequence[int]], Array]
    broadcast: Callable[[Array, tuple[int, ...]], Array]
    concat: Callable[[Sequence[Array], int], Array]
    contiguous: Callable[[Array], Array]
    argsort: Callable[[Array, int], Array]
    take: Callable[[Array, Array, int], Array]
    take_along: Callable[[Array, Array, int], Array]
    cumsum: Callable[[Array, int], Array]
    is_float: Callable[[Array], bool]
    all_finite: Callable[[Array], bool]
    tracked: Callable[[Array], bool]
    quiet: Callable[[], AbstractContextManager[object]]


def is_scalar(x: object) -> bool:
    """Whether x is a Python number: folded at once, and cast to the dtype of what it meets.

    A numpy scalar is not one: it carries a dtype of its own.
    """
    return type(x) in (bool, int, float)


_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    # exp of a negative number only: no overflow, and exact tails on both sides
    z = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + z), z / (1 + z)).astype(x.dtype)


def _gelu(x: Array) -> Array:
    return x * (_erfc(-x / math.sqrt(2)) / 2).astype(x.dtype)


def _where(condition: Array, a: Array, b: Array) -> Array:
    if is_scalar(a):
        a = np.asarray(a, b.dtype)
    elif is_scalar(b):
        b = np.asarray(b, a.dtype)
    return np.where(condition, a, b)


def _reduction(f: Callable[..., Array]) -> Callable[[Array, tuple[int, ...]], Array]:
    return lambda x, axes: f(x, axis=axes, keepdims=True)


NUMPY = Arrays(
    name="numpy",
    functions={
        "exp": np.exp,
        "exp2": np.exp2,
        "log": np.log,
        "log2": np.log2,
        "log1p": np.log1p,
        "sqrt": np.sqrt,
        "rsqrt": lambda x: 1 / np.sqrt(x),
        "abs": np.abs,
        "sign": np.sign,
        "tanh": np.tanh,
        "sigmoid": _sigmoid,
        "softplus": lambda x: np.logaddexp(x, np.zeros((), x.dtype)),
        "relu": lambda x: np.maximum(x, 0),
        "silu": lambda x: x * _sigmoid(x),
        "gelu": _gelu,
        "erf": lambda x: _erf(x).astype(x.dtype),
        "sin": np.sin,
        "cos": np.cos,
        "stopgrad": lambda x: x,
    },
    reductions={
        "sum": _reduction(np.sum),
        "max": _reduction(np.max),
        "min": _reduction(np.min),
        "prod": _reduction(np.prod),
        "any": _reduction(np.any),
        "all": _reduction(np.all),
    },
    asarray=np.asarray,
    arange=lambda low, high: np.arange(low, high, dtype=np.int64),
    full=np.full,
    zeros_like=lambda x, shape: np.zeros(shape, x.dtype),
    where=_where,
    minimum=np.minimum,
    maximum=np.maximum,
    permute=np.transpose,
    broadcast=np.broadcast_to,
    concat=lambda arrays, axis: np.concatenate(arrays, axis=axis),
    contiguous=np.ascontiguousarray,
    argsort=lambda x, axis: np.argsort(x, axis=axis, kind="stable"),
    take=lambda x, index, axis: np.take(x, index, axis=axis),
    take_along=np.take_along_axis,
    cumsum=lambda x, axis: np.cumsum(x, axis=axis),
    is_float=lambda x: bool(x.dtype.kind == "f"),
    all_finite=lambda x: bool(np.isfinite(x).all()),
    tracked=lambda x: False,
    quiet=lambda: np.errstate(all="ignore"),
)
