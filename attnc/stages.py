"""A spec after each stage of the compiler that changed it: `attnc explain --stages`."""

from __future__ import annotations

from attnc.ir.cascade import Cascade
from attnc.ir.derived import Derived, State, Statistic
from attnc.ir.expr import Expr, Number
from attnc.ir.pipeline import plan
from attnc.ir.plan import SweepStage
from attnc.ir.show import show_cascade, show_expr
from attnc.ir.show_plan import show_plan


def show_stages(written: Cascade, specialised: Cascade) -> str:
    """The cascade as lowered and after each pass, then states and statistics, then the loops.

    `specialised` is the cascade with the const params that the user chose.
    """
    shown = [_titled("lower: the spec as a cascade", show_cascade(written))]
    if specialised.statements != written.statements:
        title = "specialise: const params put in, constants folded"
        shown.append(_titled(title, show_cascade(specialised)))

    def on_change(name: str, what: str, cascade: Cascade) -> None:
        shown.append(_titled(f"{name}: {what}", show_cascade(cascade)))

    made = plan(specialised, on_change)
    derived = [s.derived for s in made.stages if isinstance(s, SweepStage) and s.derived]
    shown.append(_titled("states, and the reductions in terms of them", _derived(derived)))
    shown.append(_titled("build_plan: stages, tiles, loops", show_plan(made)))
    return "\n".join(shown)


def _titled(title: str, text: str) -> str:
    return f"# {title}\n{text}"


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
