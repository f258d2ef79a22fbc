"""Lets as lines of Triton code: loads, pointwise tiles, states, stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attnc.codegen.address import Address, Addressing
from attnc.codegen.code import ATOM, INFIX, number
from attnc.codegen.descriptors import Boxes
from attnc.codegen.expr import CALLS, Tiles, Variable
from attnc.codegen.products import Products
from attnc.codegen.scope import Scope
from attnc.codegen.text import WIDTH, comment
from attnc.errors import Span
from attnc.ir.cascade import DType
from attnc.ir.expr import Apply, Expr, Index, Read
from attnc.ir.ops import REDUCTIONS
from attnc.ir.plan import Carry, Dot, Fold, Let, Load, Serial, Store
from attnc.ir.walk import reads, subexprs, substitute

_TYPES: Mapping[DType, str] = {"float": "tl.float32", "int": "tl.int32", "bool": "tl.int1"}


@dataclass(slots=True)
class Context:
    """What all sections of one kernel share.

    operands: loads that enter matrix products as they are, with the order of axes they want
    boxes:    tiles that tensor descriptors load and store; None: pointers do
    cited:    spec lines that have been quoted; hoisted: lines before loops, to write them once
    """

    scope: Scope
    tiles: Tiles
    addressing: Addressing
    products: Products
    operands: Mapping[str, tuple[str, ...]]
    boxes: Boxes | None = None
    cited: set[int] = field(default_factory=set)
    hoisted: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Lines:
    """A section of code under construction.

    inlined: lets written where they are used, for want of a second use
    looping: whether it is a loop's body; late: of the second loop over the same tensors
    before:  what a loop's body needs before the loop; local: the lets of that body
    """

    context: Context
    inlined: frozenset[str] = frozenset()
    looping: bool = False
    late: bool = False
    lines: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    local: set[str] = field(default_factory=set)

    @property
    def scope(self) -> Scope:
        return self.context.scope

    @property
    def tiles(self) -> Tiles:
        return self.context.tiles

    def let(self, let: Let, name: str = "") -> None:
        """The lines that compute a let; `name` overrides what it is called."""
        name = name or self.scope.let(let.name)
        axes = self.context.operands.get(let.name, self.scope.ordered(set(let.ranks)))
        native = isinstance(let.value, Load) and let.name in self.context.operands
        binds = ATOM
        self._cite(let.span)
        match let.value:
            case Load(read):
                self._load(read, name, axes, let.dtype, native)
            case Serial():
                self._serial(let.value, name, axes)
            case Dot() | Fold():
                write = self.context.products
                code = (
                    write.dot(let.value, axes)
                    if isinstance(let.value, Dot)
                    else write.fold(let.value, axes)
                )
                if let.name in self.inlined:
                    name, binds = code.text, code.binds
                else:
                    self.lines.append(f"{name} = {code.text}")
            case expr:
                self._pointwise(expr, name, axes)
        loaded = isinstance(let.value, Load) and let.dtype == "int"
        self.tiles.variables[let.name] = Variable(
            name, axes, let.dtype, native, binds, loaded=loaded
        )
        if self.looping:
            self.local.add(let.name)

    def carry(self, carry: Carry) -> None:
        """The initial value of a state."""
        name = self.scope.let(carry.name)
        axes = self.scope.ordered(set(carry.ranks))
        dtype: DType = "bool" if isinstance(carry.init, bool) else "float"
        self.tiles.variables[carry.name] = Variable(name, axes, dtype)
        note = f"  # {comment(carry.note, 40)}" if carry.note else ""
        self.lines.append(f"{name} = {self._full(axes, carry.init)}{note}")

    def store(self, store: Store) -> None:
        """One output tile to memory."""
        target = Read(store.tensor, tuple(Index(r) for r in store.axes))
        axes = self.scope.ordered(set(store.axes))
        boxes = self.context.boxes
        if boxes is not None and (box := boxes.of(target, axes, stored=True)) is not None:
            whole = self.context.products.whole(store.value, axes)
            self.lines.append(boxes.store(box, whole, axes))
            return
        at = self.context.addressing.of(target, axes, frozenset())
        pointer = self.scope.pointer(store.tensor)
        place = self._pointers(at, f"{store.tensor.lower()}_ptrs")
        value = self.tiles.write(store.value, axes).inside(ATOM)
        mask = f", mask={at.mask}" if at.masks else ""
        self.lines.append(f"tl.store({place}, {value}.to({pointer}.dtype.element_ty){mask})")

    # pointwise -------------------------------------------------------------------------------

    def _pointwise(self, e: Expr, name: str, axes: tuple[str, ...]) -> None:
        match e:
            # what is tested and chosen is computed once: x = ..; x = tl.where(x == .., 0.0, x)
            case Apply("select", (test, other, Apply() as kept)) if kept in set(subexprs(test)):
                self.lines.append(f"{name} = {self.context.products.whole(kept, axes)}")
                self.tiles.variables[name] = Variable(name, axes)
                short = Read(name, tuple(Index(r) for r in axes))
                e = Apply("select", (substitute(test, {kept: short}), other, short))
                self.lines.append(f"{name} = {self.tiles.write(e, axes).text}")
                del self.tiles.variables[name]
            case _:
                self.lines.append(f"{name} = {self.context.products.whole(e, axes)}")

    # loads -----------------------------------------------------------------------------------

    def _load(
        self, read: Read, name: str, axes: tuple[str, ...], dtype: DType, native: bool
    ) -> None:
        cast = ".to(tl.float32)" if dtype == "float" and not native else ""
        boxes = self.context.boxes
        if boxes is not None and (box := boxes.of(read, axes)) is not None:
            self.lines.append(f"{name} = {boxes.load(box, axes)}{cast}")
            return
        at = self.context.addressing.of(read, axes, frozenset(self.local))
        if self.looping and not at.bound:
            self._hoist(at.checks)
        else:
            self.lines += at.checks
        place = self._pointers(at, f"{name}_ptrs" if axes else f"{name}_ptr")
        mask = f", mask={at.mask}, other={'0.0' if dtype == 'float' else '0'}" if at.masks else ""
        line = f"{name} = tl.load({place}{mask})"
        if len(line) + len(cast) + 8 <= WIDTH:
            self.lines.append(line + cast)
        else:
            self.lines += [line, *([f"{name} = {name}{cast}"] if cast else [])]

    def _pointers(self, at: Address, wish: str) -> str:
        """The pointers of a tile; the part that no sweep changes is computed before the loop."""
        fixed = at.pointer
        hoist = self.looping and not at.bound and len(at.scalars) + len(at.tiles) > 1
        if hoist and self.late and at.tiles:
            return self._offsets(at, wish)
        if hoist or len(fixed) > 40:
            name = self.scope.namer.name(("pointers", wish, fixed), wish)
            line = f"{name} = {fixed}"
            if not hoist:
                self.lines.append(line)
            else:
                self._hoist([line])
            fixed = name
        return " + ".join([fixed, *at.moving]).replace(" + -", " - ")

    def _offsets(self, at: Address, wish: str) -> str:
        """A scalar base and 32-bit places: pointers would occupy registers in the loop before."""
        parts = {"base": " + ".join(at.scalars), "places": " + ".join(at.tiles)}
        stem = wish.removesuffix("_ptrs")
        base, places = (
            self.scope.namer.name((part, wish, text), f"{stem}_{part}")
            for part, text in parts.items()
        )
        self._hoist([f"{base} = {parts['base']}", f"{places} = {parts['places']}"])
        return " + ".join([base, *at.moving, places]).replace(" + -", " - ")

    def _hoist(self, lines: list[str]) -> None:
        """Lines that no sweep changes go before the loop, once."""
        new = [x for x in lines if x not in self.context.hoisted]
        self.before += new
        self.context.hoisted.update(new)

    # serial loops ------------------------------------------------------------------------------

    def _serial(self, serial: Serial, name: str, axes: tuple[str, ...]) -> None:
        """A loop over the contracted rank, one coordinate at a time."""
        over = serial.over
        self.lines.append(f"{name} = {self._full(axes, REDUCTIONS[serial.op].identity)}")
        self.scope.serial.add(over)
        inner = Lines(self.context, self.inlined, local=set(self.local))
        temporary: dict[Expr, Expr] = {
            r: inner.temporary(r, i)
            for i, r in enumerate(reads(serial.body))
            if not self._is_let(r)
        }
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

    def temporary(self, read: Read, place: int) -> Expr:
        """Load what a serial loop's body reads; returns what stands for it."""
        key = f"{read.tensor} {place}"
        axes = self.scope.ordered(self.tiles.ranks(Read("", read.indices)))
        name = self.scope.namer.name(("let", key), f"{read.tensor.lower()}_at")
        dtype = self.scope.tensor_dtype(read.tensor)
        self._load(read, name, axes, dtype, False)
        self.tiles.variables[key] = Variable(name, axes, dtype, loaded=dtype == "int")
        return Read(key, tuple(Index(r) for r in axes))

    # small things ------------------------------------------------------------------------------

    def _full(self, axes: tuple[str, ...], value: float | bool) -> str:
        shape = ", ".join(self.scope.block(r) for r in axes)
        kind = _TYPES["bool" if isinstance(value, bool) else "float"]
        if value == 0 and not isinstance(value, bool):
            return f"tl.zeros([{shape}], {kind})"
        return f"tl.full([{shape}], {number(value).text}, {kind})"

    def _cite(self, span: Span | None) -> None:
        """The spec's line above the first code that comes from it."""
        source = self.scope.cascade.source.splitlines()
        if span is None or span.line in self.context.cited or not 1 <= span.line <= len(source):
            return
        self.context.cited.add(span.line)
        self.lines.append(f"# {span.line}: {comment(source[span.line - 1].strip(), 86)}")
