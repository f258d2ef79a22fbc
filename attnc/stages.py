"""A spec after each stage of the compiler that changed it: `attnc explain --stages`."""

from __future__ import annotations

from attnc.ir.cascade import Cascade
from attnc.ir.derived import Derived, State, Statistic
from attnc.ir.expr import Expr, Number
from attnc.ir.plan import Plan, SweepStage
from attnc.ir.show import show_cascade, show_expr
from attnc.ir.show_plan import show_plan


def show_stages(written: Cascade, specialised: Cascade, plan: Plan) -> str:
    """The cascade as lowered and as rewritten, then states and statistics, then the loops."""
    derived = [s.derived for s in plan.stages if isinstance(s, SweepStage) and s.derived]
    texts = (
        ("lower: the spec as a cascade", show_cascade(written)),
        ("specialise: const params put in", show_cascade(specialised)),
        ("split_factors: constants out of the products", show_cascade(plan.cascade)),
        ("derive: running states, and the reductions in terms of them", _derived(derived)),
        ("build_plan: stages, tiles, loops", show_plan(plan)),
    )
    shown: list[str] = []
    last = ""
    for title, text in texts:
        if text and text != last:
            shown.append(f"# {title}\n{text}")
            last = text
    return "\n".join(shown)


def _derived(found: list[Derived]) -> str:
    lines: list[str] = []
    for d in found:
        lines += (_state(d.rank, s) for s in d.states)
        lines += (_statistic(s) for s in d.statistics)
    return "".join(f"{line}\n" for line in lines)


def _state(rank: str, s: State) -> str:
    text = f"{_access(s.name, s.ranks)} = {s.op}({rank}) {show_expr(s.body)}"
    text += _where(s.present)
    if s.base is not None:
        text += f"  moving by {s.map} with {show_expr(s.base)}"
    return text if s.sweep == 0 else f"{text}  (pass {s.sweep + 1})"


def _statistic(s: Statistic) -> str:
    return f"{_access(s.tensor, s.ranks)} := {show_expr(s.value)}{_where(s.present)}"


def _where(present: Expr) -> str:
    return "" if present == Number(True) else f"  where {show_expr(present)}"


def _access(name: str, ranks: tuple[str, ...]) -> str:
    return f"{name}[{', '.join(ranks)}]"
