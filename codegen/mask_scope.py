"""What the code that evaluates a mask on the host calls everything, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from attnc.codegen.code import Code
from attnc.codegen.host import Host
from attnc.codegen.names import Namer
from attnc.ir.cascade import Cascade, DType
from attnc.ir.expr import Apply, Expr, Extent, Index, Read
from attnc.ir.facts import Interval
from attnc.ir.geometry.integers import Integers
from attnc.ir.types import dtype_of
from attnc.ir.walk import reads, subexprs


@dataclass(slots=True)
class MaskScope:
    """Names of one function that lists tiles.

    host:    writes what is a Python number: extents, params and what is computed from them
    tables:  names of the range tables of captured tensors, by the axes along which places move
    numbers: names of Python numbers
    """

    cascade: Cascade
    swept: str
    host: Host
    namer: Namer
    tables: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)
    numbers: dict[Expr, str] = field(default_factory=dict)
    locals: int = 0

    def is_fixed(self, e: Expr) -> bool:
        """Whether it is known when called, wherever the point is."""
        return not any(isinstance(s, Index | Read) for s in subexprs(e))

    def fixed(self, e: Expr) -> Code:
        """A Python number; a quotient that is checked gets a name."""
        if not (isinstance(e, Apply) and e.op == "exactdiv"):
            return self.host.write(e)
        if e not in self.numbers:
            self.numbers[e] = self.local("quotient")
        return Code(self.numbers[e])

    def dtype(self, e: Expr) -> DType:
        return dtype_of(e, self.cascade)

    def bounds(self, e: Expr) -> Interval:
        """What is known of an integer whatever the call."""
        return Integers(self.cascade, self.swept).bounds(e)

    def nonzero(self, e: Expr) -> bool:
        """Whether a divisor is known never to be 0."""
        low, high = self.bounds(e)
        return low > 0 or high < 0

    def local(self, wish: str) -> str:
        """A new name."""
        self.locals += 1
        return self.namer.name(("local", self.locals), wish)

    def tensor(self, name: str) -> str:
        return self.namer.name(("tensor", name), name, f"{name}_")

    def coordinate(self, rank: str, part: str = "") -> str:
        """A coordinate of a point; of a box, its first (0) and last (1) one."""
        return self.namer.name(
            ("coordinate", rank, part), f"{rank}{part}", f"{rank}_{part or 'at'}"
        )

    def ranges(self, tensor: str, moving: tuple[int, ...]) -> str:
        """The table of least and greatest values over ranges along some axes."""
        if (tensor, moving) not in self.tables:
            self.tables[tensor, moving] = self.local(f"{tensor.lower()}_ranges")
        return self.tables[tensor, moving]

    def row_major(self, rank: str) -> Expr | None:
        """A coordinate out of others: a grid's out of its components', or one of them out of it."""
        known = self.cascade.rank(rank)
        if known.parent is not None:
            return self.cascade.coordinate(rank, Index(known.parent))
        if not known.components:
            return None
        whole: Expr = Index(known.components[0])
        for c in known.components[1:]:
            whole = Apply("add", (Apply("mul", (whole, Extent(c))), Index(c)))
        return whole

    def element(self, read: Read, places: Sequence[Code]) -> str:
        """An element of a captured tensor; a computed place is kept inside."""
        if not places:
            return self.tensor(read.tensor)
        name, axes = self.tensor(read.tensor), self.cascade.input(read.tensor).ranks
        at = []
        for axis, (index, code) in enumerate(zip(read.indices, places, strict=True)):
            if isinstance(index, Index) and index.rank == axes[axis]:
                at.append(code.text)
            elif self.is_fixed(index):
                at.append(f"min(max({code.text}, 0), {name}.shape[{axis}] - 1)")
            else:
                at.append(f"{code.inside(6)}.clamp(0, {name}.shape[{axis}] - 1)")
        return f"{name}[{', '.join(at)}]"


def captured(*predicates: Expr) -> tuple[str, ...]:
    """The tensors that some predicates read, in order."""
    return tuple(dict.fromkeys(r.tensor for e in predicates for r in reads(e)))
