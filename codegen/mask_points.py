"""A mask at points as torch code, each coordinate a tensor that broadcasts against the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attnc.codegen.code import ATOM, COMPARE, SIGN, TENSOR_INFIX, Code
from attnc.codegen.mask_scope import MaskScope
from attnc.codegen.tile_bounds import WISHES
from attnc.codegen.torch_stage import FUNCTIONS
from attnc.ir.expr import Apply, Expr, Index, Read
from attnc.ir.walk import subexprs

# What is longer and occurs more than once gets a name.
_SHORT = 20


@dataclass(slots=True)
class PointWriter:
    """Writes expressions at points, and the `lines` that name what they share."""

    scope: MaskScope
    places: Mapping[str, str]
    lines: list[str] = field(default_factory=list)
    known: dict[Expr, Code] = field(default_factory=dict)
    uses: dict[Expr, int] = field(default_factory=dict)

    def condition(self, e: Expr) -> Code:
        """A predicate; what it computes twice is computed once."""
        for x in subexprs(e):
            self.uses[x] = self.uses.get(x, 0) + 1
        return self.write(e)

    def write(self, e: Expr) -> Code:
        """An expression: a Python number where it does not depend on the point."""
        if self.scope.is_fixed(e):
            return self.scope.fixed(e)
        if e not in self.known:
            code = self._write(e)
            if isinstance(e, Apply) and self.uses.get(e, 0) > 1 and len(code.text) > _SHORT:
                name = self.scope.local(WISHES.get(e.op, "value"))
                self.lines.append(f"{name} = {code.text}")
                code = Code(name)
            self.known[e] = code
        return self.known[e]

    def _write(self, e: Expr) -> Code:
        match e:
            case Index(rank) if rank in self.places:
                return Code(self.places[rank])
            case Index(rank):
                whole = self.scope.row_major(rank)
                assert whole is not None
                return self.write(whole)
            case Read(_, indices):
                return Code(self.scope.element(e, [self.write(i) for i in indices]))
            case Apply("not", (a,)):
                return Code(f"~{self.write(a).inside(ATOM)}", SIGN)
            case Apply("neg", (a,)):
                return Code(f"-{self.write(a).inside(SIGN)}", SIGN)
            case Apply("float", (a,)):
                return Code(f"{self.write(a).inside(ATOM)}.double()")
            case Apply("min" | "max" as op, (a, b)):
                return self._extreme(op, a, b)
            case Apply("clamp", (a, low, high)):
                return self._extreme("min", Apply("max", (a, low)), high)
            case Apply("select", (test, a, b)):
                return self._select(test, a, b)
            case Apply(op, (a, b)) if op in TENSOR_INFIX:
                sign, binds = TENSOR_INFIX[op]
                x, y = self.write(a), self.write(b)
                if op == "div" and not self.scope.is_fixed(a) and self.scope.dtype(a) == "int":
                    x = Code(f"{x.inside(ATOM)}.double()")
                left = x.inside(binds + (binds == COMPARE))
                right = y.inside(binds + (op not in ("and", "or")))
                return Code(f"{left} {sign} {right}", binds)
            case Apply(op, args):
                return Code(f"{FUNCTIONS[op]}({', '.join(self.write(a).text for a in args)})")
        raise AssertionError(e)

    def _extreme(self, op: str, a: Expr, b: Expr) -> Code:
        if self.scope.is_fixed(a):
            a, b = b, a
        if self.scope.is_fixed(b):
            side = {"min": "max", "max": "min"}[op]
            return Code(f"{self.write(a).inside(ATOM)}.clamp({side}={self.write(b).text})")
        function = {"min": "torch.minimum", "max": "torch.maximum"}[op]
        return Code(f"{function}({self.write(a).text}, {self.write(b).text})")

    def _select(self, test: Expr, a: Expr, b: Expr) -> Code:
        x, y = self.write(a).text, self.write(b).text
        if self.scope.is_fixed(test):
            return Code(f"({x} if {self.write(test).text} else {y})")
        return Code(f"torch.where({self.write(test).text}, {x}, {y})")
