"""A predicate as FlexAttention's `mask_mod`: the Python function that one would write by hand.

Extents and parameters are numbers in it, captured tensors are closed over. Every operation is a
torch operator, so the function runs under vmap and inside a compiled `flex_attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from attnc.codegen.code import AND, ATOM, BAR, COMPARE, PRODUCT, SIGN, SUM, TENSOR_INFIX, Code
from attnc.errors import AttncError
from attnc.ir.evaluate import compile_expr
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.frame import Frame, Scope
from attnc.ir.geometry.put_in_numbers import fold_numbers
from attnc.ir.geometry.tiling import Bound
from attnc.ir.ops import OPS
from attnc.ir.walk import reads, rewrite, subexprs, substitute_indices
from attnc.runtime.modules import load_source

MaskMod: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

ARGUMENTS = ("b", "h", "q_idx", "kv_idx")
_CALLS = {
    **{f: f"torch.{f}" for f in ("exp", "exp2", "log", "log2", "log1p", "sqrt", "rsqrt", "abs")},
    **{f: f"torch.{f}" for f in ("sign", "tanh", "sigmoid", "relu", "erf", "sin", "cos")},
    **{f: f"torch.nn.functional.{f}" for f in ("softplus", "silu", "gelu")},
}
_DIVISIONS = ("div", "floordiv", "mod", "exactdiv")


@dataclass(frozen=True, slots=True)
class Coordinates:
    """What a predicate's coordinates are, as expressions of the four arguments of a `mask_mod`.

    sizes: the length of each argument's axis
    """

    ranks: Mapping[str, Expr]
    sizes: Mapping[str, int]


def mask_mod(
    predicate: Expr,
    coordinates: Coordinates,
    bound: Bound,
    tensors: Mapping[str, Tensor],
    name: str,
) -> MaskMod:
    """The function `(b, h, q_idx, kv_idx) -> bool`, all four scalars on the tensors' device.

    `name` is shown in tracebacks. Raises AttncError E518 if an integer leaves 64 bits.
    """
    numbers = rewrite(predicate, lambda e: _put_in(e, bound))
    simple = rewrite(substitute_indices(numbers, coordinates.ranks), _simplify)
    held = {r.tensor: _readable(tensors[r.tensor]) for r in reads(simple)}
    largest = _Largest(coordinates.sizes, held)
    top = max((largest.of(e) for e in subexprs(simple)), default=0)
    if top >= 2**63:
        raise AttncError("E518", f"the mask of `{name}` computes integers of more than 64 bits")
    writer = _Writer(coordinates.sizes, held, wide=top >= 2**31)
    code, present = writer.write(simple)
    text = _both(code, present).text
    if not any(isinstance(e, Index | Read) for e in subexprs(simple)):
        text = f"b.new_full((), {text}, dtype=torch.bool)"
    closed = ", ".join(map(writer.variable, held))
    source = (
        f"import torch\n\n\ndef close({closed}):\n"
        f"    def mask_mod({', '.join(ARGUMENTS)}):\n        return {text}\n\n    return mask_mod\n"
    )
    made: MaskMod = load_source(source, f"mask of {name}").close(*held.values())
    return made


def _readable(x: Tensor) -> Tensor:
    """The tensor in a type that arithmetic does not wrap in, with one element at least."""
    if x.dtype not in (torch.bool, torch.int32, torch.int64):
        x = x.to(torch.int64)
    # A tensor without elements is read only where the point does not count.
    return x if x.numel() else x.new_zeros((1,) * x.dim())


def _put_in(e: Expr, bound: Bound) -> Expr | None:
    """A parameter or an extent as a number."""
    match e:
        case Param(name, item):
            value = bound.params[name]
            return Number(value[item or 0] if isinstance(value, tuple) else value)
        case Extent(rank):
            return Number(bound.extents[rank])
        case _:
            return None


def _simplify(e: Expr) -> Expr | None:
    """One step towards what torch can write: no number is left where it needs a tensor.

    What may be absent stays: `x / 0` hides its point, whatever it would be compared with.
    """
    match e:
        case Apply("clamp", (x, low, high)):
            floor = Apply("max", (x, low))
            ceiling = Apply("min", (_simplify(floor) or floor, high))
            return _simplify(ceiling) or ceiling
        case Apply(_, args) if all(isinstance(a, Number) for a in args):
            value, present = compile_expr(e)(Frame(Scope(), {}))
            return Number(value) if present is None else None
        case Apply("select", (Number(test), x, y)):
            return x if test else y
        case Apply("and", (x, Number(True))) | Apply("and", (Number(True), x)):
            return x
        case _ if not all(map(_present, subexprs(e))):
            return None
        case Apply("mod", (_, Number(1))):
            return Number(0)
        case _:
            return fold_numbers(e)


def _present(e: Expr) -> bool:
    """Whether a node makes nothing absent by itself."""
    match e:
        case Apply("given"):
            return False
        case Apply(op, (_, divisor)) if op in _DIVISIONS:
            return isinstance(divisor, Number) and divisor.value != 0
        case _:
            return True


@dataclass(frozen=True, slots=True)
class _Largest:
    """The largest magnitude that an integer can have; 0 for what is no integer."""

    sizes: Mapping[str, int]
    tensors: Mapping[str, Tensor]
    known: dict[Expr, int] = field(default_factory=dict)

    def of(self, e: Expr) -> int:
        if e not in self.known:
            self.known[e] = self._find(e)
        return self.known[e]

    def _find(self, e: Expr) -> int:
        match e:
            case Number(value):
                return abs(value) if isinstance(value, int) else 0
            case Index(argument):
                return max(self.sizes[argument] - 1, 0)
            case Read(tensor):
                x = self.tensors[tensor]
                low, high = torch.aminmax(x.view(torch.uint8) if x.dtype == torch.bool else x)
                return max(abs(int(low)), abs(int(high)))
            case Apply("add" | "sub", (a, b)):
                return self.of(a) + self.of(b)
            case Apply("mul", (a, b)):
                return self.of(a) * self.of(b)
            case Apply("floordiv" | "exactdiv" | "neg" | "abs", (a, *_)):
                return self.of(a)
            case Apply("mod", (_, b)):
                return self.of(b)
            case Apply("min" | "max" | "select" | "or_else", args):
                return max(map(self.of, args))
            case Apply("given", (a, _)):
                return self.of(a)
            case _:
                return 1


def _float(e: Expr, x: Code) -> Code:
    """In the reference's precision; a literal is a Python float, which has it."""
    cast = isinstance(e, Apply) and e.op == "float"
    return x if isinstance(e, Number) or cast else Code(f"{x.inside(ATOM)}.to(torch.float64)")


_Pair: TypeAlias = tuple[Code, Code | None]


def _both(a: Code, b: Code | None) -> Code:
    return a if b is None else Code(f"{a.inside(AND)} & {b.inside(AND + 1)}", AND)


def _meet(codes: Sequence[Code | None]) -> Code | None:
    found: Code | None = None
    for code in codes:
        if code is not None and (found is None or code.text != found.text):
            found = _both(code, found)
    return found


@dataclass(frozen=True, slots=True)
class _Writer:
    """Python text of an expression, and of where it is present (None: everywhere)."""

    sizes: Mapping[str, int]
    tensors: Mapping[str, Tensor]
    wide: bool

    def variable(self, tensor: str) -> str:
        name = tensor
        while name in (*ARGUMENTS, "torch") or name in {*self.tensors} - {tensor}:
            name += "_"
        return name

    def write(self, e: Expr) -> _Pair:
        match e:
            case Number(value):
                text = (
                    repr(value)
                    if value == value and abs(value) != torch.inf
                    else f'float("{value}")'
                )
                return Code(text, SIGN if text.startswith("-") else ATOM), None
            case Index(argument):
                return Code(f"{argument}.to(torch.int64)" if self.wide else argument), None
            case Read(tensor, indices):
                return self._read(tensor, indices)
            case Apply():
                return self._apply(e)
            case _:
                raise AssertionError(e)

    def _read(self, tensor: str, indices: tuple[Expr, ...]) -> _Pair:
        shape = self.tensors[tensor].shape
        pairs = [self.write(i) for i in indices]
        places = [
            self._inside(i, code, size)
            for i, (code, _), size in zip(indices, pairs, shape, strict=True)
        ]
        subscript = f"[{', '.join(places)}]" if places else ""
        return Code(self.variable(tensor) + subscript), _meet([p for _, p in pairs])

    def _inside(self, index: Expr, code: Code, size: int) -> str:
        """The index, clamped if it may leave the tensor: there the point does not count."""
        match index:
            case Index(argument) if self.sizes[argument] <= size:
                return code.text
            case Number(value):
                return str(min(max(int(value), 0), size - 1))
            case _:
                return f"{code.inside(ATOM)}.clamp(0, {size - 1})"

    def _apply(self, e: Apply) -> _Pair:
        match e:
            case Apply("or_else", (a, b)):
                (x, there), (y, other) = self.write(a), self.write(b)
                if there is None:
                    return x, None
                either = (
                    None
                    if other is None
                    else Code(f"{there.inside(BAR)} | {other.inside(AND)}", BAR)
                )
                return self._where(there, x, y), either
            case Apply("given", (a, b)):
                (x, there), (holds, known) = self.write(a), self.write(b)
                return x, _meet([there, holds, known])
            case Apply("select", (c, a, b)):
                return self._select(self.write(c), self.write(a), self.write(b))
            case Apply(op) if op in _DIVISIONS and not _present(e):
                return self._guarded(e)
        pairs = [self.write(a) for a in e.args]
        return self._operator(e, [code for code, _ in pairs]), _meet([p for _, p in pairs])

    def _guarded(self, e: Apply) -> _Pair:
        """A division that is absent where the divisor is 0."""
        (x, in_x), (y, in_y) = map(self.write, e.args)
        if isinstance(e.args[1], Number):
            return Code("b.new_zeros(())"), Code("b.new_zeros((), dtype=torch.bool)")
        divisor = self._where(Code(f"{y.inside(SUM)} == 0", COMPARE), Code("1"), y)
        nonzero = Code(f"{y.inside(SUM)} != 0", COMPARE)
        return self._operator(e, [x, divisor]), _meet([in_x, in_y, nonzero])

    def _select(self, test: _Pair, then: _Pair, otherwise: _Pair) -> _Pair:
        (c, known), (x, in_x), (y, in_y) = test, then, otherwise
        if in_x is None and in_y is None:
            return self._where(c, x, y), known
        true = Code("True")
        return self._where(c, x, y), _meet([known, self._where(c, in_x or true, in_y or true)])

    def _where(self, c: Code, x: Code, y: Code) -> Code:
        return Code(f"torch.where({c.text}, {x.text}, {y.text})")

    def _operator(self, e: Apply, args: Sequence[Code]) -> Code:
        if e.op in TENSOR_INFIX:
            sign, binds = TENSOR_INFIX[e.op]
            left, right = map(_float, e.args, args) if e.op == "div" else args
            # Comparisons do not chain in the language; the others group to the left.
            return Code(
                f"{left.inside(binds + (binds == COMPARE))} {sign} {right.inside(binds + 1)}", binds
            )
        match e.op, args:
            case "neg", [x]:
                return Code(f"-{x.inside(SIGN)}", SIGN)
            case "not", [x]:
                return Code(f"~{x.inside(SIGN)}", SIGN)
            case "min" | "max", [x, y]:
                return self._extremum(e.op, x, y, [isinstance(a, Number) for a in e.args])
            case "pow", [x, y]:
                return Code(f"{_float(e.args[0], x).text} ** {y.inside(ATOM)}", PRODUCT)
            case "float", [x]:
                return Code(f"{x.inside(ATOM)}.to(torch.float64)")
            case "stopgrad", [x]:
                return x
        x = _float(e.args[0], args[0]) if OPS[e.op].result == "float" else args[0]
        return Code(f"{_CALLS[e.op]}({x.text})")

    def _extremum(self, op: str, x: Code, y: Code, numbers: Sequence[bool]) -> Code:
        if any(numbers):
            value, limit = (y, x) if numbers[0] else (x, y)
            return Code(
                f"{value.inside(ATOM)}.clamp({'max' if op == 'min' else 'min'}={limit.text})"
            )
        return Code(f"torch.{op}imum({x.text}, {y.text})")
