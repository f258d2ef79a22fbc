"""What `ir.ops` declares is true: sampled, infinities included. A wrong declaration miscompiles."""

from __future__ import annotations

from math import inf
from typing import Any, TypeAlias

import numpy as np
import pytest

from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Apply, Expr, Index, Read
from attnc.ir.frame import Scope, Value
from attnc.ir.ops import OPS, REDUCTIONS

RNG = np.random.default_rng(5)
SPECIAL = np.array([-inf, -1e4, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 1e4, inf])
Array: TypeAlias = Any


def value(op: str, *args: Array) -> Array:
    """An operator at points, by the oracle; absent points are NaN."""
    tensors = {f"x{i}": Value(a, ("p",)) for i, a in enumerate(args)}
    reads: tuple[Expr, ...] = tuple(Read(t, (Index("p"),)) for t in tensors)
    scope = Scope(tensors=tensors, box={"p": range(len(args[0]))})
    found = evaluate(Apply(op, reads), scope)
    return found.data if found.present is None else np.where(found.present, found.data, np.nan)


def points(arity: int, low: float = -inf) -> list[Array]:
    """Normal numbers and all combinations of special ones."""
    grid = np.meshgrid(*[SPECIAL] * arity)
    some = [np.concatenate([g.ravel(), RNG.normal(size=200) * 3]) for g in grid]
    return [np.maximum(x, low) for x in some]


def close(a: Array, b: Array) -> bool:
    """Equal within rounding wherever both are numbers."""
    both = ~(np.isnan(a) | np.isnan(b))
    return np.allclose(a[both], b[both], rtol=1e-9, atol=1e-12)


KINDS = ("arith", "function", "cast")
NUMERIC = [o.name for o in OPS.values() if o.kind in KINDS and o.result != "int"]
DISTRIBUTED = [(r.name, over) for r in REDUCTIONS.values() for over in r.distributed]


@pytest.mark.parametrize("name", NUMERIC)
def test_values_stay_in_the_declared_range(name: str) -> None:
    o = OPS[name]
    y = value(name, *points(o.arity))
    y = y[~np.isnan(y)]
    assert (y >= o.range[0]).all() and (y <= o.range[1]).all()


@pytest.mark.parametrize("name", [o.name for o in OPS.values() if any(o.rising)])
def test_rising_directions(name: str) -> None:
    """Moving one argument up, the others fixed, never moves the result the other way."""
    o = OPS[name]
    for position, direction in enumerate(o.rising):
        x = points(o.arity)
        up = [a + np.abs(RNG.normal(size=len(a))) if i == position else a for i, a in enumerate(x)]
        before, after = value(name, *x), value(name, *up)
        both = ~(np.isnan(before) | np.isnan(after))
        assert (direction * after[both] >= direction * before[both]).all()


@pytest.mark.parametrize("name", [o.name for o in OPS.values() if o.homogeneous])
def test_homogeneity(name: str) -> None:
    o = OPS[name]
    x = points(o.arity)
    y = np.abs(RNG.normal(size=len(x[0])))
    assert close(value(name, *(y * a for a in x)), y * value(name, *x))
    zero = np.zeros(len(y))
    finite = [np.where(np.isfinite(a), a, 1.0) for a in x]
    assert (value(name, *(zero * a for a in finite)) == 0).all()


@pytest.mark.parametrize("name", [o.name for o in OPS.values() if o.maps])
def test_maps_turn_one_operation_into_another(name: str) -> None:
    maps = OPS[name].maps
    assert maps is not None
    # Roots and logs of products ask for factors that are not negative; derivations prove it.
    signed = maps[0] == "add" or name in ("abs", "sign")
    u, v = points(2, -inf if signed else 0.0)
    u, v = np.clip(u, -300, 300), np.clip(v, -300, 300)
    joined = value(name, value(maps[0], u, v))
    assert close(joined, value(maps[1], value(name, u), value(name, v)))


@pytest.mark.parametrize("name", [o.name for o in OPS.values() if o.identity is not None])
def test_identities(name: str) -> None:
    o = OPS[name]
    logic = o.kind == "logic"
    (x,) = [np.array([True, False])] if logic else points(1)
    neutral = np.full(len(x), o.identity)
    assert np.array_equal(value(name, x, neutral), x)
    assert np.array_equal(value(name, neutral, x), x)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_merge_in_any_order(name: str) -> None:
    r = REDUCTIONS[name]
    assert OPS[r.combine].identity == r.identity
    logic = OPS[r.combine].kind == "logic"
    x, y, z = ((np.clip(a, -1e3, 1e3) > 0) if logic else np.clip(a, -9, 9) for a in points(3))
    assert close(value(r.combine, x, y), value(r.combine, y, x))
    left = value(r.combine, value(r.combine, x, y), z)
    assert close(left, value(r.combine, x, value(r.combine, y, z)))
    assert r.idempotent == np.array_equal(value(r.combine, x, x), x)


@pytest.mark.parametrize(("name", "over"), DISTRIBUTED)
def test_distributivity(name: str, over: str) -> None:
    """y x a and y x b combine to y x (a combine b)."""
    combine, op = REDUCTIONS[name].combine, over.removesuffix("+")
    y, a, b = (np.clip(x, -1e3, 1e3) for x in points(3))
    if over.endswith("+"):
        y = np.abs(y)
    if OPS[combine].kind == "logic":
        y, a, b = y > 0, a > 0, b > 0
    apart = value(combine, value(op, y, a), value(op, y, b))
    assert close(apart, value(op, y, value(combine, a, b)))
