"""Prepare a predicate for classification: constants put in, made normal, split into factors.

All of this depends on the predicate, the axes and the numbers given, not on tensors' contents, and
is kept from call to call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from functools import reduce as fold
from math import prod

from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read, call
from attnc.ir.frame import ParamValue
from attnc.ir.geometry.intervals import Code, Compiler, Coordinates
from attnc.ir.geometry.normalise_predicate import TRUE, all_of, both, either, normalise_predicate
from attnc.ir.geometry.row_ranges import RowRanges, row_ranges
from attnc.ir.geometry.tile_boxes import Cut
from attnc.ir.geometry.tiling import Axis
from attnc.ir.geometry.value_bounds import Kind, Range, ValueBounds
from attnc.ir.presence import conjuncts
from attnc.ir.walk import index_ranks, subexprs, substitute, with_children

# A table of an expression over one coordinate is made up to this many elements.
_TABLE_LIMIT = 1 << 22
# From so many tiles on, or single points, an axis of rows is looked at in blocks.
_MANY_TILES = 256
_MANY_POINTS = 1 << 12


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """What is known of a captured tensor before it is looked at."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    values: Range


@dataclass(frozen=True, slots=True)
class Context:
    """The numbers that a predicate depends on."""

    extents: tuple[tuple[str, int], ...]
    params: tuple[tuple[str, ParamValue], ...]
    components: tuple[tuple[str, tuple[str, ...]], ...]
    tensors: tuple[TensorFacts, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A tensor to make: an expression at all values of its coordinates."""

    name: str
    expr: Expr
    coordinates: tuple[str, ...]
    extents: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FactorProgram:
    """How to classify the tiles of one group of axes.

    visible, exists:  normal predicates over the cuts' coordinates; a point that does not exist is
                      not visible
    seen, hidden:     code: the point is visible; it exists and is not visible (None: as not `seen`)
    tables:           to be added to the captured tensors
    ranges:           what each row sees, where that is one range and tiles' ends tell the rest
    """

    rows: tuple[Cut, ...]
    keys: tuple[Cut, ...]
    visible: Expr
    exists: Expr
    seen: Code
    hidden: Code | None
    tables: tuple[Table, ...]
    ranges: RowRanges | None


@lru_cache(maxsize=256)
def mask_program(
    predicate: Expr,
    exists: Expr,
    rows: tuple[Axis, ...],
    keys: tuple[Axis, ...],
    context: Context,
) -> tuple[FactorProgram, ...]:
    """The factors of a predicate; none of the axes is empty.

    Raises AttncError E518 (values that leave 64 bits), E602 (`/` that leaves a remainder).
    """
    components = dict(context.components)
    read = index_ranks(predicate) | index_ranks(exists)
    extents = dict(context.extents) | {a.name: a.extent for a in rows + keys}
    sides = [tuple(_cut(a, components, read, extents) for a in axes) for axes in (rows, keys)]
    constants = _constants((predicate, exists), sides[0] + sides[1], context, extents)
    names = [{n for c in side for n in c.coordinates} for side in sides]
    single = (c for c in sides[0] if c.axis.tile == 1 and not is_blocked(c.axis))
    fixed = {n for c in single for n in c.coordinates}
    coordinates = Coordinates(frozenset(names[0]), frozenset(names[1]), frozenset(fixed))
    bounds = ValueBounds(
        _coordinate_extents(sides[0] + sides[1]),
        {t.name: t.values for t in context.tensors},
        {t.name: t.kind for t in context.tensors},
        {t.name: t.shape for t in context.tensors},
    )

    def normal(e: Expr) -> Expr:
        return normalise_predicate(e, bounds, coordinates.rows, coordinates.fixed)

    raw = [_defined(substitute(e, constants)) for e in (predicate, exists)]
    visible, there = map(normal, raw)
    conditions = [conjuncts(e) for e in (visible, there)]
    programs = []
    for group in _groups(conditions[0] + conditions[1], sides[0] + sides[1]):
        cuts = [tuple(c for c in side if c.axis.name in group) for side in sides]
        mine = {n for side in cuts for c in side for n in c.coordinates}
        seen, there = (all_of(c for c in e if _belongs(c, mine)) for e in conditions)
        seen = both(there, seen)
        hidden = TRUE if there == TRUE else normal(both(there, call("not", seen)))
        programs.append(_program(cuts[0], cuts[1], seen, there, hidden, coordinates, bounds))
    return tuple(programs)


def is_blocked(axis: Axis) -> bool:
    """Whether tiles of rows are looked at in blocks first. Of heads or batches, each is its own."""
    return axis.tiles >= (_MANY_TILES if axis.tile > 1 else _MANY_POINTS)


def _program(
    rows: tuple[Cut, ...],
    keys: tuple[Cut, ...],
    visible: Expr,
    exists: Expr,
    hidden: Expr,
    coordinates: Coordinates,
    bounds: ValueBounds,
) -> FactorProgram:
    tabulator = _Tabulator(Compiler(coordinates), bounds, {})
    seen, gap = tabulator.rewritten(visible), tabulator.rewritten(hidden)
    compiler = Compiler(coordinates)
    code = compiler.truth(gap) if exists != TRUE else None
    tables = tuple(tabulator.tables.values())
    ranges = _ranges(rows, keys, visible) if exists == TRUE else None
    return FactorProgram(rows, keys, visible, exists, compiler.truth(seen), code, tables, ranges)


def _ranges(rows: tuple[Cut, ...], keys: tuple[Cut, ...], visible: Expr) -> RowRanges | None:
    if len(rows) != 1 or len(keys) != 1 or rows[0].parts or keys[0].parts:
        return None
    row, key = ((c.axis.name, c.axis.extent) for c in (*rows, *keys))
    return row_ranges(visible, row, key)


def _cut(
    axis: Axis,
    components: Mapping[str, tuple[str, ...]],
    read: Iterable[str],
    extents: dict[str, int],
) -> Cut:
    """An axis with the components that the predicate reads, if it reads any."""
    read = frozenset(read)

    def parts(name: str) -> tuple[str, ...]:
        below = components.get(name, ())
        if not any(_reads(c, components, read) for c in below):
            return (name,)
        return tuple(p for c in below for p in parts(c))

    found = parts(axis.name)
    if found == (axis.name,):
        return Cut(axis)
    sizes = tuple(extents[p] for p in found)
    assert prod(sizes) == axis.extent, f"{axis.name} is no grid of {found} = {sizes}"
    return Cut(axis, found, sizes)


def _reads(name: str, components: Mapping[str, tuple[str, ...]], read: frozenset[str]) -> bool:
    return name in read or any(_reads(c, components, read) for c in components.get(name, ()))


def _constants(
    predicates: tuple[Expr, ...],
    cuts: tuple[Cut, ...],
    context: Context,
    extents: Mapping[str, int],
) -> dict[Expr, Expr]:
    """Numbers for extents and params, coordinates of grids as combinations of their components."""
    known = frozenset(n for c in cuts for n in c.coordinates)
    components, params = dict(context.components), dict(context.params)

    def extent(name: str) -> int:
        if name in extents:
            return extents[name]
        return prod(extent(c) for c in components[name])

    def whole(name: str) -> Expr:
        if name in known:
            return Index(name)
        found: Expr = Number(0)
        for c in components[name]:
            found = call("add", call("mul", found, Number(extent(c))), whole(c))
        return found

    found: dict[Expr, Expr] = {}
    for e in {s for p in predicates for s in subexprs(p)}:
        match e:
            case Extent(rank):
                found[e] = Number(extent(rank))
            case Param(name, item):
                value = params[name]
                found[e] = Number(value[item or 0] if isinstance(value, tuple) else value)
            case Index(rank) if rank not in known:
                found[e] = whole(rank)
            case _:
                pass
    return found


def _coordinate_extents(cuts: tuple[Cut, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for cut in cuts:
        sizes = cut.sizes if cut.parts else (cut.axis.extent,)
        found |= zip(cut.coordinates, sizes, strict=True)
    return found


def _groups(conditions: tuple[Expr, ...], cuts: tuple[Cut, ...]) -> tuple[frozenset[str], ...]:
    """Axes by name, in groups that no condition connects; empty: conditions on no axis at all."""
    groups = [frozenset({c.axis.name}) for c in cuts]
    for condition in conditions:
        read = index_ranks(condition)
        tied = frozenset(c.axis.name for c in cuts if read & set(c.coordinates))
        met = [g for g in groups if g & tied]
        nothing: frozenset[str] = frozenset()
        groups = [*(g for g in groups if g not in met), fold(frozenset.union, met, nothing)]
    order = [c.axis.name for c in cuts]
    return tuple(sorted(set(groups), key=lambda g: [name in g for name in order], reverse=True))


def _belongs(condition: Expr, coordinates: set[str]) -> bool:
    read = index_ranks(condition)
    return bool(read & coordinates) if read else not coordinates


def _defined(e: Expr) -> Expr:
    """`e` where it is present, else false, by the laws of absence: never absent itself."""
    return both(_present(e), _value(e))


def _present(e: Expr) -> Expr:
    """Where an expression has a value: where no divisor is 0."""
    match e:
        case Apply("select", (c, a, b)):
            either_way = call("select", c, _present(a), _present(b))
            plain = _present(a) == _present(b) == TRUE
            return both(_present(c), TRUE if plain else either_way)
        case Apply("given", (x, p)):
            return both(both(_present(p), _value(p)), _present(x))
        case Apply("or_else", (x, y)):
            return either(_present(x), _present(y))
        case Apply("floordiv" | "mod" | "div", (a, b)):
            inside = both(_present(a), _present(b))
            known = isinstance(b, Number) and b.value != 0
            return inside if known else both(inside, call("ne", _value(b), Number(0)))
        case Apply(_, args) | Read(_, args):
            return all_of(map(_present, args))
        case _:
            return TRUE


def _value(e: Expr) -> Expr:
    match e:
        case Apply("given", (x, _)):
            return _value(x)
        case Apply("or_else", (x, y)):
            return call("select", _present(x), _value(x), _value(y))
        case Apply(_, args) | Read(_, args):
            return with_children(e, tuple(map(_value, args)))
        case _:
            return e


@dataclass(frozen=True, slots=True)
class _Tabulator:
    """Replaces what depends on one coordinate in no simple way by a table of its values.

    Its extrema over a range are then exact, at the cost of evaluating it along one axis.
    """

    compiler: Compiler
    bounds: ValueBounds
    tables: dict[Expr, Table]

    def rewritten(self, e: Expr) -> Expr:
        """A normal predicate, with reads of tables."""
        return self._rewritten(e, True)

    def _rewritten(self, e: Expr, is_truth: bool) -> Expr:
        if isinstance(e, Number | Index):
            return e
        code = self.compiler.truth(e) if is_truth else self.compiler.span(e)
        if code.attained or code.real:
            return e
        if len(code.varying) == 1 and (table := self._table(e)) is not None:
            return Read(table.name, tuple(Index(c) for c in table.coordinates))
        match e:
            case Apply("select", (c, a, b)):
                return call(
                    "select", self._rewritten(c, True), *(self._rewritten(x, False) for x in (a, b))
                )
            case Apply(op, args):
                return Apply(
                    op, tuple(self._rewritten(a, op in ("and", "or", "not")) for a in args)
                )
            case Read(tensor, indices):
                return Read(tensor, tuple(self._rewritten(i, False) for i in indices))
            case _:
                return e

    def _table(self, e: Expr) -> Table | None:
        found = self.tables.get(e)
        if found is not None:
            return found
        coordinates = tuple(sorted(index_ranks(e)))
        extents = tuple(self.bounds.extents[c] for c in coordinates)
        if prod(extents) > _TABLE_LIMIT:
            return None
        found = self.tables[e] = Table(f"#{len(self.tables)}", e, coordinates, extents)
        return found
