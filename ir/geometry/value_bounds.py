"""Bounds of integer expressions over all of their coordinates, in Python's unbounded integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Literal, TypeAlias

from attnc.errors import AttncError
from attnc.ir.expr import Apply, Expr, Index, Number, Read
from attnc.ir.geometry.linear import Linear

Range: TypeAlias = tuple[int, int]
Kind: TypeAlias = Literal["int", "bool"]
# Sums of what stays below this cannot leave 64 bits on the way.
_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class ValueBounds:
    """What values a predicate's parts can take.

    extents:  of the coordinates
    ranges:   smallest and largest element of each tensor; (0, 0) for none
    kinds:    of the tensors' elements
    shapes:   of the tensors
    """

    extents: Mapping[str, int]
    ranges: Mapping[str, Range]
    kinds: Mapping[str, Kind]
    shapes: Mapping[str, tuple[int, ...]]
    known: dict[Expr, Range] = field(default_factory=dict)

    def of(self, e: Expr) -> Range:
        """(smallest, largest) possible value. AttncError E518 if it may not fit in 64 bits."""
        found = self.known.get(e)
        if found is None:
            found = self._of(e)
            if max(abs(found[0]), abs(found[1])) >= _LIMIT:
                raise AttncError(
                    "E518",
                    f"the predicate computes values up to {max(map(abs, found))}, "
                    "which 64 bits cannot hold",
                    hint="choose smaller params or extents",
                )
            self.known[e] = found
        return found

    def of_sum(self, x: Linear) -> Range:
        """The same for a linear combination."""
        low = high = x.const
        for term, factor in x.terms:
            a, b = self.of(term)
            low += factor * (a if factor > 0 else b)
            high += factor * (b if factor > 0 else a)
        if max(abs(low), abs(high)) >= _LIMIT // 2:
            self.of(x.expr)
        return low, high

    def _of(self, e: Expr) -> Range:
        match e:
            case Number(value):
                return int(value), int(value)
            case Index(rank):
                return 0, max(0, self.extents[rank] - 1)
            case Read(tensor, _):
                return self.ranges[tensor]
            case Apply("select", (_, a, b)):
                found = (self.of(a), self.of(b))
                return min(x[0] for x in found), max(x[1] for x in found)
            case Apply(op, args):
                return _apply(op, tuple(map(self.of, args)), args)
            case _:
                raise AssertionError(f"no integer: {e}")


def _apply(op: str, ranges: tuple[Range, ...], args: tuple[Expr, ...]) -> Range:
    (a, b), rest = ranges[0], ranges[1:]
    match op:
        case "abs":
            return (0 if a <= 0 <= b else min(abs(a), abs(b))), max(abs(a), abs(b))
        case "add":
            return a + rest[0][0], b + rest[0][1]
        case "min":
            return min(a, rest[0][0]), min(b, rest[0][1])
        case "max":
            return max(a, rest[0][0]), max(b, rest[0][1])
        case "mul":
            corners = [x * y for x, y in product((a, b), rest[0])]
            low = 0 if args[0] == args[1] and a <= 0 <= b else min(corners)
            return (low if args[0] != args[1] else max(low, 0)), max(corners)
        case "floordiv":
            if rest[0][0] > 0 or rest[0][1] < 0:
                quotients = [x // y for x, y in product((a, b), rest[0])]
                return min(quotients), max(quotients)
            most = max(abs(a), abs(b))
            return -most, most
        case "mod":
            low, high = rest[0]
            return min(0, low + 1), max(0, high - 1)
        case _:
            raise AssertionError(f"no integer operator: {op}")
