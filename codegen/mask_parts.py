"""Give names to what a mask computes of rows alone, or of keys alone.

What only rows need is computed once, before the sweeps; what only keys need, once per tile. A mask
is then a few comparisons, which a reader can follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from attnc.codegen.choose_bounds import choose_bounds
from attnc.codegen.names import Namer
from attnc.codegen.prune import all_lets, used_names
from attnc.ir.cascade import Cascade
from attnc.ir.expr import Apply, Expr, Index, Number, Read
from attnc.ir.plan import Dot, Fold, Let, Load, Pass, Serial, SweepStage, map_value, value_exprs
from attnc.ir.types import dtype_of
from attnc.ir.walk import children, index_ranks, reads, subexprs, substitute, with_children

# What integers are computed with besides sums and products, and what the result might be called.
WISHES = {
    "floordiv": "block",
    "mod": "rest",
    "min": "bound",
    "max": "bound",
    "clamp": "bound",
    "abs": "distance",
    "select": "choice",
    "sub": "gap",
    "add": "sum",
    "mul": "product",
}
_PLAIN = frozenset({"add", "sub", "mul", "neg"})
# A computation of so many operations gets a name even if it is used only once.
_LONG = 4


@dataclass(frozen=True, slots=True)
class NamedParts:
    """A stage whose masks read lets, and which expression each of these lets stands for."""

    stage: SweepStage
    parts: dict[Expr, Expr]


def name_mask_parts(stage: SweepStage, cascade: Cascade) -> NamedParts:
    """The stage with lets for the integers that its masks compute of rows or of keys."""
    stage = choose_bounds(stage, cascade)
    found = _Finder(stage, cascade)
    masks = [
        e for p in stage.passes for x in p.body if _is_pointwise(x) for e in value_exprs(x.value)
    ]
    for mask in masks:
        found.visit(mask, None)
    parts = {x: None for mask in masks for x in _inner_first(mask) if found.deserves_name(x)}
    namer = Namer(names={let.name: let.name for let in all_lets(stage)})
    namer.reserve((*(let.name for let in (*stage.host, *all_lets(stage))), *cascade.input_names))
    names: dict[Expr, Expr] = {}
    rows, keys = list[Let](), list[Let]()
    for part in parts:
        rank = found.side(part)
        assert rank is not None and isinstance(part, Apply)
        name = namer.name(part, f"{_coordinate(part, rank, cascade)}_{WISHES[part.op]}")
        value = with_children(part, tuple(substitute(c, names) for c in children(part)))
        (rows if rank == stage.row else keys).append(Let(name, (rank,), value, "int"))
        names[part] = Read(name, (Index(rank),))
    passes = tuple(_with_parts(p, names, keys) for p in stage.passes)
    return NamedParts(replace(stage, resident=(*stage.resident, *rows), passes=passes), names)


def _with_parts(p: Pass, names: dict[Expr, Expr], keys: list[Let]) -> Pass:
    body = tuple(
        replace(x, value=map_value(x.value, lambda e: substitute(e, names)))
        if _is_pointwise(x)
        else x
        for x in p.body
    )
    wanted = {name for x in body for name in used_names(x)}
    mine = []
    for let in reversed(keys):
        if let.name in wanted:
            mine.append(let)
            wanted |= used_names(let)
    return replace(p, body=(*reversed(mine), *body))


def _is_pointwise(let: Let) -> bool:
    return not isinstance(let.value, Load | Dot | Fold | Serial)


def _inner_first(e: Expr) -> Iterator[Expr]:
    for c in children(e):
        yield from _inner_first(c)
    yield e


@dataclass(slots=True)
class _Finder:
    """Finds integers of one side, and who uses them."""

    stage: SweepStage
    cascade: Cascade
    parents: dict[Expr, set[Expr]] = field(default_factory=dict)
    uses: Counter[Expr] = field(default_factory=Counter)
    outermost: set[Expr] = field(default_factory=set)

    def side(self, e: Expr) -> str | None:
        """The rank on whose coordinates alone a computed integer depends, besides the grid's."""
        host: dict[Expr, Expr] = {
            Read(let.name, ()): Number(0) for let in self.stage.host if let.dtype == "int"
        }
        plain = substitute(e, host)
        if not isinstance(e, Apply) or reads(plain) or dtype_of(plain, self.cascade) != "int":
            return None
        own = {self.cascade.rank(r).parent or r for r in index_ranks(e)}
        own -= set(self.stage.grid)
        ranks = (self.stage.row, self.stage.swept)
        return next((r for r in ranks if r is not None and own == {r}), None)

    def visit(self, e: Expr, parent: Expr | None) -> None:
        """Count the uses of the parts of a mask."""
        if self.side(e) is not None:
            self.uses[e] += 1
            above = None if parent is None else self.side(parent)
            if above is None or (isinstance(parent, Apply) and parent.op in _PLAIN):
                self.outermost.add(e)
            self.parents.setdefault(e, set()).add(e if parent is None else parent)
        for c in children(e):
            self.visit(c, e)

    def deserves_name(self, e: Expr) -> bool:
        """Whether a part is long, or used in several places."""
        if not isinstance(e, Apply) or e not in self.uses:
            return False
        shared = len(self.parents[e]) > 1
        size = sum(isinstance(x, Apply) for x in subexprs(e))
        if e.op in _PLAIN:
            return shared and size >= _LONG
        return shared or (e in self.outermost and (self.uses[e] > 1 or size >= _LONG))


def _coordinate(e: Expr, rank: str, cascade: Cascade) -> str:
    """The coordinate that names what is computed of it."""
    own = (x.rank for x in subexprs(e) if isinstance(x, Index))
    return next(r for r in own if (cascade.rank(r).parent or r) == rank)


def renamed(found: frozenset[Expr], parts: Mapping[Expr, Expr]) -> frozenset[Expr]:
    """Expressions as they were written, and as they read once parts of them have names."""
    inside = (with_children(e, tuple(substitute(c, parts) for c in children(e))) for e in found)
    return frozenset((*found, *inside))
