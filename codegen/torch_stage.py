"""Statements that run as torch calls: plain products as einsum, the rest by broadcasting.

They are computed in float32. The result is stored in the inputs' type if a kernel multiplies tiles
of it as they are, or if it is an output with a feature rank; else it stays float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from string import ascii_letters

from attnc.codegen.address import stays_inside
from attnc.codegen.code import ATOM, COMPARE, SIGN, TENSOR_INFIX, Code
from attnc.codegen.host import Host
from attnc.codegen.names import Namer
from attnc.ir.cascade import Cascade, Einsum, Reduction
from attnc.ir.expr import Apply, Expr, Extent, Index, Number, Read
from attnc.ir.facts import Interval
from attnc.ir.inline import pointwise_definitions
from attnc.ir.ops import REDUCTIONS
from attnc.ir.plan import Plan, TorchStage
from attnc.ir.presence import TRUE, conjunction, split_presence
from attnc.ir.region import Scope, tensor_facts
from attnc.ir.separate import factors
from attnc.ir.types import dtype_of
from attnc.ir.walk import index_ranks, iteration_ranks, output_ranks, reads

FUNCTIONS: Mapping[str, str] = {
    **{
        f: f"torch.{f}"
        for f in (
            "exp exp2 log log2 log1p sqrt rsqrt abs sign tanh sigmoid relu erf sin cos".split()
        )
    },
    "silu": "torch.nn.functional.silu",
    "gelu": "torch.nn.functional.gelu",
}
_EXTREME = '''
def _extreme(x: torch.Tensor, dims: tuple[int, ...], largest: bool) -> torch.Tensor:
    """Maximum or minimum along `dims`; -inf or inf over nothing."""
    if all(x.shape[d] for d in dims):
        return x.amax(dims) if largest else x.amin(dims)
    return x.sum(dims).fill_(-math.inf if largest else math.inf)
'''


@dataclass(slots=True)
class TorchCode:
    """Writes torch stages of one plan. `native` tensors are stored in the inputs' type."""

    plan: Plan
    names: Namer
    host: Host
    native: frozenset[str]
    lead: str
    extreme: bool = False
    known: Mapping[str, Interval] = field(default_factory=dict)
    finite: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        c = self.plan.cascade
        statements = [s for s in c.statements if isinstance(s, Einsum)]
        reductions = {s.tensor: s for s in statements if s.reduce is not None}
        self.known, self.finite = tensor_facts(Scope(c, pointwise_definitions(c), reductions))

    @property
    def cascade(self) -> Cascade:
        return self.plan.cascade

    @property
    def helpers(self) -> tuple[str, ...]:
        return (_EXTREME.strip(),) if self.extreme else ()

    def lines(self, stage: TorchStage) -> tuple[str, ...]:
        """The lines that compute one statement."""
        s = stage.statement
        body = s.expr if s.where is None else Apply("given", (s.expr, s.where))
        value, conditions = split_presence(body, self.known, self.finite)
        present = conjunction(tuple(c.holds for c in conditions))
        name = self.names.name(("tensor", s.tensor), s.tensor, f"{s.tensor}_")
        if present == TRUE and _is_product(s, value, self.cascade):
            lines: list[str] = []
            product = self._einsum(s, value, lines)
            lines.append(f"{name} = {product}")
        else:
            writer = _Broadcast(self, iteration_ranks(s))
            text = writer.whole(value, present, s)
            lines = [*writer.lines, f"{name} = {text}"]
        if s.tensor in self.native and dtype_of(s.expr, self.cascade) == "float":
            lines.append(f"{name} = {name}.to({self.lead}.dtype)")
        return tuple(lines)

    def is_stored_native(self, tensor: str) -> bool:
        """Whether a tensor may have another type than float32."""
        return tensor in self.native or tensor in self.cascade.input_names

    def _einsum(self, s: Einsum, value: Expr, lines: list[str]) -> str:
        """The sum of the factors' product, each factor over the ranks that it has."""
        ranks = iteration_ranks(s)
        letter = dict(zip(ranks, _letters(ranks), strict=True))
        terms, tensors = [], []
        for f in factors(value):
            own = tuple(r for r in ranks if r in ranks_of(f, ranks, self.cascade))
            if isinstance(f, Read) and all(isinstance(i, Index) for i in f.indices):
                own = tuple(i.rank for i in f.indices if isinstance(i, Index))
                cast = ".float()" if self.is_stored_native(f.tensor) else ""
                tensors.append(f"{self.tensor(f.tensor)}{cast}")
            else:
                writer = _Broadcast(self, own)
                tensors.append(writer.write(f).text)
                lines += writer.lines
            terms.append("".join(letter[r] for r in own))
        result = "".join(letter[r] for r in output_ranks(s))
        return f'torch.einsum("{",".join(terms)}->{result}", {", ".join(tensors)})'

    def tensor(self, name: str) -> str:
        return self.names.name(("tensor", name), name, f"{name}_")


def _letters(ranks: tuple[str, ...]) -> list[str]:
    """A letter per rank, its own where it has one letter."""
    free = iter(c for c in ascii_letters if c not in ranks)
    return [r if len(r) == 1 and r.isascii() else next(free) for r in ranks]


def ranks_of(e: Expr, axes: tuple[str, ...], cascade: Cascade) -> frozenset[str]:
    """Those of the axes along which a value varies, be it by a component or a parent of theirs."""
    found = index_ranks(e)
    return frozenset(
        r
        for r in axes
        if r in found
        or cascade.rank(r).parent in found
        or not found.isdisjoint(cascade.rank(r).components)
    )


def _is_product(s: Einsum, value: Expr, cascade: Cascade) -> bool:
    """A sum of products in which every rank is some factor's, and no factor is constant."""
    if s.reduce is None or s.reduce.op != "sum":
        return False
    axes = iteration_ranks(s)
    found = [ranks_of(f, axes, cascade) for f in factors(value)]
    kinds = {dtype_of(f, cascade) for f in factors(value)}
    return all(found) and frozenset().union(*found) == set(axes) and kinds == {"float"}


@dataclass(slots=True)
class _Broadcast:
    """One statement over `axes`: every tensor gets all of them, of length 1 if it is constant."""

    code: TorchCode
    axes: tuple[str, ...]
    lines: list[str] = field(default_factory=list)

    def whole(self, value: Expr, present: Expr, s: Einsum) -> str:
        """The statement's value with all its axes, reduced where it says so."""
        empty = self.code.host.write(Number(REDUCTIONS[s.reduce.op].identity if s.reduce else 0.0))
        text, ranks = self._tensor(value), ranks_of(value, self.axes, self.code.cascade)
        if present != TRUE:
            text = f"torch.where({self._tensor(present)}, {text}, {empty.text})"
            ranks |= ranks_of(present, self.axes, self.code.cascade)
        fresh = present != TRUE or (
            isinstance(value, Apply) and value.op not in ("float", "stopgrad")
        )
        if ranks < set(self.axes):
            shape = ", ".join(self._extent(r) for r in self.axes)
            text = f"torch.broadcast_to({text}, ({shape},))".replace(",,", ",")
            fresh = False
        if s.reduce is not None:
            return self._reduced(text, s.reduce)
        # what the op returns must be memory of its own
        return text if fresh else f"torch.clone({text}, memory_format=torch.contiguous_format)"

    def _reduced(self, text: str, r: Reduction) -> str:
        dims = tuple(self.axes.index(x) for x in r.ranks)
        match r.op:
            case "max" | "min" as op:
                self.code.extreme = True
                return f"_extreme({text}, {dims}, {op == 'max'})"
            case "prod":
                for d in sorted(dims, reverse=True):
                    text = f"torch.prod({text}, {d})"
                return text
            case op:
                return f"torch.{op}({text}, {dims})"

    def _extent(self, rank: str) -> str:
        return self.code.host.write(Extent(rank)).text

    def _tensor(self, e: Expr) -> str:
        text = self.write(e).text
        if self._is_scalar(e):
            return f"torch.tensor({text}, device={self.code.lead}.device)"
        return text

    def _is_scalar(self, e: Expr) -> bool:
        return not index_ranks(e) and not reads(e)

    def write(self, e: Expr) -> Code:
        if self._is_scalar(e):
            return self.code.host.write(e)
        match e:
            case Index(rank):
                return self._coordinate(rank)
            case Read():
                return self._read(e)
            case Apply(op, args):
                return self._apply(op, args)
            case _:
                raise AssertionError(e)

    def _coordinate(self, rank: str) -> Code:
        """A rank's coordinates along its axis."""
        if rank not in self.axes:
            return self._component(rank)
        name = self.code.names.name(("at", rank, self.axes), f"at_{rank}")
        view = ", ".join("-1" if r == rank else "1" for r in self.axes)
        line = f"{name} = torch.arange({self._extent(rank)}, device={self.code.lead}.device)"
        line += f".view({view})" if len(self.axes) > 1 else ""
        if line not in self.lines:
            self.lines.append(line)
        return Code(name)

    def _component(self, rank: str) -> Code:
        known = self.code.cascade.rank(rank)
        if known.parent is None:
            first, *rest = known.components
            whole: Expr = Index(first)
            for r in rest:
                whole = Apply("add", (Apply("mul", (whole, Extent(r))), Index(r)))
            return self.write(whole)
        parts = self.code.cascade.rank(known.parent).components
        whole = Index(known.parent)
        for r in parts[parts.index(rank) + 1 :][::-1]:
            whole = Apply("floordiv", (whole, Extent(r)))
        return self.write(whole if rank == parts[0] else Apply("mod", (whole, Extent(rank))))

    def _read(self, e: Read) -> Code:
        name = self.code.tensor(e.tensor)
        native = dtype_of(e, self.code.cascade) == "float" and self.code.is_stored_native(e.tensor)
        cast = ".float()" if native else ""
        along = [
            tuple(r for r in self.axes if r in ranks_of(i, self.axes, self.code.cascade))
            for i in e.indices
        ]
        ranks = [r for rs in along for r in rs]
        if any(len(rs) != 1 for rs in along) or len(set(ranks)) < len(ranks):
            return Code(f"{name}[{', '.join(self._indices(e))}]{cast}")
        for i, (index, rank) in enumerate(zip(e.indices, ranks, strict=True)):
            if index != Index(rank):
                name += f"[{':, ' * i}{self._selection(e, i, rank)}]"
        order = sorted(range(len(ranks)), key=lambda i: self.axes.index(ranks[i]))
        if order != list(range(len(ranks))):
            name += f".permute({', '.join(map(str, order))})"
        if len(ranks) < len(self.axes) and ranks:
            name += f"[{', '.join(':' if r in ranks else 'None' for r in self.axes)}]"
        return Code(name + cast)

    def _selection(self, e: Read, axis: int, rank: str) -> str:
        """An index that depends on one rank alone, along its axis."""
        line = _Broadcast(self.code, (rank,))
        text = line._index(e, axis)
        self.lines += [x for x in line.lines if x not in self.lines]
        return text

    def _indices(self, e: Read) -> list[str]:
        return [self._index(e, i) for i in range(len(e.indices))]

    def _index(self, e: Read, axis: int) -> str:
        index, rank = e.indices[axis], self._tensor_axes(e.tensor)[axis]
        text = self._tensor(index)
        if stays_inside(index, rank, self.code.cascade, {}):
            return text
        # what lies outside is masked later
        return f"({text}).clamp(0, max({self._extent(rank)} - 1, 0))"

    def _tensor_axes(self, tensor: str) -> tuple[str, ...]:
        c = self.code.cascade
        if tensor in c.input_names:
            return c.input(tensor).ranks
        return output_ranks(c.producers(tensor)[0])

    def _apply(self, op: str, args: tuple[Expr, ...]) -> Code:
        match op:
            case "float":
                return Code(f"{self.write(args[0]).inside(ATOM)}.float()")
            case "stopgrad":
                return self.write(args[0])
            case "neg":
                return Code(f"-{self.write(args[0]).inside(SIGN)}", SIGN)
            case "not":
                return Code(f"~{self.write(args[0]).inside(ATOM)}", SIGN)
            case "pow":
                return Code(f"torch.pow({', '.join(self.write(x).text for x in args)})")
            case "min" | "max":
                return self._bounded(op, *args)
            case "clamp":
                return self._bounded("min", Apply("max", args[:2]), args[2])
            case "select":
                test, then, other = (self.write(x).text for x in args)
                if self._is_scalar(args[0]):
                    return Code(f"({then} if {test} else {other})")
                return Code(f"torch.where({test}, {then}, {other})")
            case "softplus":
                x = self.write(args[0]).text
                return Code(f"torch.logaddexp({x}, torch.zeros_like({x}))")
            case _ if op in TENSOR_INFIX:
                sign, binds = TENSOR_INFIX[op]
                a, b = (self.write(x) for x in args)
                left = a.inside(binds + (binds == COMPARE))
                return Code(f"{left} {sign} {b.inside(binds + 1)}", binds)
            case _:
                return Code(f"{FUNCTIONS[op]}({self.write(args[0]).text})")

    def _bounded(self, op: str, a: Expr, b: Expr) -> Code:
        """torch.minimum takes no Python scalars."""
        if self._is_scalar(a):
            a, b = b, a
        if self._is_scalar(b):
            return Code(f"{self.write(a).inside(ATOM)}.clamp({op_bound(op)}={self.write(b).text})")
        return Code(f"torch.{op}imum({self.write(a).text}, {self.write(b).text})")


def op_bound(op: str) -> str:
    """The bound that makes clamp a minimum (its maximum) or a maximum."""
    return "max" if op == "min" else "min"
