"""Scalars that the caller computes once per launch, as Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from attnc.codegen.code import ATOM, COMPARE, INFIX, PRODUCT, SIGN, Code, number
from attnc.ir.expr import Apply, Expr, Extent, Number, Param, Read
from attnc.ir.facts import nonnegative
from attnc.ir.show import show_expr

_MATH: Mapping[str, str] = {
    "tanh": "math.tanh",
    "erf": "math.erf",
    "sin": "math.sin",
    "cos": "math.cos",
    "abs": "abs",
    "min": "min",
    "max": "max",
    "float": "float",
}
# What Python would answer with an exception: functions of the module that give inf or NaN instead.
_SAFE: Mapping[str, str] = {
    "_divide": '''
def _divide(a: float, b: float) -> float:
    """a / b; 1 for b = 0, where the result is masked, or scales sums over nothing."""
    return a / b if b else 1.0
''',
    "_exact": '''
def _exact(a: int, b: int, text: str) -> int:
    """a / b of integers."""
    if a % b if b else a:
        raise ValueError(f"{text} = {a} / {b} leaves a remainder")
    return a // b if b else 0
''',
    "_exp": '''
def _exp(x: float) -> float:
    """exp(x), inf where it overflows."""
    return math.exp(x) if x < 709.0 else math.inf
''',
    "_log": '''
def _log(x: float) -> float:
    """log(x), -inf at 0."""
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan
''',
    "_power": '''
def _power(x: float, y: float) -> float:
    """x ** y, NaN or inf instead of an exception."""
    try:
        return math.pow(x, y)
    except ValueError:
        return math.inf if x == 0 else math.nan
    except OverflowError:
        return math.inf
''',
}


@dataclass(slots=True)
class Host:
    """Writes scalar expressions; `name` is what the launcher calls an extent, param or scalar."""

    name: Callable[[Expr], str]
    helpers: set[str] = field(default_factory=set)

    @property
    def sources(self) -> tuple[str, ...]:
        """The functions that the expressions call."""
        return tuple(_SAFE[h].strip() for h in sorted(self.helpers))

    def write(self, e: Expr) -> Code:
        match e:
            case Number(value):
                return _constant(value)
            case Extent() | Param() | Read():
                return Code(self.name(e))
            case Apply("float", (Number(value),)):
                return _constant(float(value))
            case Apply("float", (x,)):
                return self.write(x)
            case Apply("neg", (x,)):
                return Code(f"-{self.write(x).inside(SIGN)}", SIGN)
            case Apply("not", (x,)):
                return Code(f"(not {self.write(x).inside(ATOM)})")
            case Apply(("and" | "or") as op, (a, b)):
                return Code(f"({self.write(a).inside(ATOM)} {op} {self.write(b).inside(ATOM)})")
            case Apply("select", (c, a, b)):
                then, test, other = (self.write(x).text for x in (a, c, b))
                return Code(f"({then} if {test} else {other})")
            case Apply("exactdiv", (a, b)):
                text = show_expr(e).replace("\\", "")
                return self._helper(
                    "_exact", f'{self.write(a).text}, {self.write(b).text}, "{text}"'
                )
            case Apply("div", (a, b)):
                return self._quotient(a, b)
            case Apply("floordiv" | "mod" as op, (a, b)):
                sign = "//" if op == "floordiv" else "%"
                left, right = self.write(a), self.write(b)
                return Code(f"{left.inside(PRODUCT)} {sign} {right.inside(PRODUCT + 1)}", PRODUCT)
            case Apply(op, (a, b)) if op in INFIX:
                sign, binds = INFIX[op]
                left, right = self.write(a), self.write(b)
                return Code(
                    f"{left.inside(binds + (binds == COMPARE))} {sign} {right.inside(binds + 1)}",
                    binds,
                )
            case Apply(op, args):
                return self._function(op, args)
            case _:
                raise AssertionError(e)

    def _quotient(self, a: Expr, b: Expr) -> Code:
        left, right = self.write(a), self.write(b)
        if isinstance(b, Number) and b.value:
            return Code(f"{left.inside(PRODUCT)} / {right.inside(PRODUCT + 1)}", PRODUCT)
        return self._helper("_divide", f"{left.text}, {right.text}")

    def _helper(self, name: str, arguments: str) -> Code:
        self.helpers.add(name)
        return Code(f"{name}({arguments})")

    def _function(self, op: str, args: tuple[Expr, ...]) -> Code:
        texts = [self.write(a).text for a in args]
        joined = ", ".join(texts)
        x = texts[0]
        match op:
            case "exp":
                return self._helper("_exp", joined)
            case "exp2":
                return self._helper("_power", f"2.0, {joined}")
            case "log":
                return self._helper("_log", joined)
            case "log2":
                return Code(f"{self._helper('_log', joined).text} / math.log(2.0)", PRODUCT)
            case "log1p":
                return self._helper("_log", f"1.0 + {self.write(args[0]).inside(PRODUCT)}")
            case "sqrt" if nonnegative(args[0], {}):
                return Code(f"math.sqrt({joined})")
            case "sqrt":
                return self._helper("_power", f"{joined}, 0.5")
            case "rsqrt":
                return self._helper("_power", f"{joined}, -0.5")
            case "pow":
                return self._helper("_power", joined)
            case "relu":
                return Code(f"max({joined}, 0.0)")
            case "clamp":
                return Code(f"min(max({texts[0]}, {texts[1]}), {texts[2]})")
            case "sign":
                return Code(f"(({x} > 0) - ({x} < 0))")
            case "sigmoid":
                return Code(f"(0.5 + 0.5 * math.tanh(0.5 * ({x})))")
            case "softplus":
                return Code(f"(max({x}, 0.0) + math.log1p(math.exp(-abs({x}))))")
            case "silu":
                return Code(f"({x}) * (0.5 + 0.5 * math.tanh(0.5 * ({x})))", PRODUCT)
            case "gelu":
                return Code(f"0.5 * ({x}) * (1.0 + math.erf(({x}) / math.sqrt(2.0)))", PRODUCT)
            case "stopgrad":
                return self.write(args[0])
            case _:
                return Code(f"{_MATH[op]}({joined})")


def _constant(value: bool | int | float) -> Code:
    code = number(value)
    return Code(_CONSTANTS.get(code.text, code.text), code.binds)


_CONSTANTS = {
    "LOG2E": "math.log2(math.e)",
    "LN2": "math.log(2.0)",
    'float("inf")': "math.inf",
    'float("-inf")': "-math.inf",
}
