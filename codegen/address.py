"""Where a tile lies in memory: a 64-bit scalar base, 32-bit offsets inside the tile, a mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attnc.codegen.code import PRODUCT
from attnc.codegen.expr import Tiles, subscript
from attnc.codegen.scope import Scope
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.walk import reads, subexprs, substitute


@dataclass(frozen=True, slots=True)
class Linear:
    """An index as `sum(factor * Index(rank)) + rest`, `rest` without a tile axis."""

    factors: Mapping[str, int]
    rest: Expr | None


@dataclass(slots=True)
class Address:
    """`pointer + offset` under `mask`.

    pointer: what stays the same during a sweep, scalar terms before those with axes
    moving:  the terms that change from tile to tile
    checks:  lines that name the indices which `mask` tests
    bound:   whether the address can only be made inside the loop
    """

    axes: tuple[str, ...]
    scalars: list[str] = field(default_factory=list)
    tiles: list[str] = field(default_factory=list)
    moving: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    bound: bool = False

    @property
    def pointer(self) -> str:
        return " + ".join([*self.scalars, *self.tiles])

    @property
    def mask(self) -> str:
        return " & ".join(self.masks)


@dataclass(slots=True)
class Addressing:
    """Makes addresses in one kernel.

    `host` tells what the scalars are that the caller computes; `indices` defines the scalar indices
    that got a name, for the kernel's first lines; `stepped` are the strides by which the
    coordinates of tiles are multiplied.
    """

    scope: Scope
    tiles: Tiles
    host: Mapping[Expr, Expr]
    indices: list[tuple[str, str]] = field(default_factory=list)
    stepped: set[str] = field(default_factory=set)

    def of(self, read: Read, axes: tuple[str, ...], local: frozenset[str]) -> Address:
        """The address of `read` as a tile over `axes`; `local` lets exist only inside the loop."""
        a = Address(axes, [self.scope.pointer(read.tensor)])
        a.bound = any(
            isinstance(s, Read) and s.tensor in local for i in read.indices for s in subexprs(i)
        )
        for i, (index, rank) in enumerate(
            zip(read.indices, self.scope.axes_of(read.tensor), strict=True)
        ):
            self._axis(a, read.tensor, i, index, rank)
        cut = (r for r in axes if r not in self.scope.whole)
        edges = [self.scope.inside(r) + subscript((r,), axes) for r in cut]
        a.masks = [*edges, *a.masks]
        return a

    def _axis(self, a: Address, tensor: str, axis: int, index: Expr, rank: str) -> None:
        stride = self.scope.stride(tensor, axis)
        if (tensor, axis) in self.scope.permuted:
            self._placed(a, rank, stride)
            return
        split = self._linear(index, a.axes)
        name = self._index(a, tensor, index, rank)
        if split is None:
            a.tiles.append(f"{name}.to(tl.int64) * {stride}")
            return
        if split.rest is not None:
            rest = name if split.rest == index and name else self._wide(split.rest)
            a.scalars.append(f"{rest} * {stride}")
        for r, factor in split.factors.items():
            self._steps(a, r, factor, stride)

    def _placed(self, a: Address, rank: str, stride: str) -> None:
        """The terms of an axis whose tokens stand in the order of tiles."""
        self.stepped.add(stride)
        moves = a.moving if rank == self.scope.stage.swept else a.scalars
        moves.append(f"{self.scope.outer_place(rank)} * {stride}")
        a.tiles.append(f"{self.scope.inner_place(rank)}{subscript((rank,), a.axes)} * {stride}")

    def _steps(self, a: Address, rank: str, factor: int, stride: str) -> None:
        """The terms of a tile coordinate: start of the tile, place within it."""
        self.stepped.add(stride)
        times = "" if abs(factor) == 1 else f"{abs(factor)} * "
        place = f"{times}{{}} * {stride}"
        if factor < 0:
            place = f"-{place}"
        stage = self.scope.stage
        local = self.scope.offsets(rank)
        if rank == stage.swept:
            a.moving.append(place.format(self.scope.wide(rank)))
            local = self.scope.local(rank)
        elif rank == stage.row:
            a.scalars.append(place.format(f"{self.scope.start(rank)}.to(tl.int64)"))
            local = self.scope.local(rank)
        a.tiles.append(place.format(local + subscript((rank,), a.axes)))

    def _index(self, a: Address, tensor: str, index: Expr, rank: str) -> str:
        """The name of a computed index, tested against the extent where it may lie outside."""
        if isinstance(index, Index) and index.rank == rank:
            return ""
        inside = stays_inside(index, rank, self.scope.cascade, self.host)
        split = self._linear(index, a.axes)
        if inside and split is not None and (split.factors or not self.is_fixed(index)):
            return ""
        text = self.tiles.write(index, a.axes).text
        # By its text: along other axes it is another tile, which a loop may not rename.
        name = self.scope.namer.name(("index", text), rank, f"{tensor.lower()}_{rank}")
        definition = (name, text)
        if self.is_fixed(index):
            if definition not in self.indices:
                self.indices.append(definition)
        else:
            a.checks.append(" = ".join(definition))
            a.bound = a.bound or self.scope.stage.swept in self.tiles.ranks(index)
        if not inside:
            a.masks.append(f"({name} >= 0) & ({name} < {self.scope.extent(rank)})")
        return name

    def _linear(self, index: Expr, axes: tuple[str, ...]) -> Linear | None:
        """`index` split; None, too, if it moves with a component: no multiple of a flat tile."""
        split = linear(index, lambda e: not self.tiles.ranks(e))
        return split if split is None or split.factors.keys() <= set(axes) else None

    def is_fixed(self, index: Expr) -> bool:
        """A scalar of grid coordinates and of what the caller passes: known from the start."""
        fixed = not self.tiles.ranks(index) and not any(
            isinstance(x, Index) and x.rank in self.scope.serial for x in subexprs(index)
        )
        passed = {r.tensor for r in self.host if isinstance(r, Read)}
        return fixed and all(r.tensor in passed for r in reads(index))

    def _wide(self, e: Expr) -> str:
        """A scalar as a 64-bit integer."""
        code = self.tiles.write(e, ())
        if any(isinstance(x, Index) and x.rank in self.scope.stage.grid for x in subexprs(e)):
            return code.inside(PRODUCT)
        return f"tl.cast({code.text}, tl.int64)"


def linear(e: Expr, is_scalar: object) -> Linear | None:
    """`e` split into tile coordinates and a scalar; None where it is no such sum."""
    assert callable(is_scalar)
    if is_scalar(e):
        return Linear({}, e)
    match e:
        case Index(rank):
            return Linear({rank: 1}, None)
        case Apply("add" | "sub" as op, (a, b)):
            left, right = linear(a, is_scalar), linear(b, is_scalar)
            if left is None or right is None:
                return None
            sign = 1 if op == "add" else -1
            factors = dict(left.factors)
            for r, f in right.factors.items():
                factors[r] = factors.get(r, 0) + sign * f
            return Linear(factors, _plus(left.rest, op, right.rest))
        case Apply("neg", (a,)):
            return linear(Apply("sub", (Number(0), a)), is_scalar)
        case _:
            return None


def _plus(a: Expr | None, op: str, b: Expr | None) -> Expr | None:
    if b is None or b == Number(0):
        return None if a == Number(0) else a
    if a is None or a == Number(0):
        return b if op == "add" else Apply("neg", (b,))
    return Apply(op, (a, b))


def stays_inside(e: Expr, rank: str, cascade: Cascade, known: Mapping[Expr, Expr]) -> bool:
    """Whether an index is certainly within `rank`, all coordinates being within theirs.

    `known` maps scalars computed by the caller to what they are.
    """
    match substitute(e, known):
        case Index(r):
            return r == rank
        # h // (H / G) is less than G
        case Apply("floordiv", (Index(r), Apply("exactdiv" | "floordiv", (Extent(s), Extent(t))))):
            return r == s and t == rank
        case Apply("mod", (_, Extent(t))):
            return t == rank
        # a component's parent, row-major
        case Apply("add", (Apply("mul", (Index(outer), Extent(s))), Index(inner))):
            return cascade.rank(rank).components == (outer, inner) and s == inner
        case Apply("floordiv", (Index(r), Extent(s))):
            return cascade.rank(r).components == (rank, s)
        case _:
            return False
