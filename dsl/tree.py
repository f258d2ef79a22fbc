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


@dataclass(frozen=True, slots=True)
class Node:
    """What every node has: its place, which takes no part in comparisons."""

    span: Span = field(default=NOWHERE, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A bare name."""

    name: str


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A number or truth value; `text` is how it was written. `1`, `1.0` and `true` differ."""

    value: bool | int | float
    text: str = field(default="", compare=False, repr=False)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Literal)
            and type(self.value) is type(other.value)
            and self.value == other.value
        )

    def __hash__(self) -> int:
        return hash((type(self.value), self.value))


@dataclass(frozen=True, slots=True)
class Access(Node):
    """`name[indices]`."""

    name: str
    indices: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`fn(args)`: a pointwise function, or a macro without a tensor argument."""

    fn: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Over(Node):
    """`fn(args) body`: a reduction, a selection, or a macro with a tensor argument."""

    fn: str
    args: tuple[Expr, ...]
    body: Expr


@dataclass(frozen=True, slots=True)
class Prefix(Node):
    """`-x` or `not x`."""

    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """`left op right` for `+ - * / // % ** and or`."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Chain(Node):
    """`a < b <= c`: all comparisons hold."""

    operands: tuple[Expr, ...]
    ops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IfElse(Node):
    """`if condition then yes else no`, point by point."""

    condition: Expr
    yes: Expr
    no: Expr


Expr: TypeAlias = Name | Literal | Access | Call | Over | Prefix | Binary | Chain | IfElse


@dataclass(frozen=True, slots=True)
class Concat(Node):
    """`concat(rank) part, part`: the parts one after another along the rank."""

    rank: Name
    parts: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """`target = value where where`."""

    target: Access
    value: Expr | Concat
    where: Expr | None = None

    @property
    def parts(self) -> tuple[Expr, ...]:
        """The expressions of the right side."""
        return self.value.parts if isinstance(self.value, Concat) else (self.value,)

    @property
    def expressions(self) -> tuple[Expr, ...]:
        """The expressions of the right side and of `where`."""
        return self.parts if self.where is None else (*self.parts, self.where)


@dataclass(frozen=True, slots=True)
class Range(Node):
    """`in [low, high)`."""

    low: Literal
    high: Literal
    low_open: bool
    high_open: bool


@dataclass(frozen=True, slots=True)
class Param(Node):
    """`const param name: dtype[length] = default in range`; a tuple has several defaults."""

    name: Name
    dtype: DType
    length: Literal | None = None
    default: Literal | tuple[Literal, ...] | None = None
    range: Range | None = None
    const: bool = False


@dataclass(frozen=True, slots=True)
class Rank(Node):
    """`rank m = (my, mx)`: a row-major grid, outermost component first."""

    name: Name
    components: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class Input(Node):
    """`input K[b, g, n, d]: dtype`."""

    name: Name
    ranks: tuple[Name, ...]
    dtype: DType = "float"


@dataclass(frozen=True, slots=True)
class Mask(Node):
    """`mask near[m, n] = predicate`: inlined where it is used."""

    target: Access
    value: Expr


@dataclass(frozen=True, slots=True)
class Formal(Node):
    """A formal argument of a macro and what it is when a call leaves it out."""

    name: str
    default: Expr | None = None


@dataclass(frozen=True, slots=True)
class Argument(Node):
    """The tensor argument of a macro, `X[n]`. The formals among its ranks stand for ranks."""

    name: str
    ranks: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class Macro(Node):
    """`def name(formals) argument: body; return result`."""

    name: Name
    formals: tuple[Formal, ...]
    argument: Argument | None
    body: tuple[Assign, ...]
    result: Expr

    @property
    def rank_formals(self) -> tuple[str, ...]:
        """The formals that stand for ranks: those that index the tensor argument."""
        indexing = {r.name for r in self.argument.ranks} if self.argument else set()
        return tuple(f.name for f in self.formals if f.name in indexing)


@dataclass(frozen=True, slots=True)
class Output(Node):
    """`output O[b, h, m, e], LSE[b, h, m]`."""

    tensors: tuple[Access, ...]


Item: TypeAlias = Param | Rank | Input | Mask | Macro | Assign | Output


@dataclass(frozen=True, slots=True)
class Comment(Node):
    """A comment, its `#` included."""

    text: str


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
    doc_span: Span = field(default=NOWHERE, compare=False, repr=False)


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
