"""Declarations: ranks, params, inputs and macros of a spec, and the names they take."""

from __future__ import annotations

from collections.abc import Iterator

from attnc.dsl import tree
from attnc.dsl.expression import FUNCTIONS, REDUCERS, SELECTORS
from attnc.dsl.macros import prelude
from attnc.dsl.report import Report
from attnc.dsl.scope import Symbols, Tensor
from attnc.errors import Span
from attnc.ir.cascade import Rank

MAX_ITEMS = 16


def declare(spec: tree.Spec, report: Report) -> Symbols:
    """The tables of a spec; statements and masks are added as they are met."""
    symbols = Symbols()
    symbols.macros.update((m.name.name, m) for m in prelude())
    _ranks(spec, symbols, report)
    for item in spec.items:
        match item:
            case tree.Param():
                _param(item, symbols, report)
            case tree.Input():
                _input(item, symbols, report)
            case tree.Macro():
                _macro(item, symbols, report)
            case _:
                pass
    symbols.bracketed = frozenset(
        i.target.name for i in spec.items if isinstance(i, (tree.Assign, tree.Mask))
    )
    return symbols


def is_rank_name(name: str) -> bool:
    """Whether a name can be a rank: lower case, and its extent has another name."""
    return name == name.lower() != name.upper()


def rank_name(name: tree.Name, report: Report) -> bool:
    """Whether it can name a rank; reports it if not."""
    if is_rank_name(name.name):
        return True
    hint = f"the rank would be `{name.name.lower()}`, and `{name.name.upper()}` its extent"
    report.add("E108", f"`{name.name}` cannot be a rank: ranks are lower case", name.span, hint)
    return False


def _ranks(spec: tree.Spec, symbols: Symbols, report: Report) -> None:
    """Grids first, then every rank that an axis or a reduction mentions."""
    for item in spec.items:
        if isinstance(item, tree.Rank):
            _grid(item, symbols, report)
    for name in _mentioned(spec):
        if is_rank_name(name):
            symbols.ranks.setdefault(name, Rank(name))


def _grid(item: tree.Rank, symbols: Symbols, report: Report) -> None:
    names = (item.name, *item.components)
    for position, name in enumerate(names):
        if not rank_name(name, report):
            return
        if name.name in symbols.ranks or name.name in [n.name for n in names[:position]]:
            hint = "a rank is split once, and a component belongs to one rank"
            report.add("E308", f"rank `{name.name}` is declared twice", name.span, hint)
            return
    if len(item.components) < 2:
        hint = "write `rank m = (my, mx)`"
        report.add("E308", f"`{item.name.name}` has a single component", item.span, hint)
        return
    components = tuple(c.name for c in item.components)
    symbols.ranks[item.name.name] = Rank(item.name.name, components)
    for component in components:
        symbols.ranks[component] = Rank(component, parent=item.name.name)


def _mentioned(spec: tree.Spec) -> Iterator[str]:
    """The names at places where a rank stands: axes, left sides, reductions."""
    for item in spec.items:
        match item:
            case tree.Input():
                yield from (r.name for r in item.ranks)
            case tree.Assign():
                for index in item.target.indices:
                    yield from sorted(tree.names_in(index))
                if isinstance(item.value, tree.Concat):
                    yield item.value.rank.name
                for part in item.parts:
                    yield from _reduced(part)
            case tree.Mask():
                yield from _reduced(item.value)
            case _:
                pass


def _reduced(e: tree.Expr) -> Iterator[str]:
    stack = [e]
    while stack:
        top = stack.pop()
        if isinstance(top, tree.Over) and top.fn in REDUCERS:
            yield from (a.name for a in top.args if isinstance(a, tree.Name))
        stack.extend(reversed(tree.children(top)))


def _taken(name: tree.Name, symbols: Symbols, report: Report) -> bool:
    """Whether a bare name already means something else; reports it."""
    what = ""
    if name.name in symbols.params:
        what = "is declared twice"
    elif name.name in symbols.ranks:
        what = "is a rank already"
    elif symbols.extent_of(name.name):
        what = f"is already the extent of rank `{name.name.lower()}`"
    if what:
        report.add("E109", f"`{name.name}` {what}", name.span, "choose another name")
    return bool(what)


def _input(item: tree.Input, symbols: Symbols, report: Report) -> None:
    axes = tuple(r.name for r in item.ranks)
    for position, rank in enumerate(item.ranks):
        if rank_name(rank, report) and rank.name in axes[:position]:
            hint = "two axes of the same length are two ranks"
            report.add("E205", f"rank `{rank.name}` is given twice", rank.span, hint)
    name = item.name.name
    if free_bracketed(name, item.name.span, symbols, report):
        symbols.tensors[name] = Tensor(name, axes, item.dtype, item.span)


def free_bracketed(name: str, span: Span, symbols: Symbols, report: Report) -> bool:
    """Whether a name is free for a tensor or mask; reports it if not."""
    if name in symbols.tensors:
        line = symbols.tensors[name].span.line
        message = f"`{name}` is defined twice"
        report.add("E105", message, span, f"its first definition is on line {line}")
    elif name in symbols.masks:
        report.add("E105", f"`{name}` is a mask already", span, "choose another name")
    elif name in symbols.params:
        report.add("E109", f"`{name}` is a param already", span, "choose another name")
        # It is read with brackets from here on: as a tensor.
        del symbols.params[name]
        return True
    else:
        return True
    return False


def _macro(item: tree.Macro, symbols: Symbols, report: Report) -> None:
    name = item.name.name
    known = {*FUNCTIONS, *REDUCERS, *SELECTORS}
    if name in known or name in symbols.macros:
        what = "a function of the language" if name in known else "defined already"
        if symbols.macros.get(name) in prelude():
            what = "a macro of the prelude"
        report.add("E403", f"`{name}` is {what}", item.name.span, "choose another name")
        return
    symbols.macros[name] = item


# Params.


def _param(item: tree.Param, symbols: Symbols, report: Report) -> None:
    if _taken(item.name, symbols, report):
        return
    symbols.params[item.name.name] = item
    if item.length is not None and not _whole(item.length, 1, MAX_ITEMS):
        message = f"a tuple has 1 to {MAX_ITEMS} items"
        report.add("E303", message, item.length.span)
        return
    if item.range is not None and not _range(item, item.range, report):
        return
    if item.default is None:
        return
    given = item.default if isinstance(item.default, tuple) else (item.default,)
    wanted = None if item.length is None else item.length.value
    if wanted != (len(given) if isinstance(item.default, tuple) else None):
        shape = "a single value" if wanted is None else f"{wanted} items in parentheses"
        message = f"the default of `{item.name.name}` is {shape}"
        report.add("E303", message, given[0].span)
        return
    for literal in given:
        _default(item, literal, report)


def _whole(literal: tree.Literal, low: int, high: int) -> bool:
    value = literal.value
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _default(item: tree.Param, literal: tree.Literal, report: Report) -> None:
    value, bounds = literal.value, item.range
    kinds = {"bool": (bool,), "int": (int,), "float": (int, float)}[item.dtype]
    if not isinstance(value, kinds) or (isinstance(value, bool) and item.dtype != "bool"):
        message = f"`{literal.text}` is not {'a' if item.dtype != 'int' else 'an'} {item.dtype}"
        report.add("E301", message, literal.span)
    elif bounds is not None and not isinstance(value, bool) and not _inside(value, bounds):
        message = f"the default `{literal.text}` is outside its own range"
        report.add("E302", message, literal.span)


def _inside(value: float, bounds: tree.Range) -> bool:
    low, high = bounds.low.value, bounds.high.value
    above = value > low if bounds.low_open else value >= low
    return above and (value < high if bounds.high_open else value <= high)


def _range(item: tree.Param, bounds: tree.Range, report: Report) -> bool:
    low, high = bounds.low.value, bounds.high.value
    if item.dtype == "bool" or isinstance(low, bool) or isinstance(high, bool):
        report.add("E304", "a range is for numbers", bounds.span)
    elif low > high or (low == high and (bounds.low_open or bounds.high_open)):
        report.add("E304", "the range is empty", bounds.span, "write the smaller bound first")
    else:
        return True
    return False
