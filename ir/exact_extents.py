"""Extents at which every exact division of a spec (`H / G`, `MY / grid`) leaves no remainder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product

from attnc.ir.cascade import Cascade
from attnc.ir.evaluate import compile_expr
from attnc.ir.expr import Apply, Expr, Extent, Index, Read
from attnc.ir.frame import Frame, ParamValue, Scope
from attnc.ir.walk import operands, subexprs

# Extents to try for a rank that the spec divides, and for one that it divides by (`H / G`).
_WHOLES = (6, 12, 4, 2, 1)
_GROUPS = (2, 3, 1, 4, 6)


def are_exact(cascade: Cascade, params: Mapping[str, ParamValue], sizes: Mapping[str, int]) -> bool:
    """Whether the divisions of extents and params by one another leave no remainder."""
    return all(_leaves_none(d, sizes, params) for d in dict.fromkeys(_divisions(cascade)))


def exact_extents(
    cascade: Cascade,
    params: Mapping[str, ParamValue],
    sizes: Mapping[str, int],
    free: frozenset[str],
    fixed: frozenset[str],
) -> dict[str, int] | None:
    """The sizes, changed until every exact division leaves no remainder; None if none do.

    `free` ranks may get any extent, `fixed` ones keep theirs, others are rounded up. What a grid's
    components make together is left to the caller.
    """
    divisions = tuple(dict.fromkeys(_divisions(cascade)))
    steps = _whole_steps(divisions, params)
    wholes = _ranks_of(d.args[0] for d in divisions)
    groups = [r for r in _ranks_of(d.args[1] for d in divisions) if r not in wholes]
    choices: dict[str, tuple[int, ...]] = {}
    for r in wholes:
        more = tuple(-(-sizes[r] // k) * k for k in (*steps, 2, 4, 8, 16, 32, 64, 128))
        choices[r] = () if r in fixed else _WHOLES if r in free else (sizes[r], *more)
    for i, r in enumerate(groups):
        choices[r] = () if r in fixed else _GROUPS[i % 2 :] + _GROUPS[: i % 2]
    for picked in product(*(c or (sizes[r],) for r, c in choices.items())):
        tried = {**sizes, **dict(zip(choices, picked, strict=True))}
        if all(_leaves_none(d, tried, params) for d in divisions):
            return tried
    return None


def _whole_steps(divisions: Iterable[Apply], params: Mapping[str, ParamValue]) -> tuple[int, ...]:
    """The divisors that do not depend on any extent."""
    frame = Frame(Scope(params=params), {})
    fixed = [d.args[1] for d in divisions if not _ranks_of([d.args[1]])]
    found = (int(compile_expr(e)(frame)[0]) for e in dict.fromkeys(fixed))
    return tuple(dict.fromkeys(k for k in found if k > 1))


def _divisions(cascade: Cascade) -> Iterator[Apply]:
    for s in cascade.statements:
        for e in operands(s):
            for x in subexprs(e):
                if isinstance(x, Apply) and x.op == "exactdiv":
                    if not any(isinstance(y, Index | Read) for y in subexprs(x)):
                        yield x


def _ranks_of(found: Iterable[Expr]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(x.rank for e in found for x in subexprs(e) if isinstance(x, Extent)))


def _leaves_none(
    division: Apply, extents: Mapping[str, int], params: Mapping[str, ParamValue]
) -> bool:
    frame = Frame(Scope(extents=extents, params=params), {})
    a, b = (compile_expr(x)(frame)[0] for x in division.args)
    return bool(b != 0 and a % b == 0)
