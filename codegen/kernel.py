"""A sweep stage as one Triton kernel: its signature and its lines, in sections."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from attnc.codegen.address import Addressing
from attnc.codegen.choose_bounds import choose_bounds
from attnc.codegen.coordinates import Coordinates, Definition, tile_coordinates
from attnc.codegen.descriptors import Boxes, Descriptor
from attnc.codegen.expr import Tiles, Variable
from attnc.codegen.lets import Context, Lines
from attnc.codegen.list_visits import (
    count_name,
    entry_lines,
    listed_tiles,
    table_name,
    tiles_name,
)
from attnc.codegen.mask_parts import name_mask_parts, renamed
from attnc.codegen.overflow import overflow
from attnc.codegen.permute import permuted_axes
from attnc.codegen.products import Products
from attnc.codegen.prune import all_lets, count_uses, operands, prune, used_names
from attnc.codegen.scope import Scope
from attnc.codegen.tile_lists import TileLists, kernel_lists
from attnc.codegen.visits import (
    TileLoop,
    Visits,
    all_tiles,
    has_range,
    loaded,
    missing_loads,
    range_tiles,
)
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Expr, Index, Param, Read
from attnc.ir.facts import bounds
from attnc.ir.geometry.key_range import KeyRange, key_range
from attnc.ir.geometry.layout import Layout, TileAxis
from attnc.ir.plan import Carry, Dot, Fold, Let, Load, Pass, Serial, SweepStage
from attnc.ir.walk import index_ranks, subexprs

Role: TypeAlias = Literal[
    "descriptor", "tensor", "table", "tiles", "places", "stride", "extent", "param", "host",
    "count", "step", "width", "block", "wide",
]  # fmt: skip
# How the docstring of a kernel that loads boxes goes on.
_COPIES = """The GPU copies tiles by itself, as their tensor descriptors tell it. What lies beyond
    the end of a tensor reads as zero and is not written."""
# Passed at run time: no value causes a recompilation.
_NUMBERS: tuple[Role, ...] = ("extent", "param", "host", "count", "step")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a kernel, `of` a tensor, rank, param or host let; `item`: axis or item."""

    name: str
    role: Role
    of: str
    item: int | None = None


@dataclass(frozen=True, slots=True)
class Loop:
    """One sweep: what is set before it, its `for`, its body, what follows."""

    before: tuple[str, ...]
    head: str
    body: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel's text in sections, and what its launcher must know.

    `split` is the column rank whose tiles go to different programs; `multiplied` are the tensors
    whose tiles enter matrix products as they are, so their types must agree. `stepped` names the
    strides by which tile coordinates are multiplied: where one is large, offsets must be `wide`.
    `lists` makes the table and the list from which it knows its tiles, if it has no closed form;
    `permuted` are the axes of tensors that it wants in the order of tiles; `descriptors` are those
    among its parameters.
    """

    name: str
    stage: SweepStage
    parameters: tuple[Parameter, ...]
    doc: str
    program: tuple[str, ...]
    resident: tuple[str, ...]
    loops: tuple[Loop, ...]
    stores: tuple[str, ...]
    helpers: frozenset[str]
    split: str | None
    multiplied: tuple[str, ...]
    stepped: frozenset[str]
    lists: TileLists | None = None
    permuted: frozenset[tuple[str, int]] = frozenset()
    descriptors: tuple[Descriptor, ...] = ()

    def named(self, *roles: Role) -> tuple[Parameter, ...]:
        """The parameters of some roles, in order."""
        return tuple(p for p in self.parameters if p.role in roles)

    @property
    def lines(self) -> tuple[str, ...]:
        """All lines of the body, unbroken and not indented."""
        loops = [x for p in self.loops for x in (*p.before, p.head, *p.body, *p.after)]
        return (*self.program, *self.resident, *loops, *self.stores)

    @property
    def signature(self) -> tuple[tuple[str, ...], ...]:
        """The parameters, those that belong together on one line."""
        strides = self.named("stride")
        tensors = dict.fromkeys(p.of for p in strides)
        groups = [
            self.named("descriptor", "tensor", "table", "tiles", "places"),
            *([p for p in strides if p.of == t] for t in tensors),
            self.named(*_NUMBERS),
        ]
        lines = [tuple(p.name for p in g) for g in groups if g]
        fixed = tuple(f"{p.name}: tl.constexpr" for p in self.named("width", "block", "wide"))
        return (*lines, fixed)

    @property
    def decorator(self) -> str:
        """`triton.jit`, told which arguments' values must never cause a recompilation."""
        names = ", ".join(f'"{p.name}"' for p in self.named(*_NUMBERS))
        return f"@triton.jit(do_not_specialize=[{names}])"


def write_kernel(
    cascade: Cascade,
    stage: SweepStage,
    name: str,
    lead: str,
    helpers: Mapping[str, str],
    permute: bool = False,
    boxes: bool = False,
) -> Kernel:
    """The kernel of a stage.

    `lead` is the tensor whose type products of computed tiles take; `helpers` names the functions
    that the module defines. `permute`: tokens are put in the order of tiles, where that differs.
    `boxes`: tiles are loaded and stored by tensor descriptors where that is possible; then no
    integer that the kernel calculates may pass 32 bits.
    """
    stage = choose_bounds(prune(stage), cascade)
    ranges = tuple(key_range(p.visibility, cascade) for p in stage.passes)
    lists = kernel_lists(stage, cascade, f"_{name}_tiles")
    if lists is not None:
        ranges = (None,) * len(ranges)
    stage = replace(stage, resident=(*stage.resident, *missing_loads(ranges, stage)))
    named = name_mask_parts(stage, cascade)
    layouts = {} if lists is None else lists.layouts
    scope = Scope(cascade, named.stage, helpers, layouts)
    scope.permuted = permuted_axes(stage, scope) if permute else frozenset()
    scope.boxes = boxes
    wide = frozenset() if boxes else overflow(stage, ranges, cascade).nodes
    large = renamed(wide, named.parts)
    tiles = Tiles(scope, large=large, meaning={let: e for e, let in named.parts.items()})
    return replace(_Writer(tiles, name, lead, ranges, lists).kernel(), stage=stage)


class _Writer:
    def __init__(
        self,
        tiles: Tiles,
        name: str,
        lead: str,
        ranges: tuple[KeyRange | None, ...],
        lists: TileLists | None,
    ) -> None:
        scope = self.scope = tiles.scope
        self.tiles, self.stage, self.name = tiles, scope.stage, name
        self.ranges, self.lists = ranges, lists
        host: dict[Expr, Expr] = {}
        for let in self.stage.host:
            assert not isinstance(let.value, Load | Dot | Fold | Serial)
            flag = let.dtype == "bool"
            tiles.variables[let.name] = Variable(scope.let(let.name), (), let.dtype, flag=flag)
            if let.dtype == "int":
                tiles.counts[let.name] = bounds(let.value, {})
            host[Read(let.name, ())] = let.value
        tiles.meaning |= host
        for let in all_lets(self.stage):
            scope.let(let.name)
        self.addressing = Addressing(scope, tiles, host)
        self.boxes = Boxes(scope, self.addressing) if scope.boxes else None
        self.operands = operands(all_lets(self.stage))
        products = Products(scope, tiles, self._type_of(lead))
        self.context = Context(scope, tiles, self.addressing, products, self.operands, self.boxes)
        self.inlined = _inlined(self.stage)
        # In full tiles other lets are used just once.
        full = tuple(replace(p, body=p.full) for p in self.stage.passes)
        self.inlined_full = _inlined(replace(self.stage, passes=full))

    def _type_of(self, tensor: str) -> str:
        """The type of a tensor's elements: as a descriptor tells it, or a pointer."""
        if self.boxes is not None:
            for let in all_lets(self.stage):
                if isinstance(let.value, Load):
                    self.boxes.of(let.value.read, self.scope.ordered(set(let.ranks)))
            return self.boxes.type_of(tensor)
        return f"{self.scope.pointer(tensor)}.dtype.element_ty"

    def kernel(self) -> Kernel:
        resident = Lines(self.context, self.inlined)
        for let in self.stage.resident:
            resident.let(let)
        loops = [
            x
            for p, keys in zip(self.stage.passes, self.ranges, strict=True)
            for x in self._sweep(p, keys)
        ]
        stores = Lines(self.context)
        for s in self.stage.stores:
            stores.store(s)
        below = [*resident.lines, *stores.lines]
        for loop in loops:
            below += [*loop.before, loop.head, *loop.body, *loop.after]
        program = self._program(below)
        return Kernel(
            name=self.name,
            stage=self.stage,
            parameters=self._parameters([*program, *below]),
            doc=self._doc(),
            program=tuple(program),
            resident=tuple(resident.lines),
            loops=tuple(loops),
            stores=tuple(stores.lines),
            helpers=frozenset(self.tiles.helpers),
            split=self.scope.split,
            multiplied=self._multiplied(),
            stepped=frozenset(self.addressing.stepped),
            lists=self.lists,
            permuted=self.scope.permuted,
            descriptors=self._descriptors,
        )

    @property
    def _descriptors(self) -> tuple[Descriptor, ...]:
        return () if self.boxes is None else tuple(self.boxes.descriptors.values())

    def _doc(self) -> str:
        s, scope = self.stage, self.scope
        tile = f"{scope.block(s.row)} of {s.row}" if s.row else "one row"
        tile += f" and {scope.block(scope.split)} of {scope.split}" if scope.split else ""
        at = f" at one ({', '.join(s.grid)})" if s.grid else ""
        times = {1: "once", 2: "twice"}.get(len(s.passes), f"{len(s.passes)} times")
        swept = f"{s.swept} {times}" if s.part is None else f"a part of {s.swept}"
        whole = f"A program holds {tile}{at} and sweeps {swept}."
        return f"{whole}\n\n    {_COPIES}\n    " if scope.boxes else whole

    # the sweeps --------------------------------------------------------------------------------

    def _sweep(self, p: Pass, keys: KeyRange | None) -> list[Loop]:
        """The loops of one pass: states before the first, what follows the pass after the last."""
        states, after = Lines(self.context), Lines(self.context, self.inlined)
        for carry in p.carries:
            states.carry(carry)
        if self.boxes is not None:
            self.boxes.narrow = keys is None or _within_extents(keys, self.stage.row)
        visits = self._visits(keys)
        made = [self._loop(p, x) for x in visits.loops]
        for let in p.after:
            after.let(let)
        rank = self.stage.swept
        body = [x for loop in made for x in (*loop.before, *loop.body)]
        local = self._once(self._coordinates(rank).local, body)
        setup = [x for x in visits.setup if x not in self.context.hoisted]
        self.context.hoisted.update(setup)
        heads = [loop.before for loop in made]
        heads[0] = (*states.lines, *local, *heads[0], *setup)
        return [
            replace(
                loop,
                before=(*head, *visit.before),
                after=tuple(after.lines) if loop is made[-1] else (),
            )
            for loop, visit, head in zip(made, visits.loops, heads, strict=True)
        ]

    def _loop(self, p: Pass, visit: TileLoop) -> Loop:
        """One loop over tiles; `before` is what its body needs before it."""
        lets = p.full if visit.full else p.body
        inlined = self.inlined_full if visit.full else self.inlined
        body = Lines(self.context, inlined, looping=True, late=visit.late)
        self.scope.whole = {self.stage.swept} if visit.full else set()
        in_place = _updated_in_place(lets, p.carries)
        for let in lets:
            body.let(let, self.scope.let(in_place[let.name]) if let.name in in_place else "")
        for carry in p.carries:
            new = self.tiles.variables[carry.update].name
            old = self.tiles.variables[carry.name].name
            if new != old:
                body.lines.append(f"{old} = {new}")
        self.scope.whole = set()
        opening = (*visit.opening, *self._opening(body.lines))
        return Loop(tuple(body.before), visit.head, (*opening, *body.lines), ())

    def _visits(self, keys: KeyRange | None) -> Visits:
        if self.lists is not None:
            return listed_tiles(self.scope)
        if keys is None or not has_range(keys, self.stage):
            return all_tiles(self.scope)
        return range_tiles(keys, self.tiles, loaded(self.stage))

    def _once(self, definitions: Sequence[Definition], used_by: Sequence[str]) -> list[str]:
        """Definitions ahead of a loop, unless an earlier loop had them or nothing needs them."""
        lines = [x for x in needed([*definitions], used_by) if x not in self.context.hoisted]
        self.context.hoisted.update(lines)
        return lines

    def _opening(self, body: Sequence[str]) -> list[str]:
        """The coordinates of the swept tile, as far as the body uses them."""
        rank, scope = self.stage.swept, self.scope
        wide = (scope.wide(rank), f"tl.cast({scope.start(rank)}, tl.int64)")
        return needed([wide, *self._coordinates(rank).moving], body)

    # coordinates -------------------------------------------------------------------------------

    def _program(self, body: Sequence[str]) -> list[str]:
        """Which part of the output a program computes, and the coordinates that its tiles need."""
        scope, row, grid = self.scope, self.stage.row, self.stage.grid
        lines = ["pid = tl.program_id(0)"] if row or grid else []
        place = scope.namer.name(("lists", "place"), "place")
        if row:
            block = scope.block(row)
            tiles = count_name(scope)
            if self.lists is None:
                lines.append(f"{tiles} = tl.cdiv({scope.extent(row)}, {block})")
            if self.lists is not None:
                lines.append(f"{place} = pid % {tiles}")
            elif self._growing():
                lines.append(
                    f"# longest first: the last of {row} see the most of {scope.stage.swept}"
                )
                lines.append(f"{scope.start(row)} = ({tiles} - 1 - pid % {tiles}) * {block}")
            else:
                lines.append(f"{scope.start(row)} = pid % {tiles} * {block}")
            lines += [f"pid = pid // {tiles}"] if grid else []
        cast = "{}" if scope.boxes else "({}).to(tl.int64)"
        for rank in grid[:0:-1]:
            extent = scope.extent(rank)
            lines.append(f"{scope.place(rank)} = {cast.format(f'pid % {extent}')}")
            lines.append(f"pid = pid // {extent}")
        if grid and scope.boxes:
            lines[-1] = lines[-1].replace("pid", scope.place(grid[0]), 1)
        elif grid:
            lines.append(f"{scope.place(grid[0])} = pid.to(tl.int64)")
        entry = [] if self.lists is None else entry_lines(scope, self.lists, place)
        later = needed([*self.addressing.indices, *self._resident_coordinates()], body)
        wide = [(scope.wide_place(r), f"{scope.place(r)}.to(tl.int64)") for r in grid]
        wide = wide if scope.boxes else []
        return [*lines, *needed(wide, [*entry, *later, *body]), *entry, *later]

    def _growing(self) -> bool:
        """Whether later rows have more to sweep."""
        row = {self.stage.row}
        known = [x for x in self.ranges if x is not None]
        return any(x.growing and (index_ranks(x.high) | index_ranks(x.low)) & row for x in known)

    def _coordinates(self, rank: str) -> Coordinates:
        """The coordinates of the row's or of the swept rank's tiles."""
        layout = self.scope.layouts.get(rank, Layout(rank, (TileAxis(rank),)))
        return tile_coordinates(self.scope, layout, lambda c, r: self.tiles.component(c, r).text)

    def _resident_coordinates(self) -> list[Definition]:
        """Definitions of the tiles' coordinates and edges, the swept rank's aside."""
        scope, found = self.scope, list[Definition]()
        for rank in scope.tile_ranks:
            block, extent = scope.block(rank), scope.extent(rank)
            offsets, inside = scope.offsets(rank), scope.inside(rank)
            if rank == self.stage.row:
                at = self._coordinates(rank)
                found += [*at.local, *at.moving]
            elif rank != self.stage.swept:
                start = f"tl.program_id(1) * {block}" if rank == scope.split else ""
                if start and scope.boxes:
                    found.append((scope.start(rank), start))
                    start = scope.start(rank)
                start += " + " if start else ""
                found.append((offsets, f"{start}{scope.arange(block)}"))
                # true at compile time where the extent fills its block, so the mask goes away
                found.append((inside, f"({offsets} < {extent}) | ({extent} == {block})"))
                parts = scope.cascade.rank(rank).components
                found += [(scope.offsets(c), self.tiles.component(c, rank).text) for c in parts]
        return found

    # the signature -----------------------------------------------------------------------------

    def _parameters(self, lines: Iterable[str]) -> tuple[Parameter, ...]:
        scope, s = self.scope, self.stage
        used = words(lines)
        tensors = [
            *(t.name for t in scope.cascade.inputs),
            *(x.tensor for x in scope.cascade.statements),
        ]
        order = [*dict.fromkeys(tensors)]
        boxes = sorted(self._descriptors, key=lambda d: order.index(d.tensor))
        found = [Parameter(d.name, "descriptor", d.tensor) for d in boxes]
        tensors = [t for t in order if ("tensor", t) in scope.namer.names]
        found += [Parameter(scope.pointer(t), "tensor", t) for t in tensors]
        found += [
            Parameter(table_name(scope), "table", ""),
            Parameter(tiles_name(scope), "tiles", ""),
            *(Parameter(scope.places(r), "places", r) for r in scope.layouts),
        ]
        for t in tensors:
            for i in range(len(scope.axes_of(t))):
                found.append(Parameter(scope.stride(t, i), "stride", t, i))
        runtime = [r.name for r in scope.cascade.ranks if r.name not in scope.feature_ranks]
        found += [Parameter(scope.extent(r), "extent", r) for r in runtime]
        for p in scope.cascade.params:
            items = range(p.length) if p.length else (None,)
            found += [Parameter(scope.param(p.name, i), "param", p.name, i) for i in items]
        found += [Parameter(scope.let(x.name), "host", x.name) for x in s.host]
        if self.lists is not None:
            found.append(Parameter(count_name(scope), "count", ""))
            found += [Parameter(scope.step(c), "step", c) for c in self.lists.steps]
        found += [Parameter(scope.extent(r), "width", r) for r in scope.feature_ranks]
        found += [Parameter(scope.block(r), "block", r) for r in scope.tile_ranks]
        parts = (c for x in scope.layouts.values() for c in x.coordinates if c != x.rank)
        found += [Parameter(scope.block(c), "block", c) for c in parts]
        found.append(Parameter(scope.wide_offsets, "wide", ""))
        return tuple(p for p in found if p.name in used)

    def _multiplied(self) -> tuple[str, ...]:
        loads = {x.name: x.value for x in all_lets(self.stage) if isinstance(x.value, Load)}
        found = [v.read.tensor for n, v in loads.items() if n in self.operands]
        return tuple(dict.fromkeys(found))


def _inlined(stage: SweepStage) -> frozenset[str]:
    """Products and folds that one pointwise let of the same block and axes uses once."""
    uses = count_uses(stage)
    states = {c.name for p in stage.passes for c in p.carries}
    blocks = (stage.resident, *(b for p in stage.passes for b in (p.body, p.after)))
    found = set()
    for block in blocks:
        for let in block:
            single = isinstance(let.value, Dot) and let.value.plus is None
            if not (single or isinstance(let.value, Fold)) or uses[let.name] != 1:
                continue
            readers = [x for x in block if let.name in used_names(x)]
            pointwise = readers and not isinstance(readers[0].value, Load | Dot | Fold | Serial)
            if pointwise and readers[0].ranks == let.ranks and not used_names(let) & states:
                found.add(let.name)
    return frozenset(found)


def _within_extents(keys: KeyRange, row: str | None) -> bool:
    """Whether the bounds of a range are made of extents and the row's coordinate alone."""
    leaves = (x for e in (keys.low, keys.high) for x in subexprs(e))
    varies = (x for x in leaves if isinstance(x, Index | Param | Read))
    return all(x == Index(row or "") for x in varies)


def _updated_in_place(body: tuple[Let, ...], carries: tuple[Carry, ...]) -> dict[str, str]:
    """Updates that can overwrite their state: nothing reads the old value later."""
    found: dict[str, str] = {}
    names = [let.name for let in body]
    for carry in carries:
        if carry.update not in names:
            continue
        later = body[names.index(carry.update) + 1 :]
        shared = any(c.update == carry.update for c in carries if c is not carry)
        if not shared and not any(carry.name in used_names(x) for x in later):
            found[carry.update] = carry.name
    return found


def words(lines: Iterable[str]) -> set[str]:
    """Every identifier in some lines of code, comments left out."""
    code = (x.split("  # ")[0] for x in lines if not x.startswith("#"))
    return {w for x in code for w in re.findall(r"[A-Za-z_]\w*", x)}


def needed(definitions: list[tuple[str, str]], lines: Sequence[str]) -> list[str]:
    """Those of the definitions, in order, that the lines or each other use."""
    used = words(lines)
    kept = []
    for name, value in reversed(definitions):
        if name in used:
            kept.append(f"{name} = {value}")
            used |= words([value])
    return kept[::-1]
