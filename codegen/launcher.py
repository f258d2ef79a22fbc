"""The Python side of a module: public function, checks, and the op that launches kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnc.codegen.config import Chosen, Config
from attnc.codegen.kernel import Kernel, words
from attnc.codegen.kernel_launches import KernelLaunches
from attnc.codegen.split_plan import SplitKernels
from attnc.codegen.torch_stage import TorchCode
from attnc.ir.cascade import ParamDecl, Rank, TensorDecl
from attnc.ir.expr import Param
from attnc.ir.plan import Plan, SweepStage, TorchStage


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


class _Writer(KernelLaunches):
    def launcher(self) -> Launcher:
        stages = []
        kernels = iter(self.kernels)
        native = {t for k in self.kernels for t in k.multiplied}
        native |= {o for o in self.cascade.outputs if self._has_feature(o)}
        torch_code = TorchCode(self.plan, self.names, self.host, frozenset(native), self.lead)
        for stage in self.plan.stages:
            if isinstance(stage, SweepStage):
                stages.append(self.launch(next(kernels)))
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


_ARE_FEW = '''def _are_few(programs: int) -> bool:
    """Whether so many leave a part of the GPU idle; where there is none, they are taken to."""
    if not torch.cuda.is_available():
        return True
    return programs < torch.cuda.get_device_properties().multi_processor_count'''


def _argument(name: str, p: ParamDecl) -> Argument:
    kind = p.dtype
    default = None if p.default is None else repr(p.default)
    if p.length is None:
        return Argument(name, kind, default, kind)
    many = f"tuple[{', '.join([kind] * p.length)}]"
    return Argument(name, many, default, f"list[{kind}]")


def _bound(x: float) -> str:
    return str(int(x)) if float(x).is_integer() else repr(float(x))
