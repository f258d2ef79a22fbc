"""The syntax tree of a spec: what was written, every node with its place.

Names are not resolved yet: `Name` may be a coordinate, an extent, a param or a macro's argument;
`Access` a tensor, a mask or an item of a tuple param; `Over` a reduction, a selection or a macro.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from attnc.errors import Span
from attnc.ir.cascade import DType

NOWHERE = Span(0, 0, 0, 0)


def _span() -> Span:
    span: Span = field(default=NOWHERE, compare=False, repr=False)
    return span


@dataclass(frozen=True, slots=True)
class Name:
    """A bare name."""

    name: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Literal:
    """A number or truth value; `text` is how it was written. `1`, `1.0` and `true` differ."""

    value: bool | int | float
    text: str = field(default="", compare=False, repr=False)
    span: Span = _span()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Literal)
            and type(self.value) is type(other.value)
            and self.value == other.value
        )

    def __hash__(self) -> int:
        return hash((type(self.value), self.value))


@dataclass(frozen=True, slots=True)
class Access:
    """`name[indices]`."""

    name: str
    indices: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Call:
    """`fn(args)`: a pointwise function, or a macro without a tensor argument."""

    fn: str
    args: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Over:
    """`fn(args) body`: a reduction, a selection, or a macro with a tensor argument."""

    fn: str
    args: tuple[Expr, ...]
    body: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Prefix:
    """`-x` or `not x`."""

    op: str
    operand: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Binary:
    """`left op right` for `+ - * / // % ** and or`."""

    op: str
    left: Expr
    right: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Chain:
    """`a < b <= c`: all comparisons hold."""

    operands: tuple[Expr, ...]
    ops: tuple[str, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class IfElse:
    """`if condition then yes else no`, point by point."""

    condition: Expr
    yes: Expr
    no: Expr
    span: Span = _span()


Expr: TypeAlias = Name | Literal | Access | Call | Over | Prefix | Binary | Chain | IfElse


@dataclass(frozen=True, slots=True)
class Concat:
    """`concat(rank) part, part`: the parts one after another along the rank."""

    rank: Name
    parts: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Assign:
    """`target = value where where`."""

    target: Access
    value: Expr | Concat
    where: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Range:
    """`in [low, high)`."""

    low: Literal
    high: Literal
    low_open: bool
    high_open: bool
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Param:
    """`const param name: dtype[length] = default in range`; a tuple default has several literals."""

    name: Name
    dtype: DType
    length: Literal | None = None
    default: Literal | tuple[Literal, ...] | None = None
    range: Range | None = None
    const: bool = False
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Rank:
    """`rank m = (my, mx)`: a row-major grid, outermost component first."""

    name: Name
    components: tuple[Name, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Input:
    """`input K[b, g, n, d]: dtype`."""

    name: Name
    ranks: tuple[Name, ...]
    dtype: DType = "float"
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Mask:
    """`mask near[m, n] = predicate`: inlined where it is used."""

    target: Access
    value: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Formal:
    """A formal argument of a macro and what it is when a call leaves it out."""

    name: str
    default: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Argument:
    """The tensor argument of a macro, `X[n]`. The formals among its ranks stand for ranks."""

    name: str
    ranks: tuple[Name, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Macro:
    """`def name(formals) argument: body; return result`."""

    name: Name
    formals: tuple[Formal, ...]
    argument: Argument | None
    body: tuple[Assign, ...]
    result: Expr
    span: Span = _span()

    @property
    def rank_formals(self) -> tuple[str, ...]:
        """The formals that stand for ranks: those that index the tensor argument."""
        indexing = {r.name for r in self.argument.ranks} if self.argument else set()
        return tuple(f.name for f in self.formals if f.name in indexing)


@dataclass(frozen=True, slots=True)
class Output:
    """`output O[b, h, m, e], LSE[b, h, m]`."""

    tensors: tuple[Access, ...]
    span: Span = _span()


Item: TypeAlias = Param | Rank | Input | Mask | Macro | Assign | Output


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment, its `#` included."""

    text: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Spec:
    """One file: its items in order. `doc` is the docstring as written, without its quotes.

    `name` is None in a file that only defines macros (the prelude).
    """

    name: Name | None
    doc: str | None
    items: tuple[Item, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False, repr=False)
    text: str = field(default="", compare=False, repr=False)
    file: str = field(default="", compare=False)
    doc_span: Span = _span()


def children(e: Expr) -> tuple[Expr, ...]:
    """The direct operands of an expression, in the order in which they are written."""
    match e:
        case Access(_, parts) | Call(_, parts) | Chain(parts):
            return parts
        case Over(_, args, body):
            return (*args, body)
        case Prefix(_, operand):
            return (operand,)
        case Binary(_, left, right):
            return (left, right)
        case IfElse(condition, yes, no):
            return (condition, yes, no)
        case Name() | Literal():
            return ()


def names_in(e: Expr) -> frozenset[str]:
    """Every bare name inside the expression."""
    found: set[str] = set()
    stack = [e]
    while stack:
        top = stack.pop()
        if isinstance(top, Name):
            found.add(top.name)
        stack.extend(children(top))
    return frozenset(found)
