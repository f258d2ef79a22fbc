"""The body of a sweep for tiles in which nothing is hidden: the mask's conditions hold throughout.

What is left has no arithmetic of the mask: conditions are replaced by `true`, and selections,
products and loads that served only them disappear.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from attnc.ir.expr import Expr, Index, Number, Read
from attnc.ir.plan import Let, map_value, needed
from attnc.ir.presence import TRUE
from attnc.ir.specialise import fold_constants
from attnc.ir.walk import rewrite, substitute


def full_body(
    body: Iterable[Let], holds: Iterable[Expr], updates: Iterable[str]
) -> tuple[Let, ...]:
    """`body` where all of `holds` is true; it still defines `updates`, by the same names."""
    known: dict[Expr, Expr] = dict.fromkeys(holds, TRUE)
    wanted = set(updates)
    lets: list[Let] = []
    for let in body:
        value = map_value(let.value, lambda e: rewrite(substitute(e, known), fold_constants))
        own = tuple(Index(r) for r in let.ranks)
        alias = isinstance(value, Read) and value.indices == own
        if (value == TRUE or alias) and let.name not in wanted:
            assert isinstance(value, Number | Read)
            known[Read(let.name, own)] = value
        else:
            lets.append(let if value == let.value else replace(let, value=value))
    return needed(lets, wanted)
