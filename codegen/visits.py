"""Which tiles a sweep visits: a loop over those without a hidden point, a loop over the others.

Where a row sees one range of keys, the bounds of both loops are arithmetic. The order of tiles is
free, so the tiles on both sides of the full ones take one loop, which jumps over the full ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from attnc.codegen.code import PRODUCT, Code
from attnc.codegen.expr import Tiles, Variable
from attnc.codegen.scope import Scope
from attnc.codegen.tile_lists import listed_visibility
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Expr, Extent, Index, Number, Read
from attnc.ir.facts import nonnegative
from attnc.ir.geometry.key_range import KeyRange, key_range
from attnc.ir.plan import Let, Load, Pass, SweepStage
from attnc.ir.show import show_expr
from attnc.ir.walk import index_ranks, reads, subexprs, substitute

# By lists of tiles; full tiles between bounds, then the others; one loop over every tile.
VisitKind: TypeAlias = Literal["lists", "range", "all"]


@dataclass(frozen=True, slots=True)
class TileLoop:
    """A loop over tiles of the swept rank.

    before: lines above it; head: its `for`; opening: how its variable gives the tile's start
    full:   whether its tiles have no hidden point and no coordinate beyond the extent
    late:   whether it follows a loop that needs the registers more
    """

    before: tuple[str, ...]
    head: str
    opening: tuple[str, ...] = ()
    full: bool = False
    late: bool = False


@dataclass(frozen=True, slots=True)
class Visits:
    """The loops of one pass; `setup` defines their bounds."""

    setup: tuple[str, ...]
    loops: tuple[TileLoop, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """Which steps of a loop are a program's own: all, or those of its part.

    Parts take turns, so what is visited is shared evenly wherever it lies. In a second loop they do
    so from the last part on: those get its odd steps that got fewer of the first.

    setup: what the spans use; of a second loop, `back` as well
    """

    setup: tuple[str, ...]
    back: tuple[str, ...]
    step: str
    turn: str = ""
    turn_back: str = ""

    @staticmethod
    def of(scope: Scope, unit: str = "") -> Share:
        """The share of a program in loops of steps of `unit`, or of 1."""
        rank = scope.stage.part
        if rank is None:
            return Share((), (), unit)
        parts, times = scope.extent(rank), f" * {unit}" if unit else ""
        turn, back, step = (
            scope.namer.name(("share", x), f"{scope.stage.swept}_{x}")
            for x in ("turn", "turn_back", "step")
        )
        part = scope.place(rank) if scope.boxes else f"{scope.place(rank)}.to(tl.int32)"
        setup = (
            f"# {parts} programs take turns: each takes every {parts}-th tile",
            f"{turn} = {part}{times}",
            f"{step} = {parts}{times}",
        )
        return Share(setup, (f"{back} = {step} - {unit or 1} - {turn}",), step, turn, back)

    def first(self, start: str, stop: str) -> str:
        """The span of a program's steps from `start` to `stop`."""
        return self._span(start, stop, self.turn)

    def second(self, start: str, stop: str) -> str:
        """Likewise, of a second loop."""
        return self._span(start, stop, self.turn_back)

    def _span(self, start: str, stop: str, turn: str) -> str:
        begin = turn if turn and start == "0" else f"{start} + {turn}" if turn else start
        return ", ".join(x for x in (begin, stop, self.step) if x)


def visit_kinds(stage: SweepStage, cascade: Cascade) -> tuple[VisitKind, ...]:
    """How the kernel of a stage walks the swept rank, pass by pass."""
    listed = listed_visibility(stage, cascade) is not None

    def kind(p: Pass) -> VisitKind:
        if listed:
            return "lists"
        return "range" if has_range(key_range(p.visibility, cascade), stage) else "all"

    return tuple(kind(p) for p in stage.passes)


def has_range(keys: KeyRange | None, stage: SweepStage) -> bool:
    """Whether full tiles get a loop of their own, between bounds that the kernel works out."""
    return keys is not None and (not is_whole(keys, stage) or is_light(stage))


def is_whole(keys: KeyRange, stage: SweepStage) -> bool:
    """Whether every row sees all there is."""
    return (keys.low, keys.high) == (Number(0), Extent(stage.swept))


def is_light(stage: SweepStage) -> bool:
    """Whether a second body fits in the registers beside the first.

    All that it saves where there is no mask is the test for the end of the rank; with several
    passes or accumulators, or tiles at computed places, it was seen to spill. One row is done with
    a tile before the next one has come.
    """
    lets = (x.value for p in stage.passes for x in p.body)
    loads = [x.read.indices for x in lets if isinstance(x, Load)]
    computed = any(
        index_ranks(i) - {*stage.grid} and not isinstance(i, Index) for at in loads for i in at
    )
    pairs = any({Index(stage.swept), Index(stage.row or "")} <= {*at} for at in loads)
    wide = [c for p in stage.passes for c in p.carries if {*c.ranks} & {*stage.columns}]
    plain = stage.row is not None and len(stage.passes) == 1 and len(wide) == 1
    return plain and not computed and not pairs


def all_tiles(scope: Scope) -> Visits:
    """Every tile, each with its mask."""
    rank = scope.stage.swept
    share = Share.of(scope, scope.block(rank))
    span = share.first("0", scope.extent(rank))
    return Visits(share.setup, (TileLoop((), f"for {scope.start(rank)} in range({span}):"),))


def range_tiles(keys: KeyRange, tiles: Tiles, loads: Mapping[Expr, Expr]) -> Visits:
    """The tiles that the range of keys of some row of the program meets.

    `loads` maps what the range reads to the lets that hold it.
    """
    return _RangeWriter(tiles.scope, tiles, keys, loads).visits()


def missing_loads(ranges: Iterable[KeyRange | None], stage: SweepStage) -> tuple[Let, ...]:
    """Lets for what the ranges read and the stage does not hold yet."""
    bounds = (e for keys in ranges if keys is not None for e in (keys.low, keys.high))
    wanted = dict.fromkeys(r for e in bounds for r in reads(e))
    missing = [r for r in wanted if r not in loaded(stage)]
    row = (stage.row,) if stage.row is not None else ()
    return tuple(
        Let(
            f"{r.tensor.lower()}_bound_{i}",
            row if set(map(Index, row)) & {*r.indices} else (),
            Load(r),
            "int",
        )
        for i, r in enumerate(missing)
    )


def loaded(stage: SweepStage) -> dict[Expr, Expr]:
    """What a program has read before its sweeps, and the lets that hold it."""
    loads = ((x, x.value.read) for x in stage.resident if isinstance(x.value, Load))
    return {read: Read(x.name, tuple(map(Index, x.ranks))) for x, read in loads}


@dataclass(frozen=True, slots=True)
class _Ends:
    """The least and the greatest value of a bound over the rows of a program."""

    least: Code
    greatest: Code


@dataclass(slots=True)
class _RangeWriter:
    scope: Scope
    tiles: Tiles
    keys: KeyRange
    loads: Mapping[Expr, Expr]

    def visits(self) -> Visits:
        keys, rank = self.keys, self.scope.stage.swept
        block, extent = self.scope.block(rank), self.scope.extent(rank)
        setup = self._explained()
        low, high = self._ends(keys.low, False, setup), self._ends(keys.high, True, setup)
        start = full_start = "0"
        if keys.low != Number(0):
            start = self._named(setup, f"{rank}_start", _down(low.least, block))
            full_start = f"tl.cdiv({low.greatest.text}, {block}) * {block}"
            full_start = self._named(setup, "full_start", full_start)
        full_stop = _down(high.least, block)
        if keys.low != Number(0) or not nonnegative(keys.high, {}):
            full_stop = f"tl.maximum({full_stop}, {full_start})"
        full_stop = self._named(setup, "full_stop", full_stop)
        stop = high.greatest.text
        if stop != extent:
            stop = self._named(setup, f"{rank}_stop", stop)
        at = self.scope.start(rank)
        share = Share.of(self.scope, block)
        setup += (*share.setup, *share.back)
        head = f"for {at} in range({share.first(full_start, full_stop)}):"
        full = TileLoop(("# tiles in which nothing is hidden",), head, full=True)
        if start == full_start:
            where = (
                "# the tiles after them" if setup[1:] else f"# the last tile, if {rank} ends in it"
            )
            return Visits(tuple(setup), (full, self._rest(full_stop, stop, [where], share)))
        jump = ["# the tiles on both sides of them"]
        gap = self._named(jump, "skipped", f"{full_stop} - {full_start}")
        rest = self._rest(start, f"{stop} - {gap}", jump, share)
        opening = (f"{at} += tl.where({at} < {full_start}, 0, {gap})",)
        return Visits(tuple(setup), (full, replace(rest, opening=opening)))

    def _rest(self, start: str, stop: str, before: list[str], share: Share) -> TileLoop:
        """These loads are not pipelined: the tiles are few, and a second pipeline takes registers
        that the first one needs."""
        rank = self.scope.stage.swept
        span = share.second(start, stop)
        head = f"for {self.scope.start(rank)} in tl.range({span}, num_stages=1):"
        return TileLoop(tuple(before), head, late=True)

    def _explained(self) -> list[str]:
        """The range in the spec's words, where it is not all there is."""
        s, keys = self.scope.stage, self.keys
        if (keys.low, keys.high) == (Number(0), Extent(s.swept)):
            return []
        who = f"{s.row} sees" if s.row else "seen:"
        return [f"# {who} {show_expr(keys.low)} <= {s.swept} < {show_expr(keys.high)}"]

    # bounds ------------------------------------------------------------------------------------

    def _ends(self, bound: Expr, high: bool, setup: list[str]) -> _Ends:
        row, swept = self.scope.stage.row, self.scope.stage.swept
        e = substitute(bound, {**self.loads})
        if row is None or row not in self.tiles.ranks(e):
            value = self._clipped(self.tiles.write(e, ()), bound, high)
            return _Ends(value, value)
        if self.keys.rising[high]:
            rows = (self._first(row, setup), self._last(row, setup))
            least, greatest = (self.tiles.write(substitute(e, {Index(row): x}), ()) for x in rows)
        else:
            wish = f"{swept}_high" if high else f"{swept}_low"
            tile = self._named(setup, wish, self.tiles.write(e, (row,)).text)
            inside, extent = self.scope.inside(row), self.scope.extent(swept)
            least = Code(f"tl.min(tl.where({inside}, {tile}, {extent}), 0)")
            greatest = Code(f"tl.max(tl.where({inside}, {tile}, 0), 0)")
        return _Ends(self._clipped(least, bound, high), self._clipped(greatest, bound, high))

    def _clipped(self, value: Code, bound: Expr, high: bool) -> Code:
        """As 32 bits where it may have more: wide coordinates make a mask expensive."""
        if not self._is_wide(bound):
            return value
        extent = self.scope.extent(self.scope.stage.swept)
        kept = f"tl.maximum({value.text}, 0)" if high else f"tl.minimum({value.text}, {extent})"
        return Code(f"{kept}.to(tl.int32)")

    def _is_wide(self, bound: Expr) -> bool:
        """Whether it may have 64 bits."""
        grid = index_ranks(bound) & {*self.scope.stage.grid}
        return bool(reads(bound) or grid or self.tiles.large & {*subexprs(bound)})

    def _first(self, row: str, setup: list[str]) -> Expr:
        start = self.scope.start(row)
        if any(self.tiles.large & {*subexprs(e)} for e in (self.keys.low, self.keys.high)):
            wide = f"{start}.to({self.scope.wide_dtype})"
            start = self._named(setup, f"{row}_first", wide)
        return self._coordinate(f"first {row}", start)

    def _last(self, row: str, setup: list[str]) -> Expr:
        first = self.tiles.write(self._first(row, setup), ()).text
        last = f"tl.minimum({first} + {self.scope.block(row)}, {self.scope.extent(row)}) - 1"
        return self._coordinate(f"last {row}", self._named(setup, f"{row}_last", last))

    def _coordinate(self, key: str, name: str) -> Expr:
        """What stands for the coordinate of one row."""
        self.tiles.variables[key] = Variable(name, (), "int")
        self.tiles.counts[key] = (0.0, float("inf"))
        return Read(key, ())

    def _named(self, lines: list[str], wish: str, value: str) -> str:
        """A definition among the lines; one value has one name throughout the kernel."""
        name = self.scope.namer.name(("bound", value), wish)
        line = f"{name} = {value}"
        if line not in lines:
            lines.append(line)
        return name


def _down(x: Code, block: str) -> str:
    return f"{x.inside(PRODUCT)} // {block} * {block}"
