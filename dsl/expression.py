"""Expressions: names resolved, types checked, cascade expressions built, in one walk.

Each method returns what it could make of an expression; where it could not, it reports why and
returns `UNKNOWN`, about which nothing more is said.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce

from attnc.dsl import tree
from attnc.dsl.format import show
from attnc.dsl.report import Report
from attnc.dsl.scope import Local, Scope, Symbols, Tensor
from attnc.dsl.typed import (
    UNKNOWN,
    Typed,
    alike,
    apply,
    as_float,
    constant,
    coordinate,
    extent,
    negate,
    node,
)
from attnc.errors import Span
from attnc.ir.expr import Index, Param, Read
from attnc.ir.ops import OPS
from attnc.ir.walk import substitute_indices

MAX_SIZE = 5_000
MAX_DEPTH = 120
MAX_STEPS = 40_000

_INFIX = {"+": "add", "-": "sub", "*": "mul", "//": "floordiv", "%": "mod", "**": "pow"}
_COMPARE = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
# What a call may name: the pointwise functions, and the operators that have no sign of their own.
_NAMED = frozenset({"min", "max", "pow", "stopgrad", "or_else"})
FUNCTIONS = _NAMED | {op.name for op in OPS.values() if op.kind == "function"}
REDUCERS = ("sum", "max", "min", "prod", "mean", "any", "all")
SELECTORS = ("topk", "topp")


class Expressions(ABC):
    """Turns expressions of the tree into typed expressions of the cascade."""

    def __init__(self, symbols: Symbols, report: Report) -> None:
        self.symbols = symbols
        self.report = report
        self._steps = 0
        self._level = 0

    @abstractmethod
    def over(self, e: tree.Over, scope: Scope) -> Typed:
        """A reduction, selection or macro inside a larger expression."""

    @abstractmethod
    def call_macro(self, e: tree.Call, scope: Scope) -> Typed:
        """A macro without a tensor argument inside a larger expression."""

    def fail(self, code: str, message: str, span: Span, scope: Scope, hint: str = "") -> Typed:
        """Report a mistake; the value of what cannot be understood."""
        if scope.macro:
            message += f", in `{scope.macro}`"
        self.report.add(code, message, scope.place(span), hint)
        return UNKNOWN

    def value(self, e: tree.Expr, scope: Scope) -> Typed:
        """An expression of any type."""
        if not self.affords(1, e.span, scope):
            return UNKNOWN
        with self.nested(e.span, scope):
            made = self._value(e, scope)
        if made.size > MAX_SIZE or made.depth > MAX_DEPTH:
            self.affords(MAX_STEPS, e.span, scope)
            return UNKNOWN
        return made

    @contextmanager
    def nested(self, span: Span, scope: Scope) -> Iterator[None]:
        """One level deeper: masks and macros can stack up where no expression is deep."""
        self._level += 1
        if self._level > MAX_DEPTH:
            self.affords(MAX_STEPS, span, scope)
        yield
        self._level -= 1

    def affords(self, steps: int, span: Span, scope: Scope) -> bool:
        """Whether the spec may take that many more steps.

        Expansion can be exponential: once it took too many, nothing more of the spec is read.
        """
        spent, self._steps = self._steps > MAX_STEPS, self._steps + steps
        if not spent and self._steps > MAX_STEPS:
            hint = "give a part of it a name of its own, as a tensor"
            message = "masks and macros make this too large"
            self.report.add("E405", message, scope.place(span), hint)
        return self._steps <= MAX_STEPS

    def _value(self, e: tree.Expr, scope: Scope) -> Typed:
        match e:
            case tree.Literal(value):
                return constant(value)
            case tree.Name():
                return self._name(e, scope)
            case tree.Access():
                return self._access(e, scope)
            case tree.Call():
                return self._call(e, scope)
            case tree.Over():
                return self.over(e, scope)
            case tree.Prefix("not", operand):
                return apply("not", self.boolean(operand, scope))
            case tree.Prefix(_, operand):
                return negate(self.number(operand, scope))
            case tree.Binary():
                return self._binary(e, scope)
            case tree.Chain():
                return self._chain(e, scope)
            case tree.IfElse():
                return self._if_else(e, scope)

    # Expressions of a wanted type.

    def number(self, e: tree.Expr, scope: Scope) -> Typed:
        """An int or a float."""
        made = self.value(e, scope)
        if made.dtype != "bool":
            return made
        hint = "to count, write `if p then 1 else 0`; to combine, `and`, `or`, `not`"
        return self.fail("E207", "a truth value is used as a number", e.span, scope, hint)

    def integer(self, e: tree.Expr, scope: Scope, use: str) -> Typed:
        """An int; `use` says for what."""
        made = self.value(e, scope)
        if made.dtype in ("int", None):
            return made
        kind = "a truth value" if made.dtype == "bool" else "a float"
        hint = "divide with `//`" if made.dtype == "float" else ""
        return self.fail("E206", f"{use} is an int, this is {kind}", e.span, scope, hint)

    def boolean(self, e: tree.Expr, scope: Scope) -> Typed:
        """A truth value."""
        made = self.value(e, scope)
        if made.dtype in ("bool", None):
            return made
        hint = "compare it: `x > 0`, `x != 0`"
        return self.fail("E208", "a number is used as a truth value", e.span, scope, hint)

    def predicate(self, e: tree.Expr, scope: Scope) -> Typed | None:
        """A `where` condition; None if it is wrong."""
        made = self.boolean(e, replace(scope, exact=True, where=None))
        return None if made.dtype is None else made

    # Operators.

    def _binary(self, e: tree.Binary, scope: Scope) -> Typed:
        if e.op in ("and", "or"):
            return apply(e.op, self.boolean(e.left, scope), self.boolean(e.right, scope))
        left, right = self.number(e.left, scope), self.number(e.right, scope)
        ints = left.dtype == right.dtype == "int"
        if e.op == "/":
            if ints and scope.exact:
                return apply("exactdiv", left, right)
            return apply("div", as_float(left), as_float(right))
        if e.op in ("//", "%"):
            if "float" in (left.dtype, right.dtype):
                message = f"`{e.op}` is for ints, one side is a float"
                return self.fail("E209", message, e.span, scope, "floats divide with `/`")
            return apply(_INFIX[e.op], left, right)
        if e.op == "**":
            return apply("pow", as_float(left), as_float(right))
        return apply(_INFIX[e.op], *alike(left, right))

    def _chain(self, e: tree.Chain, scope: Scope) -> Typed:
        values = [self.value(o, scope) for o in e.operands]
        links = []
        for op, left, right in zip(e.ops, values, values[1:], strict=False):
            bools = [v.dtype == "bool" for v in (left, right) if v.dtype]
            if any(bools) and not (all(bools) and op in ("==", "!=")):
                message = f"`{op}` does not compare a truth value"
                hint = "truth values are equal (`==`) or not (`!=`), to each other only"
                return self.fail("E207", message, e.span, scope, hint)
            pair = (left, right) if any(bools) else alike(left, right)
            links.append(apply(_COMPARE[op], *pair))
        return reduce(lambda a, b: apply("and", a, b), links)

    def _if_else(self, e: tree.IfElse, scope: Scope) -> Typed:
        condition = self.boolean(e.condition, scope)
        yes, no = self.value(e.yes, scope), self.value(e.no, scope)
        if (yes.dtype == "bool") != (no.dtype == "bool"):
            if None in (yes.dtype, no.dtype):
                return UNKNOWN
            message = "one branch is a truth value, the other a number"
            return self.fail("E207", message, e.span, scope)
        if isinstance(e.condition, tree.Literal) or condition.expr in _LITERALS:
            return yes if condition.expr == constant(True).expr else no
        branches = (yes, no) if yes.dtype == "bool" else alike(yes, no)
        return apply("select", condition, *branches)

    def _call(self, e: tree.Call, scope: Scope) -> Typed:
        if e.fn in self.symbols.macros:
            return self.call_macro(e, scope)
        if e.fn in SELECTORS or (e.fn in REDUCERS and len(e.args) == 1):
            message = f"`{e.fn}` has nothing to its right"
            hint = f"what it takes follows the parenthesis: `{e.fn}(n) X[n]`"
            hint += "; put it in parentheses if it begins with a minus"
            return self.fail("E407", message, e.span, scope, hint)
        if e.fn not in FUNCTIONS:
            near = self.report.nearest(e.fn, (*FUNCTIONS, *self.symbols.macros))
            return self.fail("E103", f"unknown function `{e.fn}`", e.span, scope, near)
        wanted, variadic = OPS[e.fn].arity, e.fn in ("min", "max")
        if len(e.args) != wanted and not (variadic and len(e.args) > wanted):
            message = f"`{e.fn}` takes {wanted} arguments, {len(e.args)} given"
            return self.fail("E210", message.replace("1 arguments", "1 argument"), e.span, scope)
        args = [self.number(a, scope) for a in e.args]
        if OPS[e.fn].result == "float":
            return apply(e.fn, *map(as_float, args))
        if variadic:
            return reduce(lambda a, b: apply(e.fn, a, b), alike(*args))
        return apply(e.fn, *alike(*args))

    # Names.

    def _name(self, e: tree.Name, scope: Scope) -> Typed:
        if e.name in scope.names:
            return scope.names[e.name]
        if scope.macro:
            return self._unknown(e, scope)
        made = self.coordinate(e.name, scope)
        if made is not None:
            return made
        if e.name in self.symbols.params:
            param = self.symbols.params[e.name]
            if param.length is not None:
                message = f"`{e.name}` has {param.length.value} items"
                return self.fail("E211", message, e.span, scope, f"pick one: `{e.name}[0]`")
            return Typed(Param(e.name), param.dtype)
        rank = self.symbols.extent_of(e.name)
        return self._unknown(e, scope) if rank is None else extent(rank)

    def coordinate(self, name: str, scope: Scope) -> Typed | None:
        """The coordinate of a rank that is bound, directly, by its grid or by its components."""
        rank = self.symbols.ranks.get(name)
        if rank is None:
            return None
        if name in scope.ranks or rank.parent in scope.ranks:
            return coordinate(name)
        if not rank.components or not set(rank.components) <= set(scope.ranks):
            return None
        made = coordinate(rank.components[0])
        for part in rank.components[1:]:
            made = apply("add", apply("mul", made, extent(part)), coordinate(part))
        return made

    def _unknown(self, e: tree.Name, scope: Scope) -> Typed:
        symbols = self.symbols
        if e.name in symbols.ranks and not scope.macro:
            bound = ", ".join(f"`{r}`" for r in scope.ranks) or "no rank"
            hint = f"here {bound} can be used; add `{e.name}` to the left side or reduce over it"
            if not scope.target:
                hint = f"a mask sees its own indices: add `{e.name}` to them"
            return self.fail("E104", f"rank `{e.name}` is not bound here", e.span, scope, hint)
        if e.name in symbols.tensors or e.name in symbols.masks or e.name in scope.tensors:
            hint = f"a tensor always has its brackets: `{e.name}[...]`"
            return self.fail("E107", f"`{e.name}` is a tensor", e.span, scope, hint)
        extents = [r.upper() for r in symbols.ranks]
        hint = self.report.nearest(e.name, (*scope.ranks, *symbols.params, *extents))
        return self.fail("E101", f"unknown name `{e.name}`", e.span, scope, hint)

    def _access(self, e: tree.Access, scope: Scope) -> Typed:
        if scope.macro:
            return self._local(e, scope.tensors[e.name], scope)
        if e.name in self.symbols.params:
            return self._item(e, scope)
        if e.name in self.symbols.masks:
            return self._mask(e, self.symbols.masks[e.name], scope)
        if e.name in self.symbols.tensors:
            return self._read(e, self.symbols.tensors[e.name], scope)
        for index in e.indices:
            self.integer(index, replace(scope, exact=True), "an index")
        if e.name in self.symbols.bracketed:
            hint = "statements are read from the top: define it above"
            message = f"`{e.name}` is read before it is defined"
            return self.fail("E106", message, e.span, scope, hint)
        known = (*self.symbols.tensors, *self.symbols.masks)
        hint = self.report.nearest(e.name, known)
        return self.fail("E102", f"unknown tensor `{e.name}`", e.span, scope, hint)

    def _indices(self, e: tree.Access, scope: Scope) -> tuple[Typed, ...]:
        inside = replace(scope, exact=True)
        return tuple(self.integer(i, inside, "an index") for i in e.indices)

    def _read(self, e: tree.Access, tensor: Tensor, scope: Scope) -> Typed:
        indices = self._indices(e, scope)
        if len(indices) != len(tensor.axes):
            return self.arity(e, tensor.axes, scope)
        return node(Read(e.name, tuple(i.expr for i in indices)), tensor.dtype, *indices)

    def _local(self, e: tree.Access, local: Local, scope: Scope) -> Typed:
        indices = self._indices(e, scope)
        at = {r: i.expr for r, i in zip(local.ranks, indices, strict=True)}
        made = node(substitute_indices(local.read, at), local.dtype, *indices)
        return replace(made, ranks=made.ranks | (local.free - set(local.ranks)))

    def arity(self, e: tree.Access, axes: Iterable[str], scope: Scope) -> Typed:
        """Report a wrong number of indices with the binding of each rank."""
        names = tuple(axes)
        given = [show(i) for i in e.indices]
        pairs = [f"{a} = {g}" for a, g in zip(names, given, strict=False)]
        pairs += [f"{a} is missing" for a in names[len(given) :]]
        pairs += [f"{g} is left over" for g in given[len(names) :]]
        message = f"`{e.name}` has {len(names)} ranks, {len(given)} indices are given"
        hint = f"it is `{e.name}[{', '.join(names)}]`; here {', '.join(pairs)}"
        return self.fail("E201", message.replace("1 ranks", "1 rank"), e.span, scope, hint)

    def _item(self, e: tree.Access, scope: Scope) -> Typed:
        param = self.symbols.params[e.name]
        if param.length is None:
            hint = f"write `{e.name}` without brackets"
            return self.fail("E211", f"`{e.name}` is a single param", e.span, scope, hint)
        items = int(param.length.value)
        match e.indices:
            case (tree.Literal(int(item)),) if not isinstance(item, bool) and 0 <= item < items:
                return Typed(Param(e.name, item), param.dtype)
        message = f"an item of `{e.name}` is picked by one of {', '.join(map(str, range(items)))}"
        return self.fail("E211", message, e.span, scope)

    def _mask(self, e: tree.Access, mask: tree.Mask, scope: Scope) -> Typed:
        """The predicate of a mask, its formal ranks replaced by the indices given."""
        indices = self._indices(e, scope)
        if e.name in self.symbols.broken:
            return UNKNOWN
        formals = tuple(show(i) for i in mask.target.indices)
        if len(indices) != len(formals):
            return self.arity(e, formals, scope)
        names = dict(zip(formals, indices, strict=True))
        for formal, index in zip(formals, indices, strict=True):
            names.update(self._components(formal, index))
        return self.value(mask.value, Scope(names=names, exact=True, span=scope.span))

    def _components(self, formal: str, index: Typed) -> dict[str, Typed]:
        """The components of a grid rank's coordinate, last varying fastest."""
        rank = self.symbols.ranks.get(formal)
        if rank is None or not rank.components:
            return {}
        if index.expr == Index(formal):
            return {c: coordinate(c) for c in rank.components}
        made, rest = {}, index
        for part in reversed(rank.components[1:]):
            made[part] = apply("mod", rest, extent(part))
            rest = apply("floordiv", rest, extent(part))
        return {**made, rank.components[0]: rest}


_LITERALS = (constant(True).expr, constant(False).expr)
