"""Cascades for tests, from lines that read like a spec: Python's grammar, turned into IR nodes."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from attnc.ir.cascade import (
    Cascade,
    Concat,
    DType,
    Einsum,
    ParamDecl,
    Rank,
    Reduction,
    Select,
    Statement,
    TensorDecl,
)
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read

_BINARY = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    # `/` of integers
    ast.MatMult: "exactdiv",
}
_COMPARE = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne"}


def expression(text: str, params: Sequence[str] = ()) -> Expr:
    """`exp(S[m, n] - G[m])`; lower-case names are ranks, others extents; `@` is exactdiv."""
    return _expr(ast.parse(text, mode="eval").body, tuple(params))


def _expr(node: ast.expr, params: tuple[str, ...]) -> Expr:
    def go(n: ast.expr) -> Expr:
        return _expr(n, params)

    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return Number(value)
        case ast.Name(id="inf"):
            return Number(float("inf"))
        case ast.Name(id=name) if name in params:
            return Param(name)
        case ast.Name(id=name):
            return Extent(name.lower()) if name.isupper() else Index(name)
        case ast.Subscript(ast.Name(id=name), ast.Constant(value=int() as item)) if name in params:
            return Param(name, item)
        case ast.Subscript(ast.Name(id=name), ast.Tuple(elts=items)):
            return Read(name, tuple(map(go, items)))
        case ast.Subscript(ast.Name(id=name), item):
            return Read(name, (go(item),))
        case ast.Call(ast.Name(id=name), args):
            return Apply(name.rstrip("_"), tuple(map(go, args)))
        case ast.BinOp(a, op, b):
            return Apply(_BINARY[type(op)], (go(a), go(b)))
        case ast.UnaryOp(ast.USub(), ast.Constant(value=int() | float() as value)):
            return Number(-value)
        case ast.UnaryOp(op, a):
            return Apply("neg" if isinstance(op, ast.USub) else "not", (go(a),))
        case ast.Compare(a, [op], [b]):
            return Apply(_COMPARE[type(op)], (go(a), go(b)))
        case ast.BoolOp(op, values):
            first, *rest = map(go, values)
            for v in rest:
                first = Apply("and" if isinstance(op, ast.And) else "or", (first, v))
            return first
        case ast.IfExp(c, a, b):
            return Apply("select", (go(c), go(a), go(b)))
    raise AssertionError(ast.dump(node))


def statement(line: str, params: Sequence[str] = (), dtype: DType = "float") -> Statement:
    """`O[m, e] = sum(n) P[m, n] * V[n, e] where n <= m`; also `topk(c, 8)`, `concat(n: x, y)`."""
    left, right = line.split("=", 1)
    right, _, predicate = right.partition(" where ")
    where = expression(predicate.strip(), params) if predicate else None
    target = expression(left.strip(), params)
    assert isinstance(target, Read)
    name, indices = target.tensor, target.indices
    if found := re.match(r"\s*(topk|topp)\((\w+), (.+?)\) (.*)", right):
        op, rank, amount, body = found.groups()
        value, count = expression(body, params), expression(amount, params)
        if op == "topk":
            return Select(name, indices, "topk", rank, count, value, where)
        return Select(name, indices, "topp", rank, count, value, where)
    if found := re.match(r"\s*concat\((\w+): ([\w, ]+)\) (.*)", right):
        rank, ranks, body = found.groups()
        parts = tuple(expression(x, params) for x in body.split("; "))
        return Concat(name, indices, rank, parts, tuple(ranks.split(", ")), where)
    if found := re.match(r"\s*(sum|max|min|prod|any|all)\(([\w, ]+)\) (.*)", right):
        op, ranks, body = found.groups()
        reduction = Reduction(op, tuple(ranks.split(", ")))
        return Einsum(name, indices, expression(body, params), reduction, where, dtype)
    return Einsum(name, indices, expression(right.strip(), params), None, where, dtype)


def cascade(
    text: str,
    outputs: str,
    *,
    inputs: str,
    grids: Sequence[tuple[str, ...]] = (),
    params: Sequence[ParamDecl] = (),
    typed: Sequence[tuple[str, DType]] = (),
) -> Cascade:
    """Statements one a line; inputs as `Q[m, d] K[n, d]`; grids as (parent, components...).

    `typed` gives the dtype of inputs and tensors that are not float.
    """
    names = [p.name for p in params]
    kinds: dict[str, DType] = dict(typed)
    statements = tuple(
        statement(line.strip(), names, kinds.get(line.strip().split("[")[0], "float"))
        for line in text.strip().splitlines()
    )
    declared = []
    for name, axes in re.findall(r"(\w+)\[([\w, ]*)\]", inputs):
        ranks = tuple(a for a in axes.split(", ") if a)
        declared.append(TensorDecl(name, ranks, kinds.get(name, "float")))
    parents = {c: g[0] for g in grids for c in g[1:]}
    components = {g[0]: g[1:] for g in grids}
    used = dict.fromkeys(
        [r for t in declared for r in t.ranks]
        + [r for g in grids for r in g]
        + re.findall(r"\b[a-z]\w*\b(?![\[(])", text)
    )
    keywords = {"where", "if", "else", "and", "or", "not", "inf", *names}
    declared_ranks = tuple(
        Rank(r, components.get(r, ()), parents.get(r)) for r in used if r not in keywords
    )
    return Cascade(
        "written",
        declared_ranks,
        tuple(params),
        tuple(declared),
        statements,
        tuple(outputs.split()),
    )
