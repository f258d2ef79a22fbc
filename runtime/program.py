"""A sweep stage compiled to closures for given extents: what `execute` runs on every tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from attnc.ir.arrays import Array
from attnc.ir.cascade import Cascade, Rank
from attnc.ir.expr import Expr
from attnc.ir.frame import Scope
from attnc.ir.frame import Value as Held
from attnc.ir.plan import Carry, Dot, Fold, Let, Serial, Store, SweepStage
from attnc.ir.presence import conjuncts
from attnc.ir.walk import reads
from attnc.runtime.tile_code import (
    Code,
    Tile,
    compile_tile_expr,
    compile_value,
    holding,
    read_let,
    read_memory,
)
from attnc.runtime.tiles import Split, View, find_splits, split_reads, stage_lets, without_edges


@dataclass(frozen=True, slots=True)
class PassProgram:
    """One sweep. A tile is skipped if each entry of `hiding` has a mask that is false all over."""

    carries: tuple[Carry, ...]
    body: tuple[tuple[str, Code], ...]
    after: tuple[tuple[str, Code], ...]
    hiding: tuple[tuple[Code, ...], ...]

    def hides(self, tile: Tile) -> bool:
        """Whether no point of the tile counts."""
        return bool(self.hiding) and all(
            any(holding(tile.lift(mask(tile))) == 0 for mask in masks) for masks in self.hiding
        )


@dataclass(frozen=True, slots=True)
class Target:
    """Where a store goes: the ranks of the tensor's axes once divided and joined as the stage's."""

    tensor: str
    shape: tuple[int, ...]
    ranks: tuple[str, ...]
    value: Code


@dataclass(frozen=True, slots=True)
class Program:
    """A stage for given extents, params and tensor shapes. `order` is that of every tile's axes."""

    stage: SweepStage
    order: tuple[str, ...]
    extents: Mapping[str, int]
    ranks: Mapping[str, Rank]
    views: Mapping[str, View]
    host: Mapping[str, Array]
    resident: tuple[tuple[str, Code], ...]
    passes: tuple[PassProgram, ...]
    targets: tuple[Target, ...]

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


def build_program(stage: SweepStage, scope: Scope, cascade: Cascade) -> Program:
    """Compile a stage for the scope's extents, params and tensor shapes."""
    stage = without_edges(stage)
    host: dict[str, Array] = {}
    for let in stage.host:
        host[let.name] = compile_value(let.value, {}, frozenset())(Tile(scope, {}, host))

    def scalar(e: Expr) -> int:
        return int(compile_tile_expr(e, read_let)(Tile(scope, {}, host)))

    splits = find_splits(stage, scope.extents, scalar)
    shapes = {name: tuple(held.data.shape) for name, held in scope.tensors.items()}
    masks = tuple(_masks(stage, i, cascade) for i in range(len(stage.passes)))
    targets = tuple(_target(s, scope, splits, stage) for s in stage.stores)
    stage, views = split_reads(stage, splits, shapes, scalar)
    order = _order(stage)
    axes = {r: i for i, r in enumerate(order)}
    memory = frozenset((*shapes, *views)) - host.keys()

    def lets(block: tuple[Let, ...]) -> tuple[tuple[str, Code], ...]:
        return tuple((x.name, compile_value(x.value, axes, memory)) for x in block)

    return Program(
        stage,
        order,
        {
            **scope.extents,
            **{p: n for s in splits.values() for p, n in zip(s.parts, s.sizes, strict=True)},
        },
        {**scope.ranks, **{s.rank: Rank(s.rank, s.parts) for s in splits.values()}},
        views,
        host,
        tuple((name, _packed(code)) for name, code in lets(stage.resident)),
        tuple(
            PassProgram(p.carries, lets(p.body), lets(p.after), hiding)
            for p, hiding in zip(stage.passes, masks, strict=True)
        ),
        targets,
    )


def _packed(code: Code) -> Code:
    """Resident tiles are multiplied again and again: once in a row in memory is cheaper."""

    def run(tile: Tile) -> Array:
        x = code(tile)
        return x.contiguous() if hasattr(x, "contiguous") else x

    return run


def _order(stage: SweepStage) -> tuple[str, ...]:
    used = [r for let in stage_lets(stage) for r in let.ranks]
    values = [let.value for let in stage_lets(stage)]
    overs = [v.over for v in values if isinstance(v, Dot | Serial | Fold)]
    row = () if stage.row is None else (stage.row,)
    return tuple(
        dict.fromkeys((*stage.grid, *row, stage.swept, *stage.columns, *stage.inner, *used, *overs))
    )


def _masks(stage: SweepStage, sweep: int, cascade: Cascade) -> tuple[tuple[Code, ...], ...]:
    """Per state the cheap masks on its points: of coordinates, of integer and bool inputs."""
    if stage.derived is None:
        return ()
    kinds = {t.name: t.dtype for t in cascade.inputs}
    found = []
    for state in stage.derived.states:
        if state.sweep == sweep:
            cheap = [
                c
                for c in conjuncts(state.present)
                if all(kinds.get(r.tensor, "float") != "float" for r in reads(c))
            ]
            found.append(tuple(compile_tile_expr(c, read_memory) for c in dict.fromkeys(cheap)))
    return tuple(found) if all(found) else ()


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
