"""Substitute pointwise statements into their readers, so that only reductions keep names.

A statement's `where` stays with the value as `given(x, p)`: absence travels with the expression.
"""

from __future__ import annotations

from collections.abc import Mapping

from attnc.errors import AttncError
from attnc.ir.cascade import Cascade, Einsum, Statement
from attnc.ir.expr import Apply, Expr, Index, Read
from attnc.ir.walk import children, operands, rewrite, substitute_indices

_LARGEST, _DEEPEST = 240, 120


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


def check_size(cascade: Cascade) -> None:
    """Refuse statements that inlining would blow up: every use of a name repeats its definition.

    AttncError E902 beyond `_LARGEST` operations, or `_DEEPEST` of them inside one another.
    """
    sizes: dict[str, tuple[int, int]] = {}
    definitions = pointwise_definitions(cascade)
    for s in cascade.statements:
        found = [_measure(e, sizes) for e in operands(s)]
        size, depth = sum(x for x, _ in found), 1 + max(d for _, d in found)
        if size > _LARGEST or depth > _DEEPEST:
            what = f"{size:,} operations" if size > _LARGEST else f"{depth:,} nested operations"
            raise AttncError(
                "E902",
                f"`{s.tensor}` stands for {what}, too many to derive anything from",
                span=s.span,
                source=cascade.source,
                hint="a name stands for its whole definition wherever it is read",
            )
        if s.tensor in definitions:
            sizes[s.tensor] = (size, depth)


def _measure(e: Expr, sizes: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """Operations and their nesting, once the reads of `sizes` are expanded."""
    size, depth = sizes.get(e.tensor, (1, 1)) if isinstance(e, Read) else (0, 0)
    inside = [_measure(c, sizes) for c in children(e)]
    size += isinstance(e, Apply) + sum(x for x, _ in inside)
    return size, depth + isinstance(e, Apply) + max((d for _, d in inside), default=0)


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
