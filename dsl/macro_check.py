"""What can be wrong with a macro whatever it is applied to: names, shapes, recursion."""

from __future__ import annotations

from collections.abc import Iterator

from attnc.dsl import tree
from attnc.dsl.declare import rank_name
from attnc.dsl.expression import FUNCTIONS, REDUCERS, SELECTORS
from attnc.dsl.macros import prelude
from attnc.dsl.report import Report
from attnc.dsl.scope import Symbols
from attnc.errors import Span


def check_macros(symbols: Symbols, report: Report) -> None:
    """Check the macros of a spec; those with a mistake are left unexpanded."""
    for name, macro in symbols.macros.items():
        if macro not in prelude() and not _MacroCheck(macro, symbols, report).sound():
            symbols.broken_macros.add(name)
    for name in _recursive(symbols.macros):
        symbols.broken_macros.add(name)
        span = symbols.macros[name].name.span
        report.add("E401", f"macro `{name}` expands to itself", span, "a macro cannot recurse")


def _recursive(macros: dict[str, tree.Macro]) -> Iterator[str]:
    """The macros that can reach themselves."""
    calls = {name: frozenset(_called(macro)) & macros.keys() for name, macro in macros.items()}
    for name in macros:
        seen: set[str] = set()
        stack = list(calls[name])
        while stack:
            top = stack.pop()
            if top not in seen:
                seen.add(top)
                stack.extend(calls[top])
        if name in seen:
            yield name


def _expressions(macro: tree.Macro) -> Iterator[tree.Expr]:
    yield from (f.default for f in macro.formals if f.default is not None)
    for assign in macro.body:
        yield from assign.expressions
    yield macro.result


def _called(macro: tree.Macro) -> Iterator[str]:
    stack = list(_expressions(macro))
    while stack:
        top = stack.pop()
        if isinstance(top, (tree.Call, tree.Over)):
            yield top.fn
        stack.extend(tree.children(top))


class _MacroCheck:
    """Walks one macro; `good` falls when something is wrong."""

    def __init__(self, macro: tree.Macro, symbols: Symbols, report: Report) -> None:
        self.macro = macro
        self.symbols = symbols
        self.report = report
        self.good = True
        self.ranks = macro.rank_formals
        self.scalars = {f.name for f in macro.formals} - set(self.ranks)
        self.scalars |= {r.upper() for r in self.ranks}
        self.tensors: dict[str, int] = {}

    def fail(self, code: str, message: str, span: Span, hint: str = "") -> None:
        self.good = False
        self.report.add(code, message, span, hint)

    def sound(self) -> bool:
        """Report what is wrong; whether nothing is."""
        self._signature()
        for assign in self.macro.body:
            self._assign(assign)
        self._walk(self.macro.result, frozenset(self.ranks))
        return self.good

    def _signature(self) -> None:
        seen: set[str] = set()
        for formal in self.macro.formals:
            if formal.name in seen:
                self.fail("E408", f"`{formal.name}` is given twice", formal.span)
            if formal.name in self.ranks and formal.default is not None:
                self.fail("E408", f"`{formal.name}` is a rank: it has no default", formal.span)
            seen.add(formal.name)
            if formal.default is not None and not isinstance(formal.default, tree.Literal):
                if not _is_signed(formal.default):
                    hint = "let callers give it"
                    self.fail("E408", "a default is a literal", formal.default.span, hint)
            elif formal.default is None and any(
                f.default is not None for f in self.macro.formals if f.span < formal.span
            ):
                message = f"`{formal.name}` stands behind a formal with a default"
                self.fail("E408", message, formal.span, "formals with defaults come last")
        argument = self.macro.argument
        if argument is None:
            return
        self.tensors[argument.name] = len(argument.ranks)
        for position, rank in enumerate(argument.ranks):
            if not rank_name(rank, self.report):
                self.good = False
            elif rank.name not in seen:
                hint = f"write `def {self.macro.name.name}({rank.name}, ...)`"
                self.fail("E408", f"`{rank.name}` is not in the parentheses", rank.span, hint)
            elif rank.name in [r.name for r in argument.ranks[:position]]:
                self.fail("E205", f"rank `{rank.name}` is given twice", rank.span)

    def _assign(self, assign: tree.Assign) -> None:
        target = assign.target
        bound: list[str] = []
        for index in target.indices:
            if isinstance(index, tree.Name) and index.name in self.ranks:
                if index.name in bound:
                    self.fail("E205", f"rank `{index.name}` is given twice", index.span)
                bound.append(index.name)
            else:
                hint = "the argument's other ranks are carried along by themselves"
                message = "a tensor of a macro is indexed by the macro's ranks"
                self.fail("E408", message, index.span, hint)
        if isinstance(assign.value, tree.Concat):
            self.fail("E408", "a macro cannot hold `concat`", assign.value.span)
        else:
            self._walk(assign.value, frozenset(bound))
            if assign.where is not None:
                over = assign.value.args if isinstance(assign.value, tree.Over) else ()
                reduced = {a.name for a in over if isinstance(a, tree.Name)} & set(self.ranks)
                self._walk(assign.where, frozenset(bound) | reduced)
        if target.name in self.tensors:
            self.fail("E105", f"`{target.name}` is defined twice", target.span)
        self.tensors[target.name] = len(target.indices)

    def _walk(self, e: tree.Expr, bound: frozenset[str]) -> None:
        """Check names and shapes; `bound`: the ranks in scope."""
        match e:
            case tree.Name():
                self._name(e, bound)
            case tree.Access():
                self._access(e)
            case tree.Call(fn):
                self._known(fn, {*FUNCTIONS, *self.symbols.macros}, "function", e.span)
            case tree.Over(fn, args):
                self._known(fn, {*REDUCERS, *SELECTORS, *self.symbols.macros}, "macro", e.span)
                bound |= {a.name for a in args if isinstance(a, tree.Name)} & set(self.ranks)
            case _:
                pass
        for child in tree.children(e):
            self._walk(child, bound)

    def _known(self, fn: str, known: set[str], kind: str, span: Span) -> None:
        if fn not in known and fn not in REDUCERS + SELECTORS:
            near = self.report.nearest(fn, sorted(known))
            self.fail("E103", f"unknown {kind} `{fn}`", span, near)

    def _name(self, e: tree.Name, bound: frozenset[str]) -> None:
        if e.name in self.ranks and e.name not in bound:
            hint = f"add `{e.name}` to the left side or reduce over it"
            self.fail("E104", f"rank `{e.name}` is not bound here", e.span, hint)
        elif e.name not in self.ranks and e.name not in self.scalars:
            message = f"macro `{self.macro.name.name}` has no argument `{e.name}`"
            near = self.report.nearest(e.name, (*self.ranks, *sorted(self.scalars)))
            self.fail("E404", message, e.span, near or "a macro sees only its arguments: add it")

    def _access(self, e: tree.Access) -> None:
        if e.name not in self.tensors:
            message = f"macro `{self.macro.name.name}` has no tensor `{e.name}`"
            near = self.report.nearest(e.name, self.tensors)
            hint = near or "a macro sees its argument and what it defined above"
            self.fail("E404", message, e.span, hint)
        elif len(e.indices) != self.tensors[e.name]:
            count = self.tensors[e.name]
            message = f"`{e.name}` has {count} ranks, {len(e.indices)} indices are given"
            self.fail("E201", message.replace("1 ranks", "1 rank"), e.span)


def _is_signed(e: tree.Expr) -> bool:
    return isinstance(e, tree.Prefix) and e.op == "-" and isinstance(e.operand, tree.Literal)
