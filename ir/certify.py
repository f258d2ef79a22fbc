"""Check every certificate again: symbolically, and with numbers.

A law was applied because of what `ir.ops` declares. Here nothing declared is trusted: sympy (slow
to import, so only when asked) simplifies the difference of both sides, and both sides are
evaluated in float64 at random points, with infinities, zeros and equal values among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
import numpy.typing as npt

from attnc.ir.derived import Certificate, Derived, State
from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.facts import Interval
from attnc.ir.frame import Scope, Value
from attnc.ir.inline import pointwise_definitions
from attnc.ir.merge_states import merge_states, over_states, shift
from attnc.ir.ops import OPS, REDUCTIONS
from attnc.ir.region import Scope as Facts
from attnc.ir.region import tensor_facts
from attnc.ir.types import dtype_of
from attnc.ir.walk import reads, subexprs, substitute

_Array = npt.NDArray[np.float64]
_POINTS, _KEYS = 96, 12
_SPECIAL = (-inf, -1.0, 0.0, 0.0, 1.0)
_LATER, _INSIDE = Read("a later base", ()), Read("what varies", ())


@dataclass(frozen=True, slots=True)
class Check:
    """What became of one certificate.

    symbolic: whether sympy proved it; None where it reached no answer, or where the law is about
              whole statements (reductions over tiles, iterations), which `recheck` runs
    numeric:  the largest relative error over the points at which the side before is finite
    points:   how many those were
    """

    certificate: Certificate
    symbolic: bool | None
    numeric: float
    points: int


def certify(derived: Derived, seed: int = 0) -> tuple[Check, ...]:
    """Check each certificate of a derivation. Nothing is raised: read the results."""
    checker = _Checker(derived, np.random.default_rng(seed), _bounds(derived))
    return tuple(checker.check(c) for c in derived.certificates)


def _bounds(derived: Derived) -> dict[str, Interval]:
    c = derived.cascade
    known, _ = tensor_facts(Facts(c, pointwise_definitions(c), {}))
    return known


@dataclass(frozen=True, slots=True)
class _Checker:
    derived: Derived
    random: np.random.Generator
    bounds: Mapping[str, Interval]

    def check(self, c: Certificate) -> Check:
        match c.law:
            case "defer" | "distribute" | "recompute":
                return Check(c, self._identical(c), *self._compare(c.before, c.after))
            case "iterate":
                proved = _both(self._identical(c), self._moves_freely(c.after))
                return Check(c, proved, *self._compare(c.before, c.after))
            case "monotone":
                return Check(c, self._is_monotone(c), *self._ordered(c))
            case "local-then-fix":
                state = next(s for s in self.derived.states if s.name == c.tensor)
                return Check(c, self._associates(state), *self._merges(state))
            case "close" | "merge" | "exchange" | "join":
                return Check(c, None, 0.0, 0)

    # symbols ---------------------------------------------------------------------------------

    def _identical(self, c: Certificate) -> bool | None:
        from attnc.ir.symbols import Symbols, is_zero

        symbols = Symbols(self.derived.cascade, self.bounds)
        return is_zero(symbols.of(c.before) - symbols.of(c.after))

    def _moves_freely(self, after: Expr) -> bool | None:
        """h(a, y') / h(a, y) depends on y and y' alone."""
        from attnc.ir.symbols import Symbols, free_of

        base = _base_of(after)
        if base is None:
            return None
        symbols = Symbols(self.derived.cascade, self.bounds)
        ratio = symbols.of(substitute(after, {base: _LATER})) / symbols.of(after)
        return free_of(ratio, tuple(symbols.of(x) for x in self._varying(after)))

    def _associates(self, s: State) -> bool | None:
        """h(a, y) f(y - y') = h(a, y'); where nothing moves, the operator is associative."""
        from attnc.ir.symbols import Symbols, is_zero

        symbols = Symbols(self.derived.cascade, self.bounds)
        if s.base is None:
            op = REDUCTIONS[s.op].combine
            x, y, z = (Read(f"part {i}", ()) for i in range(3))
            left = Apply(op, (Apply(op, (x, y)), z))
            return is_zero(symbols.of(left) - symbols.of(Apply(op, (x, Apply(op, (y, z))))))
        moved = symbols.of(shift(s, s.base, _LATER))
        later = symbols.of(substitute(s.body, {s.base: _LATER}))
        return is_zero(symbols.of(s.body) * moved - later)

    def _varying(self, e: Expr) -> tuple[Expr, ...]:
        return tuple(x for x in subexprs(e) if isinstance(x, Read | Index) and self._varies(x))

    def _varies(self, e: Expr) -> bool:
        c = self.derived.cascade
        names = {self.derived.rank, *c.rank(self.derived.rank).components}
        return any(isinstance(x, Index) and x.rank in names for x in subexprs(e))

    def _is_monotone(self, c: Certificate) -> bool | None:
        """The sign of the derivative by what varies, or the direction that is declared."""
        from attnc.ir.symbols import Symbols, keeps_sign

        if not isinstance(c.before, Apply):
            return None
        declared = OPS[c.before.op].rising
        if declared and declared[c.before.args.index(c.after)]:
            return True
        symbols = Symbols(self.derived.cascade, self.bounds)
        return keeps_sign(symbols.of(substitute(c.before, {c.after: _INSIDE})), symbols.of(_INSIDE))

    # numbers ---------------------------------------------------------------------------------

    def _compare(self, before: Expr, after: Expr) -> tuple[float, int]:
        leaves = self._sample(_leaves((before, after)), (_POINTS,), {"p": range(_POINTS)})
        a, b = (leaves.value(e) for e in (before, after))
        return _error(a, b), int(np.isfinite(a).sum())

    def _ordered(self, c: Certificate) -> tuple[float, int]:
        """By how much the outer function goes back and forth over sorted points."""
        outer = substitute(c.before, {c.after: _INSIDE})
        leaves = self._sample(_leaves((outer,)), (), {"p": range(_POINTS)})
        grid = np.sort(np.append(self.random.normal(size=_POINTS - len(_SPECIAL)) * 3, _SPECIAL))
        leaves.values[_INSIDE] = Value(grid, ("p",))
        y = leaves.value(outer)
        y = y[np.isfinite(y)]
        steps = np.diff(y)
        scale = float(np.abs(y).max(initial=1.0))
        wrong = min(float(np.maximum(0, -steps).max(initial=0)), float(steps.max(initial=0)))
        return wrong / scale, len(y)

    def _merges(self, state: State) -> tuple[float, int]:
        """Three uneven parts of the keys, merged one after another, against all keys at once."""
        whole, *parts = (range(_KEYS), range(1), range(1, 5), range(5, _KEYS))
        exprs = [e for s in self.derived.states for e in _parts_of(s)]
        exprs += [e for t in self.derived.statistics for e in (t.value, t.present)]
        box = {"p": range(_POINTS), self.derived.rank: whole}
        leaves = self._sample(self._given(_leaves(exprs)), (_POINTS,), box, self._varies)
        known: dict[str, _Array] = {}
        for sweep in range(state.sweep + 1):
            direct = self._gather(sweep, whole, known, leaves)
            merged = self._gather(sweep, parts[0], known, leaves)
            for part in parts[1:]:
                other = self._gather(sweep, part, known, leaves)
                merged = self._merge(merged, other, known, leaves)
            if sweep == state.sweep:
                a = direct[state.name]
                return _error(a, merged[state.name]), int(np.isfinite(a).sum())
            known |= direct
        raise AssertionError(f"no sweep gathers {state.name}")

    def _given(self, leaves: Iterable[Expr]) -> tuple[Expr, ...]:
        """The leaves that no state and no statistic stands for."""
        made = {s.name for s in self.derived.states} | {t.tensor for t in self.derived.statistics}
        return tuple(e for e in leaves if not (isinstance(e, Read) and e.tensor in made))

    def _gather(
        self, sweep: int, keys: range, known: Mapping[str, _Array], leaves: _Leaves
    ) -> dict[str, _Array]:
        """The states of one sweep over some keys, bases at their value over those keys."""
        found: dict[str, _Array] = {}
        box = {"p": range(_POINTS), self.derived.rank: keys}
        for s in self.derived.states:
            if s.sweep != sweep:
                continue
            body = s.body
            if s.base is not None:
                valued = Apply("lt", (Apply("abs", (s.base,)), Number(inf)))
                safe = Apply("select", (valued, s.base, Number(0.0)))
                body = substitute(body, {s.base: safe})
            hidden = Apply("select", (s.present, body, Number(REDUCTIONS[s.op].identity)))
            values = leaves.value(self._resolved(hidden), {**known, **found}, box)
            with np.errstate(all="ignore"):
                found[s.name] = _REDUCE[s.op](values)
        return found

    def _resolved(self, e: Expr) -> Expr:
        for sweep in reversed(range(self.derived.sweeps)):
            e = over_states(e, sweep, self.derived)
        return e

    def _merge(
        self,
        a: Mapping[str, _Array],
        b: Mapping[str, _Array],
        known: Mapping[str, _Array],
        leaves: _Leaves,
    ) -> dict[str, _Array]:
        both = {f"{k}_1": v for k, v in a.items()} | {f"{k}_2": v for k, v in b.items()}
        merges = {k: e for k, e in merge_states(self.derived).items() if k in a}
        return {k: leaves.value(self._resolved(e), {**known, **both}) for k, e in merges.items()}

    def _sample(
        self,
        leaves: Iterable[Expr],
        shape: tuple[int, ...],
        box: Mapping[str, range],
        varies: object = None,
    ) -> _Leaves:
        made = _Leaves({}, dict(box) if varies is None else {"p": box["p"]})
        for e in leaves:
            along = callable(varies) and varies(e)
            axes = ("p",)[: len(shape)] + ((self.derived.rank,) if along else ())
            size = (*shape, *([_KEYS] if along else []))
            made.values[e] = Value(self._numbers(e, size), axes)
        return made

    def _numbers(self, e: Expr, size: tuple[int, ...]) -> npt.NDArray[np.generic]:
        """Random values of a leaf's type, within what is known of it."""
        dtype = dtype_of(e, self.derived.cascade)
        if dtype == "bool":
            return self.random.random(size) < 0.5
        if dtype == "int":
            return self.random.integers(1 if isinstance(e, Extent) else 0, 8, size)
        x = self.random.normal(size=size)
        x = np.where(self.random.random(size) < 0.2, self.random.choice(_SPECIAL[1:], size), x)
        if not isinstance(e, Read):
            return x
        low, high = self.bounds.get(e.tensor, (-inf, inf))
        if e.tensor not in self.bounds:
            x = np.where(self.random.random(size) < 0.05, -inf, x)
        return np.clip(np.abs(x) if low >= 0 else x, low, high)


@dataclass(frozen=True, slots=True)
class _Leaves:
    """Arrays for the leaves of expressions, and the box that they fill."""

    values: dict[Expr, Value]
    box: dict[str, range]

    def value(
        self,
        e: Expr,
        more: Mapping[str, _Array] | None = None,
        box: Mapping[str, range] | None = None,
    ) -> _Array:
        """`e` at every point; absent points are NaN."""
        tensors, mapping = {}, dict[Expr, Expr]()
        for i, (leaf, known) in enumerate(self.values.items()):
            tensors[f"x{i}"] = known
            mapping[leaf] = Read(f"x{i}", tuple(Index(a) for a in known.axes))
        for r in reads(e):
            if more and r.tensor in more:
                tensors[r.tensor] = Value(more[r.tensor], ("p",))
                mapping[r] = Read(r.tensor, (Index("p"),))
        scope = Scope(tensors=tensors, box=box or self.box)
        found = evaluate(substitute(e, mapping), scope)
        data = np.asarray(found.data, dtype=np.float64)
        return data if found.present is None else np.where(found.present, data, np.nan)


_REDUCE = {
    "sum": lambda x: np.sum(x, axis=1),
    "max": lambda x: np.max(x, axis=1, initial=-inf),
    "min": lambda x: np.min(x, axis=1, initial=inf),
    "prod": lambda x: np.prod(x, axis=1),
    "any": lambda x: np.any(x, axis=1),
    "all": lambda x: np.all(x, axis=1),
}


def _leaves(exprs: Iterable[Expr]) -> tuple[Expr, ...]:
    """The outermost reads, coordinates, extents and params.

    An exact division is a leaf, too: of random numbers it would not be exact.
    """
    found: dict[Expr, None] = {}
    waiting = list(exprs)
    while waiting:
        match waiting.pop():
            case Apply(op, args) if op != "exactdiv":
                waiting.extend(args)
            case Number():
                pass
            case leaf:
                found[leaf] = None
    return tuple(found)


def _parts_of(s: State) -> tuple[Expr, ...]:
    return tuple(e for e in (s.body, s.present, s.base, s.unit) if e is not None)


def _base_of(body: Expr) -> Expr | None:
    """y of the factor f(a - y) with f from sums to products."""
    for e in subexprs(body):
        if isinstance(e, Apply) and OPS[e.op].maps == ("add", "mul"):
            x = e.args[0]
            return x.args[1] if isinstance(x, Apply) and x.op == "sub" else None
    return None


def _both(a: bool | None, b: bool | None) -> bool | None:
    return a and b if a is not None and b is not None else None


def _error(a: _Array, b: _Array) -> float:
    """The largest relative difference where `a` is finite."""
    usable = np.isfinite(a)
    if not usable.any():
        return 0.0
    with np.errstate(invalid="ignore"):
        off = np.abs(a - b)[usable] / np.maximum(1.0, np.abs(a[usable]))
    worst = float(off.max())
    return worst if isfinite(worst) else inf
