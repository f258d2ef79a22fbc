"""Which conditions of a spec decide what its sweeps visit."""

from __future__ import annotations

import torch

from attnc.api import Attention
from attnc.dsl import load_text
from attnc.ir.pipeline import plan
from attnc.ir.plan import SweepStage
from attnc.ir.show import show_expr
from attnc.ir.visibility import Visibility, joint_visibility

SPEC = """attention a
input Q[b, h, m, d]
input K[b, h, n, d]
input V[b, h, n, e]
{inputs}S[b, h, m, n] = sum(d) Q[b, h, m, d] * K[b, h, n, d]
P[b, h, m, n] = softmax(n) S[b, h, m, n] where {where}
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h, n, e]{second}
output O[b, h, m, e]
"""


INPUTS = {"ends": "input ends[b]: int\n", "bias": "input bias[n]\n"}


def spec(where: str, second: str = "") -> str:
    inputs = "".join(x for name, x in INPUTS.items() if name in where)
    return SPEC.format(where=where, second=second, inputs=inputs)


def passes(where: str, second: str = "") -> list[Visibility]:
    made = plan(load_text(spec(where, second), "a.attn"))
    (stage,) = (s for s in made.stages if isinstance(s, SweepStage))
    return [p.visibility for p in stage.passes]


def test_the_mask_is_what_the_spec_says() -> None:
    (seen,) = passes("n <= m and h + n > m")
    assert show_expr(seen.some) == "n <= m and h + n > m"
    assert (seen.every, seen.row, seen.swept, seen.grid) == (seen.some, "m", "n", ("h",))


def test_conditions_on_the_row_alone_count() -> None:
    (seen,) = passes("m < ends[b] and n < ends[b]")
    assert show_expr(seen.some) == "m < ends[b] and n < ends[b]"
    assert (seen.grid, seen.tensors) == (("b",), ("ends",))


def test_conditions_on_values_do_not() -> None:
    (seen,) = passes("n <= m and bias[n] > 0")
    assert show_expr(seen.some) == "n <= m"


def test_states_may_see_different_points() -> None:
    (seen,) = passes("n <= m", " where n + 4 > m")
    assert show_expr(seen.some) == "n <= m or n + 4 > m and n <= m"
    assert show_expr(seen.every) == "n <= m and n + 4 > m"


def test_passes_together() -> None:
    one, other = (v for w in ("n <= m", "n < 8") for v in passes(w))
    made = plan(load_text(spec("n <= m"), "a.attn"))
    both = joint_visibility((one, other), made.cascade)
    assert show_expr(both.some) == "n <= m or n < 8"
    assert show_expr(both.every) == "n <= m and n < 8"


def test_conditions_of_params_alone_or_of_floats_do_not() -> None:
    (seen,) = passes("n <= m and D > 3 and m * 0.5 < n")
    assert show_expr(seen.some) == "n <= m"


def test_a_division_by_zero_hides() -> None:
    (seen,) = passes("m % n == 0 or h > 3")
    assert show_expr(seen.some) == "(m % n == 0 or h > 3) and n != 0"


def test_what_is_absent_is_hidden_in_results() -> None:
    attn = Attention(load_text(spec("m % n == 0 or not (m // n == 1)"), "a.attn"))
    x = torch.randn(3, 1, 2, 8, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attn(*x).double(), attn.reference(*x), rtol=0, atol=1e-6)
