"""Macros: a call becomes statements, in names of the spec.

A macro is closed: its body sees its formals and its own tensors only, so no name of the spec can be
captured and none of its own can leak. Its ranks stand for the caller's; every other rank of the
argument is carried along by each of its tensors.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from attnc.dsl import tree
from attnc.dsl.parse import parse_file
from attnc.dsl.scope import Local, Scope
from attnc.dsl.statement import Right, Statements
from attnc.dsl.typed import UNKNOWN, Typed, coordinate, extent
from attnc.ir.expr import Expr, Index, Read

# What an expansion costs beside the expressions in it.
_STEPS = 20


@cache
def prelude() -> tuple[tree.Macro, ...]:
    """The macros that every spec can use, in the language itself."""
    path = Path(__file__).parent / "prelude.attn"
    items = parse_file(path.read_text("utf-8"), path.name).items
    return tuple(i for i in items if isinstance(i, tree.Macro))


class Expansion(Statements):
    """Collects the statements of the cascade, those of macros included."""

    def expand(self, e: tree.Over | tree.Call, scope: Scope, top: bool) -> Right:
        with self.nested(e.span, scope):
            return _expand(self, e, scope, top)


def _expand(to: Statements, e: tree.Over | tree.Call, scope: Scope, top: bool) -> Right:
    """The right side that a macro call stands for; its statements are added `to` the cascade."""
    macro, span = to.symbols.macros[e.fn], scope.place(e.span)
    if not to.affords(_STEPS, e.span, scope) or e.fn in to.symbols.broken_macros:
        return Right(UNKNOWN)
    if not _fits(to, macro, e, scope):
        return Right(UNKNOWN)
    formals = dict(zip((f.name for f in macro.formals), e.args, strict=False))
    names = macro.rank_formals
    ranks = to.rank_names((formals[n] for n in names), scope, e.fn)
    if len(ranks) != len(names):
        return Right(UNKNOWN)
    inside = scope.bind(ranks)
    body = Scope(
        ranks=inside.ranks,
        actual=dict(zip(names, ranks, strict=True)),
        macro=e.fn,
        exact=scope.exact,
        target=scope.target,
        span=span,
    )
    body = _scalars(to, macro, formals, inside, body)
    where = None
    tensors: dict[str, Local] = {}
    if macro.argument is not None and isinstance(e, tree.Over):
        where = to.inner_where(ranks, inside, top)
        argument = _argument(to, macro.argument, e, where, inside, body)
        if argument is None:
            return Right(UNKNOWN)
        tensors[macro.argument.name] = argument
    free = {r for t in tensors.values() for r in t.free}
    lead = (free | set(to.free(body.names.values(), inside))) - set(ranks)
    for assign in macro.body:
        tensors[assign.target.name] = _define(to, assign, lead, replace(body, tensors=tensors))
    result = to.right(macro.result, replace(body, tensors=tensors), top)
    if top and macro.argument is None:
        result = replace(result, where=to.outer_where(scope))
    return _bound(to, e, result, ranks, scope)


def _fits(to: Statements, macro: tree.Macro, e: tree.Over | tree.Call, scope: Scope) -> bool:
    """Whether a call has the macro's shape; reports it if not."""
    name, count = macro.name.name, len(e.args)
    needed = sum(f.default is None for f in macro.formals)
    if not needed <= count <= len(macro.formals):
        most = len(macro.formals)
        wanted = str(needed) if needed == most else f"{needed} to {most}"
        message = f"`{name}` takes {wanted} arguments, {count} given"
        to.fail("E402", message, e.span, scope, f"it is `{signature(macro)}`")
        return False
    if (macro.argument is None) != isinstance(e, tree.Call):
        message = f"`{name}` takes nothing to its right"
        if macro.argument is not None:
            message = f"`{name}` has nothing to its right"
        to.fail("E407", message, e.span, scope, f"it is `{signature(macro)}`")
        return False
    return True


def signature(macro: tree.Macro) -> str:
    """How a call of the macro looks."""
    head = f"{macro.name.name}({', '.join(f.name for f in macro.formals)})"
    if macro.argument is None:
        return head
    ranks = ", ".join(r.name for r in macro.argument.ranks)
    return f"{head} {macro.argument.name}[{ranks}]"


def _scalars(
    to: Statements,
    macro: tree.Macro,
    given: dict[str, tree.Expr],
    inside: Scope,
    body: Scope,
) -> Scope:
    """The body's scope with a value for each formal: coordinates and extents of ranks, scalars."""
    names: dict[str, Typed] = {}
    for name, rank in body.actual.items():
        names[name] = coordinate(rank)
        names[name.upper()] = extent(rank)
    for formal in macro.formals:
        if formal.name in body.actual:
            continue
        if formal.name in given:
            names[formal.name] = to.value(given[formal.name], inside)
        elif formal.default is not None:
            names[formal.name] = to.value(formal.default, replace(body, names=dict(names)))
    return replace(body, names=names)


def _argument(
    to: Statements,
    argument: tree.Argument,
    e: tree.Over,
    where: Typed | None,
    inside: Scope,
    body: Scope,
) -> Local | None:
    """The tensor argument: the tensor itself if it is just read, else one of its own."""
    right = to.right(e.body, inside, top=False)
    if where is not None:
        right = Right(to.inline(right, e, inside), where)
    if right.dtype is None:
        return None
    ranks = tuple(body.actual[r.name] for r in argument.ranks)
    if right.plain and _is_plain_read(right.value.expr, ranks):
        made = right.value
    else:
        made = to.read_of(right, argument.name, inside, e.span)
    free = frozenset(to.free([made], inside))
    for rank in ranks:
        if rank not in free:
            message = f"`{e.fn}` is over `{rank}`, but nothing to its right varies along it"
            to.fail("E204", message, e.span, inside)
            return None
    return Local(made.expr, ranks, free, made.dtype) if isinstance(made.expr, Read) else None


def _is_plain_read(e: Expr, ranks: tuple[str, ...]) -> bool:
    """Whether it reads a tensor at different ranks, `ranks` among them."""
    return (
        isinstance(e, Read)
        and all(isinstance(i, Index) for i in e.indices)
        and len(set(e.indices)) == len(e.indices)
        and all(Index(r) in e.indices for r in ranks)
    )


def _define(to: Statements, assign: tree.Assign, lead: set[str], body: Scope) -> Local:
    """A statement of the body, over its own ranks and those that are carried along."""
    own = tuple(body.actual[i.name] for i in assign.target.indices if isinstance(i, tree.Name))
    dims = tuple(r for r in body.ranks if r in lead or r in own)
    scope = replace(body, ranks=dims, where=assign.where, inner=set())
    indices = tuple(Index(r) for r in dims)
    right = Right(UNKNOWN)
    if not isinstance(assign.value, tree.Concat):
        right = to.right(assign.value, scope, top=True)
    name = to.fresh(assign.target.name, assign.span, scope)
    to.emit(name, indices, right, scope.place(assign.span))
    return Local(Read(name, indices), own, frozenset(dims), right.dtype)


def _bound(
    to: Statements, e: tree.Over | tree.Call, right: Right, ranks: tuple[str, ...], scope: Scope
) -> Right:
    """The result of a call: the caller must have bound the macro's ranks that are left in it."""
    reduced = right.reduce.ranks if right.reduce else ()
    free = to.free(right.parts, scope.bind(ranks))
    for rank in ranks:
        if rank in free and rank not in reduced and to.coordinate(rank, scope) is None:
            message = f"`{e.fn}` gives a value for each `{rank}`, which is not bound here"
            hint = f"add `{rank}` to the left side or reduce over it"
            to.fail("E104", message, e.span, scope, hint)
            return Right(UNKNOWN)
    return right
