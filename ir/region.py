"""Find what to sweep: the reductions whose map would not fit in memory.

An attention holds a tensor (its map) that is larger than every input and output. The rank along
which that map is reduced last is swept, so the map only ever exists as a tile. No rank is known by
name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attnc.ir.cascade import Cascade, Einsum
from attnc.ir.expr import Apply, Expr, Index, Read
from attnc.ir.facts import Interval, bounds, param_bounds, param_key, reduced_bounds
from attnc.ir.inline import body, inline
from attnc.ir.ops import OPS
from attnc.ir.presence import split_presence
from attnc.ir.separate import factors, separate, terms
from attnc.ir.walk import children, index_ranks, output_ranks, reads, subexprs


@dataclass(frozen=True, slots=True)
class Region:
    """Reductions over `rank` to gather in common sweeps, in order of definition.

    `rows` are the ranks that all of them keep; `row` is the one to tile (None: a single row each).
    `contractions` are the products inside the map (`q k`), evaluated tile by tile.
    """

    rank: str
    row: str | None
    reductions: tuple[Einsum, ...]
    contractions: tuple[Einsum, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """A cascade with what the passes keep asking about it."""

    cascade: Cascade
    definitions: Mapping[str, Einsum]
    reductions: Mapping[str, Einsum]
    bodies: dict[Einsum, Expr] = field(default_factory=dict, compare=False, repr=False)

    def body(self, s: Einsum) -> Expr:
        """What `s` computes, in terms of inputs and reductions."""
        found = self.bodies.get(s)
        if found is None:
            found = self.bodies[s] = inline(body(s), self.definitions)
        return found

    def ranks(self, e: Expr) -> frozenset[str]:
        """All ranks on which a value depends, components counted as their parent."""
        found = {x.rank for x in subexprs(e) if isinstance(x, Index)}
        return frozenset(self.cascade.rank(r).parent or r for r in found)


def tensor_facts(scope: Scope) -> tuple[dict[str, Interval], frozenset[str]]:
    """Bounds of every tensor and param, and the tensors that hold no infinities.

    Those are sums of products of inputs.
    """
    known = {param_key(p.name): param_bounds(p) for p in scope.cascade.params}
    finite: set[str] = set()
    for s in scope.cascade.statements:
        if not isinstance(s, Einsum) or len(scope.cascade.producers(s.tensor)) > 1:
            continue
        found = bounds(s.expr, known)
        if s.reduce is not None:
            found = reduced_bounds(s.reduce.op, found)
            if s.reduce.op == "sum" and _is_product(s.expr, frozenset(s.reduce.ranks)):
                finite.add(s.tensor)
        known[s.tensor] = found
    return known, frozenset(finite)


def _is_product(e: Expr, reduced: frozenset[str]) -> bool:
    """Products along the reduced ranks; a bias inside the sum may be -inf, and the sum with it."""
    ops = {x.op for x in subexprs(e) if isinstance(x, Apply)}
    plain = all(OPS[o].kind == "arith" or o == "float" for o in ops)
    return plain and all(index_ranks(t) & reduced for t in terms(e))


def find_region(
    scope: Scope,
    used: tuple[Einsum, ...],
    tensors: Mapping[str, Interval],
    outermost: bool = True,
) -> Region | None:
    """The most downstream reduction whose map must not be stored, and all that sweep with it.

    `used` are the reductions that the wanted tensors need, in order of definition. None: no sweep
    is needed. What cannot be pulled apart comes first: a map that is *coupled* along the rank
    (masked, or normalised by another reduction over it), then one that is merely *nonlinear*, then
    a *linear* one, which could be reassociated. A prologue (not `outermost`) sweeps for coupled
    maps only: a layer of weights between two products is better left to plain matrix products.
    """
    finder = _Finder(scope, tensors)
    for kind in ("coupled", "nonlinear", "linear") if outermost else ("coupled",):
        for s in reversed(used):
            assert s.reduce is not None
            for rank in s.reduce.ranks:
                if kind in finder.kinds(s, rank):
                    return finder.region(s, rank, used)
    return None


def outermost_region(scope: Scope, tensors: Mapping[str, Interval]) -> Region | None:
    """The region that the plan of a cascade starts from; None too for what is not lowered."""
    c = scope.cascade
    if not all(isinstance(s, Einsum) and _is_plain(s) for s in c.statements):
        return None
    wanted = [
        scope.body(scope.definitions[t]) if t in scope.definitions else Read(t, ())
        for t in c.outputs
    ]
    needed = {s.tensor for e in wanted for s in lineage(scope, e)}
    return find_region(scope, tuple(s for t, s in scope.reductions.items() if t in needed), tensors)


def _is_plain(s: Einsum) -> bool:
    """Whether a statement writes at coordinates only: no step of an iteration."""
    return all(isinstance(i, Index) for i in s.indices)


@dataclass(frozen=True, slots=True)
class _Finder:
    scope: Scope
    tensors: Mapping[str, Interval]

    def kinds(self, s: Einsum, rank: str) -> frozenset[str]:
        """In what ways reducing `s` along `rank` meets a factor that is too large to store."""
        found: set[str] = set()
        for f in self._factors(s, rank):
            if self._fits(f):
                continue
            found.add("linear")
            if not isinstance(f, Read):
                found.add("nonlinear")
                coupled = self._masked(s, rank) or self._reduced_before(f, rank)
                if coupled or self._map_coupled_elsewhere(f, self.scope.body(s), rank):
                    found.add("coupled")
            elif self._masked(s, rank) or self._normalised(f, rank):
                found.add("coupled")
        return frozenset(found)

    def _factors(self, s: Einsum, rank: str) -> tuple[Expr, ...]:
        """The factors of the body that vary along `rank`, masks aside."""
        value, _ = split_presence(self.scope.body(s), self.tensors, frozenset())
        split = separate(value, lambda e: rank in self.scope.ranks(e), self.tensors)
        return factors(split.dependent)

    def _masks(self, s: Einsum, rank: str) -> tuple[Expr, ...]:
        """Conditions on coordinates and inputs that vary along `rank`."""
        _, conditions = split_presence(self.scope.body(s), self.tensors, frozenset())
        given = self.scope.cascade.input_names
        return tuple(
            c.holds
            for c in conditions
            if rank in self.scope.ranks(c.holds) and all(r.tensor in given for r in reads(c.holds))
        )

    def _masked(self, s: Einsum, rank: str) -> bool:
        return any(len(self.scope.ranks(c)) > 1 for c in self._masks(s, rank))

    def _reduced_before(self, f: Expr, rank: str) -> bool:
        return any(s.reduce and rank in s.reduce.ranks for s in lineage(self.scope, f))

    def _map_coupled_elsewhere(self, f: Expr, whole: Expr, rank: str) -> bool:
        """The same map is normalised along another rank (over the queries, say)."""
        maps = {r.tensor for r in reads(f) if r.tensor in self.scope.reductions}
        return any(
            s.reduce is not None
            and maps & {r.tensor for r in reads(self.scope.body(s))}
            and any(r != rank and "coupled" in self.kinds(s, r) for r in s.reduce.ranks)
            for s in lineage(self.scope, whole)
        )

    def _normalised(self, f: Read, rank: str) -> bool:
        """A sum of maps, each of which was coupled along `rank` already."""
        return any(
            s.reduce and rank in s.reduce.ranks and "coupled" in self.kinds(s, rank)
            for s in lineage(self.scope, f)
        )

    def _fits(self, f: Expr) -> bool:
        """No larger than some input or output: each read counts with the axes it is stored with."""
        size = self._stored_ranks(f)
        c = self.scope.cascade
        outputs = (set(output_ranks(p)) for o in c.outputs for p in c.producers(o))
        return any(size <= known for known in (*(set(t.ranks) for t in c.inputs), *outputs))

    def _stored_ranks(self, e: Expr) -> frozenset[str]:
        c = self.scope.cascade
        match e:
            case Read(tensor, _) if tensor in c.input_names:
                return frozenset(c.input(tensor).ranks)
            case Read(tensor, _):
                return frozenset(output_ranks(c.producers(tensor)[0]))
            case Index(rank):
                return frozenset({c.rank(rank).parent or rank})
            case _:
                return frozenset().union(*(self._stored_ranks(x) for x in children(e)))

    # the region around the reduction that was found --------------------------------------------

    def region(self, s: Einsum, rank: str, used: tuple[Einsum, ...]) -> Region:
        row = self._row(s, rank)
        needed = [r for r in used if self._joins(r, rank, row)]
        both = {rank} if row is None else {rank, row}
        inside = [
            c
            for r in needed
            for c in lineage(self.scope, self.scope.body(r))
            if c not in needed and both <= set(output_ranks(c))
        ]
        order = {r.tensor: i for i, r in enumerate(used)}
        contractions = sorted(dict.fromkeys(inside), key=lambda c: order[c.tensor])
        return Region(rank, row, tuple(needed), tuple(contractions))

    def _joins(self, r: Einsum, rank: str, row: str | None) -> bool:
        assert r.reduce is not None
        if rank not in r.reduce.ranks:
            return False
        body = self.scope.body(r)
        if row is not None:
            return row in self.scope.ranks(body)
        return not all(isinstance(f, Read) for f in self._factors(r, rank))

    def _row(self, s: Einsum, rank: str) -> str | None:
        """The rank to tile beside `rank`: kept by the map, absent from what streams past it."""
        maps = [f for f in self._factors(s, rank) if not self._fits(f)]
        kept = [r for r in output_ranks(s) if any(r in self.scope.ranks(f) for f in maps)]
        streamed = self._streamed(s, rank, maps)
        candidates = [r for r in kept if r not in streamed]
        if not candidates:
            return None
        beside = frozenset().union(*(self.scope.ranks(c) for c in self._masks(s, rank)))
        return max(candidates, key=lambda r: (r in beside, kept.index(r)))

    def _streamed(self, s: Einsum, rank: str, maps: list[Expr]) -> frozenset[str]:
        """The ranks of the operands that vary along `rank`: keys and values."""
        found = [r for f in self._factors(s, rank) if f not in maps for r in reads(f)]
        for c in lineage(self.scope, self.scope.body(s)):
            if c.reduce is not None and rank not in c.reduce.ranks:
                # A bias added inside the product does not vary along it: it is no operand.
                over = frozenset(c.reduce.ranks)
                inside = reads(self.scope.body(c))
                found += [r for r in inside if over & self.scope.ranks(r) and self._fits(r)]
        found = [r for r in found if rank in self.scope.ranks(r)]
        # An axis read at `m - n` moves with both; it ties neither.
        axes = [i for r in found for i in r.indices if rank not in self.scope.ranks(i)]
        return frozenset(r for i in axes for r in self.scope.ranks(i))


def lineage(scope: Scope, e: Expr) -> tuple[Einsum, ...]:
    """Every reduction that `e` depends on, nearest first."""
    found: dict[str, Einsum] = {}
    waiting = [e]
    while waiting:
        for r in reads(waiting.pop()):
            if r.tensor in scope.reductions and r.tensor not in found:
                found[r.tensor] = scope.reductions[r.tensor]
                waiting.append(scope.body(found[r.tensor]))
    return tuple(found.values())
