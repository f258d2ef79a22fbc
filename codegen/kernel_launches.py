"""How kernels are launched: tiles, lists, parts, boxes, arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attnc.codegen.box_calls import BoxCaller
from attnc.codegen.config import FEW_ROWS, MAX_COLUMNS, MAX_WIDTH, Chosen, Config
from attnc.codegen.kernel import Kernel, Parameter
from attnc.codegen.launch_scope import LaunchScope
from attnc.codegen.list_calls import ListCaller
from attnc.codegen.move_tokens import MovedTensors
from attnc.codegen.names import OWN
from attnc.codegen.overflow import overflow
from attnc.codegen.split_plan import MERGE_WARPS, MOST_AT_ONCE, SplitKernels
from attnc.codegen.tile_tables import chosen_table, entry, rule_table
from attnc.ir.expr import Param, Read
from attnc.ir.geometry.key_range import key_range
from attnc.ir.plan import Plan, SweepStage

# Fields of a configuration: the sides of tiles of rows, and of swept coordinates.
SHAPES = ("shape_m", "shape_n")


class KernelLaunches(LaunchScope):
    """Writes the launch of each kernel, and gathers the tables of tiles that they look up.

    config: tiles that are fixed, by stage; choices: those chosen for some GPUs; boxed, parts: by
    stage, the kernel that loads boxes, those that split its sweep
    """

    def __init__(
        self,
        plan: Plan,
        kernels: tuple[Kernel, ...],
        public: str,
        config: Mapping[str, Config],
        choices: Sequence[Chosen],
        boxed: Mapping[str, Kernel],
        parts: Mapping[str, SplitKernels],
    ) -> None:
        self.choices, self.boxed, self.parts = choices, boxed, parts
        # a stage and the part of it that a kernel sweeps are configured alike
        own = {p.partial.stage.name: config[n] for n, p in parts.items() if n in config}
        self.config = {**config, **own}
        own_kernels = [x for p in parts.values() for x in p.both]
        every = (*kernels, *boxed.values(), *own_kernels)
        tables = (f"{t}_{i + 1}" for t in ("_TILES", "_CHOSEN") for i, _ in enumerate(kernels))
        stages = (s for s in plan.stages if isinstance(s, SweepStage))
        ranks = {*(p.part for p in parts.values()), *(s.part for s in stages if s.part)}
        reserved = (*OWN, *(k.name for k in every), *tables)
        super().__init__(plan.cascade, public, reserved, kernels, frozenset(ranks))
        self.plan = plan
        self.tables: list[str] = []
        self.chosen: list[str] = []

    def launch(self, kernel: Kernel) -> tuple[str, ...]:
        """All that the launcher does for one kernel."""
        lines = [
            f"{self.scalar(Read(x.name, ()))} = {self._host(x.value)}" for x in kernel.stage.host
        ]
        lines += [f"{self.tensor(t)} = {self._empty(t)}" for t in kernel.stage.outputs]
        lines += self._tiles(kernel)
        if kernel.lists is not None:
            sides = self._sides(kernel.stage)
            lines += self.lists.lines(kernel.lists, self._moved(kernel).ranks, sides)
            self.host.helpers |= kernel.lists.host
        pair = self.parts.get(kernel.stage.name)
        if pair is None:
            return (*lines, *self._run(kernel))
        parts = self._run_parts(pair)
        if kernel.stage.name in self.config:
            return (*lines, *parts)
        split, whole = ((f"    {x}" for x in found) for found in (parts, self._run(kernel)))
        return (*lines, f"if {self.extent(pair.part)} > 1:", *split, "else:", *whole)

    def _row_tiles(self, row: str) -> str:
        return f"triton.cdiv({self.extent(row)}, {self._block(row)})"

    def _run_parts(self, pair: SplitKernels) -> tuple[str, ...]:
        """Sweeps a rank in parts, and merges what they have gathered."""
        made = [f"{self.tensor(t)} = {self._empty(t)}" for t in pair.partial.stage.outputs]
        block, threads, stages = self._block(pair.part), *map(self._local, ("threads", "stages"))
        size = f"triton.next_power_of_2({self.extent(pair.part)})"
        return (
            f"# {self.extent(pair.part)} programs share what one would sweep",
            *made,
            *self._run(pair.partial),
            "# what they gathered becomes one",
            f"{block} = min({MOST_AT_ONCE}, {size})",
            f"{threads}, {stages} = {32 * MERGE_WARPS}, 1",
            *self._run(pair.merge),
        )

    def _run(self, kernel: Kernel) -> tuple[str, ...]:
        """Launches a kernel, once it is known how."""
        row, split = kernel.stage.row, kernel.split
        counts = [self._row_tiles(row)] if row else []
        if row and kernel.lists is not None:
            counts = [f"{self._local('row_table')}.shape[1]"]
        lines = [*self._moved(kernel).lines(), *self._wide(kernel)]
        counts += [self.extent(r) for r in kernel.stage.grid]
        programs = self._local("programs")
        lines.append(f"{programs} = {' * '.join(counts) or '1'}")
        lines.append(f"if {programs}:")
        columns = (
            f"triton.cdiv(max({self.extent(split)}, 1), {self._block(split)})" if split else ""
        )
        grid = f"({programs}, {columns})" if columns else f"({programs},)"
        lines += (f"    {x}" for x in self._calls(kernel, grid))
        return (*lines, *(f"    {x}" for x in self._moved(kernel).put_back()))

    def _calls(self, kernel: Kernel, grid: str) -> Iterator[str]:
        """The launch of a kernel, or of the one that loads boxes where that is possible."""
        call = f"{kernel.name}[{grid}]({', '.join(self._arguments(kernel))})"
        boxed = self.boxed.get(kernel.stage.name)
        if boxed is None:
            yield from (f"with torch.cuda.device_of({self.lead}):", f"    {call}")
            return
        boxes = self._local("boxes")
        asked = [boxes] if self.config.get(kernel.stage.name) is None else []
        narrow = [f"not {self._local('wide')}"] if kernel.named("wide") else []
        first, *others = self._boxes(boxed).conditions()
        yield "# the GPU copies tiles by itself where it can, and the tensors allow it"
        yield f"{boxes} = {' and '.join([*asked, *narrow, first])}"
        yield from (f"{boxes} &= {x}" for x in others)
        yield f"with torch.cuda.device_of({self.lead}):"
        yield f"    if {boxes}:"
        yield f"        {boxed.name}[{grid}]({', '.join(self._arguments(boxed))})"
        yield from ("    else:", f"        {call}")

    def _boxes(self, kernel: Kernel) -> BoxCaller:
        moved = self._moved(kernel)
        return BoxCaller(kernel, moved.passed, self.extent, self._block, self.lists.step)

    def _moved(self, kernel: Kernel) -> MovedTensors:
        """Writes the passes that put tokens in the order of tiles, and back."""
        axes = {t: self._axes(t) for t, _ in kernel.permuted}
        names = (self.tensor, self.extent, self._local, self.lists)
        return MovedTensors(kernel.permuted, axes, kernel.stage.outputs, *names)

    def _wide(self, kernel: Kernel) -> list[str]:
        """Whether offsets inside a tile of at most MAX_WIDTH places, or what the kernel calculates
        with coordinates, may pass 32 bits."""
        if not kernel.named("wide"):
            return []
        steps = [p for p in kernel.named("stride") if p.name in kernel.stepped]
        strides = [f"{self._moved(kernel).passed(p.of)}.stride({p.item})" for p in steps]
        test = f"{2**31 // (2 * MAX_WIDTH)} < {_largest(strides)}"
        layouts = kernel.lists.layouts if kernel.lists is not None else {}
        apart = [self.extent(r) for r, x in layouts.items() if not x.is_flat]
        if apart:
            # the places of a tile may be far apart
            reach = f"max({2 * MAX_WIDTH}, {', '.join(apart)})"
            test = f"{2**31} < {reach} * {_largest(strides)}"
        ranges = (key_range(p.visibility, self.cascade) for p in kernel.stage.passes)
        found = overflow(kernel.stage, ranges, self.cascade)
        if not found.nodes:
            return [f"{self._local('wide')} = {test}"]
        narrow, most = found.limits
        reach, wide = self._local("reach"), self._local("wide")
        texts = [self._host(x) for x in found.terms]
        message = f"{kernel.name} needs integers of more than 64 bits, for {{{reach}}}"
        return [
            f"{reach} = {_largest(texts)}",
            f"if {most} < {reach}:",
            f'    raise ValueError(f"{message}")',
            f"{wide} = {test}",
            f"{wide} = {wide} or {narrow} < {reach}",
        ]

    @property
    def lists(self) -> ListCaller:
        """Writes how kernels get their lists."""
        return ListCaller(
            self.cascade, self.tensor, self._number, self._block, self._local, self.lead
        )

    def _sides(self, stage: SweepStage) -> dict[str, str]:
        """By rank, the sides of its tiles where they were chosen: a tuple, or what may be one."""
        fixed = self.config.get(stage.name)
        chosen = [x for x in self.choices if x.stage == stage.name]
        found = {}
        for field, rank in zip(SHAPES, (stage.row, stage.swept), strict=True):
            if rank is None:
                continue
            if fixed is not None and getattr(fixed, field):
                found[rank] = repr(getattr(fixed, field))
            elif fixed is None and any(_field(chosen, field)):
                found[rank] = self._local(field)
        return found

    def _tiles(self, kernel: Kernel) -> list[str]:
        s = kernel.stage
        lines = []
        for p in kernel.named("width"):
            name = self._block(p.of)
            cap = f"min({MAX_COLUMNS}, {{}})" if p.of == kernel.split else "{}"
            text = cap.format(f"triton.next_power_of_2({self.extent(p.of)})")
            if p.of != kernel.split:
                lines.append(f"if {self.extent(p.of)} > {MAX_WIDTH}:")
                message = f"{self.extent(p.of)} = {{{self.extent(p.of)}}} is more than {MAX_WIDTH}"
                lines.append(f'    raise ValueError(f"{message}")')
            lines.append(f"{name} = max(16, {text})")
        widths = [self._block(p.of) for p in kernel.named("width")]
        row = self._block(s.row) if s.row else "_"
        threads, stages, tiles, width = map(self._local, ("threads", "stages", "tiles", "width"))
        targets = f"{row}, {self._block(s.swept)}, {threads}, {stages}"
        fixed = self.config.get(s.name)
        pair = self.parts.get(s.name)
        if fixed is not None:
            lines.append(f"{targets} = {entry(fixed)[1:-1]}")
            return [*lines, *self._parts(kernel, str(fixed.splits))]
        table = f"_TILES_{len(self.tables) + 1}" if self.tables else "_TILES"
        self.tables += rule_table(table, s, self.cascade)
        widest = widths[0] if len(widths) == 1 else f"max({', '.join(widths or ['16'])})"
        lines.append(f"{tiles} = {table}[{self.lead}.element_size()]")
        lines.append(f"{width} = min(w for w in {tiles} if w >= {widest})")
        chosen = [x for x in self.choices if x.stage == s.name]
        rule = f"{tiles}[{width}]"
        boxed = kernel.stage.name in self.boxed
        # more items: whether the kernel that loads boxes is asked for, and in how many parts
        more = [("descriptors", self._local("boxes"), "False")] if boxed else []
        more += [("splits", self.extent(pair.part), "1")] if pair is not None else []
        more += [(f, self._local(f), "None") for f in SHAPES if any(_field(chosen, f))]
        if more:
            targets = ", ".join([targets, *(name for _, name, _ in more)])
            rule = f"(*{rule}, {', '.join(value for *_, value in more)})"
        lines.append(f"{targets} = {rule}")
        if s.row:
            lines.append(f"if {self.extent(s.row)} <= {FEW_ROWS}:")
            lines.append(f"    {row} = {FEW_ROWS}")
        if chosen:
            name = f"_CHOSEN_{len(self.chosen) + 1}" if self.chosen else "_CHOSEN"
            fields = [field for field, *_ in more]
            self.chosen += chosen_table(name, chosen, s.row is not None, fields)
            few = f", {self.extent(s.row)} <= {FEW_ROWS}" if s.row else ""
            key = f"(_gpu(), {self.lead}.element_size(), {widest}{few})"
            lines.append(f"{targets} = {name}.get({key}, ({targets}))")
        return [*lines, *self._parts(kernel, "")]

    def _parts(self, kernel: Kernel, fixed: str) -> Iterator[str]:
        """The number of parts: no more than tiles; unless it is fixed, one where that is enough."""
        s = kernel.stage
        pair = self.parts.get(s.name)
        if pair is None:
            return
        name = self.extent(pair.part)
        tiles = f"triton.cdiv({self.extent(s.swept)}, {self._block(s.swept)})"
        programs = [self._row_tiles(s.row)] if s.row else []
        programs += [self.extent(r) for r in s.grid]
        if not fixed:
            yield f"if not _are_few({' * '.join(programs) or '1'}):"
            yield f"    {name} = 1"
        yield f"{name} = max(1, min({fixed or name}, {tiles}))"

    def _arguments(self, kernel: Kernel) -> list[str]:
        found = []
        strides = kernel.named("stride")
        whole: set[str] = set()
        for p in kernel.parameters:
            match p.role:
                case "descriptor":
                    found.append(self._boxes(kernel).argument(p.name))
                case "tensor":
                    found.append(self._moved(kernel).passed(p.of))
                case "stride":
                    axes = [q for q in strides if q.of == p.of]
                    if p.of in whole:
                        continue
                    if len(axes) == self._rank(p.of):
                        whole.add(p.of)
                        found.append(f"*{self._moved(kernel).passed(p.of)}.stride()")
                    else:
                        found.append(f"{self._moved(kernel).passed(p.of)}.stride({p.item})")
                case "extent":
                    found.append(self.extent(p.of))
                case "param":
                    found.append(self._param(p))
                case "host":
                    text = self.scalar(Read(p.of, ()))
                    host = next(x for x in kernel.stage.host if x.name == p.of)
                    found.append(f"int({text})" if host.dtype == "bool" else text)
                case "width":
                    found.append(f"{p.name}={self.extent(p.of)}")
                case "table" | "tiles":
                    found.append(self._local({"table": "row_table", "tiles": "key_tiles"}[p.role]))
                case "places":
                    found.append(self.lists.places(p.of))
                case "count":
                    found.append(f"{self._local('row_table')}.shape[1]")
                case "step":
                    found.append(self.lists.step(p.of))
                case "block":
                    found.append(f"{p.name}={self._block(p.of)}")
                case "wide":
                    found.append(f"{p.name}={self._local('wide')}")
        threads, stages = self._local("threads"), self._local("stages")
        options = (f"num_warps={threads} // WARP_SIZE", f"num_stages={stages}", "**_limits()")
        return [*found, *options]

    def _param(self, p: Parameter) -> str:
        text = self.scalar(Param(p.of, p.item))
        declared = next(x for x in self.cascade.params if x.name == p.of)
        return f"int({text})" if declared.dtype == "bool" else text


def _field(chosen: Sequence[Chosen], field: str) -> list[object]:
    return [getattr(x.config, field) for x in chosen]


def _largest(texts: list[str]) -> str:
    return f"max({', '.join(texts)})" if len(texts) > 1 else "".join(texts) or "0"
