"""Random statements against the semantics spelled out point by point in plain Python."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from attnc.ir.cascade import Einsum
from attnc.ir.expr import Apply, Expr, Index, Number, Read, call
from attnc.ir.interpret import Scope, Value, run_einsum
from attnc.ir.ops import REDUCTIONS
from tests.ir.written import statement

inf = math.inf
SIZES = {"i": 3, "j": 2, "k": 4}
IDENTITY = {name: r.identity for name, r in REDUCTIONS.items()}
MERGE: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda a, b: a + b,
    "prod": lambda a, b: a * b,
    "max": max,
    "min": min,
}

Point = dict[str, int]


def at(e: Expr, p: Point, tensors: dict[str, np.ndarray]) -> Any:
    """The value of an expression at a point; None where it is absent."""
    match e:
        case Number(value):
            return value
        case Index(rank):
            return p[rank]
        case Read(tensor, indices):
            found = [at(i, p, tensors) for i in indices]
            return None if None in found else tensors[tensor][tuple(found)].item()
        case Apply("select", (c, a, b)):
            chosen = at(c, p, tensors)
            return None if chosen is None else at(a if chosen else b, p, tensors)
        case Apply("or_else", (a, b)):
            found = at(a, p, tensors)
            return at(b, p, tensors) if found is None else found
        case Apply("given", (a, c)):
            return at(a, p, tensors) if at(c, p, tensors) else None
        case Apply(op, args):
            values = [at(a, p, tensors) for a in args]
            return None if None in values else operate(op, values)
    raise AssertionError(e)


def operate(op: str, v: list[Any]) -> Any:
    match op:
        case "add":
            return v[0] + v[1]
        case "sub":
            return None if v[0] == v[1] == -inf else v[0] - v[1]
        case "mul":
            return v[0] * v[1]
        case "div":
            return None if v[1] == 0 else v[0] / v[1]
        case "neg":
            return -v[0]
        case "max" | "min":
            return math.nan if any(map(math.isnan, v)) else {"max": max, "min": min}[op](v)
        case "exp":
            return inf if v[0] > 700 else math.exp(v[0])
        case "abs":
            return abs(v[0])
        case "float":
            return float(v[0])
        case "le":
            return v[0] <= v[1]
        case "gt":
            return v[0] > v[1]
        case "and":
            return v[0] and v[1]
        case "or":
            return v[0] or v[1]
        case "not":
            return not v[0]
        case "mod":
            return v[0] % v[1]
    raise AssertionError(op)


def number(r: random.Random, depth: int) -> Expr:
    """A float expression over ranks i, j, k."""
    if depth == 0 or r.random() < 0.15:
        leaves: list[Expr] = [
            Read("A", (Index("i"), Index("k"))),
            Read("B", (Index("k"), Index("j"))),
            Read("C", (Index("j"),)),
            Read("A", (call("mod", Index("k"), Number(3)), Index("k"))),
            Read("B", (Read("idx", (Index("i"), Index("j"))), Index("j"))),
            call("float", Index(r.choice("ijk"))),
            Number(r.choice([0.0, 2.0, -1.5, -inf])),
        ]
        return r.choice(leaves)
    op = r.choice("add sub mul mul div max min neg exp abs select or_else given".split())
    arity = {"neg": 1, "exp": 1, "abs": 1}.get(op, 2)
    args = tuple(number(r, depth - 1) for _ in range(arity))
    if op == "select":
        return Apply(op, (truth(r, 1), *args))
    return call(op, args[0], truth(r, 1)) if op == "given" else Apply(op, args)


def truth(r: random.Random, depth: int) -> Expr:
    if depth == 0 or r.random() < 0.4:
        if r.random() < 0.5:
            return call(r.choice(["le", "gt"]), Index(r.choice("ijk")), Index(r.choice("ijk")))
        return call(r.choice(["le", "gt"]), number(r, 1), number(r, 0))
    op = r.choice(["and", "or", "not"])
    return Apply(op, tuple(truth(r, depth - 1) for _ in range(1 if op == "not" else 2)))


@pytest.mark.parametrize("memory", [1 << 20, 100])
@pytest.mark.parametrize("seed", range(40))
def test_statements_mean_what_their_points_mean(seed: int, memory: int) -> None:
    r = random.Random(seed)
    rng = np.random.default_rng(seed)
    values = np.array([-inf, -2.0, -0.5, 0.0, 0.0, 1.0, 3.0])
    tensors = {
        "A": rng.choice(values, (3, 4)),
        "B": rng.choice(values, (4, 2)),
        "C": rng.choice(values, (2,)),
        "idx": rng.integers(0, 4, (3, 2)),
    }
    axes = {"A": ("i", "k"), "B": ("k", "j"), "C": ("j",), "idx": ("i", "j")}
    scope = Scope(
        tensors={n: Value(x, axes[n]) for n, x in tensors.items()},
        extents=SIZES,
        memory_bytes=memory,
    )
    for op in (None, "sum", "prod", "max", "min"):
        template = statement("Y[i, j] = sum(k) 1.0" if op else "Y[i, j, k] = 1.0")
        assert isinstance(template, Einsum)
        where = truth(r, 2) if r.random() < 0.5 else None
        reduce = template.reduce and type(template.reduce)(op or "", ("k",))
        e = Einsum("Y", template.indices, number(r, 3), reduce, where)
        found = run_einsum(e, scope)
        mask = True if found.present is None else found.present
        present = np.broadcast_to(mask, found.data.shape)
        for i, j in product(range(3), range(2)):
            points = [{"i": i, "j": j, "k": k} for k in range(4)]
            whole = e.expr if where is None else call("given", e.expr, where)
            seen = [at(whole, p, tensors) for p in points]
            if op is None:
                assert [x is not None for x in seen] == present[i, j].tolist(), e
                pairs = [
                    (x, y) for x, y in zip(seen, found.data[i, j], strict=True) if x is not None
                ]
            else:
                total = IDENTITY[op]
                for x in seen:
                    if x is not None:
                        total = MERGE[op](total, x)
                if any(x is not None and math.isnan(x) for x in seen):
                    total = math.nan
                pairs = [(total, found.data[i, j])]
            for expected, ours in pairs:
                np.testing.assert_allclose(ours, expected, rtol=1e-12, err_msg=str(e))
