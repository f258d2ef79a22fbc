"""Print a Plan as the loops that it is, in the spec's notation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attnc.ir.expr import Apply, Expr
from attnc.ir.plan import Dot, Fold, Let, Load, Pass, Plan, Serial, SweepStage, TorchStage, Value
from attnc.ir.show import show_expr, show_statement


def show_plan(plan: Plan) -> str:
    """The stages in order; what a stage computes once stands before what it computes per tile."""
    lines: list[str] = []
    for stage in plan.stages:
        match stage:
            case TorchStage():
                lines += [f"torch {show_statement(stage.statement)}"]
            case SweepStage():
                lines += _sweep(stage)
    return "".join(f"{line}\n" for line in lines)


def _sweep(stage: SweepStage) -> Iterator[str]:
    held = "" if stage.row is None else f", holding a tile of {stage.row}"
    yield f"sweep {stage.name}: for each {', '.join(stage.grid) or 'call'}{held}"
    yield from _lets(stage.host, "  ")
    yield from _lets(stage.resident, "  ")
    for number, each in enumerate(stage.passes, 1):
        yield from _pass(stage, each, number)
    for store in stage.stores:
        yield f"  store {store.tensor}[{', '.join(store.axes)}] = {show_expr(store.value)}"


def _pass(stage: SweepStage, each: Pass, number: int) -> Iterator[str]:
    for c in each.carries:
        yield f"  {c.name}[{', '.join(c.ranks)}] = {_initial(c.init)}"
    yield f"  pass {number}, for each tile of {stage.swept}:"
    yield from _lets(each.body, "    ")
    for c in each.carries:
        yield f"    {c.name} = {c.update}"
    yield from _lets(each.after, "  ")


def _factor(e: Expr) -> str:
    return f"({show_expr(e)})" if isinstance(e, Apply) else show_expr(e)


def _lets(lets: Iterable[Let], indent: str) -> Iterator[str]:
    for let in lets:
        yield f"{indent}{let.name}[{', '.join(let.ranks)}] = {_value(let.value)}"


def _initial(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _value(value: Value) -> str:
    match value:
        case Load(read):
            return f"load {show_expr(read)}"
        case Dot(left, right, over, plus):
            product = f"sum({over}) {_factor(left)} @ {_factor(right)}"
            return product if plus is None else f"{show_expr(plus)} + {product}"
        case Fold(op, body, over):
            return f"{op}({over}) {show_expr(body)}"
        case Serial(op, body, over):
            return f"{op}({over}), one at a time: {show_expr(body)}"
        case _:
            return show_expr(value)
