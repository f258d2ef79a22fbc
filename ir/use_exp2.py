"""Keep a maximum in the units of the bare product, and exponentiate with base 2.

A positive constant leaves a max as it entered, so with a score c x, g = max x and L = log2(e),

    exp(c x - c g) = exp2((x - g) (c L)):

the scale of the score and the change of base become one factor, known to the caller, and x - g is
exact where it matters (near 0), however large the scores are. The hardware has exp2, not exp.
"""

from __future__ import annotations

from dataclasses import replace
from math import e as euler
from math import log2

from attnc.ir.derived import Derived, State, Statistic
from attnc.ir.expr import Apply, Expr, Index, Number, Read
from attnc.ir.facts import positive
from attnc.ir.separate import Separation, multiply, separate
from attnc.ir.walk import subexprs, substitute

LOG2E = Number(log2(euler))


def use_exp2(derived: Derived) -> Derived:
    """Rewrite every maximum that only serves as the base of exponentials of its own argument."""
    for state in derived.states:
        if state.op == "max" and _constants(state.body, derived) and _serves_exp(state, derived):
            derived = _in_bare_units(derived, state)
    return derived


def _statistic_of(state: State, derived: Derived) -> Statistic | None:
    own = Read(state.name, tuple(Index(r) for r in state.ranks))
    return next((t for t in derived.statistics if t.value == own), None)


def _serves_exp(state: State, derived: Derived) -> bool:
    """Every other state of the sweep that shares the score has it as exp(score - maximum) only."""
    statistic = _statistic_of(state, derived)
    if statistic is None or statistic.ranks != state.ranks:
        return False
    maximum = Read(statistic.tensor, tuple(Index(r) for r in statistic.ranks))
    others = [s for s in derived.states if s is not state and s.sweep == state.sweep]
    sharing = [s for s in others if state.body in set(subexprs(s.body))]
    using = [s for s in others if s.base is not None and maximum in set(subexprs(s.base))]
    return bool(sharing) and all(_only_in_exp(s, state.body, maximum) for s in {*sharing, *using})


def _only_in_exp(s: State, score: Expr, maximum: Expr) -> bool:
    whole = Apply("exp", (Apply("sub", (score, maximum)),))
    rest = substitute(s.body, {whole: Number(1.0)})
    return s.map == "exp" and s.base == maximum and score not in set(subexprs(rest))


def _constants(score: Expr, derived: Derived) -> tuple[Expr, ...]:
    """The factors of the score that the caller knows, if their product is positive."""
    free = tuple(f for f in _split(score, derived).free if _is_constant(f))
    return free if free and positive(multiply(free), {}) else ()


def _split(score: Expr, derived: Derived) -> Separation:
    names = {derived.rank, *derived.cascade.rank(derived.rank).components}

    def varies(e: Expr) -> bool:
        return any(isinstance(x, Index) and x.rank in names for x in subexprs(e))

    return separate(score, varies, {})


def _is_constant(e: Expr) -> bool:
    """Known to the caller: extents, params and numbers only."""
    return not any(isinstance(x, Read | Index) for x in subexprs(e))


def _in_bare_units(derived: Derived, state: State) -> Derived:
    constants = _constants(state.body, derived)
    split = _split(state.body, derived)
    others = tuple(f for f in split.free if f not in constants)
    bare = multiply((split.dependent, *others))
    statistic = _statistic_of(state, derived)
    assert statistic is not None
    own = statistic.value
    maximum = Read(statistic.tensor, tuple(Index(r) for r in statistic.ranks))
    old = Apply("exp", (Apply("sub", (state.body, maximum)),))
    unit = multiply((LOG2E, *constants))
    new = Apply("exp2", (Apply("mul", (Apply("sub", (bare, own)), unit)),))

    def convert(s: State) -> State:
        if s is state:
            return replace(state, body=bare)
        if s.sweep != state.sweep or s.base != maximum:
            return s
        return replace(s, body=substitute(s.body, {old: new}), base=own, map="exp2", unit=unit)

    scaled = replace(statistic, value=multiply((own, *constants)))
    return replace(
        derived,
        states=tuple(convert(s) for s in derived.states),
        statistics=tuple(scaled if t is statistic else t for t in derived.statistics),
        aliases=(*derived.aliases, (new, old)),
    )
