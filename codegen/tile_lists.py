"""The function of a module that lists which key tiles each query tile visits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from attnc.codegen.code import AND, Code
from attnc.codegen.environment import templates
from attnc.codegen.host import Host
from attnc.codegen.mask_points import PointWriter
from attnc.codegen.mask_scope import MaskScope, captured
from attnc.codegen.names import OWN, Namer
from attnc.codegen.text import fill, wrap
from attnc.codegen.tile_bounds import ALWAYS, NEVER, BoundsWriter, Span, Truth, both, compare
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Expr, Extent, Index, Param, Read
from attnc.ir.geometry.defined import defined
from attnc.ir.geometry.key_range import key_range
from attnc.ir.geometry.layout import Layout, TileAxis, layouts, same_residues
from attnc.ir.geometry.places import unguarded
from attnc.ir.plan import SweepStage
from attnc.ir.presence import TRUE
from attnc.ir.show import show_expr
from attnc.ir.visibility import Visibility, joint_visibility
from attnc.ir.walk import index_ranks, reads

_LOCALS = ("device", "bounds", "visible", "some", "every", "seen", "inside")
# How many masks' lists a module keeps.
_KEPT = 16


@dataclass(frozen=True, slots=True)
class TileLists:
    """A function of a module, `name(device, *tensors, *numbers)`: see `_list_tiles` there.

    grid:        the ranks on whose coordinates the lists depend
    row, swept:  how tiles are shaped
    tensors:     the captured tensors that it takes
    extents:     then the ranks whose extents, and the params, that it takes
    steps:       then the coordinates of which it takes the step between the places of a tile
    tiles:       then those of which it takes the number of places
    helpers:     functions of the template that it calls
    host:        functions of `codegen.host` that it calls
    """

    name: str
    grid: tuple[str, ...]
    row: Layout | None
    swept: Layout
    tensors: tuple[str, ...]
    extents: tuple[str, ...]
    params: tuple[str, ...]
    steps: tuple[str, ...]
    tiles: tuple[str, ...]
    lines: tuple[str, ...]
    helpers: frozenset[str]
    host: frozenset[str]

    @property
    def layouts(self) -> dict[str, Layout]:
        """How tiles are shaped, by rank."""
        return {x.rank: x for x in (self.row, self.swept) if x is not None}


def kernel_lists(stage: SweepStage, cascade: Cascade, name: str) -> TileLists | None:
    """Lists for all passes of a kernel; None if it needs none."""
    seen = listed_visibility(stage, cascade)
    return None if seen is None else write_tile_lists(seen, cascade, name)


def listed_visibility(stage: SweepStage, cascade: Cascade) -> Visibility | None:
    """What the passes of a stage see together, if the tiles of that need lists.

    They do not if there is a closed form for each pass, if nothing is hidden from some pass, or if
    the mask is one of coordinates that the kernel has only as parts of others.
    """
    if all(key_range(p.visibility, cascade) is not None for p in stage.passes):
        return None
    seen = joint_visibility((p.visibility for p in stage.passes), cascade)
    own = {*seen.grid, seen.row, seen.swept}
    ranks = index_ranks(seen.some) | index_ranks(seen.every)
    known = all(r in own or cascade.rank(r).parent in own for r in ranks)
    return seen if known and seen.some != TRUE else None


def write_tile_lists(visibility: Visibility, cascade: Cascade, name: str) -> TileLists:
    """The function for a kernel's mask."""
    return _Writer(visibility, cascade, name).lists()


class _Writer:
    def __init__(self, visibility: Visibility, cascade: Cascade, name: str) -> None:
        self.visibility, self.cascade, self.name = visibility, cascade, name
        self.row, self.swept = layouts(visibility, cascade)
        names = Namer()
        names.reserve((*OWN, name, *_LOCALS))
        self.host = Host(self._number)
        self.scope = MaskScope(cascade, visibility.swept, self.host, names)
        known = [
            defined(same_residues(e), self.scope.nonzero)
            for e in (visibility.some, visibility.every)
        ]
        self.some, self.every = known
        self.tensors = captured(*known)
        self.extents: dict[str, None] = {}
        self.params: dict[str, None] = {}
        for t in self.tensors:
            self.scope.tensor(t)

    @property
    def axes(self) -> tuple[TileAxis, ...]:
        return (*(self.row.axes if self.row else ()), *self.swept.axes)

    @property
    def stepped(self) -> tuple[TileAxis, ...]:
        return tuple(a for a in self.axes if a.step is not None)

    # names -------------------------------------------------------------------------------------

    def _number(self, e: Expr) -> str:
        """What an extent or a param is called; it becomes an argument."""
        match e:
            case Extent(rank):
                self.extents[rank] = None
                return self.scope.namer.name(e, rank.upper(), f"{rank.upper()}_extent")
            case Param(name, item):
                self.params[name] = None
                whole = self.scope.namer.name(Param(name), name, f"{name}_")
                return whole if item is None else f"{whole}[{item}]"
        raise AssertionError(e)

    def _extent(self, rank: str) -> str:
        return self._number(Extent(rank))

    def _block(self, coordinate: str) -> str:
        return self.scope.namer.name(("block", coordinate), f"BLOCK_{coordinate.upper()}")

    def _step(self, coordinate: str) -> str:
        return self.scope.namer.name(("step", coordinate), f"step_{coordinate}")

    def _arguments(self) -> Iterator[tuple[str, bool]]:
        """Names of the coordinates that masks are asked about, whether there are ranges of them."""
        scope = self.scope
        for rank in self.visibility.grid:
            yield scope.coordinate(rank), False
        for layout in (self.row, self.swept):
            if layout is None:
                continue
            for a in layout.axes:
                if a.step is not None:
                    yield scope.coordinate(a.coordinate, "_group"), True
            for a in layout.axes:
                part = "" if a.step is None else "_place"
                yield scope.coordinate(a.coordinate, part), True

    # the function ------------------------------------------------------------------------------

    def lists(self) -> TileLists:
        bounds, helpers = self._bounds()
        visible = self._visible()
        checks = self._checks()
        body = [
            *self._fixed(),
            *checks,
            *self._filled(),
            *self._tables(),
            *bounds,
            *visible,
            *self._call(),
        ]
        steps = tuple(a.coordinate for a in self.stepped)
        tiles = tuple(a.coordinate for a in self.axes)
        numbers = [self._extent(r) for r in self.extents]
        numbers += [self._number(Param(p)) for p in self.params]
        numbers += [self._step(c) for c in steps] + [self._block(c) for c in tiles]
        parameters = ["device", *(self.scope.tensor(t) for t in self.tensors), *numbers]
        if any("_check_places" in x for x in body):
            helpers |= {"_check_places"}
        return TileLists(
            name=self.name,
            grid=self.visibility.grid,
            row=self.row,
            swept=self.swept,
            tensors=self.tensors,
            extents=tuple(self.extents),
            params=tuple(self.params),
            steps=steps,
            tiles=tiles,
            lines=(*self._head(parameters), *body),
            helpers=helpers | self._shaping(),
            host=frozenset(self.host.helpers),
        )

    def _shaping(self) -> frozenset[str]:
        """What the launcher calls to find the shapes of tiles."""
        found = [x for x in (self.row, self.swept) if x is not None]
        shapes = {"_tile_shape"} if any(len(x.axes) > 1 for x in found) else set()
        return frozenset(shapes | ({"_steps"} if self.stepped else set()))

    def _head(self, parameters: list[str]) -> list[str]:
        v = self.visibility
        of = f"each tile of {v.row}" if v.row else "a row"
        at = f", at each ({', '.join(v.grid)})" if v.grid else ""
        return [
            f"def {self.name}(",
            *fill(parameters, 4),
            ") -> tuple[torch.Tensor, torch.Tensor]:",
            f'    """Lists the tiles of {v.swept} that {of} visits{at}: see _list_tiles."""',
        ]

    def _fixed(self) -> list[str]:
        """Python numbers that have a name."""
        numbers = self.scope.numbers.items()
        return [f"    {name} = {self.host.write(e).text}" for e, name in numbers]

    def _tables(self) -> list[str]:
        """Range tables of the captured tensors."""
        return [
            f"    {name} = _ranges({self.scope.tensor(t)}, {axes})"
            for (t, axes), name in self.scope.tables.items()
        ]

    def _call(self) -> list[str]:
        grid = ", ".join(f"_Axis({self._extent(r)})" for r in self.visibility.grid)
        rows = ", ".join(self._axes(self.row)) if self.row else ""
        keys = ", ".join(self._axes(self.swept))
        call = f"    return _list_tiles(device, bounds, visible, [{grid}], [{rows}], [{keys}])"
        return ["", *wrap(call)]

    def _axes(self, layout: Layout) -> Iterator[str]:
        """The axes of a rank's tiles; a coordinate with a step is a group and a place in it."""
        weights = {a.coordinate: self._weight(layout, a.coordinate) for a in layout.axes}
        spans = {c: "" for c in weights}
        if layout is self.row and layout.is_ragged:
            spans = {c: f", {_times(self._extent(c), w)}" for c, w in weights.items()}
        for a in layout.axes:
            if a.step is not None:
                c = a.coordinate
                yield f"_Axis({self._step(c)}, 1, {weights[c]}{spans[c]})"
        for a in layout.axes:
            length, weight = self._extent(a.coordinate), weights[a.coordinate]
            span = spans[a.coordinate] if a.step is not None else ""
            if a.step is not None:
                step = self._step(a.coordinate)
                length = f"triton.cdiv({length}, {step})"
                weight = _times(step, weight)
            yield f"_Axis({length}, {self._block(a.coordinate)}, {weight}{span})"

    def _weight(self, layout: Layout, coordinate: str) -> str:
        """Tokens from one value of a coordinate to the next."""
        inner = layout.coordinates[layout.coordinates.index(coordinate) + 1 :]
        return " * ".join(self._extent(c) for c in inner) or "1"

    # boxes -------------------------------------------------------------------------------------

    def _bounds(self) -> tuple[list[str], frozenset[str]]:
        scope, unpacked, lines = self.scope, [], []
        places: dict[str, Span] = {}
        arguments = list(self._arguments())
        for rank in self.visibility.grid:
            name = scope.coordinate(rank)
            unpacked.append((name, f"{name}[0]"))
            places[rank] = Span(Code(name), Code(name))
        for a in self.axes:
            first, last = (scope.coordinate(a.coordinate, x) for x in ("0", "1"))
            places[a.coordinate] = Span(Code(first), Code(last))
            if a.step is None:
                unpacked.append((f"({first}, {last})", scope.coordinate(a.coordinate)))
            else:
                lines.append(f"{first}, {last} = {self._stepped(a)}")
        writer = BoundsWriter(scope, places, groups=self._groups())
        some, every = writer.truth(self.some), writer.truth(self.every)
        seen = self._existing(Truth(some.some, every.every, some.fixed))
        left, right = (", ".join(x) for x in zip(*unpacked, strict=True)) if unpacked else ("", "")
        first_lines = [f"{left} = {right}"] if unpacked else []
        helpers = writer.helpers | ({"_stepped"} if lines else set())
        if scope.tables:
            helpers |= {"_ranges"}
        body = [
            '"""Of boxes of points, each coordinate as its first and its last."""',
            *first_lines, *lines, *writer.lines,
            f"some = {seen.some.text}", f"every = {seen.every.text}", "return some, every",
        ]  # fmt: skip
        head = f"def bounds({', '.join(name for name, _ in arguments)}):"
        text = [f"    {head}", *(f"        {x}" for x in body)]
        return ["", *(x for line in text for x in wrap(line))], frozenset(helpers)

    def _groups(self) -> dict[str, tuple[str, str]]:
        """Of coordinates with a step: what their groups and their steps are called."""
        return {
            a.coordinate: (self.scope.coordinate(a.coordinate, "_group"), self._step(a.coordinate))
            for a in self.stepped
        }

    def _stepped(self, a: TileAxis) -> str:
        group, place = (self.scope.coordinate(a.coordinate, x) for x in ("_group", "_place"))
        rows = self.row is not None and a in self.row.axes
        length = f", {self._extent(a.coordinate)}" if rows else ""
        return f"_stepped({group}, {place}, {self._step(a.coordinate)}{length})"

    def _existing(self, seen: Truth) -> Truth:
        """Keys that do not exist are seen by nobody; groups of rows may end early."""
        some, every, fixed = seen.some, seen.every, seen.fixed
        for a in self.axes:
            first, last = (Code(self.scope.coordinate(a.coordinate, x)) for x in ("0", "1"))
            extent = Code(self._extent(a.coordinate))
            if a in self.swept.axes:
                every = both(compare(last, "<", extent), every)
            if a.step is not None:
                some = both(compare(first, "<", extent), some)
        if fixed or some in (ALWAYS, NEVER):
            # only tensors tell of boxes
            outer = self.swept.axes[0].coordinate
            exists = compare(
                Code(self.scope.coordinate(outer, "0")), "<", Code(self._extent(outer))
            )
            some = Code(f"{exists.inside(AND)} & {some.inside(AND)}", AND)
        if every == NEVER:
            every = Code("torch.zeros_like(some)")
        return Truth(some, every)

    # points ------------------------------------------------------------------------------------

    def _visible(self) -> list[str]:
        scope = self.scope
        names = {a.coordinate: scope.coordinate(a.coordinate) for a in self.axes}
        lines = []
        for a in self.stepped:
            name, step = names[a.coordinate], self._step(a.coordinate)
            group, place = (scope.coordinate(a.coordinate, x) for x in ("_group", "_place"))
            lines.append(f"{name} = {place} * {step} + {group}")
            if self.row is not None and a in self.row.axes:
                lines.append(f"{name} = torch.where({name} < {self._extent(a.coordinate)}, "
                             f"{name}, {name} - {step})")  # fmt: skip
        keys = [names[a.coordinate] for a in self.swept.axes]
        ends = [self._extent(a.coordinate) for a in self.swept.axes]
        tests = [f"({k} < {n})" for k, n in zip(keys, ends, strict=True)]
        lines.append(f"inside = {' & '.join(tests) if len(tests) > 1 else tests[0][1:-1]}")
        if reads(self.some) or reads(self.every):
            lines += [f"{k} = {k}.clamp(max={n} - 1)" for k, n in zip(keys, ends, strict=True)]
        names |= {r: scope.coordinate(r) for r in self.visibility.grid}
        writer = PointWriter(scope, names)
        some = writer.condition(self.some)
        lines += writer.lines
        if self.every == self.some:
            lines += [f"seen = inside & {some.inside(AND)}", "return seen, seen"]
        else:
            writer.lines = []
            every = writer.condition(self.every)
            lines += writer.lines
            seen = (f"inside & {x.inside(AND)}" for x in (some, every))
            lines += [f"{k} = {x}" for k, x in zip(("some", "every"), seen, strict=True)]
            lines.append("return some, every")
        arguments = ", ".join(name for name, _ in self._arguments())
        text = [f"    def visible({arguments}):", *(f"        {x}" for x in lines)]
        return ["", *(x for line in text for x in wrap(line))]

    # checks ------------------------------------------------------------------------------------

    def _checks(self) -> list[str]:
        """Tests of the places at which every point reads captured tensors."""
        found: dict[str, None] = {}
        for read in dict.fromkeys((*unguarded(self.some), *unguarded(self.every))):
            axes = self.cascade.input(read.tensor).ranks
            for axis, (index, rank) in enumerate(zip(read.indices, axes, strict=True)):
                if not (isinstance(index, Index) and index.rank == rank):
                    found |= dict.fromkeys(self._check(read, axis, index))
        keys = " and ".join(self._extent(a.coordinate) for a in self.swept.axes)
        block = [x for line in found for x in wrap(f"    {line}")]
        return [f"    if {keys}:", *block] if block else []

    def _filled(self) -> list[str]:
        """Tensors that may be empty, and are read where something else may have decided."""
        own = {*unguarded(self.some), *unguarded(self.every)}
        others = (r for r in (*reads(self.some), *reads(self.every)) if r not in own)
        computed = (r.tensor for r in others if any(not isinstance(i, Index) for i in r.indices))
        names = (self.scope.tensor(t) for t in dict.fromkeys(computed))
        return [f"    {x} = _filled({x})" for x in names]

    def _check(self, read: Read, axis: int, index: Expr) -> list[str]:
        """The test of one place, along the few coordinates on which it depends."""
        scope, v = self.scope, self.visibility
        ranks = index_ranks(index)
        order = [*v.grid, *(a.coordinate for a in self.axes)]
        used = [r for r in order if r in ranks or not self._parts(r).isdisjoint(ranks)]
        sides = [set(x.coordinates) for x in (self.row, self.swept) if x is not None]
        if all(side & set(used) for side in sides) and len(sides) == 2:
            return []  # as many places as there are points
        names = {r: scope.coordinate(r) for r in used}
        lines = []
        for i, r in enumerate(used):
            shape = ", ".join("-1" if i == j else "1" for j in range(len(used)))
            view = f".view({shape})" if len(used) > 1 else ""
            lines.append(f"    {names[r]} = torch.arange({self._extent(r)}, device=device){view}")
        at = PointWriter(scope, names).write(index)
        tensor = scope.tensor(read.tensor)
        text = f"{show_expr(read)}: {show_expr(index)}".replace('"', "")
        return [*lines, f'    _check_places({at.text}, {tensor}.shape[{axis}], "{text}")']

    def _parts(self, rank: str) -> set[str]:
        known = self.cascade.rank(rank)
        return {*known.components, *([known.parent] if known.parent else [])}


def _times(factor: str, weight: str) -> str:
    return factor if weight == "1" else f"{factor} * {weight}"


def tile_list_helpers(lists: Iterable[TileLists], permuted: bool = False) -> str:
    """The functions that list tiles, as far as some lists need them.

    `permuted`: and the one that orders tokens by tiles.
    """
    helpers = {h for x in lists for h in x.helpers}
    template = templates().get_template("tile_lists.py.j2")
    ragged = any(x.row is not None and x.row.is_ragged for x in lists)
    return template.render(helpers=helpers, kept=_KEPT, permuted=permuted, ragged=ragged).strip()
