"""A mask over boxes of points as torch code: whether some point, whether every point is visible.

Interval arithmetic written out: an integer is its least and greatest value over a box, a condition
whether it may hold somewhere and whether it surely holds everywhere. What the arithmetic cannot
bound may hold somewhere and is not sure to hold everywhere, which is always safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attnc.codegen.code import AND, ATOM, BAR, COMPARE, PRODUCT, SIGN, SUM, Code
from attnc.codegen.mask_scope import MaskScope
from attnc.codegen.text import comment
from attnc.ir.expr import Apply, Expr, Index, Read
from attnc.ir.show import show_expr

ALWAYS, NEVER = Code("True"), Code("False")
# Longer texts get a name, of this kind.
_SHORT = 26
WISHES: Mapping[str, str] = {
    "add": "sum",
    "sub": "gap",
    "mul": "product",
    "floordiv": "block",
    "mod": "rest",
    "abs": "distance",
    "min": "bound",
    "max": "bound",
    "clamp": "bound",
}


@dataclass(frozen=True, slots=True)
class Span:
    """The least and the greatest value of an integer; `fixed`: a Python number, not a tensor."""

    low: Code
    high: Code
    fixed: bool = False

    @property
    def is_point(self) -> bool:
        """Whether it has one value in a box."""
        return self.low == self.high


@dataclass(frozen=True, slots=True)
class Truth:
    """Whether a condition may hold at some point, whether it surely holds at every point."""

    some: Code
    every: Code
    fixed: bool = False


UNKNOWN = Truth(ALWAYS, NEVER)


class Unbounded(Exception):
    """An integer whose values the arithmetic does not bound."""


@dataclass(slots=True)
class BoundsWriter:
    """Writes conditions over boxes, and the `lines` that name what they share.

    places: the first and last value of each coordinate in the box
    groups: of coordinates whose places are a step apart: names of the residue class, of the step
    """

    scope: MaskScope
    places: Mapping[str, Span]
    groups: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    helpers: set[str] = field(default_factory=set)
    known: dict[Expr, Span] = field(default_factory=dict)

    def truth(self, e: Expr) -> Truth:
        """A condition over a box."""
        if self.scope.is_fixed(e):
            text = self.scope.fixed(e)
            return Truth(text, text, fixed=True)
        try:
            return self._truth(e)
        except Unbounded:
            return UNKNOWN

    def _truth(self, e: Expr) -> Truth:
        match e:
            case Read():
                at = self.span(e)
                return Truth(compare(at.high, ">", Code("0")), compare(at.low, ">", Code("0")))
            case Apply("and", (a, b)):
                x, y = self.truth(a), self.truth(b)
                return Truth(both(x.some, y.some), both(x.every, y.every))
            case Apply("or", (a, b)):
                x, y = self.truth(a), self.truth(b)
                return Truth(either(x.some, y.some), either(x.every, y.every))
            case Apply("not", (a,)):
                x = self.truth(a)
                return Truth(self._not(x.every, x.fixed), self._not(x.some, x.fixed))
            case Apply("select", (test, a, b)):
                return self._chosen(self.truth(test), self.truth(a), self.truth(b))
            case Apply("lt" | "le" | "gt" | "ge" | "eq" | "ne" as op, (a, b)):
                if self.scope.dtype(a) == self.scope.dtype(b) == "int":
                    return self._compared(op, self.span(a), self.span(b))
                if self.scope.dtype(a) == self.scope.dtype(b) == "bool":
                    return self._same(op, self.truth(a), self.truth(b))
        return UNKNOWN

    def _chosen(self, test: Truth, a: Truth, b: Truth) -> Truth:
        if test.fixed:
            some, every = (
                x if x == y else Code(f"({x.text} if {test.some.text} else {y.text})")
                for x, y in ((a.some, b.some), (a.every, b.every))
            )
            return Truth(some, every)
        not_some, not_every = (self._not(x, False) for x in (test.some, test.every))
        return Truth(
            either(both(test.some, a.some), both(not_every, b.some)),
            both(either(not_some, a.every), either(test.every, b.every)),
        )

    def _same(self, op: str, a: Truth, b: Truth) -> Truth:
        """Two conditions that are equal, or that are not."""
        if op not in ("eq", "ne"):
            return UNKNOWN
        no_a, no_b = (
            Truth(self._not(x.every, x.fixed), self._not(x.some, x.fixed)) for x in (a, b)
        )
        other, no_other = (b, no_b) if op == "eq" else (no_b, b)
        return Truth(
            either(both(a.some, other.some), both(no_a.some, no_other.some)),
            either(both(a.every, other.every), both(no_a.every, no_other.every)),
        )

    def _compared(self, op: str, a: Span, b: Span) -> Truth:
        match op:
            case "gt" | "ge":
                return self._compared({"gt": "lt", "ge": "le"}[op], b, a)
            case "eq":
                return self._equal(a, b)
            case "ne":
                x = self._equal(a, b)
                return Truth(self._not(x.every, False), self._not(x.some, False))
            case _:
                sign = {"lt": "<", "le": "<="}[op]
                return Truth(compare(a.low, sign, b.high), compare(a.high, sign, b.low))

    def _equal(self, a: Span, b: Span) -> Truth:
        if a.is_point and b.is_point:
            same = compare(a.low, "==", b.low)
            return Truth(same, same)
        some = both(compare(a.low, "<=", b.high), compare(b.low, "<=", a.high))
        return Truth(some, both(compare(a.low, "==", b.high), compare(a.high, "==", b.low)))

    def _not(self, x: Code, fixed: bool) -> Code:
        if x in (ALWAYS, NEVER):
            return NEVER if x == ALWAYS else ALWAYS
        return Code(f"(not {x.inside(ATOM)})") if fixed else Code(f"~{x.inside(ATOM)}", SIGN)

    # integers ----------------------------------------------------------------------------------

    def span(self, e: Expr) -> Span:
        """The values of an integer over a box. Raises Unbounded."""
        found = self.known.get(e)
        if found is None:
            found = self.known[e] = self._named(e, self._span(e))
        return found

    def _named(self, e: Expr, s: Span) -> Span:
        """Under names of its own, if it is long."""
        if s.fixed or max(len(s.low.text), len(s.high.text)) <= _SHORT:
            return s
        if s.is_point:
            at = Code(self.scope.local(self._wish(e)))
            self._note(e)
            self.lines.append(f"{at.text} = {s.low.text}")
            return Span(at, at)
        low, high = (Code(self.scope.local(f"{self._wish(e)}_{x}")) for x in ("low", "high"))
        self._note(e)
        self.lines += [f"{low.text} = {s.low.text}", f"{high.text} = {s.high.text}"]
        return Span(low, high)

    def _bounded(self, e: Expr, call: str) -> Span:
        """Names for the least and greatest value that a call returns."""
        low, high = (Code(self.scope.local(f"{self._wish(e)}_{x}")) for x in ("low", "high"))
        self._note(e)
        self.lines.append(f"{low.text}, {high.text} = {call}")
        return Span(low, high)

    def _wish(self, e: Expr) -> str:
        """What an integer might be called."""
        match e:
            case Read(tensor, indices):
                moving = [i for i in indices if not self.span(i).is_point]
                plain = [i.rank for i in moving if isinstance(i, Index)]
                return "_".join([tensor.lower(), *(plain if len(plain) == len(moving) else ())])
            case Apply(op, _):
                return WISHES.get(op, "value")
        return "value"

    def _note(self, e: Expr) -> None:
        if not isinstance(e, Read):
            self.lines.append(f"# {comment(show_expr(e), 88)}")

    def _span(self, e: Expr) -> Span:
        if self.scope.is_fixed(e):
            text = self.scope.fixed(e)
            return Span(text, text, fixed=True)
        match e:
            case Index(rank):
                return self._place(rank)
            case Read():
                return self._read(e)
            case Apply("add", (a, b)):
                x, y = self.span(a), self.span(b)
                return Span(arith(x.low, "+", y.low), arith(x.high, "+", y.high))
            case Apply("sub", (a, b)):
                x, y = self.span(a), self.span(b)
                return Span(arith(x.low, "-", y.high), arith(x.high, "-", y.low))
            case Apply("neg", (a,)):
                x = self.span(a)
                low, high = (Code(f"-{c.inside(SIGN)}", SIGN) for c in (x.high, x.low))
                return Span(low, high)
            case Apply("mul", (a, b)):
                return self._product(e, a, b)
            case Apply("floordiv" | "exactdiv", (a, b)):
                return self._quotient(self.span(a), b)
            case Apply("mod", (Index(rank), b)) if rank in self.groups:
                return self._group(e, rank, self._divisor(b))
            case Apply("mod", (a, b)):
                return self._rest(e, self.span(a), b)
            case Apply("min" | "max" as op, (a, b)):
                return self._extreme(op, self.span(a), self.span(b))
            case Apply("clamp", (a, least, most)):
                raised = self._extreme("max", self.span(a), self.span(least))
                return self._extreme("min", raised, self.span(most))
            case Apply("abs", (a,)):
                return self._abs(e, self.span(a))
            case Apply("select", (test, a, b)):
                return self._either(self.truth(test), self.span(a), self.span(b))
        raise Unbounded

    def _place(self, rank: str) -> Span:
        if rank in self.places:
            return self.places[rank]
        whole = self.scope.row_major(rank)
        if whole is None:
            raise Unbounded
        return self.span(whole)

    def _product(self, e: Expr, a: Expr, b: Expr) -> Span:
        if a == b:
            x = self.span(Apply("abs", (a,)))
            return Span(arith(x.low, "*", x.low), arith(x.high, "*", x.high))
        if self.scope.bounds(a)[0] >= 0 and self.scope.bounds(b)[0] >= 0:
            x, y = self.span(a), self.span(b)
            return Span(arith(x.low, "*", y.low), arith(x.high, "*", y.high))
        self.helpers.add("_product")
        return self._bounded(e, f"_product({self._pair(self.span(a))}, {self._pair(self.span(b))})")

    def _quotient(self, x: Span, by: Expr) -> Span:
        d = self._divisor(by)
        return Span(arith(x.low, "//", d), arith(x.high, "//", d))

    def _rest(self, e: Expr, x: Span, by: Expr) -> Span:
        d = self._divisor(by)
        if x.is_point:
            rest = arith(x.low, "%", d)
            return Span(rest, rest)
        self.helpers.add("_rest")
        return self._bounded(e, f"_rest({self._pair(x)}, {d.text})")

    def _group(self, e: Expr, rank: str, by: Code) -> Span:
        """The remainder of a coordinate with a step: its group's, where the step is the divisor."""
        group, step = self.groups[rank]
        at = self.places[rank]
        self.helpers.add("_rest")
        rest = f"_rest({self._pair(at)}, {by.text})"
        return self._bounded(e, f"{group} if {step} == {by.text} else {rest}")

    def _divisor(self, by: Expr) -> Code:
        d = self.span(by)
        if self.scope.bounds(by)[0] < 1 or not d.is_point:
            raise Unbounded
        return d.low

    def _extreme(self, op: str, x: Span, y: Span) -> Span:
        if y.fixed or x.fixed:
            x, y = (y, x) if x.fixed else (x, y)
            side = {"min": "max", "max": "min"}[op]
            low, high = (
                Code(f"{c.inside(ATOM)}.clamp({side}={y.low.text})") for c in (x.low, x.high)
            )
            return Span(low, high)
        function = {"min": "torch.minimum", "max": "torch.maximum"}[op]
        low, high = (
            Code(f"{function}({c.text}, {d.text})") for c, d in ((x.low, y.low), (x.high, y.high))
        )
        return Span(low, high)

    def _abs(self, e: Expr, x: Span) -> Span:
        if x.is_point:
            size = Code(f"{x.low.inside(ATOM)}.abs()")
            return Span(size, size)
        self.helpers.add("_distance")
        return self._bounded(e, f"_distance({self._pair(x)})")

    def _either(self, test: Truth, a: Span, b: Span) -> Span:
        """One of two integers: which of them is decided per call, or both are possible."""
        if test.fixed:
            low, high = (
                x if x == y else Code(f"({x.text} if {test.some.text} else {y.text})")
                for x, y in ((a.low, b.low), (a.high, b.high))
            )
            return Span(low, high, a.fixed and b.fixed)
        return Span(self._extreme("min", a, b).low, self._extreme("max", a, b).high)

    def _read(self, e: Read) -> Span:
        """The values of a captured tensor within a box of its places."""
        spans = [self.span(i) for i in e.indices]
        if all(s.is_point for s in spans):
            value = Code(self.scope.element(e, [s.low for s in spans]))
            return Span(value, value)
        moving = tuple(i for i, s in enumerate(spans) if not s.is_point)
        self.helpers.add("_ranges")
        places = ", ".join(self._pair(s) for s in spans)
        return self._bounded(e, f"_range({self.scope.ranges(e.tensor, moving)}, {places})")

    def _pair(self, s: Span) -> str:
        return f"({s.low.text}, {s.high.text})"


def both(a: Code, b: Code) -> Code:
    """Conjunction; what is decided is left out."""
    if NEVER in (a, b):
        return NEVER
    if ALWAYS in (a, b) or a == b:
        return b if a == ALWAYS else a
    return Code(f"{a.inside(AND)} & {b.inside(AND)}", AND)


def either(a: Code, b: Code) -> Code:
    """Disjunction; what is decided is left out."""
    if ALWAYS in (a, b):
        return ALWAYS
    if NEVER in (a, b) or a == b:
        return b if a == NEVER else a
    return Code(f"{a.inside(BAR)} | {b.inside(BAR)}", BAR)


def compare(a: Code, sign: str, b: Code) -> Code:
    return Code(f"{a.inside(SUM)} {sign} {b.inside(SUM)}", COMPARE)


def arith(a: Code, sign: str, b: Code) -> Code:
    """A sum or a product; neutral numbers are left out."""
    level = SUM if sign in "+-" else PRODUCT
    if (sign in "+-" and b.text == "0") or (sign in ("*", "//") and b.text == "1"):
        return a
    return Code(f"{a.inside(level)} {sign} {b.inside(level + 1)}", level)
