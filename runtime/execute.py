"""Run a Plan with torch, tile by tile: the engine behind CPU tensors, and for any other device.

A sweep stage runs as its kernel would, except that the grid is an axis of every tile: torch then
works on whole arrays. Memory does not grow with rows x swept. Tiles in which a mask hides every
point are skipped. Values are fp32 (fp64 if an input is), and products accumulate in it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, product
from math import prod

import torch
from torch import Tensor
from torch.nn import Parameter

from attnc.ir.arrays import Array, Arrays, is_scalar
from attnc.ir.bind import with_joined
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Read
from attnc.ir.frame import Box, ParamValue, Scope
from attnc.ir.frame import Value as Held
from attnc.ir.plan import Carry, Plan, Stage, SweepStage, TorchStage
from attnc.ir.statements import run_einsum
from attnc.ir.types import dtype_of
from attnc.ir.walk import statement_reads
from attnc.runtime.layout import Layout, Masks, find_layout
from attnc.runtime.program import ROW_GROUP, Block, Program, Target, build_program
from attnc.runtime.reference import torch_arrays
from attnc.runtime.row_groups import row_group
from attnc.runtime.tile_code import TILE_POINTS
from attnc.runtime.tile_frame import Tile, Whole, cut_out
from attnc.runtime.visits import Span
from attnc.runtime.workers import run_pieces

# Pieces that a stage is cut into, at least, unless they get smaller than so many points; and how
# many of them are sorted at once: the longest begin first, and a large stage has many.
PIECES = 32
PIECE_POINTS = 1 << 17
PIECES_AT_ONCE = 1 << 12


def execute(
    plan: Plan,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, ParamValue],
    extents: Mapping[str, int],
) -> dict[str, Tensor]:
    """The outputs of a plan by name, in the type of the first float input.

    Outputs without a feature axis (log-sum-exp) stay fp32, as kernels store them. `params` and
    `extents` are complete (`attnc.ir.bind`); extents are those of the spec's ranks and components.
    Raises AttncError E602 for an index division that leaves a remainder.
    """
    run = _Run(plan.cascade, tensors, params, with_joined(plan.cascade, extents))
    with torch.no_grad():
        for stage in plan.stages:
            run.stage(stage)
        features = {r for s in _sweeps(plan) for r in (*s.columns, *s.inner)}
        return {t: run.output(t, features) for t in plan.cascade.outputs}


def _sweeps(plan: Plan) -> Iterator[SweepStage]:
    return (s for s in plan.stages if isinstance(s, SweepStage))


@dataclass(slots=True)
class _Run:
    """One execution: the call, and what its stages have stored so far."""

    cascade: Cascade
    tensors: Mapping[str, Tensor]
    params: Mapping[str, ParamValue]
    extents: Mapping[str, int]
    made: dict[str, Held] = field(default_factory=dict)

    @property
    def arrays(self) -> Arrays:
        return torch_arrays(str(next((t.device for t in self.tensors.values()), "cpu")))

    @property
    def dtype(self) -> str:
        double = any(t.dtype == torch.float64 for t in self.tensors.values())
        return "float64" if double else "float32"

    def stage(self, stage: Stage) -> None:
        match stage:
            case TorchStage():
                self.made[stage.name] = self._statement(stage)
            case SweepStage():
                self.made.update(self._sweep(stage))

    def output(self, name: str, features: set[str]) -> Tensor:
        """A tensor as the caller gets it; a row statistic keeps the precision it is computed in."""
        held = self.stored()[name]
        x: Tensor = held.data
        floats = [t.dtype for t in self.tensors.values() if t.is_floating_point()]
        statistic = features and features.isdisjoint(held.axes)
        if floats and x.is_floating_point() and not statistic:
            x = x.to(floats[0])
        return x.contiguous()

    def stored(self) -> dict[str, Held]:
        inputs = {t.name: Held(self.tensors[t.name], t.ranks) for t in self.cascade.inputs}
        return {**inputs, **self.made}

    def _statement(self, stage: TorchStage) -> Held:
        names = {r.tensor for r in statement_reads(stage.statement)}
        whole = {t: self._widened(x) for t, x in self.stored().items() if t in names}
        value = run_einsum(stage.statement, self._scope(whole))
        if value.present is None:
            return value
        data = torch.where(value.present, value.data, value.data.new_zeros(()))
        return replace(value, data=data)

    def _widened(self, held: Held) -> Held:
        wide = torch.float64 if self.dtype == "float64" else torch.float32
        return replace(held, data=held.data.to(wide)) if held.data.is_floating_point() else held

    def _scope(self, tensors: Mapping[str, Held]) -> Scope:
        return Scope(
            arrays=self.arrays,
            dtype=self.dtype,
            tensors=tensors,
            extents=self.extents,
            params=self.params,
            ranks={r.name: r for r in self.cascade.ranks},
        )

    def _sweep(self, stage: SweepStage) -> dict[str, Held]:
        scope = self._scope(self.stored())
        buffers = self._buffers(stage, scope)
        if all(self.extents[r] for r in (*stage.grid, stage.row) if r is not None):
            program = _program(stage, scope)
            _walk(program, find_layout(program, scope), program.scope(scope), buffers)
        return {s.tensor: Held(buffers[s.tensor], s.axes) for s in stage.stores}

    def _buffers(self, stage: SweepStage, scope: Scope) -> dict[str, Tensor]:
        """Memory for what a stage stores; what only later stages read keeps its precision."""
        made = {}
        for store in stage.stores:
            dtype = dtype_of(Read(store.tensor, ()), self.cascade)
            shape = tuple(self.extents[r] for r in store.axes)
            made[store.tensor] = scope.arrays.full(
                shape, 0, self.dtype if dtype == "float" else dtype
            )
        return made


# The programs made last; each keeps its stage alive, so that no other can take over its id.
_PROGRAMS: OrderedDict[tuple[object, ...], tuple[SweepStage, Program]] = OrderedDict()
_KEPT = 64


def _program(stage: SweepStage, scope: Scope) -> Program:
    shapes = tuple((name, tuple(held.data.shape)) for name, held in scope.tensors.items())
    params, extents = tuple(scope.params.items()), tuple(scope.extents.items())
    devices = frozenset(str(held.data.device) for held in scope.tensors.values())
    key = (id(stage), shapes, params, extents, devices, scope.dtype)
    found = _PROGRAMS.get(key)
    if found is None:
        found = _PROGRAMS[key] = (stage, build_program(stage, scope))
        if len(_PROGRAMS) > _KEPT:
            _PROGRAMS.popitem(last=False)
    return found[1]


def _walk(program: Program, layout: Layout, scope: Scope, buffers: Mapping[str, Tensor]) -> None:
    """Every point of the outputs once: row tile by row tile, in each the grid in chunks."""
    whole = {r: range(program.extents[r]) for r in program.order}
    call = _Call(program, layout.masks, scope, tuple(_stored(program, whole, buffers)))
    pieces = _pieces(program, layout, scope)
    threads = torch.get_num_threads() if _in_workers(layout, scope) else 1
    if threads < 2:
        for piece in pieces:
            call.tile(piece)
        return
    while some := sorted(islice(pieces, PIECES_AT_ONCE), key=lambda p: p.points, reverse=True):
        # Pieces so unequal that about half of the threads would wait: torch's own do better.
        even = 2 * sum(p.points for p in some) > (threads + 1) * some[0].points
        run_pieces([partial(call.tile, piece) for piece in some], threads if even else 1)


def _in_workers(layout: Layout, scope: Scope) -> bool:
    """Whether a stage is worth more threads, and its tensors are what torch's CPU code takes."""
    tensors = [held.data for held in scope.tensors.values()]
    plain = all(type(x) in (Tensor, Parameter) and x.device.type == "cpu" for x in tensors)
    return plain and layout.points >= 2 * PIECE_POINTS


def _pieces(program: Program, layout: Layout, scope: Scope) -> Iterator[_Piece]:
    """The stage in parts that are computed, and stored, independently of one another."""
    stage, extents = program.stage, program.extents
    whole = {r: range(extents[r]) for r in program.order}
    share = max(PIECE_POINTS, layout.points // PIECES)
    row_tiles = [range(1)] if stage.row is None else list(_tiles(whole[stage.row], layout.rows))
    number = 0
    while number < len(row_tiles):
        rows, count = row_tiles[number], 1
        for box, visited in layout.steps(program, number):
            widest = max((len(s.points) for spans in visited for s in spans), default=1)
            length = sum(len(s.points) for spans in visited for s in spans)
            limit = min(TILE_POINTS // widest, share // max(1, length)) // len(rows)
            count = row_group(layout, program, scope, number, limit)
            # Heads of one group are no batch: their windows are not equally far apart.
            for chunk in _chunks(box, limit if count == 1 else 1):
                place = {**whole, **chunk, stage.swept: range(1)}
                if stage.row is not None:
                    place |= {stage.row: rows, ROW_GROUP: range(count)}
                points = len(rows) * length * count * prod(map(len, chunk.values()))
                yield _Piece(place, visited, points)
        number += count


@dataclass(frozen=True, slots=True)
class _Piece:
    """A row tile, or a group of them, at a part of the grid; `points` visited in all passes."""

    box: Box
    visited: tuple[tuple[Span, ...], ...]
    points: int


def _stored(
    program: Program, whole: Box, buffers: Mapping[str, Tensor]
) -> Iterator[tuple[Tensor, Target]]:
    """What is stored as views on the axes of tiles; an axis that a tensor lacks has length 1."""
    for target in program.targets:
        x = buffers[target.tensor].view(target.shape)
        x = x.permute(sorted(range(x.ndim), key=lambda i: program.order.index(target.ranks[i])))
        for axis, rank in enumerate(whole):
            if rank not in target.ranks:
                x = x.unsqueeze(axis)
        yield x, target


def _chunks(box: Box, limit: int) -> Iterator[Box]:
    """A part of the grid in boxes of at most `limit` points, inner ranks as whole as possible."""
    if prod(map(len, box.values())) <= limit:
        yield box
        return
    steps = {}
    for rank, span in reversed(list(box.items())):
        steps[rank] = max(1, min(len(span), limit))
        limit //= steps[rank]
    for spans in product(*(list(_tiles(span, steps[r])) for r, span in box.items())):
        yield dict(zip(box, spans, strict=True))


def _tiles(span: range, size: int) -> Iterator[range]:
    for low in range(span.start, span.stop, size):
        yield range(low, min(low + size, span.stop))


@dataclass(slots=True)
class _Call:
    """A stage on the way through its tiles."""

    program: Program
    masks: Masks
    scope: Scope
    stored: tuple[tuple[Tensor, Target], ...]
    whole: Whole = field(default_factory=Whole)

    def tile(self, piece: _Piece) -> None:
        """One tile of rows at a part of the grid: all passes, and what is stored after them."""
        program, box, visited = self.program, piece.box, piece.visited
        tile = Tile(self.scope, box, program.host, self.whole, program.moving(box))
        for name, code in program.resident:
            tile.values[name] = code(tile)
        if sum(map(len, visited)) > 1:
            _pack(tile, program.resident)
        for number, spans in enumerate(visited):
            self._sweep(number, spans, tile)
        for buffer, target in self.stored:
            self._store(buffer, target, tile)

    def _sweep(self, number: int, spans: tuple[Span, ...], tile: Tile) -> None:
        """One pass: the tile then knows its final states, and what follows from them."""
        program, p = self.program, self.program.passes[number]
        swept = program.stage.swept
        states: dict[str, Array] = {}
        for span in spans:
            step = tile.at(swept, span.points)
            block = p.blocks[not states, bool(span.cut)]
            step.values.update(states)
            if span.cut:
                step.hidden = self.masks.hidden(program, number, step, span.cut)
            for name, code in block:
                step.values[name] = code(step)
            states = {c.name: step.values[c.update] for c in p.carries}
        if not states:
            states = {c.name: _initial(c, tile, program.stage.grid) for c in p.carries}
        tile.values.update(states)
        for name, code in p.after:
            tile.values[name] = code(tile)

    def _store(self, buffer: Tensor, target: Target, tile: Tile) -> None:
        x = tile.lift(target.value(tile))
        part = cut_out(buffer, [(tile.axis[r], r) for r in target.ranks], tile)
        for axis, size in enumerate(part.shape):
            if x.shape[axis] > size:
                # An axis that the tensor lacks holds the same value everywhere.
                x = x.narrow(axis, 0, 1)
        part.copy_(x)


def _pack(tile: Tile, resident: Block) -> None:
    """Lay out resident tiles once in a row in memory: they are multiplied again and again."""
    for name, _ in resident:
        x = tile.values[name]
        if not is_scalar(x):
            tile.values[name] = x.contiguous()


def _initial(carry: Carry, tile: Tile, grid: tuple[str, ...]) -> Array:
    shape = tuple(len(span) if r in (*grid, *carry.ranks) else 1 for r, span in tile.box.items())
    return tile.arrays.full(
        shape, carry.init, "bool" if isinstance(carry.init, bool) else tile.dtype
    )
