"""A sweep stage compiled to closures for given extents: what `execute` runs on every tile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias

from attnc.ir.arrays import Array
from attnc.ir.cascade import Rank
from attnc.ir.expr import Expr, Index, Read
from attnc.ir.frame import Box, Scope
from attnc.ir.frame import Value as Held
from attnc.ir.plan import (
    Carry,
    Dot,
    Fold,
    Let,
    Load,
    Pass,
    Serial,
    Store,
    SweepStage,
    Value,
    drop_unread,
)
from attnc.ir.visibility import Visibility
from attnc.ir.walk import subexprs
from attnc.runtime.first_tile import first_tile
from attnc.runtime.marks import mark_masks
from attnc.runtime.tile_code import (
    Code,
    Place,
    compile_tile_expr,
    compile_value,
    is_fresh,
    read_let,
    read_memory,
)
from attnc.runtime.tile_frame import Moving, Tile
from attnc.runtime.tiles import (
    Split,
    View,
    expressions,
    find_splits,
    split_reads,
    stage_lets,
    without_edges,
)

# The axis of row tiles that are computed together; no name that a spec can give to a rank.
ROW_GROUP = "row group"

Block: TypeAlias = tuple[tuple[str, Code], ...]


@dataclass(frozen=True, slots=True)
class PassProgram:
    """One sweep. `blocks` has the body for a span, by whether it is the first one and whether masks
    cut through it; `masks` evaluates these, by name, in the parts where they do. `deciding` are the
    ranks of the grid on which these depend, `features` the products that a point of a tile takes.
    """

    carries: tuple[Carry, ...]
    blocks: Mapping[tuple[bool, bool], Block]
    after: Block
    masks: Mapping[str, Code]
    visibility: Visibility
    deciding: tuple[str, ...]
    features: int


@dataclass(frozen=True, slots=True)
class Target:
    """Where a store goes: the ranks of the tensor's axes once divided and joined as the stage's."""

    tensor: str
    shape: tuple[int, ...]
    ranks: tuple[str, ...]
    value: Code


@dataclass(frozen=True, slots=True)
class Program:
    """A stage for given extents, params and tensor shapes. `order` is that of every tile's axes.

    `parts` says of each grid rank which rank of the spec it is or is a part of, and its length.
    `movable`: all loads are cut along ranks, so that several row tiles can be one tile.
    """

    stage: SweepStage
    order: tuple[str, ...]
    parts: tuple[tuple[str, int], ...]
    extents: Mapping[str, int]
    ranks: Mapping[str, Rank]
    views: Mapping[str, View]
    host: Mapping[str, Array]
    resident: Block
    passes: tuple[PassProgram, ...]
    targets: tuple[Target, ...]
    movable: bool

    def moving(self, box: Box) -> Moving | None:
        """How the row tiles of a box that has several follow one another."""
        row, count = self.stage.row, len(box.get(ROW_GROUP, ()))
        if row is None or count < 2:
            return None
        ranks = frozenset({row, self.stage.swept})
        return Moving(ranks, self.order.index(ROW_GROUP), count, len(box[row]))

    def scope(self, scope: Scope) -> Scope:
        """The caller's scope as the program reads it: divided ranks, views of tensors."""
        views = {name: _seen(scope.tensors[v.tensor], v) for name, v in self.views.items()}
        return replace(scope.having(views), extents=self.extents, ranks=self.ranks)


def _seen(held: Held, view: View) -> Held:
    data, axes = held.data, list(held.axes)
    for axis, parts, sizes in reversed(view.axes):
        data = data.unflatten(axis, sizes)
        axes[axis : axis + 1] = parts
    return Held(data, tuple(axes))


def build_program(stage: SweepStage, scope: Scope) -> Program:
    """Compile a stage for the scope's extents, params and tensor shapes."""
    stage = without_edges(stage)
    host: dict[str, Array] = {}
    nowhere = Place({}, frozenset(), None)
    for let in stage.host:
        host[let.name] = compile_value(let.value, nowhere)(Tile(scope, {}, host))

    def scalar(e: Expr) -> int:
        return int(compile_tile_expr(e, read_let)(Tile(scope, {}, host)))

    splits = find_splits(stage, scope.extents, scalar)
    shapes = {name: tuple(held.data.shape) for name, held in scope.tensors.items()}
    targets = tuple(_target(s, scope, splits, stage) for s in stage.stores)
    marked = mark_masks(stage)
    stage = drop_unread(replace(stage, passes=tuple(m.sweep for m in marked)))
    source = {part: s.rank for s in splits.values() for part in s.parts}
    stage, views = split_reads(stage, splits, shapes, scalar)
    order = _order(stage)
    extents = {**scope.extents, ROW_GROUP: 1}
    for split in splits.values():
        extents |= zip(split.parts, split.sizes, strict=True)
    grid = tuple((source.get(r, r), extents[r]) for r in stage.grid)
    memory = frozenset((*shapes, *views)) - {*host}
    place = Place({r: i for i, r in enumerate(order)}, memory, stage.row)
    compiler = _Compiler(stage, place, extents, source)
    return Program(
        stage,
        order,
        grid,
        extents,
        {**scope.ranks, **{s.rank: Rank(s.rank, s.parts) for s in splits.values()}},
        views,
        host,
        compiler.lasting(stage.resident),
        tuple(compiler.sweep(p, m.masks) for p, m in zip(stage.passes, marked, strict=True)),
        targets,
        all(_is_cut(let.value, shapes, extents) for let in stage_lets(stage)),
    )


def _is_cut(
    value: Value, shapes: Mapping[str, tuple[int, ...]], extents: Mapping[str, int]
) -> bool:
    """Whether what a let reads from memory, if anything, is cut along ranks that fit the tensor."""
    match value:
        case Load(Read(tensor, indices)):
            ranks = tuple(i.rank for i in indices if isinstance(i, Index))
            fit = tuple(extents.get(r) for r in ranks) == shapes.get(tensor)
            return len(set(ranks)) == len(indices) and (fit or tensor not in shapes)
        case Serial():
            return False
        case _:
            return True


@dataclass(frozen=True, slots=True)
class _Compiler:
    """Compiles lets; `source` has the rank of the spec of each part of a divided grid rank."""

    stage: SweepStage
    place: Place
    extents: Mapping[str, int]
    source: Mapping[str, str]

    def sweep(self, p: Pass, masks: Mapping[str, Expr]) -> PassProgram:
        bodies = {
            (first, cut): first_tile(p, body) if first else body
            for cut, body in ((True, p.body), (False, p.full))
            for first in (True, False)
        }
        updates = [c.update for c in p.carries]
        made = [self._fresh(body, updates) for body in bodies.values()]
        owned = [
            c.name
            for c in p.carries
            if updates.count(c.update) == 1 and all(c.update in names for names in made)
        ]
        return PassProgram(
            p.carries,
            {which: self.block(body, updates, owned) for which, body in bodies.items()},
            self.lasting(p.after),
            {name: compile_tile_expr(e, read_memory) for name, e in masks.items()},
            p.visibility,
            tuple(r for r in self.stage.grid if self.source.get(r, r) in p.visibility.grid),
            sum(self._features(let) for let in p.body),
        )

    def _features(self, let: Let) -> int:
        match let.value:
            case Dot(_, _, over, _) if over == self.stage.swept:
                return prod(self.extents[r] for r in let.ranks if r in self.stage.columns)
            case Dot(_, _, over, _) | Serial(_, _, over):
                return self.extents[over]
            case _:
                return 0

    def block(self, lets: Sequence[Let], kept: Sequence[str], owned: Sequence[str]) -> Block:
        """`kept` are needed afterwards, `owned` are states that the lets may overwrite."""
        return tuple(
            (let.name, compile_value(let.value, self.place, spent))
            for let, spent in _spending(lets, kept, owned)
        )

    def lasting(self, lets: Sequence[Let]) -> Block:
        """Lets that may be read later, by passes and stores."""
        return self.block(lets, [let.name for let in lets], ())

    def _fresh(self, lets: Sequence[Let], kept: Sequence[str]) -> set[str]:
        return {let.name for let, spent in _spending(lets, kept, ()) if is_fresh(let.value, spent)}


def _spending(
    lets: Sequence[Let], kept: Sequence[str], owned: Sequence[str]
) -> Iterator[tuple[Let, frozenset[str]]]:
    """Each let with the names whose values it may overwrite: read here once, and not again."""
    counts = [
        Counter(
            s.tensor for e in expressions(let.value) for s in subexprs(e) if isinstance(s, Read)
        )
        for let in lets
    ]
    last = {name: i for i, names in enumerate(counts) for name in names}
    held = set(owned)
    for i, let in enumerate(lets):
        once = {name for name, n in counts[i].items() if n == 1 and last[name] == i}
        spent = frozenset(once & held - {*kept})
        yield let, spent
        if is_fresh(let.value, spent):
            held.add(let.name)


def _order(stage: SweepStage) -> tuple[str, ...]:
    used = [r for let in stage_lets(stage) for r in let.ranks]
    values = [let.value for let in stage_lets(stage)]
    overs = [v.over for v in values if isinstance(v, Dot | Serial | Fold)]
    row = () if stage.row is None else (ROW_GROUP, stage.row)
    return tuple(
        dict.fromkeys((*stage.grid, *row, stage.swept, *stage.columns, *stage.inner, *used, *overs))
    )


def _target(store: Store, scope: Scope, splits: Mapping[str, Split], stage: SweepStage) -> Target:
    shape: list[int] = []
    ranks: list[str] = []
    axes = list(store.axes)
    while axes:
        rank = axes.pop(0)
        parent = scope.ranks[rank].parent if rank in scope.ranks else None
        if rank in splits:
            shape += splits[rank].sizes
            ranks += splits[rank].parts
        elif parent in (stage.row, *stage.grid, *stage.columns) and parent is not None:
            # a grid's components follow one another: the stage walks them as one rank
            del axes[: len(scope.ranks[parent].components) - 1]
            shape.append(scope.extents[parent])
            ranks.append(parent)
        else:
            shape.append(scope.extents[rank])
            ranks.append(rank)
    return Target(
        store.tensor, tuple(shape), tuple(ranks), compile_tile_expr(store.value, read_let)
    )
