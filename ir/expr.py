"""Expressions of a cascade: six kinds of node, for values, indices and predicates alike.

An expression is evaluated at a point of an iteration space. Integers (rank coordinates, extents,
int tensors), floats and booleans live in one language; `Apply.op` names an entry of `ir.ops.OPS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Number:
    """A literal; its Python type (`bool`, `int`, `float`) is its type. `inf` is a float."""

    value: bool | int | float

    # 1 == 1.0 == True in Python; as expressions they differ.
    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Number)
            and type(self.value) is type(other.value)
            and self.value == other.value
        )

    def __hash__(self) -> int:
        return hash((type(self.value), self.value))


@dataclass(frozen=True, slots=True)
class Index:
    """The coordinate of a rank, or of a rank's component (`my` of `rank m = (my, mx)`): an int."""

    rank: str


@dataclass(frozen=True, slots=True)
class Extent:
    """The length of a rank or of a component: an int known when called."""

    rank: str


@dataclass(frozen=True, slots=True)
class Param:
    """A scalar parameter; `item` picks one of a tuple (`window[1]`)."""

    name: str
    item: int | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """One element of a tensor; each index is an integer expression."""

    tensor: str
    indices: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """A pointwise operator of `ir.ops.OPS` on its arguments."""

    op: str
    args: tuple[Expr, ...]
    # Trees are looked up in tables over and over: each is hashed once.
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.op, self.args)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Apply], tuple[str, tuple[Expr, ...]]]:
        # Another process hashes names otherwise.
        return Apply, (self.op, self.args)


Expr: TypeAlias = Number | Index | Extent | Param | Read | Apply


def call(op: str, *args: Expr) -> Apply:
    """`Apply` with the arguments spelled out: `call("add", a, b)`."""
    return Apply(op, args)
