"""Matrix products of tiles, their axes sorted into batch, rows, columns and depth once per form.

The inner loop of a sweep calls the same product thousands of times, on tiles with the same few
shapes and strides; what is left to do per call is one view per operand and one `bmm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from attnc.ir.contract import contract
from attnc.runtime.reference import TORCH

# Sizes and strides of a view of the same memory.
View: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
# What a form depends on: shape and strides of both operands.
_Key: TypeAlias = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]


@dataclass(frozen=True, slots=True)
class _Side:
    """An operand as a batch of matrices: a view, or a copy where no view has that shape."""

    order: tuple[int, ...]
    shape: tuple[int, int, int]
    view: View | None

    def matrices(self, x: Tensor) -> Tensor:
        if self.view is None:
            return x.permute(self.order).reshape(self.shape)
        return x.as_strided(*self.view)


@dataclass(frozen=True, slots=True)
class _Form:
    """Both sides, and how to see their product: `result` on the axes of tiles.

    `back` permutes such a tile so that it could be the product: its sizes are then `sizes`.
    """

    left: _Side
    right: _Side
    result: View
    back: tuple[int, ...]
    sizes: tuple[int, ...]


class Product:
    """The sum over axis `over` of two tiles' product; tiles have an axis per rank (1: constant)."""

    __slots__ = ("forms", "over")

    def __init__(self, over: int) -> None:
        self.over = over
        self.forms: dict[_Key, _Form | None] = {}

    def __call__(self, a: Tensor, b: Tensor, shape: tuple[int, ...]) -> Tensor:
        """`shape` is the whole tile's: an axis that neither operand has is summed over, too."""
        form = self._form(a, b)
        if form is None:
            product: Tensor = contract(TORCH, [a, b], frozenset({self.over}), shape)
            return product
        return torch.bmm(form.left.matrices(a), form.right.matrices(b)).as_strided(*form.result)

    def add_to(self, c: Tensor, a: Tensor, b: Tensor) -> bool:
        """Add the product to c in place; False if c is not laid out as the product would be."""
        form = self._form(a, b)
        if form is None or c.dtype != a.dtype:
            return False
        c = c.permute(form.back)
        if c.shape != form.sizes or not c.is_contiguous():
            return False
        left, right = form.left.matrices(a), form.right.matrices(b)
        c.view(left.shape[0], left.shape[1], right.shape[2]).baddbmm_(left, right)
        return True

    def _form(self, a: Tensor, b: Tensor) -> _Form | None:
        key = (a.shape, a.stride(), b.shape, b.stride())
        if key not in self.forms:
            self.forms[key] = _find_form(key, self.over)
        return self.forms[key]


def _find_form(key: _Key, over: int) -> _Form | None:
    """None where there is no product of matrices: a factor without the axis, or no free axis."""
    a, a_strides, b, b_strides = key
    axes = [i for i in range(len(a)) if i != over]
    batch = [i for i in axes if a[i] != 1 and b[i] != 1]
    rows = [i for i in axes if a[i] != 1 and b[i] == 1]
    columns = [i for i in axes if a[i] == 1 and b[i] != 1]
    unit = [i for i in axes if a[i] == b[i] == 1]
    if a[over] == 1 or b[over] == 1 or not (rows or columns) or 0 in (*a, *b):
        return None
    back = [*batch, *rows, *columns, over, *unit]
    sizes = [1 if i == over else max(a[i], b[i]) for i in back]
    strides = {i: prod(sizes[place + 1 :]) for place, i in enumerate(back)}
    shape = {i: n for i, n in zip(back, sizes, strict=True)}
    whole = range(len(a))
    return _Form(
        _side(a, a_strides, (batch, rows, [over]), columns + unit),
        _side(b, b_strides, (batch, [over], columns), rows + unit),
        (tuple(shape[i] for i in whole), tuple(strides[i] for i in whole)),
        tuple(back),
        tuple(sizes),
    )


def _side(
    sizes: Sequence[int], strides: Sequence[int], groups: Sequence[list[int]], rest: list[int]
) -> _Side:
    """An operand whose axes are joined in three groups; the `rest` have length 1."""
    joined = [_joined([(sizes[i], strides[i]) for i in group]) for group in groups]
    order = [i for group in groups for i in group]
    shape = tuple(prod(sizes[i] for i in group) for group in groups)
    steps = [stride for stride in joined if stride is not None]
    view = (shape, tuple(steps)) if len(steps) == len(joined) else None
    return _Side((*order, *rest), (shape[0], shape[1], shape[2]), view)


def _joined(axes: list[tuple[int, int]]) -> int | None:
    """The stride of axes taken as one, None if they do not follow one another in memory."""
    for (_, outer), (size, inner) in pairwise(axes):
        if outer != size * inner:
            return None
    return axes[-1][1] if axes else 0
