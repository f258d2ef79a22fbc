"""Bring nested reductions into one: sum(i) f[i] * (sum(j) x[i, j]) = sum(i, j) f[i] * x[i, j].

And with them their maps: f(a - l) * f(l - g) = f(a - g) for an f that turns sums into products, so
that a base which only a part of the points shares (a tile's maximum) cancels. Both follow from what
`ir.ops` declares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import TypeAlias, TypeGuard

from attnc.ir.cascade import Cascade, Einsum, Reduction
from attnc.ir.expr import Apply, Expr, Index, Read
from attnc.ir.facts import Interval, may_be_minus_inf, nonnegative
from attnc.ir.inline import body, inline, pointwise_definitions
from attnc.ir.ops import OPS, REDUCTIONS
from attnc.ir.presence import conjunction, conjuncts, split_presence
from attnc.ir.region import Scope, tensor_facts
from attnc.ir.separate import add_up, cancel, factors, multiply, negate, terms
from attnc.ir.walk import (
    iteration_ranks,
    reads,
    statement_reads,
    subexprs,
    substitute_indices,
    with_children,
)

_Split: TypeAlias = Callable[[Expr], tuple[Expr, ...]]
_Join: TypeAlias = Callable[[tuple[Expr, ...]], Expr]
# How an operator that distributes over a reduction is taken apart and put together.
_OPERANDS: dict[str, tuple[_Split, _Join]] = {
    "mul": (factors, multiply),
    "add": (lambda e: summands(e), add_up),
}
# A product of k sums of two has 2^k terms: beyond this many nothing is distributed.
_MOST_TERMS = 256


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a cascade's tensors: how each is made, bounds, and which are finite.

    A maximum of finite values is finite: a reduced rank is taken to have a point.
    """

    scope: Scope
    bounds: Mapping[str, Interval]
    finite: frozenset[str]


def find_known(cascade: Cascade) -> Known:
    """The facts of `region.tensor_facts`; scaled products and extremes are finite, too."""
    reductions = {
        s.tensor: s for s in cascade.statements if isinstance(s, Einsum) and s.reduce is not None
    }
    scope = Scope(cascade, pointwise_definitions(cascade), reductions)
    known, finite = tensor_facts(scope)
    for s in reductions.values():
        if _is_finite(s, scope.body(s), known, finite):
            finite |= {s.tensor}
    return Known(scope, known, finite)


def _is_finite(
    s: Einsum, full: Expr, known: Mapping[str, Interval], finite: frozenset[str]
) -> bool:
    assert s.reduce is not None
    if REDUCTIONS[s.reduce.op].combine == "add":
        varying = (x for x in subexprs(s.expr) if isinstance(x, Apply) and reads(x))
        return all(OPS[x.op].kind in ("arith", "cast") for x in varying)
    value, conditions = split_presence(full, known, finite)
    idempotent = REDUCTIONS[s.reduce.op].idempotent
    return idempotent and not conditions and not may_be_minus_inf(value, finite)


def dependents(known: Known, direct: Callable[[Read], bool]) -> frozenset[str]:
    """The tensors that have a read for which `direct` holds, or read a tensor that has."""
    statements = known.scope.cascade.statements
    found: set[str] = set()
    grown = True
    while grown:
        new = {
            s.tensor
            for s in statements
            if s.tensor not in found
            and any(direct(r) or r.tensor in found for r in statement_reads(s))
        }
        found |= new
        grown = bool(new)
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Unnested:
    """A reduction brought into one, and the bases that cancelled on the way."""

    statement: Einsum
    cancelled: tuple[Expr, ...]


def unnest(
    s: Einsum,
    dissolved: frozenset[str],
    known: Known,
    settled: Callable[[Read], bool] = lambda _: False,
) -> Unnested:
    """The reduction `s` without reads of `dissolved` tensors, as far as the laws permit.

    Pointwise ones are put in, reductions become part of `s`, maps of sums merge where that is exact
    (see `_cancels`). `settled` tells which reads are finite beside those of `known.finite`.
    """
    assert s.reduce is not None
    scope = known.scope
    definitions = {t: d for t, d in scope.definitions.items() if t in dissolved}
    inner = {t: r for t, r in scope.reductions.items() if t in dissolved}
    value, where = _lift(inline(body(s), definitions))
    work = _Unnesting(s, known, settled, definitions, inner, value, where, s.reduce.ranks)
    work.absorb()
    work.merge_maps()
    statement = replace(
        s,
        expr=work.value,
        reduce=Reduction(s.reduce.op, work.ranks),
        where=conjunction(work.where) if work.where else None,
    )
    return Unnested(statement, tuple(work.cancelled))


@dataclass(slots=True)
class _Unnesting:
    """`value` where all of `where`, reduced over `ranks`: what has become of `statement`."""

    statement: Einsum
    known: Known
    settled: Callable[[Read], bool]
    definitions: Mapping[str, Einsum]
    inner: Mapping[str, Einsum]
    value: Expr
    where: tuple[Expr, ...]
    ranks: tuple[str, ...]
    cancelled: list[Expr] = field(default_factory=list)

    @property
    def op(self) -> str:
        assert self.statement.reduce is not None
        return self.statement.reduce.op

    # reductions ------------------------------------------------------------------------------

    def absorb(self) -> None:
        """Put in each inner reduction that stands alone, or as an operand that distributes.

        Over nothing it is the identity, which adds nothing; so do its absent points.
        """
        while (found := next(self._absorbable(), None)) is not None:
            inner, value = found
            assert inner.reduce is not None
            self.ranks += inner.reduce.ranks
            self.value, more = _lift(value)
            self.where += more

    def _absorbable(self) -> Iterator[tuple[Einsum, Expr]]:
        """Inner reductions, each with the value that has it dissolved."""
        if (inner := self._fitting(self.value)) is not None:
            yield inner, self._body(inner, self.value)
        for declared in REDUCTIONS[self.op].distributed:
            operator = declared.removesuffix("+")
            if operator not in _OPERANDS:
                continue
            split, join = _OPERANDS[operator]
            parts = split(self.value)
            for i, part in enumerate(parts):
                rest = join(parts[:i] + parts[i + 1 :])
                legal = operator == declared or nonnegative(rest, self.known.bounds)
                if (inner := self._fitting(part)) is not None and legal:
                    yield inner, join((*parts[:i], self._body(inner, part), *parts[i + 1 :]))

    def _fitting(self, e: Expr) -> Einsum | None:
        """The inner reduction that `e` reads, if it has the same operator and ranks of its own."""
        inner = self.inner.get(e.tensor) if isinstance(e, Read) else None
        if inner is None or inner.reduce is None or inner.reduce.op != self.op:
            return None
        used = {*iteration_ranks(self.statement), *self.ranks}
        return None if used & set(inner.reduce.ranks) else inner

    def _body(self, inner: Einsum, at: Expr) -> Expr:
        assert isinstance(at, Read)
        pairs = zip(inner.indices, at.indices, strict=True)
        mapping = {i.rank: x for i, x in pairs if isinstance(i, Index)}
        return substitute_indices(inline(body(inner), self.definitions), mapping)

    # maps ------------------------------------------------------------------------------------

    def merge_maps(self) -> None:
        """f(a) * f(b) = f(a + b) in the body of a sum, where a term of a and b cancels."""
        fs = factors(self.value)
        for name in dict.fromkeys(f.op for f in fs if isinstance(f, Apply)):
            if OPS[name].maps != ("add", "mul") or REDUCTIONS[self.op].combine != "add":
                continue
            maps = [f for f in fs if isinstance(f, Apply) and f.op == name]
            exponents = [summands(f.args[0]) for f in maps]
            every = tuple(t for e in exponents for t in e)
            left = cancel(every)
            gone = [t for t in dict.fromkeys(every) if every.count(t) > left.count(t)]
            bases = [t for t in gone if not _is_negative(t) and negate(t) in gone]
            if bases and all(self._cancels(t, name, exponents) for t in bases):
                self.cancelled += bases
                merged = Apply(name, (_difference(left),)) if left else multiply(())
                place = fs.index(maps[0])
                before = tuple(f for f in fs[:place] if f not in maps)
                after = tuple(f for f in fs[place:] if f not in maps)
                fs = (*before, merged, *after)
        self.value = multiply(fs)

    def _cancels(self, base: Expr, name: str, exponents: list[tuple[Expr, ...]]) -> bool:
        """Whether f(a - base) * f(base - g) and f(a - g) add the same to a sum.

        They do for a finite base. So they do for the maximum over a group of points to which a
        belongs, or a positive multiple of both: where it is -inf, every a is -inf or absent, and
        f(-inf) = 0 adds nothing on either side; where it is inf, both are NaN.
        """
        if self._is_finite(base):
            return True
        scale = [f for f in factors(base) if not reads(f)]
        shared = [f for f in factors(base) if reads(f)]
        group = self.inner.get(shared[0].tensor) if isinstance(shared[0], Read) else None
        vanishes = OPS[name].range[0] == 0 and OPS[name].rising == (1,)
        if group is None or group.reduce is None or len(shared) > 1 or not vanishes:
            return False
        value, where = _lift(self._body(group, shared[0]))
        same_points = set(where) <= set(self.where)
        highest = REDUCTIONS[group.reduce.op].identity == -inf
        needed = {negate(base), *summands(multiply((*scale, value)))}
        below = any(set(map(_key, needed)) <= set(map(_key, e)) for e in exponents)
        return same_points and highest and below and nonnegative(multiply(tuple(scale)), {})

    def _is_finite(self, base: Expr) -> bool:
        """Present and finite at every point, so that nothing is lost with it."""
        tensors = frozenset(r.tensor for r in reads(base))
        finite = all(r.tensor in self.known.finite or self.settled(r) for r in reads(base))
        _, conditions = split_presence(base, self.known.bounds, tensors)
        return finite and not conditions and not may_be_minus_inf(base, tensors)


def summands(e: Expr) -> tuple[Expr, ...]:
    """The terms of a sum, each with its sign outside the product; `e` itself if they are many."""
    return tuple(map(_signed, terms(e))) if _count(e) <= _MOST_TERMS else (e,)


def _count(e: Expr) -> int:
    """How many terms `e` has once products are distributed over sums."""
    match e:
        case Apply("add" | "sub", (a, b)):
            return _count(a) + _count(b)
        case Apply("mul", (a, b)):
            return _count(a) * _count(b)
        case Apply("neg" | "div", (a, *_)):
            return _count(a)
        case _:
            return 1


def _signed(term: Expr) -> Expr:
    fs = factors(term)
    negative = [f for f in fs if _is_negative(f)]
    if not negative:
        return term
    bare = _signed(multiply(tuple(f.args[0] if _is_negative(f) else f for f in fs)))
    return negate(bare) if len(negative) % 2 else bare


def _key(term: Expr) -> tuple[bool, tuple[str, ...]]:
    """Equal for products of the same factors, in whatever order they are written."""
    bare = negate(term) if _is_negative(term) else term
    return _is_negative(term), tuple(sorted(map(repr, factors(bare))))


def _lift(e: Expr) -> tuple[Expr, tuple[Expr, ...]]:
    """`e` without the `given` of operands whose absence makes all of it absent, and these."""
    match e:
        case Apply("given", (x, condition)):
            value, where = _lift(x)
            return value, (*where, *conjuncts(condition))
        case Apply(op, args) if OPS[op].kind not in ("select", "meta"):
            lifted = [_lift(a) for a in args]
            where = tuple(dict.fromkeys(c for _, cs in lifted for c in cs))
            return with_children(e, tuple(v for v, _ in lifted)), where
        case _:
            return e, ()


def _difference(summands: tuple[Expr, ...]) -> Expr:
    """The sum with what is subtracted last, so that -inf - -inf stays recognisable."""
    return add_up(tuple(sorted(summands, key=_is_negative)))


def _is_negative(e: Expr) -> TypeGuard[Apply]:
    return isinstance(e, Apply) and e.op == "neg"
