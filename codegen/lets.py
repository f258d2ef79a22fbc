"""Lets as lines of Triton code: loads, matrix products, folds, serial loops, pointwise tiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from attnc.codegen.address import Address, Addressing
from attnc.codegen.code import PRODUCT, SUM, Code, number
from attnc.codegen.expr import CALLS, INFIX, Tiles, Variable, subscript
from attnc.codegen.scope import Scope
from attnc.codegen.text import comment
from attnc.errors import Span
from attnc.ir.cascade import DType
from attnc.ir.expr import Expr, Index, Read
from attnc.ir.ops import REDUCTIONS
from attnc.ir.plan import Carry, Dot, Fold, Let, Load, Serial, Store
from attnc.ir.walk import reads, substitute

_TYPES: Mapping[DType, str] = {"float": "tl.float32", "int": "tl.int32", "bool": "tl.int1"}


@dataclass(slots=True)
class Lines:
    """A section of code under construction; `hoisted` lines belong before the loop around it."""

    scope: Scope
    tiles: Tiles
    addressing: Addressing
    operands: Mapping[str, tuple[str, ...]]
    cited: set[int]
    main: str
    lines: list[str] = field(default_factory=list)
    hoisted: list[str] = field(default_factory=list)
    local: set[str] = field(default_factory=set)
    looping: bool = False
    last: int | None = None

    def let(self, let: Let, name: str = "") -> None:
        """The lines that compute a let; `name` overrides what it is called."""
        name = name or self.scope.let(let.name)
        self._cite(let.span)
        before = len(self.lines)
        axes = self.operands.get(let.name, self.scope.ordered(set(let.ranks)))
        native = False
        match let.value:
            case Load(read):
                native = let.name in self.operands and let.dtype == "float"
                self._load(read, name, axes, let.dtype, native)
            case Dot():
                self.lines.append(f"{name} = {self._dot(let.value, axes)}")
            case Fold():
                self.lines.append(f"{name} = {self._fold(let.value, axes)}")
            case Serial():
                self._serial(let.value, name, axes, let.dtype)
            case expr:
                self.lines.append(f"{name} = {self._whole(expr, axes)}")
        self.tiles.variables[let.name] = Variable(name, axes, let.dtype, native)
        if self.looping:
            self.local.add(let.name)
        if let.note and len(self.lines) > before:
            self.lines[before] += f"  # {comment(let.note, 60)}"

    def carry(self, carry: Carry) -> None:
        """The initial value of a state."""
        name = self.scope.let(carry.name)
        axes = self.scope.ordered(set(carry.ranks))
        self.tiles.variables[carry.name] = Variable(name, axes, _dtype(carry.init))
        self.lines.append(f"{name} = {self._full(axes, carry.init)}")

    def store(self, store: Store) -> None:
        """One output tile to memory."""
        self._cite(store.span)
        target = Read(store.tensor, tuple(Index(r) for r in store.axes))
        axes = self.scope.ordered(set(store.axes))
        at = self.addressing.of(target, axes, frozenset())
        pointer = self.scope.pointer(store.tensor)
        place = self._pointers(at, f"{store.tensor.lower()}_ptrs")
        value = self.tiles.write(store.value, axes).inside(6)
        mask = f", mask={at.mask}" if at.masks else ""
        self.lines.append(f"tl.store({place}, {value}.to({pointer}.dtype.element_ty){mask})")

    # loads -----------------------------------------------------------------------------------

    def _load(
        self, read: Read, name: str, axes: tuple[str, ...], dtype: DType, native: bool
    ) -> None:
        at = self.addressing.of(read, axes, frozenset(self.local))
        self.lines += at.checks
        place = self._pointers(at, f"{name}_ptrs" if axes else f"{name}_ptr")
        mask = f", mask={at.mask}, other={_zero(dtype)}" if at.masks else ""
        cast = ".to(tl.float32)" if dtype == "float" and not native else ""
        self.lines.append(f"{name} = tl.load({place}{mask}){cast}")

    def _pointers(self, at: Address, wish: str) -> str:
        """The pointers of a tile; the part that no sweep changes is computed before the loop."""
        fixed = at.pointer
        hoist = self.looping and not at.bound and len(at.scalars) + len(at.tiles) > 1
        if hoist or len(fixed) > 40:
            name = self.scope.namer.name(("pointers", wish, fixed), wish)
            (self.hoisted if hoist else self.lines).append(f"{name} = {fixed}")
            fixed = name
        return _joined(" + ".join([fixed, *at.moving]))

    # products and reductions -----------------------------------------------------------------

    def _dot(self, dot: Dot, axes: tuple[str, ...]) -> str:
        left, right = self.tiles.ranks(dot.left), self.tiles.ranks(dot.right)
        rows = [r for r in axes if r in left and r != dot.over]
        columns = [r for r in axes if r in right and r != dot.over]
        matrix = len(rows) == 1 and len(columns) == 1 and rows != columns and len(axes) == 2
        if not matrix or dot.over not in left | right:
            return self._elementwise_dot(dot, axes)
        a = self._operand(dot.left, (rows[0], dot.over), dot.right)
        b = self._operand(dot.right, (dot.over, columns[0]), dot.left)
        plus = "" if dot.plus is None else f", {self._whole(dot.plus, axes)}"
        product = f'tl.dot({a}, {b}{plus}, input_precision="ieee")'
        return product if tuple(axes) == (rows[0], columns[0]) else f"tl.trans({product})"

    def _elementwise_dot(self, dot: Dot, axes: tuple[str, ...]) -> str:
        have = self.scope.ordered(self.tiles.ranks(dot.left) | self.tiles.ranks(dot.right))
        a = self.tiles.write(dot.left, have).inside(PRODUCT)
        b = self.tiles.write(dot.right, have).inside(PRODUCT)
        kept = tuple(r for r in have if r != dot.over)
        total = f"tl.sum({a} * {b}, {have.index(dot.over)}){subscript(kept, axes)}"
        if dot.plus is None:
            return total
        return f"{self.tiles.write(dot.plus, axes).inside(SUM)} + {total}"

    def _operand(self, e: Expr, axes: tuple[str, ...], partner: Expr) -> str:
        """One side of tl.dot, in the type in which the tensors are stored."""
        if self._is_native(e):
            return self.tiles.native(e, axes).text
        code = self.tiles.write(e, axes)
        text = code.text
        if self.tiles.ranks(e) != set(axes):
            shape = ", ".join(self.scope.block(r) for r in axes)
            text, code = f"tl.broadcast_to({text}, [{shape}])", Code("")
        if self._is_native(partner):
            assert isinstance(partner, Read)
            kind = f"{self.tiles.variables[partner.tensor].name}.dtype"
        else:
            kind = f"{self.main}.dtype.element_ty"
        return f"{Code(text, code.binds).inside(6)}.to({kind})"

    def _is_native(self, e: Expr) -> bool:
        return (
            isinstance(e, Read)
            and e.tensor in self.tiles.variables
            and self.tiles.variables[e.tensor].native
        )

    def _fold(self, fold: Fold, axes: tuple[str, ...]) -> str:
        have = self.scope.ordered({*axes, fold.over})
        body = self.tiles.write(fold.body, have).text
        missing = set(have) - self.tiles.ranks(fold.body)
        padded = fold.over != self.scope.stage.swept
        if padded:
            edge = self.scope.inside(fold.over) + subscript((fold.over,), have)
            identity = number(REDUCTIONS[fold.op].identity).text
            body, missing = f"tl.where({edge}, {body}, {identity})", missing - {fold.over}
        if missing:
            shape = ", ".join(self.scope.block(r) for r in have)
            body = f"tl.broadcast_to({body}, [{shape}])"
        axis = have.index(fold.over)
        match fold.op:
            case "any":
                return f"tl.max(({body}).to(tl.int32), {axis}) > 0"
            case "all":
                return f"tl.min(({body}).to(tl.int32), {axis}) > 0"
            case "prod":
                self.tiles.helpers.add("multiply")
                return f"tl.reduce({body}, {axis}, multiply)"
            case op:
                return f"tl.{op}({body}, {axis})"

    def _serial(self, serial: Serial, name: str, axes: tuple[str, ...], dtype: DType) -> None:
        """A loop over the contracted rank, one coordinate at a time."""
        over = serial.over
        self.lines.append(f"{name} = {self._full(axes, REDUCTIONS[serial.op].identity)}")
        self.scope.serial.add(over)
        inner = Lines(
            self.scope, self.tiles, self.addressing, {}, self.cited, self.main, looping=False
        )
        inner.local = set(self.local)
        temporary: dict[Expr, Expr] = {}
        for r in reads(serial.body):
            if not self._is_let(r):
                temporary[r] = inner.temporary(r, len(temporary))
        body = self.tiles.write(substitute(serial.body, temporary), axes)
        combine = REDUCTIONS[serial.op].combine
        if combine in INFIX:
            sign, binds = INFIX[combine]
            inner.lines.append(f"{name} = {name} {sign} {body.inside(binds + 1)}")
        else:
            inner.lines.append(f"{name} = {CALLS[combine]}({name}, {body.text})")
        self.scope.serial.discard(over)
        self.lines.append(f"for {self.scope.place(over)} in range({self.scope.extent(over)}):")
        self.lines += [f"    {x}" for x in inner.lines]

    def _is_let(self, r: Read) -> bool:
        known = self.tiles.variables.get(r.tensor)
        plain = all(isinstance(i, Index) for i in r.indices)
        return known is not None and plain and len(r.indices) == len(known.axes)

    def temporary(self, read: Read, number_: int) -> Expr:
        """Load a read of a serial loop's body; returns what stands for it."""
        key = f"{read.tensor}#{number_}"
        axes = self.scope.ordered(self.tiles.ranks(Read(read.tensor + "#", read.indices)))
        name = self.scope.namer.name(("let", key), f"{read.tensor.lower()}_{read_suffix(read)}")
        dtype = self.scope.tensor_dtype(read.tensor)
        self._load(read, name, axes, dtype, False)
        self.tiles.variables[key] = Variable(name, axes, dtype)
        return Read(key, tuple(Index(r) for r in axes))

    # small things ----------------------------------------------------------------------------

    def _whole(self, e: Expr, axes: tuple[str, ...]) -> str:
        """An expression with all its axes present, not merely broadcastable to them."""
        text = self.tiles.write(e, axes).text
        if self.tiles.ranks(e) == set(axes):
            return text
        shape = ", ".join(self.scope.block(r) for r in axes)
        return f"tl.broadcast_to({text}, [{shape}])"

    def _full(self, axes: tuple[str, ...], value: float | bool) -> str:
        shape = ", ".join(self.scope.block(r) for r in axes)
        kind = _TYPES[_dtype(value)]
        if value == 0 and not isinstance(value, bool):
            return f"tl.zeros([{shape}], {kind})"
        return f"tl.full([{shape}], {number(value).text}, {kind})"

    def _cite(self, span: Span | None) -> None:
        """The spec's line above the first code that comes from it."""
        source = self.scope.cascade.source.splitlines()
        if span is None or span.line == self.last or not 1 <= span.line <= len(source):
            return
        self.last = span.line
        if span.line not in self.cited:
            self.cited.add(span.line)
            self.lines.append(f"# {span.line}: {comment(source[span.line - 1].strip(), 86)}")


def read_suffix(read: Read) -> str:
    """A name for one element of a tensor at a serial coordinate."""
    return "at"


def _joined(text: str) -> str:
    return text.replace(" + -", " - ")


def _zero(dtype: DType) -> str:
    return {"float": "0.0", "int": "0", "bool": "0"}[dtype]


def _dtype(value: float | bool) -> DType:
    return "bool" if isinstance(value, bool) else "float"


def names_in(lines: Iterable[str]) -> set[str]:
    """Every identifier in some lines of code."""
    import re

    return {w for line in lines for w in re.findall(r"[A-Za-z_]\w*", line.split("  # ")[0])}
