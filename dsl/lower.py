"""A spec to its cascade: masks and macros expanded, every expression explicitly typed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from textwrap import dedent

from attnc.dsl import tree
from attnc.dsl.declare import declare, free_bracketed, is_rank_name, rank_name
from attnc.dsl.format import show
from attnc.dsl.left import Left, read_left
from attnc.dsl.macro_check import check_macros
from attnc.dsl.macros import Expansion
from attnc.dsl.report import Report
from attnc.dsl.scope import Scope, Tensor
from attnc.dsl.statement import Right
from attnc.dsl.typed import Typed, alike, as_float, coordinate
from attnc.errors import AttncErrors, Span
from attnc.ir.cascade import Cascade, Concat, DType, ParamDecl, Rank, TensorDecl
from attnc.ir.expr import Expr, Read
from attnc.ir.walk import subexprs


def lower(spec: tree.Spec) -> Cascade:
    """The cascade of a spec; AttncErrors with every mistake if it has one."""
    lowering = Lowering(spec)
    errors = lowering.report.errors
    if errors:
        raise AttncErrors(errors)
    return lowering.cascade()


class Lowering:
    """Reads a spec from top to bottom; `report` has what is wrong, `cascade()` what it means."""

    def __init__(self, spec: tree.Spec) -> None:
        self.spec = spec
        self.report = Report(spec.text)
        self.symbols = declare(spec, self.report)
        check_macros(self.symbols, self.report)
        ranks = self.symbols.ranks
        taken = {*ranks, *(r.upper() for r in ranks), *self.symbols.params}
        taken |= {*self.symbols.tensors, *self.symbols.bracketed}
        self.to = Expansion(self.symbols, self.report, taken)
        self._iterative: set[str] = set()
        self._started: dict[str, tree.Assign] = {}
        self._outputs: list[str] = []
        for item in spec.items:
            match item:
                case tree.Mask():
                    self._mask(item)
                case tree.Assign():
                    self._assign(item)
                case _:
                    pass
        self._finish()

    def cascade(self) -> Cascade:
        """What a spec without mistakes means."""
        spec = self.spec
        return Cascade(
            name=spec.name.name if spec.name else "",
            ranks=self._ranks(),
            params=tuple(_param(i, spec) for i in spec.items if isinstance(i, tree.Param)),
            inputs=tuple(_input(i, spec) for i in spec.items if isinstance(i, tree.Input)),
            statements=tuple(self.to.statements),
            outputs=tuple(self._outputs),
            doc=dedent(spec.doc or "").strip(),
            source=spec.text,
            file=spec.file,
        )

    def _ranks(self) -> tuple[Rank, ...]:
        """In the order in which axes mention them; a grid before its components."""
        found: dict[str, Rank] = {}
        for rank in self.symbols.ranks.values():
            if rank.parent is None:
                for name in (rank.name, *rank.components):
                    made = self.symbols.ranks[name]
                    found[name] = replace(made, iterative=name in self._iterative)
        return tuple(found.values())

    def _mask(self, item: tree.Mask) -> None:
        target = item.target
        names: dict[str, Typed] = {}
        for index in target.indices:
            if not isinstance(index, tree.Name) or index.name in names:
                hint = "write `mask near[m, n] = ...`"
                message = f"the indices of mask `{target.name}` are different names"
                self.report.add("E310", message, index.span, hint)
                names.update((n, coordinate(n)) for n in tree.names_in(index))
            elif rank_name(index, self.report):
                names[index.name] = coordinate(index.name)
        for name in tuple(names):
            components = self.symbols.ranks[name].components if name in self.symbols.ranks else ()
            names.update((c, coordinate(c)) for c in components)
        if not free_bracketed(target.name, target.span, self.symbols, self.report):
            return
        made = self.to.boolean(item.value, Scope(names=names, exact=True))
        self.symbols.masks[target.name] = item
        if made.dtype is None or not all(isinstance(i, tree.Name) for i in target.indices):
            self.symbols.broken.add(target.name)

    def _assign(self, item: tree.Assign) -> None:
        left = read_left(item.target, self.symbols, self.report)
        new = self._begin(item, left)
        scope = Scope(left.ranks, where=item.where, target=item.target.name)
        if isinstance(item.value, tree.Concat):
            dtype = self._concat(item, item.value, left, scope)
        else:
            right = self.to.right(item.value, scope, top=True)
            if left.step or left.start:
                right = replace(right, value=as_float(right.value))
            self._varies(item, left, right)
            dtype = right.dtype
            if new and left.sound:
                self.to.emit(item.target.name, left.indices, right, item.span)
        if new and not left.step:
            tensor = Tensor(item.target.name, left.axes, dtype, item.span)
            self.symbols.tensors[item.target.name] = tensor

    def _begin(self, item: tree.Assign, left: Left) -> bool:
        """Whether the left side may define its tensor here."""
        name, span = item.target.name, item.target.span
        if not left.step:
            if not free_bracketed(name, span, self.symbols, self.report):
                return False
            if left.start:
                self._started[name] = item
            return True
        self._iterative.add(left.step)
        if name not in self._started:
            hint = f"define `{name}` at `{left.step}` = 0 first, above"
            self.report.add("E309", f"`{name}` has no initial value", span, hint)
            self.symbols.tensors.setdefault(name, Tensor(name, left.axes, None, item.span))
            return False
        started = self._started.pop(name)
        axes = self.symbols.tensors[name].axes
        if [a for a in axes if is_rank_name(a)] != [a for a in left.axes if a != left.step]:
            message = f"`{name}` starts as `{show(started.target)}`, over other ranks"
            self.report.add("E309", message, span, "only the iterated rank differs")
            return False
        known = self.symbols.tensors[name]
        self.symbols.tensors[name] = replace(known, axes=left.axes)
        return True

    def _varies(self, item: tree.Assign, left: Left, right: Right) -> None:
        """A rank of the left side must vary something on the right, or it was forgotten there.

        Initial values and plain constants may be the same everywhere.
        """
        reduced = right.reduce.ranks if right.reduce else ()
        for rank in reduced:
            if rank in left.ranks:
                message = f"rank `{rank}` is reduced and an index of `{item.target.name}`"
                hint = f"drop `{rank}` on one of the two sides"
                self.report.add("E203", message, item.value.span, hint)
        if right.dtype is None or left.start or is_constant(right):
            return
        free = self.to.free(right.parts, Scope(left.ranks))
        for rank in left.ranks:
            if rank not in free and rank not in reduced:
                message = f"nothing on the right side varies along rank `{rank}`"
                has = ", ".join(f"`{r}`" for r in free) or "no rank of the left side"
                hint = f"the right side varies along {has}; drop `{rank}` on the left"
                self.report.add("E202", message, item.target.span, hint)

    def _concat(
        self, item: tree.Assign, value: tree.Concat, left: Left, scope: Scope
    ) -> DType | None:
        """`concat(n)`: each part runs over a rank of its own in the place of n."""
        rank = value.rank.name
        if rank not in left.ranks:
            hint = f"write `{item.target.name}[..., {rank}] = concat({rank}) ...`"
            message = f"rank `{rank}` is not an index of `{item.target.name}`"
            self.report.add("E213", message, value.rank.span, hint)
            return None
        others = tuple(r for r in left.ranks if r != rank)
        ranks, parts = [], []
        for part in value.parts:
            own = [n for n in sorted(tree.names_in(part)) if n in self.symbols.ranks]
            own = [n for n in own if n not in others]
            if len(own) != 1 or own[0] == rank:
                message = f"a part of `concat({rank})` runs over one rank of its own"
                hint = f"index each part with a rank that `{item.target.name}` does not have"
                self.report.add("E213", message, part.span, hint)
                continue
            ranks.append(own[0])
            parts.append(self.to.value(part, Scope(others, target=scope.target).bind(own)))
        condition = None if item.where is None else self.to.predicate(item.where, scope)
        where = None if condition is None else condition.expr
        if len(parts) < len(value.parts) or any(p.dtype is None for p in parts):
            return None
        if len({p.dtype == "bool" for p in parts}) > 1:
            message = "one part is a truth value, another a number"
            self.report.add("E207", message, value.span)
            return None
        made = parts if parts[0].dtype == "bool" else alike(*parts)
        if left.sound:
            exprs = tuple(p.expr for p in made)
            self.to.statements.append(
                Concat(item.target.name, left.indices, rank, exprs, tuple(ranks), where, item.span)
            )
        return made[0].dtype

    def _finish(self) -> None:
        """The rules about a spec as a whole."""
        for name, start in self._started.items():
            hint = f"add a statement for `{name}[..., t+1, ...]`"
            self.report.add(
                "E309", f"`{name}` has an initial value and no step", start.target.span, hint
            )
        outputs = [i for i in self.spec.items if isinstance(i, tree.Output)]
        for access in (a for o in outputs for a in o.tensors):
            self._output(access)
        if not outputs:
            at = self.spec.name.span if self.spec.name else Span(1, 1, 1, 2)
            self.report.add("E306", "the spec has no output", at, "add `output O[...]` at its end")
        used = set(_accessed(self.spec))
        for item in self.spec.items:
            if isinstance(item, tree.Input) and item.name.name not in used:
                message = f"input `{item.name.name}` is never used"
                self.report.add("E305", message, item.name.span, "use it or remove it")

    def _output(self, access: tree.Access) -> None:
        name = access.name
        defined = {i.target.name: i for i in self.spec.items if isinstance(i, tree.Assign)}
        if name not in defined:
            hint = self.report.nearest(name, defined)
            if name in self.symbols.tensors or name in self.symbols.masks:
                hint = "an output is a tensor that a statement defines"
            self.report.add("E307", f"`{name}` is not defined by a statement", access.span, hint)
            return
        if name in self._outputs:
            self.report.add("E312", f"`{name}` is an output already", access.span)
            return
        self._outputs.append(name)
        if name not in self.symbols.tensors:
            return
        axes = self.symbols.tensors[name].axes
        if len(access.indices) != len(axes):
            self.to.arity(access, axes, Scope())
        elif tuple(show(i) for i in access.indices) != axes:
            hint = f"it is defined as `{name}[{', '.join(axes)}]`"
            message = f"`{name}` is given with other ranks than it is defined with"
            self.report.add("E214", message, access.span, hint)


def is_constant(right: Right) -> bool:
    """Whether a right side is the same everywhere: it reads nothing and varies along no rank."""
    return not any(p.ranks or any(map(_is_read, subexprs(p.expr))) for p in right.parts)


def _is_read(e: Expr) -> bool:
    return isinstance(e, Read)


def _accessed(spec: tree.Spec) -> Iterator[str]:
    """The names that anything reads with brackets."""
    stack: list[tree.Expr] = []
    for item in spec.items:
        match item:
            case tree.Mask():
                stack.append(item.value)
            case tree.Assign():
                stack.extend(item.expressions)
            case _:
                pass
    while stack:
        top = stack.pop()
        if isinstance(top, tree.Access):
            yield top.name
        stack.extend(tree.children(top))


def _doc(item: tree.Item, spec: tree.Spec) -> str:
    """The comment behind a declaration."""
    for comment in spec.comments:
        if comment.span.line == item.span.end_line:
            return comment.text.lstrip("#").strip()
    return ""


def _param(item: tree.Param, spec: tree.Spec) -> ParamDecl:
    default: bool | int | float | tuple[bool | int | float, ...] | None = None
    if isinstance(item.default, tuple):
        default = tuple(_value(d, item.dtype) for d in item.default)
    elif item.default is not None:
        default = _value(item.default, item.dtype)
    bounds = item.range
    return ParamDecl(
        name=item.name.name,
        dtype=item.dtype,
        default=default,
        length=None if item.length is None else int(item.length.value),
        const=item.const,
        low=None if bounds is None else bounds.low.value,
        high=None if bounds is None else bounds.high.value,
        low_open=bounds is not None and bounds.low_open,
        high_open=bounds is not None and bounds.high_open,
        doc=_doc(item, spec),
        span=item.span,
    )


def _value(literal: tree.Literal, dtype: DType) -> bool | int | float:
    return float(literal.value) if dtype == "float" else literal.value


def _input(item: tree.Input, spec: tree.Spec) -> TensorDecl:
    axes = tuple(r.name for r in item.ranks)
    return TensorDecl(item.name.name, axes, item.dtype, _doc(item, spec), item.span)
