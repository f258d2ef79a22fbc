"""Maxima in the units of the bare product, exponentials to base 2."""

from __future__ import annotations

from attnc.ir.derived import Derived, State
from attnc.ir.expr import Apply
from attnc.ir.walk import subexprs
from tests.ir.derived import derived, spec, sweep_counts

PLAIN = "X[b, m, n] = (sum(d) Q[b, m, d] * K[b, n, d]){scale}\n"
TAIL = "P[b, m, n] = softmax(n) X[b, m, n]\nO[b, m, e] = sum(n) P[b, m, n] * V[b, n, e]"


def lines(scale: str = " / sqrt(D)", tail: str = TAIL) -> str:
    return PLAIN.format(scale=scale) + tail


def of(scale: str = " / sqrt(D)", tail: str = TAIL) -> Derived:
    return derived(lines(scale, tail))


def operators(s: State) -> set[str]:
    return {x.op for x in subexprs(s.body) if isinstance(x, Apply)}


def test_a_constant_scale_moves_out_of_the_maximum() -> None:
    top, total, out = of().states
    assert "div" not in operators(top)
    assert total.map == out.map == "exp2" and total.unit is not None
    assert "exp" not in operators(total)


def test_the_maximum_keeps_its_meaning_for_the_epilogue() -> None:
    tail = TAIL.replace("softmax(n) X[b, m, n]", "exp(X[b, m, n] - G[b, m])")
    text = lines(tail="G[b, m] = max(n) X[b, m, n]\n" + tail)
    assert sweep_counts(spec(text, "O[b, m, e], G[b, m]")) == (1,)


def test_a_negative_or_unknown_scale_stays_inside() -> None:
    for scale in (" * -0.5", " * tau[b]"):
        assert all(s.map == "exp" for s in of(scale).states if s.base is not None)
        assert sweep_counts(spec(lines(scale))) == (1,)


def test_a_maximum_with_another_reader_of_the_score_stays() -> None:
    other = TAIL.replace("P[b, m, n] * V", "P[b, m, n] * tanh(X[b, m, n]) * V")
    assert all(s.map == "exp" for s in of(tail=other).states if s.base is not None)
    assert sweep_counts(spec(lines(tail=other))) == (1,)
