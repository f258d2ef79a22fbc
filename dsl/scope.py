"""What names mean: the tables of a spec, and the names in scope at one place of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from attnc.dsl import tree
from attnc.dsl.typed import Typed
from attnc.errors import Span
from attnc.ir.cascade import DType, Rank
from attnc.ir.expr import Read


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or a defined tensor: how its axes were written, for messages, and its type."""

    name: str
    axes: tuple[str, ...]
    dtype: DType | None
    span: Span


@dataclass(frozen=True, slots=True)
class Local:
    """A tensor inside a macro: reading it at its own `ranks` is `read` outside.

    `free` are the ranks along which `read` varies, those that are carried along included.
    """

    read: Read
    ranks: tuple[str, ...]
    free: frozenset[str]
    dtype: DType | None


@dataclass(slots=True)
class Symbols:
    """The tables of a spec. `tensors` and `masks` grow as definitions are met, in order."""

    params: dict[str, tree.Param] = field(default_factory=dict)
    ranks: dict[str, Rank] = field(default_factory=dict)
    macros: dict[str, tree.Macro] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, tree.Mask] = field(default_factory=dict)
    # Masks and macros with a mistake: reported at their definition, not again at each use.
    broken: set[str] = field(default_factory=set)
    broken_macros: set[str] = field(default_factory=set)
    # Every name the spec gives to a tensor or mask, also where it is not defined yet.
    bracketed: frozenset[str] = frozenset()

    def extent_of(self, name: str) -> str | None:
        """The rank whose extent is called `name`."""
        rank = name.lower()
        return rank if rank in self.ranks and name == rank.upper() else None


@dataclass(frozen=True, slots=True)
class Scope:
    """The names in scope at one place.

    ranks:    the iteration space, in order (names of the cascade)
    names:    bare names with a value of their own: formals of a mask or macro
    actual:   a macro's names for ranks
    tensors:  a macro's tensors
    macro:    the macro whose body this is: nothing of the spec is visible
    exact:    `/` of two ints is an exact division
    where:    the `where` of the statement
    inner:    ranks that nested reductions of the statement bind (filled while it is read)
    target:   the tensor of the spec that is being defined
    span:     the call, inside a macro: the place that messages and statements cite
    """

    ranks: tuple[str, ...] = ()
    names: Mapping[str, Typed] = field(default_factory=dict)
    actual: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, Local] = field(default_factory=dict)
    macro: str = ""
    exact: bool = False
    where: tree.Expr | None = None
    inner: set[str] = field(default_factory=set)
    target: str = ""
    span: Span | None = None

    def bind(self, ranks: Iterable[str]) -> Scope:
        """The scope with more ranks."""
        return replace(self, ranks=tuple(dict.fromkeys((*self.ranks, *ranks))))

    def mentioned(self) -> frozenset[str]:
        """The ranks (among other names) that the statement's `where` mentions."""
        names = tree.names_in(self.where) if self.where is not None else frozenset()
        return frozenset(self.actual.get(n, "" if self.macro else n) for n in names)

    def place(self, span: Span) -> Span:
        """The span to cite."""
        return self.span or span
