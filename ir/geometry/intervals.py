"""Compile a predicate to interval arithmetic over many boxes of coordinates at once.

An integer expression gives the interval of its values, a predicate says whether it holds somewhere
and everywhere in each box. Beside these outer bounds goes what is known for certain: that some
point holds, and that some point does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np

from attnc.ir.expr import Apply, Expr, Index, Number, Read
from attnc.ir.geometry.extrema import Extrema
from attnc.ir.geometry.interval_arithmetic import (
    Array,
    Span,
    absolute,
    added,
    any_quotient,
    any_remainder,
    float_operator,
    monotone,
    multiplied,
    quotient,
    remainder,
    scaled,
    squared,
)
from attnc.ir.ops import OPS
from attnc.ir.walk import index_ranks, subexprs

Side: TypeAlias = Literal["none", "row", "key", "both"]


class Truth(NamedTuple):
    """Of each box: `maybe` no point holds if false, `must` all points hold if true.

    `seen`: some point holds, for certain; `gap`: some point does not. None where not asked for.
    """

    maybe: Array
    must: Array
    seen: Array
    gap: Array


class Boxes(Protocol):
    """What code runs on: boxes of coordinates, and tensors."""

    witness: bool

    def coordinate(self, name: str) -> Span:
        """First and last coordinate of each box."""
        ...

    def span(self, code: Code) -> Span:
        """The value of numeric code, computed once."""
        ...

    def truth(self, code: Code) -> Truth:
        """The value of a predicate's code, computed once."""
        ...

    def equal(self, a: Code, b: Code) -> Array | None:
        """Whether the values of `a` in a box, and of `b`, have one in common; None: not known."""
        ...

    def data(self, tensor: str) -> Array:
        """A captured tensor."""
        ...

    def extrema(self, tensor: str, ranged: tuple[int, ...]) -> Extrema:
        """Tables for boxes of some of its axes."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Code:
    """An expression as a function of boxes.

    coordinates, varying: those on which it depends, and of these those that differ inside a box
    side:      whether it depends on coordinates of rows alone, of keys alone, or on both
    attained:  both ends of its interval are values of it; of a predicate: `seen` and `gap` tell all
    dense:     every integer between the ends is a value of it
    real:      its values are floats
    """

    run: Callable[[Boxes], Any]
    coordinates: frozenset[str]
    varying: frozenset[str]
    side: Side
    attained: bool = False
    dense: bool = False
    real: bool = False


@dataclass(frozen=True, slots=True)
class Coordinates:
    """The coordinates of a predicate: those of rows and of keys, and those that never vary."""

    rows: frozenset[str]
    keys: frozenset[str]
    fixed: frozenset[str]


@dataclass(frozen=True, slots=True)
class Compiler:
    """Makes code of normal expressions (`ir.normalise_predicate`); equal ones share theirs."""

    coordinates: Coordinates
    built: dict[tuple[bool, Expr], Code] = field(default_factory=dict)

    def truth(self, e: Expr) -> Code:
        """Code of a predicate, for `Boxes.truth`."""
        found = self.built.get((True, e))
        if found is None:
            found = self.built[True, e] = self._truth(e)
        return found

    def span(self, e: Expr) -> Code:
        """Code of a number, for `Boxes.span`."""
        found = self.built.get((False, e))
        if found is None:
            found = self.built[False, e] = self._span(e)
        return found

    def _code(
        self,
        e: Expr,
        run: Callable[[Boxes], Any],
        attained: bool = False,
        dense: bool = False,
        real: bool = False,
    ) -> Code:
        read = index_ranks(e)
        varying = read - self.coordinates.fixed
        side: Side = "both"
        if not read:
            side = "none"
        elif read <= self.coordinates.rows:
            side = "row"
        elif read <= self.coordinates.keys:
            side = "key"
        # Integers are computed exactly where nothing varies, floats are rounded outwards.
        single = not varying and not any(map(_is_float, subexprs(e)))
        return Code(run, read, varying, side, attained or single, dense or single, real)

    def _truth(self, e: Expr) -> Code:
        match e:
            case Number(value):
                holds = bool(value)
                return self._code(e, lambda boxes: Truth(holds, holds, holds, not holds))
            case Read():
                return self._read(e, True)
            case Apply("not", (a,)):
                inner = self.truth(a)
                run = lambda boxes: _negated(boxes.truth(inner))  # noqa: E731
                return self._code(e, run, inner.attained)
            case Apply("and" | "or" as op, (a, b)):
                left, right = self.truth(a), self.truth(b)
                apart = not left.varying & right.varying
                join = _conjunction if op == "and" else _disjunction
                return self._code(
                    e,
                    lambda boxes: join(boxes.truth(left), boxes.truth(right), apart),
                    apart and left.attained and right.attained,
                )
            case Apply(op, (a, b)):
                return self._compare(e, op, self.span(a), self.span(b))
            case _:
                raise AssertionError(f"no normal predicate: {e}")

    def _compare(self, e: Expr, op: str, a: Code, b: Code) -> Code:
        real = a.real or b.real
        exact = a.attained and b.attained and not a.varying & b.varying and not real
        if op in ("gt", "ge"):
            op, a, b = {"gt": "lt", "ge": "le"}[op], b, a
        if op in ("eq", "ne"):
            run = _equality(a, b, exact, op == "ne", self._joins(a, b))
            return self._code(e, run, exact and a.dense and b.dense)
        strict = op == "lt"

        def ordered(boxes: Boxes) -> Truth:
            (low_a, high_a), (low_b, high_b) = boxes.span(a), boxes.span(b)
            maybe = low_a < high_b if strict else low_a <= high_b
            must = high_a < low_b if strict else high_a <= low_b
            if not boxes.witness:
                return Truth(maybe, must, None, None)
            if exact:
                return Truth(maybe, must, maybe, _not(must))
            return Truth(maybe, must, must, _not(maybe))

        return self._code(e, ordered, exact)

    def _joins(self, a: Code, b: Code) -> bool:
        """Whether pairs of boxes with an equal value are worth looking for."""
        apart = a.side == "row" and a.varying and b.varying and b.varying <= self.coordinates.keys
        return bool(apart) and not (a.real or b.real or (a.dense and b.dense))

    def _span(self, e: Expr) -> Code:
        match e:
            case Number(value):
                number = int(value) if isinstance(value, bool) else value
                real = isinstance(value, float)
                return self._code(e, lambda boxes: (number, number), real=real)
            case Index(rank):
                return self._code(e, lambda boxes: boxes.coordinate(rank), True, True)
            case Read():
                return self._read(e, False)
            case Apply("select", (c, a, b)):
                return self._select(e, self.truth(c), self.span(a), self.span(b))
            case Apply(op, args):
                codes = tuple(map(self.span, args))
                apart = len(args) < 2 or not codes[0].varying & codes[1].varying
                attained = apart and all(c.attained for c in codes)
                dense = apart and all(c.dense for c in codes)
                if any(c.real for c in codes):
                    return self._code(e, _real(op, codes), real=True)
                match op, args:
                    case "add", _:
                        return self._code(e, _binary(added, *codes), attained, dense)
                    case "min" | "max", _:
                        of = np.minimum if op == "min" else np.maximum
                        return self._code(e, _binary(monotone(of), *codes), attained, dense)
                    case "mul", (Number(int() as factor), _):
                        attained, dense = codes[1].attained, codes[1].dense
                        run = _unary(scaled(factor), codes[1])
                        return self._code(e, run, attained, dense and abs(factor) == 1)
                    case "mul", (a, b) if a == b:
                        attained = codes[0].attained and codes[0].dense
                        return self._code(e, _unary(squared, codes[0]), attained)
                    case "mul", _:
                        return self._code(e, _binary(multiplied, *codes), attained)
                    case "abs", _:
                        return self._code(e, _unary(absolute, *codes), attained and dense, dense)
                    case "floordiv", (_, Number(int() as d)) if d > 0:
                        return self._code(e, _unary(quotient(d), codes[0]), attained, dense)
                    case "mod", (_, Number(int() as d)) if d > 0:
                        return self._code(e, _unary(remainder(d), codes[0]), attained and dense)
                    case "floordiv", _:
                        attained = attained and not codes[1].varying
                        return self._code(e, _binary(any_quotient, *codes), attained)
                    case "mod", _:
                        return self._code(e, _binary(any_remainder, *codes))
                    case _:
                        return self._code(e, _real(op, codes), real=True)
            case _:
                raise AssertionError(f"no normal expression: {e}")

    def _select(self, e: Expr, c: Code, a: Code, b: Code) -> Code:
        def run(boxes: Boxes) -> Span:
            chosen, (low_a, high_a), (low_b, high_b) = boxes.truth(c), boxes.span(a), boxes.span(b)
            low = np.where(chosen.maybe, np.minimum(low_a, low_b), low_b)
            high = np.where(chosen.maybe, np.maximum(high_a, high_b), high_b)
            return np.where(chosen.must, low_a, low), np.where(chosen.must, high_a, high)

        return self._code(e, run, real=a.real or b.real)

    def _read(self, e: Read, as_truth: bool) -> Code:
        codes = tuple(map(self.span, e.indices))
        ranged = tuple(i for i, c in enumerate(codes) if c.varying)
        single = tuple(i for i, c in enumerate(codes) if not c.varying)
        tensor = e.tensor
        free = sum(len(codes[i].varying) for i in ranged)
        apart = free == len(frozenset().union(*(codes[i].varying for i in ranged)))
        exact = apart and all(codes[i].dense and codes[i].attained for i in ranged)
        exact = exact and len(ranged) <= (2 if as_truth else 1)

        def values(boxes: Boxes) -> Span:
            spans = [boxes.span(c) for c in codes]
            if not ranged:
                found = boxes.data(tensor)[tuple(s[0] for s in spans)]
                return found, found
            return boxes.extrema(tensor, ranged).query(
                [spans[i][0] for i in single],
                [spans[i][0] for i in ranged],
                [spans[i][1] for i in ranged],
            )

        if not as_truth:
            return self._code(e, _widened(values), exact)

        def run(boxes: Boxes) -> Truth:
            must, maybe = values(boxes)
            if not boxes.witness:
                return Truth(maybe, must, None, None)
            if exact:
                return Truth(maybe, must, maybe, _not(must))
            return Truth(maybe, must, must, _not(maybe))

        return self._code(e, run, exact)


def _is_float(e: Expr) -> bool:
    match e:
        case Number(value):
            return isinstance(value, float)
        case Apply(op, _):
            return OPS[op].result == "float"
        case _:
            return False


def _widened(values: Callable[[Boxes], Span]) -> Callable[[Boxes], Span]:
    """Elements as 64-bit integers, so that no arithmetic on them wraps around."""

    def run(boxes: Boxes) -> Span:
        low, high = values(boxes)
        return low.astype(np.int64), high.astype(np.int64)

    return run


def _not(x: Array) -> Array:
    return not x if isinstance(x, bool) else ~x


def _negated(x: Truth) -> Truth:
    return Truth(_not(x.must), _not(x.maybe), x.gap, x.seen)


def _conjunction(a: Truth, b: Truth, apart: bool) -> Truth:
    """`apart`: they depend on different coordinates, so points of both can be met at once."""
    maybe, must = a.maybe & b.maybe, a.must & b.must
    if a.seen is None or b.seen is None:
        return Truth(maybe, must, None, None)
    seen = a.seen & b.seen if apart else (a.seen & b.must) | (a.must & b.seen)
    return Truth(maybe, must, seen, a.gap | b.gap)


def _disjunction(a: Truth, b: Truth, apart: bool) -> Truth:
    return _negated(_conjunction(_negated(a), _negated(b), apart))


def _equality(
    a: Code, b: Code, exact: bool, differs: bool, joins: bool
) -> Callable[[Boxes], Truth]:
    def run(boxes: Boxes) -> Truth:
        (low_a, high_a), (low_b, high_b) = boxes.span(a), boxes.span(b)
        common = boxes.equal(a, b) if joins else None
        maybe = (low_a <= high_b) & (low_b <= high_a) if common is None else common
        must = (high_a <= low_b) & (high_b <= low_a)
        found = Truth(maybe, must, None, None)
        if boxes.witness:
            seen, gap = must, _not(maybe)
            if exact:
                gap = _not(must)
                seen = maybe
                if not (a.dense and b.dense):
                    seen = _meet(a, b, (low_a, high_a), (low_b, high_b))
            if common is not None:
                seen = common
            found = Truth(maybe, must, seen, gap)
        return _negated(found) if differs else found

    return run


def _meet(a: Code, b: Code, x: Span, y: Span) -> Array:
    """Whether an end of one interval is certain to be a value of the other."""
    if b.dense:
        a, b, x, y = b, a, y, x
    if a.dense:
        return ((x[0] <= y[0]) & (y[0] <= x[1])) | ((x[0] <= y[1]) & (y[1] <= x[1]))
    return (x[0] == y[0]) | (x[0] == y[1]) | (x[1] == y[0]) | (x[1] == y[1])


def _unary(of: Callable[[Array, Array], Span], a: Code) -> Callable[[Boxes], Span]:
    return lambda boxes: of(*boxes.span(a))


def _binary(of: Callable[[Span, Span], Span], a: Code, b: Code) -> Callable[[Boxes], Span]:
    return lambda boxes: of(boxes.span(a), boxes.span(b))


def _real(op: str, codes: tuple[Code, ...]) -> Callable[[Boxes], Span]:
    return lambda boxes: float_operator(op, [boxes.span(c) for c in codes])
