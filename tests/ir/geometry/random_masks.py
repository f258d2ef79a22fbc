"""Random predicates and spaces to cut into tiles: all operators, reads, flat tiles and grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from random import Random
from typing import Any

import numpy as np

from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read, call
from attnc.ir.frame import ParamValue
from attnc.ir.geometry.tile_classes import Axis, Bound
from attnc.ir.geometry.value_bounds import ValueBounds
from attnc.ir.walk import subexprs, substitute

TRUE = Number(True)
_COMPARE = ("lt", "le", "gt", "ge", "eq", "ne")
_INTEGER = (
    *("add", "sub", "sub", "mul", "floordiv", "mod", "by", "rest", "min", "max", "clamp", "neg"),
    *("abs", "select", "line", "line", "plane", "square", "difference"),
)
_TILES = (1, 2, 3, 4, 5, 8, 16)


@dataclass(frozen=True, slots=True)
class Case:
    """A predicate, the tiles of its space, and what it is evaluated with."""

    predicate: Expr
    rows: tuple[Axis, ...]
    keys: tuple[Axis, ...]
    bound: Bound
    exists: Expr = TRUE


def random_case(r: Random) -> Case:
    """A space of one to three components a side, whole or by components, and predicates over it."""
    make = r.choice((_line, _line, _heads, _flat, _mixed, _grid))
    rows, keys, extents, components, names = make(r)
    extents |= {a.name: a.extent for a in rows + keys}
    extents |= {w: prod(extents[c] for c in cs) for w, cs in components.items()}
    params: dict[str, ParamValue] = {
        "w": r.randint(0, 9),
        "c": r.random() < 0.5,
        "p": (r.randint(1, 4), r.randint(-2, 5)),
        "f": r.choice((0.5, 2.0)),
    }
    bound = Bound(extents, params, _tensors(r), components)
    write = _Writer(r, names)
    predicate = write.truth(r.choice((1, 2, 3)))
    while r.random() < 0.4:
        predicate = call("and", predicate, write.truth(1))
    exists = write.truth(1) if r.random() < 0.25 else TRUE
    return Case(predicate, rows, keys, bound, exists)


def plain_predicate(case: Case) -> Expr | None:
    """The predicate with numbers put in; None for grids, empty axes, and where it may be absent."""
    if case.bound.components or 0 in (a.extent for a in case.rows + case.keys):
        return None
    constants: dict[Expr, Expr] = {}
    for e in subexprs(case.predicate):
        match e:
            case Extent(rank):
                constants[e] = Number(case.bound.extents[rank])
            case Param(name, item):
                value = case.bound.params[name]
                constants[e] = Number(value[item or 0] if isinstance(value, tuple) else value)
            case Apply("floordiv" | "mod", (_, b)) if not isinstance(b, Number) or not b.value:
                return None
            case _:
                pass
    return substitute(case.predicate, constants)


def bounds_of(case: Case) -> ValueBounds:
    """What values the parts of its predicate can take."""
    data = case.bound.tensors
    return ValueBounds(
        {a.name: a.extent for a in case.rows + case.keys},
        {n: (int(x.min()), int(x.max())) if x.size else (0, 0) for n, x in data.items()},
        {n: "bool" if x.dtype == bool else "int" for n, x in data.items()},
        {n: x.shape for n, x in data.items()},
    )


Space = tuple[
    tuple[Axis, ...], tuple[Axis, ...], dict[str, int], dict[str, tuple[str, ...]], list[str]
]


def _line(r: Random) -> Space:
    rows = (Axis("m", r.choice((0, 1, 2, 17, 33, 40, 64)), r.choice(_TILES)),)
    keys = (Axis("n", r.choice((1, 2, 16, 31, 40, 90)), r.choice(_TILES)),)
    return rows, keys, {}, {}, ["m", "n"]


def _heads(r: Random) -> Space:
    rows, keys, extents, components, names = _line(r)
    return (Axis("h", r.choice((1, 2, 3)), 1), *rows), keys, extents, components, ["h", *names]


def _components(r: Random, most: int) -> tuple[dict[str, int], dict[str, tuple[str, ...]]]:
    k = r.choice((2, 2, 3))
    sides = {w: tuple(f"{w}{c}" for c in "tyx"[:k]) for w in "mn"}
    return {c: r.randint(1, most - k) for cs in sides.values() for c in cs}, sides


def _whole(r: Random, name: str, extents: dict[str, int], parts: tuple[str, ...]) -> Axis:
    return Axis(name, prod(extents[p] for p in parts), r.choice(_TILES))


def _apart(r: Random, extents: dict[str, int], parts: tuple[str, ...]) -> tuple[Axis, ...]:
    return tuple(Axis(p, extents[p], r.randint(1, 3)) for p in parts)


def _names(r: Random, sides: dict[str, tuple[str, ...]]) -> list[str]:
    return [c for cs in sides.values() for c in cs] + r.choice(([], ["m"], ["n"], ["m", "n"]))


def _flat(r: Random) -> Space:
    extents, sides = _components(r, 7)
    rows, keys = ((_whole(r, w, extents, parts),) for w, parts in sides.items())
    return rows, keys, extents, sides, _names(r, sides)


def _mixed(r: Random) -> Space:
    extents, sides = _components(r, 7)
    rows = (_whole(r, "m", extents, sides["m"]),)
    return rows, _apart(r, extents, sides["n"]), extents, sides, _names(r, sides)


def _grid(r: Random) -> Space:
    extents, sides = _components(r, 8)
    rows, keys = (_apart(r, extents, parts) for parts in sides.values())
    return rows, keys, extents, sides, _names(r, sides)


def _tensors(r: Random) -> dict[str, Any]:
    data = np.random.default_rng(r.randint(0, 999))
    return {
        "some": data.integers(-3, 9, r.choice((1, 7, 50))),
        "sorted": np.sort(data.integers(0, 9, 40)),
        "none": np.zeros(0, np.int64),
        "table": data.integers(-4, 9, (3, 20)).astype(np.int32),
        "flag": data.random(40) < 0.5,
        "block": data.random((r.choice((1, 3, 9)), r.choice((2, 9)))) < r.choice((0.2, 0.5, 0.9)),
    }


@dataclass(frozen=True, slots=True)
class _Writer:
    r: Random
    names: list[str]

    def index(self) -> Expr:
        return Index(self.r.choice(self.names))

    def leaf(self) -> Expr:
        r = self.r
        found: Callable[[], Expr] = r.choice(
            (
                *(self.index,) * 5,
                lambda: Number(r.randint(-3, 12)),
                lambda: Param("w"),
                lambda: Param("p", r.randint(0, 1)),
                lambda: Extent(r.choice(self.names)),
            )
        )
        return found()

    def integer(self, depth: int) -> Expr:
        r = self.r
        if depth == 0 or r.random() < 0.2:
            return self.leaf()
        op = r.choice(_INTEGER)

        def inner() -> Expr:
            return self.integer(depth - 1)

        match op:
            case "by" | "rest":
                divisor = r.choice((2, 3, 4, 7, 8, 1, 5, -3, 0))
                return call("floordiv" if op == "by" else "mod", inner(), Number(divisor))
            case "clamp":
                return call(op, inner(), Number(r.randint(-2, 4)), Number(r.randint(3, 20)))
            case "neg" | "abs":
                return call(op, inner())
            case "select":
                return call(op, self.truth(depth - 1), inner(), inner())
            case "line":
                names = ("some", "sorted", "sorted", "none")
                return Read(r.choice(names), (inner(),))
            case "plane":
                return Read("table", (inner(), inner()))
            case "square":
                x = inner()
                return call("mul", x, x)
            case "difference":
                return call("sub", self.index(), self.index())
            case _:
                return call(op, inner(), inner())

    def truth(self, depth: int) -> Expr:
        if depth <= 0 or self.r.random() < 0.5:
            return self.atom(max(0, depth))
        op = self.r.choice(("and", "and", "and", "or", "not", "select", "same"))
        match op:
            case "not":
                return call(op, self.truth(depth - 1))
            case "select":
                flag = call("eq", Param("c"), TRUE)
                condition = self.truth(depth - 2) if self.r.random() < 0.6 else flag
                return Apply(op, (condition, self.truth(depth - 1), self.truth(depth - 1)))
            case "same":
                op = self.r.choice(("eq", "ne", "lt", "ge"))
        return call(op, self.truth(depth - 1), self.truth(depth - 1))

    def atom(self, depth: int) -> Expr:
        r = self.r
        match r.randint(0, 29):
            case 0 | 1 | 2:
                return Read("flag", (self.integer(1),))
            case 3 | 4 | 5:
                return Read("block", (self.integer(1), self.integer(1)))
            case 6:
                return Number(r.random() < 0.5)
            case 7 | 8:
                scaled = call("mul", call("float", self.integer(1)), Param("f"))
                return call(r.choice(_COMPARE), scaled, self.integer(1))
            case 9:
                return call("le", call("pow", self.integer(1), Number(2)), self.integer(2))
            case _:
                return call(r.choice(_COMPARE), self.integer(depth), self.integer(depth // 2))
