"""Where a mask may stand: whatever is hidden must leave the reduction as it is."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from attnc.ir.evaluate import evaluate
from attnc.ir.expr import Apply, Expr, Number
from attnc.ir.frame import Scope, Value
from attnc.ir.masking import limit_at, mask_body
from attnc.ir.ops import REDUCTIONS
from attnc.ir.walk import subexprs
from tests.ir.written import expression

SCORE = expression("S[n]")
HIDDEN = expression("n < 3")


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("exp(S[n] - G[m])", "0"),
        ("exp(2.0 * S[n])", "0"),
        ("S[n] + b[n]", "-inf"),
        ("S[n] * c[n]", "unknown"),  # c may be negative
        ("exp(S[n] * c[n])", "unknown"),
        ("sigmoid(S[n]) * b[n]", "0"),
        ("relu(S[n]) ** 2.0", "0"),
        ("exp(S[n]) * log(b[n])", "unknown"),  # b may be 0 where the point is hidden
        ("exp(S[n]) / b[n]", "unknown"),
        ("abs(S[n])", "unknown"),
        ("b[n]", "finite"),
    ],
)
def test_limits(text: str, limit: str) -> None:
    assert limit_at(expression(text), SCORE) == limit


BODIES = [
    ("sum", "exp(S[n] - G[n])"),
    ("sum", "exp(S[n]) * b[n]"),
    ("sum", "S[n] * S[n]"),
    ("sum", "exp(S[n]) * log(b[n])"),
    ("sum", "softplus(S[n]) / b[n]"),
    ("max", "S[n] + b[n]"),
    ("max", "abs(S[n])"),
    ("min", "S[n]"),
    ("prod", "exp(S[n])"),
]


@pytest.mark.parametrize(("op", "text"), BODIES)
def test_hidden_points_leave_the_reduction(op: str, text: str) -> None:
    """With the score as the preferred place, and values at hidden points that have no log."""
    random = np.random.default_rng(0)
    b = np.where(np.arange(8) < 3, 1 + random.random(8), 0.0)
    tensors = {"S": Value(random.normal(size=8), ("n",)), "b": Value(b, ("n",))}
    tensors["G"] = Value(random.normal(size=8), ("n",))

    def at(e: Expr, size: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        data = evaluate(e, Scope(tensors=tensors, box={"n": range(size)})).data
        return np.asarray(data, dtype=np.float64)

    reduce = getattr(np, op)
    body = expression(text)
    masked = mask_body(op, body, HIDDEN, [SCORE])
    np.testing.assert_allclose(reduce(at(masked, 8)), reduce(at(body, 3)), rtol=1e-12)


def test_the_score_is_masked_once_where_it_can_be() -> None:
    masked = mask_body("sum", expression("exp(S[n] - G[m])"), HIDDEN, [SCORE])
    hidden = Apply("select", (HIDDEN, SCORE, Number(-inf)))
    assert hidden in set(subexprs(masked))
    whole = mask_body("sum", expression("S[n] * b[n]"), HIDDEN, [SCORE])
    assert whole == Apply(
        "select", (HIDDEN, expression("S[n] * b[n]"), Number(REDUCTIONS["sum"].identity))
    )
