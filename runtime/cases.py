"""Awkward calls of a cascade to check it on: shapes by the ranks' roles, and inputs that bite.

Nothing is known by name. A rank's role comes from the plan: rows and swept ranks get lengths that
no tile divides, features are no powers of two, heads come in groups where the spec divides extents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle
from math import ceil, inf, prod

import torch
from torch import Tensor

from attnc.errors import AttncError
from attnc.ir.cascade import Cascade, ParamDecl, Rank, TensorDecl
from attnc.ir.exact_extents import exact_extents
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.frame import ParamValue
from attnc.ir.plan import Plan, SweepStage
from attnc.ir.reach import reach, reads_at
from attnc.ir.walk import iteration_ranks, operands, reads, subexprs
from attnc.runtime.int_inputs import Order, draw_ints

_FEATURES = (40, 72, 24, 16, 8)
# Standard deviation of the row side's features, and so of scores. Where the dtype overflows, the
# next is tried.
USUAL = (1.0, 0.25, 0.0625)
LARGE = (1e4, 2e3, 3e2, 50.0, *USUAL)


@dataclass(frozen=True, slots=True)
class Case:
    """What to call: extents of every rank and component, and how inputs are drawn.

    `large`: the row side's features, and so the scores, are large; `hidden`: -inf in biases, false
    slices in bool inputs; `strided`: inputs lie in memory with axes reversed and gaps between;
    `ids`: whether ids, as of documents, come in order. `params`: the values with which inputs are
    drawn.
    """

    name: str
    extents: Mapping[str, int]
    large: bool = False
    hidden: bool = False
    strided: bool = False
    ids: Order = "unsorted"
    params: Mapping[str, ParamValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Roles:
    """What the ranks of a plan are to its kernels."""

    rows: frozenset[str]
    swept: frozenset[str]
    grid: frozenset[str]

    @staticmethod
    def of(plan: Plan) -> Roles:
        stages = [s for s in plan.stages if isinstance(s, SweepStage)]
        rows = frozenset(s.row for s in stages if s.row is not None)
        swept = frozenset(s.swept for s in stages) - rows
        grid = frozenset(r for s in stages for r in s.grid)
        # Of ranks that are contracted together the last is the feature, the others are heads.
        joined = (r for s in stages for r in s.inner if plan.cascade.is_joined(r))
        grid |= {c for r in joined for c in plan.cascade.rank(r).components[:-1]}
        return Roles(rows, swept, grid - rows - swept)

    def is_feature(self, rank: str) -> bool:
        return rank not in self.rows | self.swept | self.grid


def make_cases(
    plan: Plan, params: Mapping[str, ParamValue], shape: Mapping[str, int] | None
) -> tuple[Case, ...]:
    """The cases of a plan; `shape` fixes extents, named by rank in lower or upper case.

    If it fixes a length, of rows or of what is swept, there are two cases of that length.
    Raises AttncError E504 for a rank that the spec does not have, E831 if no extents satisfy its
    exact divisions.
    """
    given = _given(plan.written, shape or {})
    roles = Roles.of(plan)
    parts = {c for r in roles.rows | roles.swept for c in plan.cascade.rank(r).components}

    def case(
        name: str, rows: int, swept: int, batch: int = 1, ids: Order = "unsorted", **how: bool
    ) -> Case:
        extents = _extents(plan, params, (rows, swept, batch), given)
        return Case(name, extents, ids=ids, params=params, **how)

    if (roles.rows | roles.swept | parts) & given.keys():
        return (
            case("given", 24, 40, 2, ids="sorted"),
            case("given, hidden", 24, 40, 2, hidden=True, strided=True),
        )
    return (
        case("ragged", 77, 131, 2, ids="sorted", strided=True),
        case("one row", 1, 131),
        case("one key", 77, 1),
        case("no key", 3, 0),
        case("large scores", 33, 65, large=True),
        case("hidden", 70, 40, hidden=True),
    )


def _given(cascade: Cascade, shape: Mapping[str, int]) -> dict[str, int]:
    named = {r.extent_name: r.name for r in cascade.ranks} | {r.name: r.name for r in cascade.ranks}
    for name in shape:
        if name not in named:
            known = ", ".join(r.extent_name for r in cascade.ranks)
            message = f"`{name}` is no rank of `{cascade.name}`"
            raise AttncError("E504", message, hint=f"known: {known}")
    return {named[name]: n for name, n in shape.items()}


def small_params(
    plan: Plan, given: Mapping[str, ParamValue], values: Mapping[str, ParamValue], limit: int = 20
) -> dict[str, ParamValue]:
    """All parameters; whole numbers that were not given are small, so that masks bite.

    A window of 4096 would hide nothing from 131 keys, nor one of 20 x 20 from 12 x 11: items of a
    tuple are at most the root of the limit.
    """

    def shrink(p: ParamDecl, value: bool | int | float) -> bool | int | float:
        most = limit if p.length is None else ceil(limit ** (1 / p.length))
        if p.dtype != "int" or value <= most:
            return value
        return most if p.low is None else max(most, ceil(p.low))

    found = dict(values)
    for p in plan.cascade.params:
        value = values[p.name]
        if p.name in given:
            continue
        if isinstance(value, tuple):
            found[p.name] = tuple(shrink(p, v) for v in value)
        else:
            found[p.name] = shrink(p, value)
    return found


# extents ------------------------------------------------------------------------------------------


def _extents(
    plan: Plan,
    params: Mapping[str, ParamValue],
    lengths: tuple[int, int, int],
    given: Mapping[str, int],
) -> dict[str, int]:
    roles, cascade = Roles.of(plan), plan.written
    rows, swept, batch = lengths
    features = iter(cycle(_FEATURES if roles.swept else (3, 5, 7, 4, 6)))
    sizes: dict[str, int] = {}
    for rank in cascade.ranks:
        if rank.parent is not None:
            continue
        by_role = {rank.name in roles.rows: rows, rank.name in roles.swept: swept}
        wish = by_role.get(True, batch if rank.name in roles.grid else next(features))
        if rank.name in given and rank.components:
            parts = _exact_grid(rank, given)
            sizes.update(zip(rank.components, parts, strict=True))
        elif rank.components:
            parts = _grid(wish, len(rank.components))
            sizes.update(zip(rank.components, parts, strict=True))
            wish = prod(parts)
        sizes[rank.name] = wish
    free = frozenset(r for r in sizes if r in roles.grid and r not in given)
    found = exact_extents(cascade, params, {**sizes, **given}, free, frozenset(given))
    if found is None:
        raise AttncError(
            "E831",
            f"found no extents at which every division of `{cascade.name}` is exact",
            hint="give a shape",
        )
    for rank in cascade.ranks:
        if rank.components and rank.name not in given:
            found[rank.name] = prod(found[c] for c in rank.components)
    return _reached(cascade, params, found, frozenset(given))


def _reached(
    cascade: Cascade,
    params: Mapping[str, ParamValue],
    sizes: Mapping[str, int],
    fixed: frozenset[str],
) -> dict[str, int]:
    """The sizes, changed so that tensors hold what is read of them, where an extent is free.

    A table read at `m // block` gets as many places as that needs. Where a vector over the keys is
    read at the queries, there are no more queries than keys.
    """
    found = dict(sizes)
    used = {
        x.rank
        for s in cascade.statements
        for e in operands(s)
        for x in subexprs(e)
        if isinstance(x, Extent)
    }
    tables = {r for t in cascade.inputs for r in t.ranks if not cascade.rank(r).components}
    walked = {r for s in cascade.statements for r in iteration_ranks(s)}
    for axis, index in dict.fromkeys(reads_at(cascade)):
        match index:
            case Index(rank) if rank not in fixed and not cascade.rank(rank).components:
                if cascade.rank(rank).parent is None and axis not in cascade.rank(rank).components:
                    found[rank] = min(found[rank], found[axis])
            case _ if axis in tables - fixed - used and not reads(index):
                needed = 1 + max(0, reach(index, cascade, found, params)[1])
                found[axis] = max(found[axis], needed) if axis in walked else needed
            case _:
                pass
    return found


def _grid(total: int, parts: int) -> tuple[int, ...]:
    """A grid of at least so many points, as square as they come."""
    if parts == 1:
        return (total,)
    side = max(1, round(total ** (1 / parts)))
    return (side, *_grid(ceil(total / side), parts - 1))


def _exact_grid(rank: Rank, given: Mapping[str, int]) -> tuple[int, ...]:
    """Components of a grid of given length: those that are not given are 1, but for the first."""
    parts = {c: given.get(c, 1) for c in rank.components}
    first = next((c for c in rank.components if c not in given), None)
    if first is not None:
        parts[first] = given[rank.name] // max(1, prod(parts.values()))
    return tuple(parts.values())


# inputs -------------------------------------------------------------------------------------------


def draw(
    plan: Plan, case: Case, dtype: torch.dtype, seed: int, scale: float = 1.0, narrow: int = 1
) -> dict[str, Tensor]:
    """Random inputs: floats N(0, 1), ints as they are used (`draw_ints`), bools half true.

    `scale` is the standard deviation of the row side's features. `narrow` divides the range of
    ints: what an index is computed from may have to be smaller than the extent.
    """
    random = torch.Generator().manual_seed(seed)
    roles = Roles.of(plan)
    defaults = {p.name: p.default for p in plan.cascade.params if p.default is not None}
    params = {**defaults, **case.params}
    ints = draw_ints(plan.cascade, case.extents, params, random, case.ids, narrow)
    biases = _biases(plan.cascade, roles) if case.hidden else frozenset()
    found = {}
    for t in plan.cascade.inputs:
        shape = tuple(case.extents[r] for r in t.ranks)
        match t.dtype:
            case "float":
                x = torch.randn(shape, generator=random, dtype=torch.float64)
                if _is_row_side(t, roles):
                    x = x * scale
                if t.name in biases:
                    x = x.masked_fill(torch.rand(shape, generator=random) < 0.3, -inf)
                x = x.to(dtype)
            case "int":
                x = ints[t.name]
            case _:
                x = torch.rand(shape, generator=random) < 0.5
        if case.hidden and (t.name in biases or t.dtype == "bool"):
            x = _hide_slice(x)
        found[t.name] = _strided(x) if case.strided else x
    return found


def _is_row_side(t: TensorDecl, roles: Roles) -> bool:
    return bool(roles.rows & set(t.ranks)) and any(map(roles.is_feature, t.ranks))


def _hide_slice(x: Tensor) -> Tensor:
    """All of the first head, row, or what comes first, if it is not all there is."""
    if x.dim() > 0 and x.shape[0] > 1:
        x[0] = False if x.dtype == torch.bool else -inf
    return x


def _strided(x: Tensor) -> Tensor:
    """Equal to x, with the axes reversed in memory and gaps along the innermost."""
    if x.dim() == 0:
        return x
    order = tuple(reversed(range(x.dim())))
    reverse = x.permute(order)
    room = reverse.new_empty((*reverse.shape[:-1], reverse.shape[-1] + 3))
    room[..., : reverse.shape[-1]] = reverse
    return room[..., : reverse.shape[-1]].permute(order)


def _biases(cascade: Cascade, roles: Roles) -> frozenset[str]:
    """Float inputs along a swept rank that are only ever added to something: -inf hides a point."""
    candidates = {
        t.name for t in cascade.inputs if t.dtype == "float" and roles.swept & set(t.ranks)
    }
    added: set[str] = set()
    otherwise: set[str] = set()

    def visit(e: Expr, fits: bool) -> None:
        match e:
            case Read(name, _):
                (added if fits else otherwise).add(name)
            case Apply("select", (Number(bool(chosen)), a, b)):
                visit(a if chosen else b, fits)
            case Apply("add", (a, b)):
                visit(a, True)
                visit(b, True)
            case Apply("sub", (a, b)):
                visit(a, True)
                visit(b, False)
            case Apply("given", (a, _)):
                visit(a, fits)
            case Apply(_, args):
                for a in args:
                    visit(a, False)
            case _:
                pass

    for s in cascade.statements:
        for e in operands(s):
            visit(e, False)
    return frozenset(candidates & added - otherwise)
