"""Local then fix: the keys in parts, a state per part, merged afterwards (split-K, flash decoding).

A state over base y stands for its sum over base y' once it is multiplied by f(y - y'), so partial
results over disjoint parts of the rank merge whatever the parts are.
"""

from __future__ import annotations

from math import inf

from attnc.ir.derived import Certificate, Derived, State
from attnc.ir.expr import Apply, Expr, Index, Number, Read
from attnc.ir.ops import REDUCTIONS
from attnc.ir.presence import TRUE
from attnc.ir.region import Region
from attnc.ir.walk import reads, substitute


def merge_states(derived: Derived) -> dict[str, Expr]:
    """The merge of two partial results, per state.

    The parts of a state `O` are read as `O_1` and `O_2`, bases by the states they depend on. A
    state of a later sweep is gathered over final statistics: all parts of the sweeps before it are
    merged first.
    """
    merged: dict[str, Expr] = {}
    for s in derived.states:
        parts = tuple(_part(_own(s), s.sweep, i, derived) for i in ("_1", "_2"))
        if s.base is not None:
            whole = _valued(_merged_base(s, merged, derived))
            bases = (_part(s.base, s.sweep, i, derived) for i in ("_1", "_2"))
            parts = tuple(
                Apply("mul", (p, _moved(s, b, whole))) for p, b in zip(parts, bases, strict=True)
            )
        merged[s.name] = Apply(REDUCTIONS[s.op].combine, parts)
    return merged


def split_certificates(derived: Derived) -> tuple[Certificate, ...]:
    """One *local-then-fix* certificate per state: `before` is the state, `after` its merge."""
    return tuple(
        Certificate("local-then-fix", s.name, _reason(s, derived), _own(s), merge, s.span)
        for s, merge in zip(derived.states, merge_states(derived).values(), strict=True)
    )


def recompute_certificates(region: Region, derived: Derived) -> tuple[Certificate, ...]:
    """One certificate for every product inside the map that more than one sweep evaluates."""
    found = []
    for c in region.contractions:
        uses = [
            (s.sweep, r)
            for s in derived.states
            for e in (s.body, s.present)
            for r in reads(e)
            if r.tensor == c.tensor
        ]
        times = len({sweep for sweep, _ in uses})
        if times > 1:
            reason = f"evaluated again in each of {times} sweeps from the same operands, not stored"
            own = uses[0][1]
            found.append(Certificate("recompute", c.tensor, reason, own, own, c.span))
    return tuple(found)


def _own(s: State) -> Read:
    return Read(s.name, tuple(Index(r) for r in s.ranks))


def _reason(s: State, derived: Derived) -> str:
    how = f"combine with {REDUCTIONS[s.op].combine}"
    if s.base is not None:
        how = f"move to the common base by {s.map}, then {how}"
    return f"partial results over disjoint parts of {derived.rank} {how}"


def over_states(e: Expr, sweep: int, derived: Derived) -> Expr:
    """`e` with the statistics that `sweep` gathers in terms of its states."""
    own = {t.tensor: t for t in derived.statistics if t.sweep == sweep}
    while True:
        mapping: dict[Expr, Expr] = {}
        for r in reads(e):
            if r.tensor in own:
                t = own[r.tensor]
                nothing = Number(t.identity)
                guarded = Apply("select", (t.present, t.value, nothing))
                mapping[r] = t.value if t.present == TRUE else guarded
        if not mapping:
            return e
        e = substitute(e, mapping)


def _part(e: Expr, sweep: int, suffix: str, derived: Derived) -> Expr:
    """`e` as one part has it."""
    e = over_states(e, sweep, derived)
    own = {s.name for s in derived.states if s.sweep == sweep}
    parts: dict[Expr, Expr] = {
        r: Read(r.tensor + suffix, r.indices) for r in reads(e) if r.tensor in own
    }
    return substitute(e, parts)


def _merged_base(s: State, merged: dict[str, Expr], derived: Derived) -> Expr:
    assert s.base is not None
    e = over_states(s.base, s.sweep, derived)
    return substitute(e, {r: merged[r.tensor] for r in reads(e) if r.tensor in merged})


def shift(s: State, base: Expr, later: Expr) -> Apply:
    """What moves a state from one base to another."""
    difference = Apply("sub", (base, later))
    return Apply(s.map, (difference if s.unit is None else Apply("mul", (difference, s.unit)),))


def _moved(s: State, base: Expr, whole: Expr) -> Expr:
    """What a part is multiplied by; nothing was gathered over a base without a value."""
    started = Apply("lt", (Apply("abs", (base,)), Number(inf)))
    return Apply("select", (started, shift(s, base, whole), Number(0.0)))


def _valued(base: Expr) -> Expr:
    """The base; 0 where nothing was seen."""
    return Apply("select", (Apply("lt", (Apply("abs", (base,)), Number(inf))), base, Number(0.0)))
