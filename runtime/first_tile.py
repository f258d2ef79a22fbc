"""The body of a sweep for the first tile that is visited: every state is still over nothing.

A state over nothing stays so however its base moves, and combines with what a tile gathers to just
that. So nothing is rescaled, and what only served to rescale is not computed: a row tile that
visits a single span of keys does a plain softmax.
"""

from __future__ import annotations

from dataclasses import replace

from attnc.ir.expr import Apply, Expr, Number, Read
from attnc.ir.ops import OPS
from attnc.ir.plan import Carry, Dot, Let, Pass, map_value, needed
from attnc.ir.walk import rewrite


def first_tile(p: Pass, body: tuple[Let, ...]) -> tuple[Let, ...]:
    """`body` of the pass with every state at its initial value."""
    carries = {c.name: c for c in p.carries}

    def initial(e: Expr) -> Expr | None:
        match e:
            case Read(name, _) if name in carries:
                return Number(carries[name].init)
            case _:
                return None

    def start(let: Let) -> Let:
        value = let.value
        match value:
            case Dot(left, right, over, plus) if plus is not None and _moved(plus, carries, 0.0):
                value = Dot(left, right, over)
            case Apply(op, (before, gathered)) if _moved(before, carries, OPS[op].identity):
                value = gathered
            case _:
                pass
        return replace(let, value=map_value(value, lambda e: rewrite(e, initial)))

    return needed(map(start, body), (c.update for c in p.carries))


def _moved(e: Expr, carries: dict[str, Carry], identity: float | bool | None) -> bool:
    """Whether this is a state that starts at `identity`, perhaps moved on to another base."""
    match e:
        case Read(name, _):
            return name in carries and carries[name].init == identity
        case Apply("mul", (Read() as state, _)) if identity == 0:
            return _moved(state, carries, identity)
        case _:
            return False
