"""Matrix products and reductions of tiles."""

from __future__ import annotations

from dataclasses import dataclass

from attnc.codegen.code import ATOM, COMPARE, PRODUCT, SUM, Code, number
from attnc.codegen.expr import Tiles, subscript
from attnc.codegen.scope import Scope
from attnc.ir.expr import Expr, Read
from attnc.ir.ops import REDUCTIONS
from attnc.ir.plan import Dot, Fold


@dataclass(frozen=True, slots=True)
class Products:
    """Writes the contractions of one kernel; `main`: the type that computed tiles take."""

    scope: Scope
    tiles: Tiles
    main: str

    def dot(self, dot: Dot, axes: tuple[str, ...]) -> Code:
        """tl.dot where both sides are matrices, else a product and a sum."""
        left, right = self.tiles.ranks(dot.left), self.tiles.ranks(dot.right)
        rows = tuple(r for r in axes if r in left and r != dot.over)
        columns = tuple(r for r in axes if r in right and r != dot.over)
        if (
            {*rows} & {*columns}
            or (len(rows), len(columns)) != (1, 1)
            or dot.over not in left | right
        ):
            return self._elementwise(dot, axes)
        a = self._operand(dot.left, (*rows, dot.over), dot.right)
        b = self._operand(dot.right, (dot.over, *columns), dot.left)
        plus = "" if dot.plus is None else f", {self.whole(dot.plus, axes)}"
        product = f'tl.dot({a}, {b}{plus}, input_precision="ieee")'
        return Code(product if axes == (*rows, *columns) else f"tl.trans({product})")

    def _elementwise(self, dot: Dot, axes: tuple[str, ...]) -> Code:
        have = self.scope.ordered(self.tiles.ranks(dot.left) | self.tiles.ranks(dot.right))
        a = self.tiles.write(dot.left, have).inside(PRODUCT)
        b = self.tiles.write(dot.right, have).inside(PRODUCT + 1)
        kept = tuple(r for r in have if r != dot.over)
        total = f"tl.sum({a} * {b}, {have.index(dot.over)}){subscript(kept, axes)}"
        if dot.plus is None:
            return Code(self._stretched(total, set(kept), axes))
        return Code(f"{self.tiles.write(dot.plus, axes).inside(SUM)} + {total}", SUM)

    def _operand(self, e: Expr, axes: tuple[str, ...], partner: Expr) -> str:
        """One side of tl.dot, in the type in which the tensors are stored."""
        if self._is_native(e):
            return self.tiles.native(e, axes).text
        code = self.tiles.write(e, axes)
        if self.tiles.ranks(e) != set(axes):
            code = Code(self._stretched(code.text, set(self.tiles.ranks(e)), axes))
        kind = self.main
        if self._is_native(partner):
            assert isinstance(partner, Read)
            kind = f"{self.tiles.variables[partner.tensor].name}.dtype"
        return f"{code.inside(ATOM)}.to({kind})"

    def _is_native(self, e: Expr) -> bool:
        return (
            isinstance(e, Read)
            and e.tensor in self.tiles.variables
            and self.tiles.variables[e.tensor].native
        )

    def fold(self, fold: Fold, axes: tuple[str, ...]) -> Code:
        """A tile reduced along one axis; what pads that axis is left out."""
        have = self.scope.ordered({*axes, fold.over})
        body, ranks = self.tiles.write(fold.body, have).text, set(self.tiles.ranks(fold.body))
        if fold.over != self.scope.stage.swept:
            edge = self.scope.inside(fold.over) + subscript((fold.over,), have)
            body = f"tl.where({edge}, {body}, {number(REDUCTIONS[fold.op].identity).text})"
            ranks.add(fold.over)
        body = self._stretched(body, ranks, have)
        axis = have.index(fold.over)
        match fold.op:
            case "any":
                return Code(f"tl.max(({body}).to(tl.int32), {axis}) > 0", COMPARE)
            case "all":
                return Code(f"tl.min(({body}).to(tl.int32), {axis}) > 0", COMPARE)
            case "prod":
                return Code(f"tl.reduce({body}, {axis}, {self.tiles.helper('multiply')})")
            case op:
                return Code(f"tl.{op}({body}, {axis})")

    def whole(self, e: Expr, axes: tuple[str, ...]) -> str:
        """An expression with all its axes present, not merely broadcastable to them."""
        return self._stretched(self.tiles.write(e, axes).text, set(self.tiles.ranks(e)), axes)

    def _stretched(self, text: str, ranks: set[str], axes: tuple[str, ...]) -> str:
        if ranks >= set(axes):
            return text
        shape = ", ".join(self.scope.block(r) for r in axes)
        return f"tl.broadcast_to({text}, [{shape}])"
