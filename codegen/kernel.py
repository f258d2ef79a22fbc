"""A sweep stage as one Triton kernel: its signature and its lines, in sections."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from attnc.codegen.address import Addressing
from attnc.codegen.expr import Tiles, Variable
from attnc.codegen.lets import Lines
from attnc.codegen.scope import Scope
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Expr, Read
from attnc.ir.plan import Dot, Let, Load, Pass, SweepStage
from attnc.ir.walk import reads

Role: TypeAlias = Literal["tensor", "stride", "extent", "param", "host", "width", "block"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a kernel: `of` a tensor, rank, param or host let; `item`: axis or tuple item."""

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
    whose tiles enter matrix products as they are, so their types must agree.
    """

    name: str
    stage: SweepStage
    parameters: tuple[Parameter, ...]
    program: tuple[str, ...]
    resident: tuple[str, ...]
    loops: tuple[Loop, ...]
    stores: tuple[str, ...]
    helpers: frozenset[str]
    split: str | None
    multiplied: tuple[str, ...]

    def named(self, *roles: Role) -> tuple[Parameter, ...]:
        return tuple(p for p in self.parameters if p.role in roles)

    @property
    def signature(self) -> tuple[str, ...]:
        """The parameters, those that belong together on one line."""
        strides = self.named("stride")
        tensors = dict.fromkeys(p.of for p in strides)
        groups = [
            self.named("tensor"),
            *([p for p in strides if p.of == t] for t in tensors),
            self.named("extent", "param", "host"),
        ]
        lines = [", ".join(p.name for p in g) for g in groups if g]
        fixed = [f"{p.name}: tl.constexpr" for p in self.named("width", "block")]
        return (*lines, ", ".join(fixed))

    @property
    def unspecialised(self) -> str:
        """Arguments whose value must never cause a recompilation."""
        return ", ".join(f'"{p.name}"' for p in self.named("extent", "param", "host"))


def write_kernel(cascade: Cascade, stage: SweepStage, name: str, main: str) -> Kernel:
    """The kernel of a stage. `main` is the tensor whose type products of computed tiles take."""
    return _Writer(Scope(cascade, stage), name, main).kernel()


class _Writer:
    def __init__(self, scope: Scope, name: str, main: str) -> None:
        self.scope, self.stage, self.name = scope, scope.stage, name
        self.tiles = Tiles(scope)
        host: dict[Expr, Expr] = {}
        for let in self.stage.host:
            self.tiles.variables[let.name] = Variable(scope.let(let.name), (), let.dtype)
            assert not isinstance(let.value, Load | Dot)
            host[Read(let.name, ())] = let.value  # type: ignore[assignment]
        for let in self.lets:
            scope.let(let.name)
        self.operands = self._operands()
        self.addressing = Addressing(scope, self.tiles, host)
        self.cited: set[int] = set()
        self.main = scope.pointer(main)
        self.tiles.counts = frozenset(let.name for let in self.stage.host if let.dtype == "int")

    @property
    def lets(self) -> tuple[Let, ...]:
        s = self.stage
        return (*s.resident, *(x for p in s.passes for x in (*p.body, *p.after)))

    def _section(self, looping: bool = False) -> Lines:
        return Lines(
            self.scope, self.tiles, self.addressing, self.operands, self.cited, self.main,
            looping=looping,
        )  # fmt: skip

    def kernel(self) -> Kernel:
        resident = self._section()
        for let in self.stage.resident:
            resident.let(let)
        loops = [self._loop(p) for p in self.stage.passes]
        stores = self._section()
        for s in self.stage.stores:
            stores.store(s)
        below = [*stores.lines, *resident.lines]
        for loop in loops:
            below += [*loop.before, *loop.head_lines, *loop.body, *loop.after]
        program = self._program(below)
        parameters = self._parameters([*program, *below])
        finished = tuple(
            Loop(tuple(x.before), x.head, tuple(x.body), tuple(x.after)) for x in loops
        )
        return Kernel(
            self.name, self.stage, parameters, tuple(program), tuple(resident.lines), finished,
            tuple(stores.lines), frozenset(self.tiles.helpers), self.scope.split, self._multiplied(),
        )  # fmt: skip

    # the sweeps --------------------------------------------------------------------------------

    def _loop(self, p: Pass) -> _Draft:
        before, body, after = self._section(), self._section(looping=True), self._section()
        for carry in p.carries:
            before.carry(carry)
        in_place = _updated_in_place(p)
        for let in p.body:
            body.let(let, self.scope.let(in_place[let.name]) if let.name in in_place else "")
        for carry in p.carries:
            new = self.tiles.variables[carry.update].name
            old = self.tiles.variables[carry.name].name
            if new != old:
                body.lines.append(f"{old} = {new}")
        for let in p.after:
            after.let(let)
        rank = self.stage.swept
        start, block = self.scope.start(rank), self.scope.block(rank)
        head = f"for {start} in range(0, {self.scope.extent(rank)}, {block}):"
        opening = self._opening(body.lines)
        local = [f"{self.scope.local(rank)} = tl.arange(0, {block})"]
        used = words([*body.hoisted, *opening, *body.lines])
        local = local if self.scope.local(rank) in used else []
        lines = [*opening, *body.lines]
        return _Draft([*before.lines, *local, *body.hoisted], head, lines, after.lines)

    def _opening(self, body: Sequence[str]) -> list[str]:
        """The coordinates of the swept tile, as far as the body uses them."""
        rank, scope = self.stage.swept, self.scope
        start, offsets = scope.start(rank), scope.offsets(rank)
        return needed(
            [
                (scope.wide(rank), f"tl.cast({start}, tl.int64)"),
                (offsets, f"{start} + {scope.local(rank)}"),
                (scope.inside(rank), f"{offsets} < {scope.extent(rank)}"),
            ],
            body,
        )

    def _program(self, body: Sequence[str]) -> list[str]:
        """Which part of the output a program computes, and the coordinates that its tiles need."""
        scope, s = self.scope, self.stage
        lines = ["pid = tl.program_id(0)"]
        for rank in (s.row, scope.split):
            if rank is not None:
                block = scope.block(rank)
                count = scope.namer.name(("count", rank), f"tiles_{rank}")
                lines.append(f"{count} = tl.cdiv({scope.extent(rank)}, {block})")
                lines.append(f"{scope.start(rank)} = pid % {count} * {block}")
                if s.grid or (rank == s.row and scope.split is not None):
                    lines.append(f"pid = pid // {count}")
        for i, rank in enumerate(reversed(s.grid)):
            outermost = i == len(s.grid) - 1
            extent = scope.extent(rank)
            part = "pid.to(tl.int64)" if outermost else f"(pid % {extent}).to(tl.int64)"
            lines.append(f"{scope.place(rank)} = {part}")
            if not outermost:
                lines.append(f"pid = pid // {extent}")
        return lines + needed(self._coordinates(), body)

    def _coordinates(self) -> list[tuple[str, str]]:
        scope, found = self.scope, []
        for rank in scope.tile_ranks:
            if rank == self.stage.swept:
                continue
            block, extent = scope.block(rank), scope.extent(rank)
            offsets, inside = scope.offsets(rank), scope.inside(rank)
            if rank == self.stage.row:
                found.append((scope.local(rank), f"tl.arange(0, {block})"))
                found.append((offsets, f"{scope.start(rank)} + {scope.local(rank)}"))
                found.append((inside, f"{offsets} < {extent}"))
            else:
                start = f"{scope.start(rank)} + " if rank == scope.split else ""
                found.append((offsets, f"{start}tl.arange(0, {block})"))
                # true at compile time where the extent fills its block, so the mask goes away
                found.append((inside, f"({offsets} < {extent}) | ({extent} % {block} == 0)"))
        return found

    # the signature -----------------------------------------------------------------------------

    def _parameters(self, lines: Iterable[str]) -> tuple[Parameter, ...]:
        scope, s = self.scope, self.stage
        used = words(lines)
        tensors = [t.name for t in scope.cascade.inputs]
        tensors += [x.tensor for x in scope.cascade.statements if x.tensor not in tensors]
        tensors = list(dict.fromkeys(t for t in tensors if ("tensor", t) in scope.namer.names))
        found = [Parameter(scope.pointer(t), "tensor", t) for t in tensors]
        for t in tensors:
            for i in range(len(scope.axes_of(t))):
                found.append(Parameter(scope.stride(t, i), "stride", t, i))
        runtime = [r.name for r in scope.cascade.ranks if r.name not in scope.feature_ranks]
        found += [Parameter(scope.extent(r), "extent", r) for r in runtime]
        for p in scope.cascade.params:
            items = range(p.length) if p.length else (None,)
            found += [Parameter(scope.param(p.name, i), "param", p.name, i) for i in items]
        found += [Parameter(scope.let(x.name), "host", x.name) for x in s.host]
        found += [Parameter(scope.extent(r), "width", r) for r in scope.feature_ranks]
        found += [Parameter(scope.block(r), "block", r) for r in scope.tile_ranks]
        return tuple(p for p in found if p.name in used)

    # matrix products ---------------------------------------------------------------------------

    def _operands(self) -> dict[str, tuple[str, ...]]:
        """The loads that enter matrix products as they are, and the order of axes they want."""
        loads = {x.name: x for x in self.lets if isinstance(x.value, Load) and x.dtype == "float"}
        wanted: dict[str, tuple[str, ...]] = {}
        for let in self.lets:
            if not isinstance(let.value, Dot) or len(let.ranks) != 2:
                continue
            dot = let.value
            for side, first in ((dot.left, False), (dot.right, True)):
                if isinstance(side, Read) and side.tensor in loads:
                    ranks = loads[side.tensor].ranks
                    other = [r for r in ranks if r != dot.over]
                    if len(ranks) == 2 and len(other) == 1:
                        order = (dot.over, *other) if first else (*other, dot.over)
                        wanted.setdefault(side.tensor, order)
        return wanted

    def _multiplied(self) -> tuple[str, ...]:
        loads = {x.name: x.value for x in self.lets if isinstance(x.value, Load)}
        found = [v.read.tensor for n, v in loads.items() if n in self.operands]
        return tuple(dict.fromkeys(found))


@dataclass(slots=True)
class _Draft:
    before: list[str]
    head: str
    body: list[str]
    after: list[str]

    @property
    def head_lines(self) -> list[str]:
        return [self.head]


def _updated_in_place(p: Pass) -> dict[str, str]:
    """Updates that can overwrite their state: nothing reads the old value later."""
    found: dict[str, str] = {}
    for carry in p.carries:
        places = [i for i, let in enumerate(p.body) if let.name == carry.update]
        if not places or carry.update in found:
            continue
        later = [x for let in p.body[places[0] + 1 :] for x in value_reads(let)]
        others = [c for c in p.carries if c is not carry and c.update == carry.update]
        if carry.name not in {r.tensor for r in later} and not others:
            found[carry.update] = carry.name
    return found


def value_reads(let: Let) -> tuple[Read, ...]:
    """All reads of a let's value."""
    match let.value:
        case Load(read):
            return reads(read)
        case Dot(left, right, _, plus):
            return (*reads(left), *reads(right), *(reads(plus) if plus is not None else ()))
        case value if hasattr(value, "body"):
            return reads(value.body)
        case expr:
            return reads(expr)  # type: ignore[arg-type]


def words(lines: Iterable[str]) -> set[str]:
    """Every identifier in some lines of code, comments left out."""
    return {w for x in lines if not x.startswith("#") for w in re.findall(r"[A-Za-z_]\w*", x)}


def needed(definitions: list[tuple[str, str]], lines: Sequence[str]) -> list[str]:
    """Those of the definitions, in order, that the lines or each other use."""
    used = words(lines)
    kept = []
    for name, value in reversed(definitions):
        if name in used:
            kept.append(f"{name} = {value}")
            used |= words([value])
    return kept[::-1]
