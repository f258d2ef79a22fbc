"""Keep a maximum in units of log2: the hardware has an exp2 instruction and no exp.

exp(x - g) = exp2(L x - L g) with L = log2(e), and L > 0 leaves a max as it entered. Where the score
carries a constant scale anyway, L costs nothing: it is folded into that scale.
"""

from __future__ import annotations

from dataclasses import replace
from math import e as euler
from math import log, log2

from attnc.ir.derived import Derived, State, Statistic
from attnc.ir.expr import Apply, Expr, Index, Number, Read
from attnc.ir.separate import Separation, multiply, separate
from attnc.ir.walk import rewrite, subexprs, substitute

LOG2E = Number(log2(euler))
LN2 = Number(log(2.0))


def use_exp2(derived: Derived) -> Derived:
    """Rewrite every maximum that only serves as the base of exponentials of its own argument."""
    for state in derived.states:
        if state.op == "max" and _is_scaled(state, derived) and _serves_exp(state, derived):
            derived = _in_log2(derived, state)
    return derived


def _statistic_of(state: State, derived: Derived) -> Statistic | None:
    own = Read(state.name, tuple(Index(r) for r in state.ranks))
    return next((t for t in derived.statistics if t.value == own), None)


def _is_scaled(state: State, derived: Derived) -> bool:
    """The score is a constant times something: one more constant is free."""
    return any(_is_constant(f) for f in _split(state.body, derived).free)


def _scaled_score(score: Expr, derived: Derived) -> Expr:
    """`score * log2(e)`, with all constants gathered into one."""
    split = _split(score, derived)
    constants = tuple(f for f in split.free if _is_constant(f))
    others = tuple(f for f in split.free if not _is_constant(f))
    return multiply((split.dependent, *others, multiply((LOG2E, *constants))))


def _split(score: Expr, derived: Derived) -> Separation:
    names = {derived.rank, *derived.cascade.rank(derived.rank).components}

    def varies(e: Expr) -> bool:
        return any(isinstance(x, Index) and x.rank in names for x in subexprs(e))

    return separate(score, varies, {})


def _is_constant(e: Expr) -> bool:
    """Known to the caller: extents, params and numbers only."""
    return not any(isinstance(x, Read | Index) for x in subexprs(e))


def _serves_exp(state: State, derived: Derived) -> bool:
    """Every other state of the sweep that shares the score uses it as exp(score - base) only."""
    statistic = _statistic_of(state, derived)
    if statistic is None or statistic.ranks != state.ranks:
        return False
    others = [s for s in derived.states if s is not state and s.sweep == state.sweep]
    uses = [s for s in others if state.body in set(subexprs(s.body))]
    return bool(uses) and all(_only_in_exp(s, state.body) for s in uses)


def _only_in_exp(s: State, score: Expr) -> bool:
    if s.base is None or s.map != "exp":
        return False
    exponential = _exponential(s)
    rest = substitute(s.body, {exponential: Number(1.0)})
    exponent = exponential.args[0]
    assert isinstance(exponent, Apply)
    return exponent.args[0] == score and score not in set(subexprs(rest))


def _exponential(s: State) -> Apply:
    """The factor exp(a - base) of a state's body."""
    for e in subexprs(s.body):
        if isinstance(e, Apply) and e.op == s.map:
            x = e.args[0]
            if isinstance(x, Apply) and x.op == "sub" and x.args[1] == s.base:
                return e
    raise AssertionError(f"state {s.name} has no exponential of its base")


def _in_log2(derived: Derived, state: State) -> Derived:
    scaled = replace(state, body=_scaled_score(state.body, derived))
    statistic = _statistic_of(state, derived)
    assert statistic is not None
    natural = Read(statistic.tensor, tuple(Index(r) for r in statistic.ranks))
    own = Read(state.name, tuple(Index(r) for r in state.ranks))
    exact = replace(statistic, value=Apply("mul", (own, LN2)))

    aliases = {**dict(derived.aliases), scaled.body: state.body}

    def convert(s: State) -> State:
        if s is state:
            return scaled
        if s.base is None or s.sweep != state.sweep or state.body not in set(subexprs(s.body)):
            return s
        old = _exponential(s)
        base = _times_log2e(s.base, natural, own)
        new = Apply("exp2", (Apply("sub", (scaled.body, base)),))
        aliases[new] = old
        return replace(s, body=substitute(s.body, {old: new}), base=base, map="exp2")

    states = tuple(convert(s) for s in derived.states)
    return replace(
        derived,
        states=states,
        aliases=tuple(aliases.items()),
        statistics=tuple(exact if t is statistic else t for t in derived.statistics),
    )


def _times_log2e(base: Expr, natural: Read, own: Read) -> Expr:
    """`base * log2(e)`, with the maximum read in its new unit: (own ln 2) log2(e) = own."""
    if base == natural:
        return own

    def scale(e: Expr) -> Expr | None:
        return Apply("mul", (own, LN2)) if e == natural else None

    return multiply((rewrite(base, scale), LOG2E))
