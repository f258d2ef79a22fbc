"""The Python side of a module: public function, checks, and the op that launches kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from attnc.codegen.box_calls import BoxCaller
from attnc.codegen.config import FEW_ROWS, MAX_COLUMNS, MAX_WIDTH, Chosen, Config
from attnc.codegen.host import Host
from attnc.codegen.kernel import Kernel, Parameter, words
from attnc.codegen.list_calls import ListCaller
from attnc.codegen.move_tokens import MovedTensors
from attnc.codegen.names import OWN, Namer
from attnc.codegen.overflow import overflow
from attnc.codegen.split_plan import MERGE_WARPS, MOST_AT_ONCE, SplitKernels
from attnc.codegen.tile_tables import chosen_table, entry, rule_table
from attnc.codegen.torch_stage import TorchCode
from attnc.ir.cascade import Cascade, Einsum, ParamDecl, Rank, TensorDecl
from attnc.ir.expr import Expr, Extent, Param, Read
from attnc.ir.geometry.key_range import key_range
from attnc.ir.plan import Plan, SweepStage, TorchStage
from attnc.ir.walk import output_ranks


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of the public function and of the op."""

    name: str
    annotation: str
    default: str | None
    op_annotation: str


@dataclass(frozen=True, slots=True)
class Launcher:
    """Everything that the module's template lays out below the kernels.

    `stages`: the lines of each stage; `check`, `checks`: those of the public function.
    """

    public: str
    op: str
    parameters: tuple[str, ...]
    op_parameters: tuple[str, ...]
    arguments: tuple[str, ...]
    result: str
    check: str
    check_fake: str
    checks: tuple[str, ...]
    unpack: tuple[str, ...]
    unpack_fake: tuple[str, ...]
    stages: tuple[tuple[str, ...], ...]
    fake: tuple[str, ...]
    returned: str
    doc: tuple[str, ...]
    tables: tuple[str, ...]
    chosen: tuple[str, ...]
    helpers: tuple[str, ...]
    uses_math: bool


def write_launcher(
    plan: Plan,
    kernels: tuple[Kernel, ...],
    public: str,
    config: Mapping[str, Config],
    chosen: Sequence[Chosen] = (),
    boxed: Mapping[str, Kernel] | None = None,
    parts: Mapping[str, SplitKernels] | None = None,
) -> Launcher:
    """The launcher of all stages of a plan, in order.

    boxed, parts: by the name of a stage, the kernel that loads boxes, those that split its sweep
    """
    return _Writer(plan, kernels, public, config, chosen, boxed or {}, parts or {}).launcher()


class _Writer:
    def __init__(
        self,
        plan: Plan,
        kernels: tuple[Kernel, ...],
        public: str,
        config: Mapping[str, Config],
        chosen: Sequence[Chosen],
        boxed: Mapping[str, Kernel],
        parts: Mapping[str, SplitKernels],
    ) -> None:
        self.plan, self.kernels, self.public = plan, kernels, public
        self.choices, self.boxed, self.parts = chosen, boxed, parts
        self.cascade: Cascade = plan.cascade
        self.names = Namer()
        # a stage and the part of it that a kernel sweeps are configured alike
        own = {p.partial.stage.name: config[n] for n, p in parts.items() if n in config}
        self.config = {**config, **own}
        stages = [s for s in plan.stages if isinstance(s, SweepStage)]
        self.part_ranks = {*(p.part for p in parts.values()), *(s.part for s in stages if s.part)}
        own_kernels = [x for p in parts.values() for x in p.both]
        self.names.reserve(
            [*OWN, public, *(k.name for k in (*kernels, *boxed.values(), *own_kernels))]
        )
        for table in ("_TILES", "_CHOSEN"):
            self.names.reserve(f"{table}_{i + 1}" for i, _ in enumerate(kernels))
        self.op = self.names.name("op", f"_{public}")
        for t in self.cascade.inputs:
            self.tensor(t.name)
        for p in self.cascade.params:
            self.names.name(("param", p.name), p.name, f"{p.name}_")
        for r in self.cascade.ranks:
            self.extent(r.name)
        self.host = Host(self.scalar)
        self.tables: list[str] = []
        self.chosen: list[str] = []
        self.known: set[str] = set()

    # names -----------------------------------------------------------------------------------

    def tensor(self, name: str) -> str:
        return self.names.name(("tensor", name), name, f"{name}_")

    def extent(self, rank: str) -> str:
        return self.names.name(("extent", rank), rank.upper(), f"{rank.upper()}_extent")

    def scalar(self, e: Expr) -> str:
        match e:
            case Extent(rank):
                return self.extent(rank)
            case Param(name, None):
                return self.names.name(("param", name), name)
            case Param(name, item):
                return f"{self.names.name(('param', name), name)}[{item}]"
            case Read(name, ()):
                return self.names.name(("host", name), name)
        raise AssertionError(e)

    @property
    def lead(self) -> str:
        """The input whose type the outputs take."""
        floats = [t.name for t in self.cascade.inputs if t.dtype == "float"]
        return self.tensor((floats or [t.name for t in self.cascade.inputs])[0])

    # the parts ---------------------------------------------------------------------------------

    def launcher(self) -> Launcher:
        stages = []
        kernels = iter(self.kernels)
        native = {t for k in self.kernels for t in k.multiplied}
        native |= {o for o in self.cascade.outputs if self._has_feature(o)}
        torch_code = TorchCode(self.plan, self.names, self.host, frozenset(native), self.lead)
        for stage in self.plan.stages:
            if isinstance(stage, SweepStage):
                stages.append(self._launch(next(kernels)))
            else:
                assert isinstance(stage, TorchStage)
                stages.append(torch_code.lines(stage))
        outputs = [self.tensor(o) for o in self.cascade.outputs]
        fake = [f"{self.tensor(o)} = {self._empty(o)}" for o in self.cascade.outputs]
        many = f"tuple[{', '.join(['torch.Tensor'] * len(outputs))}]"
        lines = [x for s in stages for x in s]
        # where a number of parts was chosen, the launcher asks whether that is needed
        asks = [_ARE_FEW] if not self.parts.keys() <= self.config.keys() else []
        helpers = (*asks, *self.host.sources, *torch_code.helpers)
        arguments = (*(self._tensor_argument(t) for t in self.cascade.inputs), *self._scalars())
        checks = self._checks()
        return Launcher(
            public=self.public,
            op=self.op,
            parameters=self._parameters(arguments),
            op_parameters=tuple(f"{a.name}: {a.op_annotation}" for a in arguments),
            arguments=tuple(a.name for a in arguments),
            result="torch.Tensor" if len(outputs) == 1 else many,
            check=self._check(any(f"{self._local('extents')}[" in x for x in checks)),
            check_fake=self._check(False),
            checks=checks,
            unpack=self._unpack(lines),
            unpack_fake=self._unpack(fake),
            stages=tuple(stages),
            fake=tuple(fake),
            returned=", ".join(outputs),
            doc=self._doc(),
            tables=tuple(self.tables),
            chosen=tuple(self.chosen),
            helpers=helpers,
            uses_math=any("math." in x for x in (*lines, *helpers)),
        )

    def _tensor_argument(self, t: TensorDecl) -> Argument:
        return Argument(self.tensor(t.name), "torch.Tensor", None, "torch.Tensor")

    def _parameters(self, arguments: tuple[Argument, ...]) -> tuple[str, ...]:
        """Of the public function: tensors by position, the rest by keyword."""
        shown = [
            f"{a.name}: {a.annotation}" + (f" = {a.default}" if a.default is not None else "")
            for a in arguments
        ]
        count = len(self.cascade.inputs)
        return (*shown[:count], *(["*", *shown[count:]] if shown[count:] else []))

    def _check(self, kept: bool) -> str:
        entries = (
            f'{self.tensor(t.name)}=({self.tensor(t.name)}, "{t.dtype}", "{", ".join(t.ranks)}")'
            for t in self.cascade.inputs
        )
        call = f"_check({', '.join(entries)})"
        return f"{self._local('extents')} = {call}" if kept else call

    def _unpack(self, lines: list[str]) -> tuple[str, ...]:
        """The extents that the lines use: out of shapes, or products of their components'."""
        used = words(lines)
        used |= {
            self.extent(c)
            for r in self.cascade.ranks
            if self.extent(r.name) in used
            for c in r.components
        }
        found, known = [], set(self._asked)
        for t in self.cascade.inputs:
            names = []
            for r in t.ranks:
                new = r not in known and self.extent(r) in used
                names.append(self.extent(r) if new else "_")
                known.add(r)
            if any(n != "_" for n in names):
                target = f"{names[0]}," if len(names) == 1 else ", ".join(names)
                found.append(f"{target} = {self.tensor(t.name)}.shape")
        for rank in self.cascade.ranks:
            if rank.components and rank.name not in known and self.extent(rank.name) in used:
                product = " * ".join(self.extent(c) for c in rank.components)
                found.append(f"{self.extent(rank.name)} = {product}")
        return tuple(found)

    @property
    def _asked(self) -> tuple[str, ...]:
        """Components whose extent no tensor has: arguments."""
        axes = {r for t in self.cascade.inputs for r in t.ranks}
        axes |= {p.part for p in self.parts.values()}
        return tuple(r.name for r in self.cascade.ranks if r.name not in axes and not r.components)

    def _scalars(self) -> tuple[Argument, ...]:
        found = [_argument(self.scalar(Param(p.name)), p) for p in self.cascade.params]
        asked = [Argument(self.extent(r), "int", None, "int") for r in self._asked]
        return (*asked, *found)

    def _checks(self) -> tuple[str, ...]:
        """What the public function tests besides shapes."""
        lines: list[str] = []
        axes = {r for t in self.cascade.inputs for r in t.ranks}
        for r in self.cascade.ranks:
            if r.components and r.name in axes:
                lines += self._grid_check(r, axes)
        for p in self.cascade.params:
            lines += self._range_check(p)
        groups = {
            tuple(t for t in k.multiplied if t in self.cascade.input_names) for k in self.kernels
        }
        for group in sorted(g for g in groups if len(g) > 1):
            names = [self.tensor(t) for t in group]
            lines.append(f"if len({{{', '.join(f'{t}.dtype' for t in names)}}}) > 1:")
            lines.append(f'    raise ValueError("{", ".join(names)} must have the same dtype")')
        return tuple(lines)

    def _grid_check(self, rank: Rank, axes: set[str]) -> list[str]:
        """A rank is the product of its components."""
        found = self._local("extents")
        parts = [f'{found}["{c}"]' if c in axes else self.extent(c) for c in rank.components]
        whole = f'{found}["{rank.name}"]'
        text = (
            f"{' * '.join(self.extent(c) for c in rank.components)} is not {self.extent(rank.name)}"
        )
        return [
            f"if {' * '.join(parts)} != {whole}:",
            f'    raise ValueError(f"{text} = {{{whole}}}")'.replace(
                f'["{rank.name}"]', f"['{rank.name}']"
            ),
        ]

    def _local(self, name: str) -> str:
        return self.names.name(("local", name), f"{name}", f"own_{name}")

    def _range_check(self, p: ParamDecl) -> list[str]:
        name = self.scalar(Param(p.name))
        item = "item" if p.length else name
        tests = []
        if p.low is not None and p.low != -float("inf"):
            tests.append(f"{_bound(p.low)} {'<' if p.low_open else '<='} {item}")
        if p.high is not None and p.high != float("inf"):
            tests.append(f"{item} {'<' if p.high_open else '<='} {_bound(p.high)}")
        if not tests:
            return []
        test = " and ".join(tests)
        test = f"all({test} for item in {name})" if p.length else test
        low = "(-inf" if p.low is None else f"{'(' if p.low_open else '['}{_bound(p.low)}"
        high = "inf)" if p.high is None else f"{_bound(p.high)}{')' if p.high_open else ']'}"
        return [
            f"if not ({test}):",
            f'    raise ValueError(f"{name} = {{{name}}} is not in {low}, {high}")',
        ]

    # one kernel launch -------------------------------------------------------------------------

    def _launch(self, kernel: Kernel) -> tuple[str, ...]:
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

    def _number(self, e: Expr) -> str:
        return self.host.write(e).text

    def _host(self, value: object) -> str:
        return self.host.write(value).text  # type: ignore[arg-type]

    def _block(self, rank: str) -> str:
        return self.names.name(("block", rank), f"BLOCK_{rank.upper()}")

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

    def _axes(self, tensor: str) -> tuple[str, ...]:
        if tensor in self.cascade.input_names:
            return self.cascade.input(tensor).ranks
        return output_ranks(self.cascade.producers(tensor)[0])

    def _rank(self, tensor: str) -> int:
        return len(self._axes(tensor))

    def _empty(self, tensor: str) -> str:
        """An uninitialised tensor: in the inputs' type if it has a feature rank, else float32; bool
        for the flags of parts."""
        axes = self._axes(tensor)
        native = tensor in self.cascade.outputs and self._has_feature(tensor)
        made = self.cascade.producers(tensor)[0]
        flags = (
            not self.part_ranks.isdisjoint(axes)
            and isinstance(made, Einsum)
            and made.dtype == "bool"
        )
        kind = "" if native else f", dtype=torch.{'bool' if flags else 'float32'}"
        shape = ", ".join(self.extent(r) for r in axes) + ("," if len(axes) == 1 else "")
        return f"{self.lead}.new_empty(({shape}){kind})"

    def _has_feature(self, tensor: str) -> bool:
        """Whether it has an axis that no sweep runs along: a head dimension."""
        features = {r for k in self.kernels for r in (*k.stage.columns, *k.stage.inner)}
        return not features or bool(features & set(self._axes(tensor)))

    def _doc(self) -> tuple[str, ...]:
        inputs = [f"{t.name}[{', '.join(t.ranks)}]" for t in self.cascade.inputs]
        outputs = [f"{o}[{', '.join(self._axes(o))}]" for o in self.cascade.outputs]
        described = [(t.name, t.doc) for t in self.cascade.inputs if t.doc]
        described += [(p.name, p.doc) for p in self.cascade.params if p.doc]
        described += [(self.extent(r), f"extent of {r}") for r in self._asked]
        return (
            f"Takes {', '.join(inputs)}; returns {', '.join(outputs)}.",
            *(f"{name}: {doc}" for name, doc in described),
        )


# Fields of a configuration: the sides of tiles of rows, and of swept coordinates.
SHAPES = ("shape_m", "shape_n")


_ARE_FEW = '''def _are_few(programs: int) -> bool:
    """Whether so many leave a part of the GPU idle; where there is none, they are taken to."""
    if not torch.cuda.is_available():
        return True
    return programs < torch.cuda.get_device_properties().multi_processor_count'''


def _field(chosen: Sequence[Chosen], field: str) -> list[object]:
    return [getattr(x.config, field) for x in chosen]


def _argument(name: str, p: ParamDecl) -> Argument:
    kind = p.dtype
    default = None if p.default is None else repr(p.default)
    if p.length is None:
        return Argument(name, kind, default, kind)
    many = f"tuple[{', '.join([kind] * p.length)}]"
    return Argument(name, many, default, f"list[{kind}]")


def _largest(texts: list[str]) -> str:
    return f"max({', '.join(texts)})" if len(texts) > 1 else "".join(texts) or "0"


def _bound(x: float) -> str:
    return str(int(x)) if float(x).is_integer() else repr(float(x))
