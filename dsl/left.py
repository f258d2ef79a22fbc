"""Left sides: which ranks a statement binds, what it iterates."""

from __future__ import annotations

from dataclasses import dataclass

from attnc.dsl import tree
from attnc.dsl.declare import rank_name
from attnc.dsl.format import show
from attnc.dsl.report import Report
from attnc.dsl.scope import Symbols
from attnc.ir.expr import Apply, Expr, Index, Number


@dataclass(frozen=True, slots=True)
class Left:
    """A left side: its indices in the cascade, the ranks that it binds, how its axes are called.

    `step` is the rank that `t + 1` iterates; `start`: an index is a constant, an initial value.
    """

    indices: tuple[Expr, ...]
    ranks: tuple[str, ...]
    axes: tuple[str, ...]
    step: str = ""
    start: bool = False
    sound: bool = True


def read_left(target: tree.Access, symbols: Symbols, report: Report) -> Left:
    """The left side of a statement; what is wrong with it is reported and left out."""
    indices: list[Expr] = []
    ranks: list[str] = []
    axes: list[str] = []
    step, start, sound = "", False, True
    for index in target.indices:
        iterated = _iterated(index)
        name = iterated or index
        if isinstance(name, tree.Name) and not (iterated and step):
            sound &= rank_name(name, report) and _is_new(name, ranks, symbols, report)
            ranks.append(name.name)
            axes.append(name.name)
            indices.append(Index(name.name))
            if iterated:
                step = name.name
                indices[-1] = Apply("add", (Index(step), Number(1)))
        elif isinstance(index, tree.Literal) and type(index.value) is int:
            start = True
            axes.append(str(index.value))
            indices.append(Number(index.value))
        else:
            sound = False
            ranks.extend(sorted(tree.names_in(index) & symbols.ranks.keys()))
            axes.append(show(index))
            hint = "write a rank `m`, one `t + 1` to iterate, or 0 for an initial value"
            message = f"`{show(index)}` cannot stand on the left side"
            report.add("E215", message, index.span, hint)
    return Left(tuple(indices), tuple(dict.fromkeys(ranks)), tuple(axes), step, start, sound)


def _iterated(index: tree.Expr) -> tree.Name | None:
    """The rank t of an index `t + 1`."""
    match index:
        case tree.Binary("+", tree.Name() as name, tree.Literal(value)):
            return name if type(value) is int and value == 1 else None
        case _:
            return None


def _is_new(name: tree.Name, ranks: list[str], symbols: Symbols, report: Report) -> bool:
    """Whether neither the rank nor its grid nor a component of it is an index already."""
    rank = symbols.ranks[name.name]
    if name.name in ranks:
        report.add("E205", f"rank `{name.name}` is given twice", name.span)
    for other in (rank.parent, *rank.components):
        if other in ranks:
            message = f"`{name.name}` and `{other}` are a grid and its component"
            report.add("E205", message, name.span, "index with the grid or with its components")
    return not {name.name, rank.parent, *rank.components} & set(ranks)
