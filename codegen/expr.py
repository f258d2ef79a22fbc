"""Expressions of a plan as Triton code over tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from attnc.codegen.code import ATOM, COMPARE, INFIX, PRODUCT, SIGN, Code, number
from attnc.codegen.scope import Scope
from attnc.ir.cascade import DType
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Param, Read
from attnc.ir.facts import bounds, nonnegative
from attnc.ir.geometry.integers import Integers
from attnc.ir.ops import OPS
from attnc.ir.walk import substitute

CALLS: Mapping[str, str] = {
    "min": "tl.minimum",
    "max": "tl.maximum",
    "select": "tl.where",
    **{f: f"tl.{f}" for f in ("exp", "exp2", "log", "log2", "sqrt", "rsqrt", "abs")},
    "erf": "tl.erf",
    "sigmoid": "tl.sigmoid",
}


# What makes integers larger.
_CALCULATIONS = frozenset({"add", "sub", "mul", "neg", "abs", "floordiv", "mod", "exactdiv"})


@dataclass(frozen=True, slots=True)
class Variable:
    """A tile in scope: its name, its axes in order; `native`: kept in the type it is stored in.

    A let that is written where it is used has its text for a name, `binds` is its outermost
    operator. `flag`: a bool that was passed as an int. `loaded`: a tensor's values as they are.
    """

    name: str
    axes: tuple[str, ...]
    dtype: DType = "float"
    native: bool = False
    binds: int = ATOM
    flag: bool = False
    loaded: bool = False


@dataclass(slots=True)
class Tiles:
    """Writes expressions over the variables in scope; notes which helper functions they call.

    `counts` bounds integer variables, for floor divisions that need no helper; `large` are the
    computations for which 32 bits may be too few. `meaning`: what variables were computed from.
    """

    scope: Scope
    variables: dict[str, Variable] = field(default_factory=dict)
    helpers: set[str] = field(default_factory=set)
    counts: dict[str, tuple[float, float]] = field(default_factory=dict)
    large: frozenset[Expr] = frozenset()
    meaning: dict[Expr, Expr] = field(default_factory=dict)

    def dtype(self, e: Expr) -> DType:
        """The type of an expression over tiles."""
        match e:
            case Number(value):
                return (
                    "bool"
                    if isinstance(value, bool)
                    else "int"
                    if isinstance(value, int)
                    else "float"
                )
            case Index() | Extent():
                return "int"
            case Param(name):
                return next(p.dtype for p in self.scope.cascade.params if p.name == name)
            case Read(name):
                if name in self.variables:
                    return self.variables[name].dtype
                inputs: dict[str, DType] = {t.name: t.dtype for t in self.scope.cascade.inputs}
                return inputs.get(name, "float")
            case Apply(op, args):
                declared = OPS[op].result
                if declared != "same":
                    return declared
                types = {self.dtype(a) for a in (args[1:] if op == "select" else args)}
                return "float" if "float" in types else "int" if "int" in types else "bool"

    def ranks(self, e: Expr) -> frozenset[str]:
        """The tile axes that the value of an expression has."""
        match e:
            case Index(rank):
                base = self.scope.cascade.rank(rank).parent or rank
                for r in (rank, base):
                    if self.scope.coordinate(r)[1]:
                        return frozenset({r})
                return frozenset()
            case Read(name) if name in self.variables:
                return frozenset(self.variables[name].axes)
            case Read(_, indices):
                return frozenset().union(*map(self.ranks, indices))
            case Apply(_, args):
                return frozenset().union(*map(self.ranks, args))
            case _:
                return frozenset()

    def write(self, e: Expr, axes: tuple[str, ...]) -> Code:
        """`e` as a tile that broadcasts against `axes`."""
        match e:
            case Number(value):
                return number(value)
            case Index(rank):
                return self._index(rank, axes)
            case Extent():
                return Code(self.scope.scalar(e))
            case Param():
                return self.scope.param_code(e)
            case Read(name):
                return self._variable(self.variables[name], axes)
            case Apply():
                return self._apply(e, axes)

    def native(self, e: Expr, axes: tuple[str, ...]) -> Code:
        """A tile as it was loaded, for the operand of a matrix product."""
        assert isinstance(e, Read)
        v = self.variables[e.tensor]
        return Code(v.name if v.axes == axes else _oriented(v, axes))

    def _index(self, rank: str, axes: tuple[str, ...]) -> Code:
        known = self.scope.cascade.rank(rank)
        name, tiled = self.scope.coordinate(rank)
        if name:
            return Code(f"{name}{subscript((rank,), axes)}" if tiled else name)
        if known.parent is not None:
            return self._component(rank, known.parent, axes)
        first, *rest = known.components
        whole: Expr = Index(first)
        for r in rest:
            whole = Apply("add", (Apply("mul", (whole, Extent(r))), Index(r)))
        return self.write(whole, axes)

    def _component(self, rank: str, parent: str, axes: tuple[str, ...]) -> Code:
        """The coordinate of a component: that of a tile has a definition of its own."""
        if self.scope.coordinate(parent)[1]:
            return Code(self.scope.offsets(rank) + subscript((parent,), axes))
        return self.component(rank, parent)

    def component(self, rank: str, parent: str) -> Code:
        """A component's coordinate out of its parent's, row-major."""
        parts = self.scope.cascade.rank(parent).components
        whole = self._index(parent, self.scope.ordered({parent}))
        for r in parts[parts.index(rank) + 1 :][::-1]:
            whole = Code(f"{whole.inside(PRODUCT)} // {self.scope.extent(r)}", PRODUCT)
        if rank == parts[0]:
            return whole
        return Code(f"{whole.inside(PRODUCT)} % {self.scope.extent(rank)}", PRODUCT)

    def _variable(self, v: Variable, axes: tuple[str, ...]) -> Code:
        text = _oriented(v, axes)
        if v.native:
            return Code(f"{text}.to(tl.float32)")
        return Code(f"({text} != 0)") if v.flag else Code(text, v.binds)

    def _apply(self, e: Apply, axes: tuple[str, ...]) -> Code:
        if e.op in _CALCULATIONS and self.dtype(e) == "int":
            first, *others = map(self._wide_value, e.args)
            if e in self.large and not self.ranks(e):
                # Coordinates of tiles are wide where they must be.
                first = self._alias(first, f"tl.cast({{}}, {self.scope.wide_dtype})")
            e = Apply(e.op, (first, *others))
        return self._operation(e, axes)

    def _wide_value(self, e: Expr) -> Expr:
        """What a tensor holds, in as many bits as calculating with it may take."""
        loaded = isinstance(e, Read) and self.variables[e.tensor].loaded
        return self._alias(e, "{}.to(tl.int64)") if loaded else e

    def _alias(self, e: Expr, form: str) -> Expr:
        """A scalar, or a variable, in another form."""
        if isinstance(e, Read):
            v = self.variables[e.tensor]
        else:
            v = Variable(self.write(e, ()).text, (), "int")
        name = form.format(v.name)
        self.variables[name] = replace(v, name=name, loaded=False)
        self.counts[name] = bounds(e, self.counts)
        return Read(name, tuple(map(Index, v.axes)))

    def _operation(self, e: Apply, axes: tuple[str, ...]) -> Code:
        args = e.args
        match e.op:
            case "float":
                return self._float(args[0], axes)
            case "stopgrad":
                return self.write(args[0], axes)
            case "neg":
                return Code(f"-{self.write(args[0], axes).inside(SIGN)}", SIGN)
            case "not":
                return Code(f"~{self.write(args[0], axes).inside(ATOM)}", SIGN)
            case "relu":
                return self._call("tl.maximum", (*args, Number(0.0)), axes)
            case "clamp":
                x, low, high = (self.write(a, axes).text for a in args)
                return Code(f"tl.minimum(tl.maximum({x}, {low}), {high})")
            case "floordiv" | "mod":
                return self._floor(e, axes)
            case "pow" if args[1] in (Number(2), Number(2.0)) and isinstance(args[0], Read):
                x = self.write(args[0], axes).inside(PRODUCT + 1)
                return Code(f"{x} * {x}", PRODUCT)
            case "lt" if isinstance(args[0], Index) and args[1] == Extent(args[0].rank):
                return self._edge(args[0].rank, axes)
            case op if op in INFIX:
                sign, binds = INFIX[op]
                a, b = (self.write(x, axes) for x in args)
                left = a.inside(binds + (binds == COMPARE))
                right = b.inside(binds + (op not in ("and", "or")))
                text = f"{left} {sign} {right}"
                if binds == COMPARE and not self.ranks(e) and self.dtype(args[0]) == "float":
                    # Triton's interpreter cannot broadcast a comparison of two float scalars.
                    return Code(f"(tl.where({text}, 1, 0) != 0)")
                return Code(text, binds)
            case op if op in CALLS:
                return self._call(CALLS[op], args, axes)
            case op:
                return self._call(self.helper(op), args, axes)

    def _edge(self, rank: str, axes: tuple[str, ...]) -> Code:
        """Whether a coordinate exists: what loads are masked with."""
        name, tiled = self.scope.coordinate(rank)
        if tiled:
            return Code(self.scope.inside(rank) + subscript((rank,), axes))
        return Code(f"{name} < {self.scope.extent(rank)}", COMPARE)

    def helper(self, op: str) -> str:
        """The name of a function that the module must bring along."""
        self.helpers.add(op)
        return self.scope.helpers[op]

    def _call(self, function: str, args: tuple[Expr, ...], axes: tuple[str, ...]) -> Code:
        return Code(f"{function}({', '.join(self.write(a, axes).text for a in args)})")

    def _float(self, x: Expr, axes: tuple[str, ...]) -> Code:
        if isinstance(x, Number):
            return number(float(x.value))
        code = self.write(x, axes)
        if self.dtype(x) == "float":
            return code
        if self.ranks(x):
            return Code(f"{code.inside(ATOM)}.to(tl.float32)")
        return Code(f"tl.cast({code.text}, tl.float32)")

    def _floor(self, e: Apply, axes: tuple[str, ...]) -> Code:
        """Triton's // and % round towards zero; the language's round down."""
        a, b = (self.write(x, axes) for x in e.args)
        if all(map(self._nonnegative, e.args)):
            sign = "//" if e.op == "floordiv" else "%"
            return Code(f"{a.inside(PRODUCT)} {sign} {b.inside(PRODUCT + 1)}", PRODUCT)
        return Code(f"{self.helper(e.op)}({a.text}, {b.text})")

    def _nonnegative(self, e: Expr) -> bool:
        """Whether an integer is known to be no less than 0, padding of tiles included."""
        known = Integers(self.scope.cascade, self.scope.stage.swept)
        return nonnegative(e, self.counts) or known.bounds(substitute(e, self.meaning))[0] >= 0


def subscript(have: tuple[str, ...], axes: tuple[str, ...]) -> str:
    """What makes a tile over `have` broadcast against `axes`: `[:, None]`, or nothing."""
    if have == axes or not have:
        return ""
    assert set(have) <= set(axes), (have, axes)
    return f"[{', '.join(':' if a in have else 'None' for a in axes)}]"


def _oriented(v: Variable, axes: tuple[str, ...]) -> str:
    wanted = tuple(a for a in axes if a in v.axes)
    if wanted == v.axes:
        return f"{v.name}{subscript(v.axes, axes)}"
    assert len(wanted) == 2 and len(v.axes) == 2, (v, axes)
    return f"tl.trans({v.name}){subscript(wanted, axes)}"
