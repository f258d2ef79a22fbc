"""Sums of products as matrix products, over arrays with one axis per rank (length 1: constant)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import prod

from attnc.ir.arrays import Array, Arrays


def contract(
    arrays: Arrays, factors: Sequence[Array], reduced: frozenset[int], shape: tuple[int, ...]
) -> Array:
    """The sum over the axes `reduced` of the factors' product; summed axes have length 1.

    `shape` is the whole iteration space. Pairs are multiplied in the order that keeps intermediate
    results small, and an axis is summed as soon as no other factor has it.
    """
    left = list(factors)
    while len(left) > 1:
        i, j = 0, 1
        if len(left) > 2:
            places = combinations(range(len(left)), 2)
            i, j = min(places, key=lambda ij: _size(left, ij[0], ij[1], reduced))
        axes = _summable(left, i, j, reduced)
        product = _pair(arrays, left[i], left[j], axes)
        left = [x for k, x in enumerate(left) if k not in (i, j)] + [product]
    total = left[0]
    axes = frozenset(a for a in reduced if total.shape[a] != 1)
    if axes:
        total = arrays.reductions["sum"](total, tuple(sorted(axes)))
    times = prod(shape[a] for a in reduced if all(x.shape[a] == 1 for x in factors))
    return total if times == 1 else total * times


def _summable(left: list[Array], i: int, j: int, reduced: frozenset[int]) -> frozenset[int]:
    others = [x for k, x in enumerate(left) if k not in (i, j)]
    return frozenset(
        a
        for a in reduced
        if all(x.shape[a] == 1 for x in others) and max(left[i].shape[a], left[j].shape[a]) != 1
    )


def _size(left: list[Array], i: int, j: int, reduced: frozenset[int]) -> int:
    axes = _summable(left, i, j, reduced)
    pairs = enumerate(zip(left[i].shape, left[j].shape, strict=True))
    return prod(max(m, n) for a, (m, n) in pairs if a not in axes)


def _pair(arrays: Arrays, a: Array, b: Array, summed: frozenset[int]) -> Array:
    """The product of two arrays, summed over some axes."""
    a, b = _sum_alone(arrays, a, b, summed), _sum_alone(arrays, b, a, summed)
    n = len(a.shape)
    both = [i for i in range(n) if a.shape[i] != 1 and b.shape[i] != 1]
    inner = [i for i in both if i in summed]
    rows = [i for i in range(n) if a.shape[i] != 1 and b.shape[i] == 1]
    columns = [i for i in range(n) if b.shape[i] != 1 and a.shape[i] == 1]
    if not inner or not (rows or columns):
        product = a * b
        return arrays.reductions["sum"](product, tuple(inner)) if inner else product
    batch = [i for i in both if i not in summed]
    unit = [i for i in range(n) if a.shape[i] == 1 and b.shape[i] == 1]
    depth = prod(a.shape[i] for i in inner)
    outer = [a.shape[i] for i in batch]
    left = arrays.permute(a, batch + rows + inner + columns + unit)
    left = left.reshape([*outer, prod(a.shape[i] for i in rows), depth])
    right = arrays.permute(b, batch + inner + columns + rows + unit)
    right = right.reshape([*outer, depth, prod(b.shape[i] for i in columns)])
    kept = batch + rows + columns
    shape = outer + [a.shape[i] for i in rows] + [b.shape[i] for i in columns]
    product = (left @ right).reshape([*shape, *(1 for _ in inner + unit)])
    order = kept + inner + unit
    return arrays.permute(product, [order.index(i) for i in range(n)])


def _sum_alone(arrays: Arrays, x: Array, other: Array, summed: frozenset[int]) -> Array:
    """x summed over the axes that the other factor does not have."""
    axes = tuple(i for i in sorted(summed) if x.shape[i] != 1 and other.shape[i] == 1)
    return arrays.reductions["sum"](x, axes) if axes else x
