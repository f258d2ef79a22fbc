"""Substitute pointwise statements into their readers, so that only reductions keep names.

A statement's `where` stays with the value as `given(x, p)`: absence travels with the expression.
"""

from __future__ import annotations

from collections.abc import Mapping

from attnc.ir.cascade import Cascade, Einsum, Statement
from attnc.ir.expr import Apply, Expr, Index, Read
from attnc.ir.walk import rewrite, substitute_indices


def pointwise_definitions(cascade: Cascade) -> dict[str, Einsum]:
    """The tensors that one statement without reduction defines at plain coordinates."""
    return {
        s.tensor: s
        for s in cascade.statements
        if _is_pointwise(s) and len(cascade.producers(s.tensor)) == 1 and isinstance(s, Einsum)
    }


def _is_pointwise(s: Statement) -> bool:
    return (
        isinstance(s, Einsum)
        and s.reduce is None
        and all(isinstance(i, Index) for i in s.indices)
        and len(set(s.indices)) == len(s.indices)
    )


def inline(e: Expr, definitions: Mapping[str, Einsum]) -> Expr:
    """Replace reads of `definitions` by what they stand for, all the way up."""

    def expand(node: Expr) -> Expr | None:
        if not isinstance(node, Read) or node.tensor not in definitions:
            return None
        made = definitions[node.tensor]
        mapping = {
            i.rank: x
            for i, x in zip(made.indices, node.indices, strict=True)
            if isinstance(i, Index)
        }
        value = inline(substitute_indices(body(made), mapping), definitions)
        return value

    return rewrite(e, expand)


def body(s: Einsum) -> Expr:
    """What a statement reduces or stores, with its `where` as `given`."""
    return s.expr if s.where is None else Apply("given", (s.expr, s.where))
