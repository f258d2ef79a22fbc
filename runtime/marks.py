"""Find the masks of a sweep: choices by a condition that holds throughout a full tile.

They are replaced by marks, so that a span of tiles can be computed at once and each mask be looked
at only in the tiles that it cuts through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from attnc.ir.expr import Apply, Expr, Extent, Index, Read
from attnc.ir.plan import Let, Load, Pass, Serial, SweepStage, map_value, needed
from attnc.ir.presence import conjuncts
from attnc.ir.walk import rewrite
from attnc.runtime.hidden import mark, mark_name


@dataclass(frozen=True, slots=True)
class Marked:
    """A pass whose masks are marks, and what each mark stands for: conditions on coordinates,
    extents, params and tensors in memory.
    """

    sweep: Pass
    masks: Mapping[str, Expr]


def mark_masks(stage: SweepStage) -> tuple[Marked, ...]:
    """The passes of a stage with their masks marked."""
    outer = _definitions((*stage.host, *stage.resident))
    return tuple(_mark_pass(p, {**outer, **_definitions(p.body)}) for p in stage.passes)


def _definitions(lets: Iterable[Let]) -> dict[str, tuple[tuple[str, ...], Expr]]:
    """Lets that are an expression, or a part of a tensor in memory: what a mask may be made of."""
    found: dict[str, tuple[tuple[str, ...], Expr]] = {}
    for let in lets:
        match let.value:
            case Load(read):
                found[let.name] = (let.ranks, read)
            case Apply() | Extent() | Index() | Read():
                found[let.name] = (let.ranks, let.value)
            case _:
                pass
    return found


def _inlined(e: Expr, known: Mapping[str, tuple[tuple[str, ...], Expr]]) -> Expr:
    """The expression with the lets that it reads at their own point written out."""

    def definition(x: Expr) -> Expr | None:
        if not isinstance(x, Read) or x.tensor not in known:
            return None
        ranks, value = known[x.tensor]
        return _inlined(value, known) if x.indices == tuple(map(Index, ranks)) else None

    return rewrite(e, definition)


def _mark_pass(p: Pass, known: Mapping[str, tuple[tuple[str, ...], Expr]]) -> Marked:
    holding = set(conjuncts(p.visibility.every))
    names: dict[Expr, str] = {}

    def put(e: Expr) -> Expr | None:
        if not (isinstance(e, Apply) and e.op == "select"):
            return None
        condition = _inlined(e.args[0], known)
        parts = conjuncts(condition)
        if not parts or not holding.issuperset(parts):
            return None
        name = names.setdefault(condition, mark_name(len(names)))
        return Apply("select", (mark(name), *e.args[1:]))

    def mark_let(let: Let) -> Let:
        # A serial product reads its operands piece by piece.
        if isinstance(let.value, Serial):
            return let
        return replace(let, value=map_value(let.value, lambda e: rewrite(e, put)))

    body = tuple(map(mark_let, p.body))
    marked = replace(p, body=needed(body, (c.update for c in p.carries)))
    return Marked(marked, {name: e for e, name in names.items()})
