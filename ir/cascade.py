"""The Cascade: an attention as a sequence of extended Einsums (FuseMax, MICRO 2024, section 3).

A statement says what is computed, never how. It defines `tensor` at `indices` for each point of its
iteration space: all ranks that it names, restricted by `where`. Points outside are *absent* (EDGE's
empty): a pointwise result of an absent operand is absent, a reduction skips absent points.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from attnc.errors import Span
from attnc.ir.expr import Apply, Expr, Extent

DType: TypeAlias = Literal["float", "int", "bool"]


@dataclass(frozen=True, slots=True)
class Rank:
    """A named dimension. `components` make it a row-major grid, outermost first.

    `parent` is set on a component; components without one stay ranks of their own, of which this
    one counts all combinations (`ir.join_ranks`). `iterative` marks a generative rank of EDGE
    (`H[t+1] = H[t] + ..`).
    """

    name: str
    components: tuple[str, ...] = ()
    parent: str | None = None
    iterative: bool = False

    @property
    def extent_name(self) -> str:
        """The name of its extent in specs, calls and kernels: upper case."""
        return self.name.upper()

    def coordinate(self, component: str, point: Expr) -> Expr:
        """A component's coordinate, given this rank's coordinate `point` (row-major)."""
        position = self.components.index(component)
        for inner in reversed(self.components[position + 1 :]):
            point = Apply("floordiv", (point, Extent(inner)))
        return point if position == 0 else Apply("mod", (point, Extent(component)))


@dataclass(frozen=True, slots=True)
class ParamDecl:
    """A scalar (or a tuple of `length` scalars) passed at run time; `const`: fixed when compiled.

    `low`/`high` bound each item; `low_open`/`high_open` exclude the bound itself.
    """

    name: str
    dtype: DType
    default: bool | int | float | tuple[bool | int | float, ...] | None = None
    length: int | None = None
    const: bool = False
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    doc: str = ""
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TensorDecl:
    """An input: the ranks of its axes, in the order in which the caller passes it."""

    name: str
    ranks: tuple[str, ...]
    dtype: DType = "float"
    doc: str = ""
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Reduction:
    """`op` (`sum max min prod any all`) over `ranks`; its algebra is `ir.ops.REDUCTIONS[op]`."""

    op: str
    ranks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Einsum:
    """`tensor[indices] = reduce expr where where`.

    `indices` are plain `Index(r)` except for iterative ranks (`t + 1`, or a constant for the
    initial value). `span` is the spec statement it comes from, also when a macro was expanded.
    """

    tensor: str
    indices: tuple[Expr, ...]
    expr: Expr
    reduce: Reduction | None = None
    where: Expr | None = None
    dtype: DType = "float"
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Select:
    """`tensor[indices]` is true where `expr` is among the chosen along `rank` (`topk`, `topp`)."""

    tensor: str
    indices: tuple[Expr, ...]
    op: Literal["topk", "topp"]
    rank: str
    amount: Expr
    expr: Expr
    where: Expr | None = None
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Concat:
    """`tensor[indices]` along `rank` is `parts` one after another; part i runs over `ranks[i]`."""

    tensor: str
    indices: tuple[Expr, ...]
    rank: str
    parts: tuple[Expr, ...]
    ranks: tuple[str, ...]
    where: Expr | None = None
    span: Span | None = field(default=None, compare=False, repr=False)


Statement: TypeAlias = Einsum | Select | Concat


@dataclass(frozen=True, slots=True)
class Cascade:
    """A whole attention: declarations, then statements in order of definition.

    Masks, macros and nested reductions of the spec are already expanded: every statement is one
    Einsum (or selection, or concatenation). `source` is the spec text, for citations.
    """

    name: str
    ranks: tuple[Rank, ...]
    params: tuple[ParamDecl, ...]
    inputs: tuple[TensorDecl, ...]
    statements: tuple[Statement, ...]
    outputs: tuple[str, ...]
    doc: str = ""
    source: str = field(default="", compare=False, repr=False)
    file: str = field(default="", compare=False, repr=False)

    def rank(self, name: str) -> Rank:
        """The declaration of a rank or component."""
        return next(r for r in self.ranks if r.name == name)

    def input(self, name: str) -> TensorDecl:
        """The declaration of an input tensor."""
        return next(t for t in self.inputs if t.name == name)

    @property
    def input_names(self) -> frozenset[str]:
        return frozenset(t.name for t in self.inputs)

    def producers(self, tensor: str) -> tuple[Statement, ...]:
        """The statements that define a tensor: one, or initial value and step of an iteration."""
        return tuple(s for s in self.statements if s.tensor == tensor)

    def coordinate(self, component: str, point: Expr) -> Expr:
        """A component's coordinate, given its rank's coordinate `point` (row-major)."""
        parent = self.rank(component).parent
        assert parent is not None
        return self.rank(parent).coordinate(component, point)

    def is_joined(self, rank: str) -> bool:
        """Whether a rank counts the combinations of others that stay ranks of their own."""
        parts = self.rank(rank).components
        return bool(parts) and self.rank(parts[0]).parent is None

    def line(self, statement: Statement) -> str:
        """The spec line that a statement comes from, stripped; empty if unknown."""
        if statement.span is None or not self.source:
            return ""
        lines = self.source.splitlines()
        return lines[statement.span.line - 1].strip() if statement.span.line <= len(lines) else ""
