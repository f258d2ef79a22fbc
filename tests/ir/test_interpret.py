"""Cascades as written against formulas in plain numpy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from attnc.errors import AttncError, Span
from attnc.ir.cascade import Cascade, ParamDecl
from attnc.ir.interpret import interpret
from attnc.ir.operators import RULES
from attnc.ir.ops import OPS
from tests.ir.written import cascade

RNG = np.random.default_rng(7)
SOFTMAX = """
S[b, h, m, n] = sum(d) Q[b, h, m, d] * K[b, h // (H @ G), n, d] / sqrt(float(D))
X[b, h, m, n] = S[b, h, m, n] where {mask}
T[b, h, m] = max(n) X[b, h, m, n]
W[b, h, m, n] = exp(X[b, h, m, n] - T[b, h, m])
Z[b, h, m] = sum(n) W[b, h, m, n]
P[b, h, m, n] = W[b, h, m, n] / Z[b, h, m]
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h // (H @ G), n, e]
LSE[b, h, m] = log(Z[b, h, m]) + T[b, h, m]
"""


def softmax(mask: str, inputs: str = "", **options: object) -> Cascade:
    return cascade(
        SOFTMAX.format(mask=mask),
        "O LSE",
        inputs=f"Q[b, h, m, d] K[b, g, n, d] V[b, g, n, e] {inputs}",
        **options,  # type: ignore[arg-type]
    )


def qkv(
    b: int = 2, h: int = 4, g: int = 2, m: int = 5, n: int = 7, d: int = 3, e: int = 6
) -> dict[str, np.ndarray]:
    shapes = {"Q": (b, h, m, d), "K": (b, g, n, d), "V": (b, g, n, e)}
    return {name: RNG.normal(size=shape) for name, shape in shapes.items()}


def plain(t: dict[str, np.ndarray], mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masked attention and log-sum-exp; rows with nothing visible give 0 and -inf."""
    k, v = (np.repeat(t[x], t["Q"].shape[1] // t[x].shape[1], axis=1) for x in "KV")
    s = np.einsum("bhmd,bhnd->bhmn", t["Q"], k) / np.sqrt(k.shape[-1])
    s = np.where(mask, s, -np.inf)
    top = s.max(-1, keepdims=True, initial=-np.inf)
    w = np.exp(s - np.where(top == -np.inf, 0, top))
    z = w.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = np.log(z[..., 0]) + top[..., 0]
    return np.einsum("bhmn,bhne->bhme", w / np.where(z == 0, 1, z), v), lse


def test_masked_softmax_with_an_empty_row() -> None:
    t = qkv()
    out = interpret(softmax("n <= m and m != 2"), t)
    m, n = np.arange(5)[:, None], np.arange(7)
    o, lse = plain(t, (n <= m) & (m != 2))
    np.testing.assert_allclose(out["O"], o, atol=1e-14)
    np.testing.assert_allclose(out["LSE"], lse, atol=1e-14)
    assert (out["O"][:, :, 2] == 0).all() and (out["LSE"][:, :, 2] == -np.inf).all()


@pytest.mark.parametrize("memory", [1, 2_000, 40_000])
def test_chunks_change_nothing(memory: int) -> None:
    t = qkv()
    c = softmax("n <= m and m != 2")
    whole, chunked = interpret(c, t), interpret(c, t, memory_bytes=memory)
    for name in whole:
        np.testing.assert_allclose(chunked[name], whole[name], atol=1e-14)


def test_minus_infinity_scores_are_visible_but_weigh_nothing() -> None:
    t = qkv()
    t["Q"][..., 0] = 1
    t["Q"][..., 1:] = 0
    t["K"][:, :, 3, 0] = -np.inf
    t["K"][0, :, :, 0] = -np.inf
    o, lse = interpret(softmax("n >= 0"), t).values()
    assert (o[0] == 0).all() and (lse[0] == -np.inf).all()
    assert np.isfinite(o[1]).all() and np.isfinite(lse[1]).all()


def test_huge_masked_scores_do_not_leak() -> None:
    t = qkv()
    t["K"][:, :, 4:] *= 1e6
    o, _ = plain(t, np.arange(7) < 4)
    np.testing.assert_allclose(interpret(softmax("n < 4"), t)["O"], o, atol=1e-14)


def test_nan_at_a_masked_key_is_skipped() -> None:
    t = qkv()
    o, _ = plain(t, np.arange(7) < 4)
    t["K"][:, :, 4:], t["V"][:, :, 4:] = np.nan, np.inf
    np.testing.assert_allclose(interpret(softmax("n < 4"), t)["O"], o, atol=1e-14)


@pytest.mark.parametrize(
    "sizes", [{"m": 0}, {"n": 0}, {"d": 0}, {"e": 0}, {"b": 0}, {"m": 1, "n": 1}]
)
def test_zero_length_ranks(sizes: dict[str, int]) -> None:
    t = qkv(**sizes)
    out = interpret(softmax("n <= m"), t, memory_bytes=500)
    if sizes == {"d": 0}:
        t["Q"], t["K"] = np.zeros((2, 4, 5, 1)), np.zeros((2, 2, 7, 1))
    m, n = t["Q"].shape[2], t["K"].shape[2]
    o, lse = plain(t, np.arange(n) <= np.arange(m)[:, None])
    np.testing.assert_allclose(out["O"], o, atol=1e-14)
    np.testing.assert_allclose(out["LSE"], lse, atol=1e-14)


def test_data_masks_and_gathers_of_integers() -> None:
    t = qkv(m=7)
    t["doc"] = np.array([[0, 0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1, 1]])
    c = softmax("doc[b, m] == doc[b, n]", "doc[b, n]", typed=[("doc", "int")])
    t["doc"] = t["doc"].astype(np.int32)
    o, _ = plain(t, (t["doc"][:, :, None] == t["doc"][:, None])[:, None])
    np.testing.assert_allclose(interpret(c, t)["O"], o, atol=1e-14)


def test_boolean_inputs() -> None:
    t = qkv()
    keep = RNG.random((5, 7)) < 0.5
    c = softmax("keep[m, n]", "keep[m, n]", typed=[("keep", "bool")])
    o, _ = plain(t, keep)
    np.testing.assert_allclose(interpret(c, t | {"keep": keep})["O"], o, atol=1e-14)


def test_grid_components_of_flat_ranks() -> None:
    t = qkv(m=12, n=12)
    c = softmax(
        "abs(mx - nx) <= 1 and my - ny < w[0] and ny - my < w[1]",
        grids=[("m", "my", "mx"), ("n", "ny", "nx")],
        params=[ParamDecl("w", "int", (2, 1), length=2)],
    )
    o = interpret(c, t, extents={"MX": 4, "ny": 3})["O"]
    y, x = np.divmod(np.arange(12), 4)
    dy, dx = y[:, None] - y, x[:, None] - x
    np.testing.assert_allclose(o, plain(t, (abs(dx) <= 1) & (dy < 2) & (-dy < 1))[0], atol=1e-14)


def test_a_grid_iterated_by_its_components() -> None:
    c = cascade(
        """
        B[my, mx] = A[my * MX + mx]
        Y[my] = sum(mx) B[my, mx] * float(m)
        """,
        "Y",
        inputs="A[m]",
        grids=[("m", "my", "mx")],
    )
    a = RNG.normal(size=12)
    y = interpret(c, {"A": a}, extents={"my": 3})["Y"]
    np.testing.assert_allclose(y, (a * np.arange(12)).reshape(3, 4).sum(1))


def test_division_by_zero_is_absent_and_or_else_fills_it() -> None:
    c = cascade(
        """
        R[n] = A[n] / B[n]
        L[] = sum(n) R[n]
        F[n] = or_else(R[n], 5.0)
        C[] = sum(n) given(1.0, B[n] > 0.0)
        """.replace("[]", "[0]"),
        "R L F C",
        inputs="A[n] B[n]",
    )
    out = interpret(c, {"A": np.array([1.0, 2, 3]), "B": np.array([2.0, 0, 4])})
    assert out["R"].tolist() == [0.5, 0, 0.75]
    assert out["L"].tolist() == [1.25]
    assert out["F"].tolist() == [0.5, 5, 0.75]
    assert out["C"].tolist() == [2]


def test_reductions_over_nothing_and_of_constants() -> None:
    c = cascade(
        "\n".join(f"{op.upper()}[m] = {op}(n) A[m, n] where n < m" for op in ("sum", "prod"))
        + """
        TOP[m] = max(n) A[m, n] where n < m
        LOW[m] = min(n) A[m, n] where n < m
        ANY[m] = any(n) A[m, n] > 0.0 where n < m
        ALL[m] = all(n) A[m, n] > 0.0 where n < m
        COUNT[m] = sum(n) 1.0 where n < m
        TIMES[m] = sum(n) float(m)
        LAST[m] = max(n) n where n < m
        """,
        "SUM PROD TOP LOW ANY ALL COUNT TIMES LAST",
        inputs="A[m, n]",
        typed=[("ANY", "bool"), ("ALL", "bool"), ("LAST", "int")],
    )
    a = RNG.normal(size=(4, 3))
    out = interpret(c, {"A": a})
    for m in range(4):
        row = a[m, :m]
        expected = (
            ("SUM", row.sum()),
            ("PROD", row.prod()),
            ("TOP", row.max(initial=-np.inf)),
            ("LOW", row.min(initial=np.inf)),
            ("ANY", (row > 0).any()),
            ("ALL", (row > 0).all()),
            ("COUNT", min(m, 3)),
            ("TIMES", 3 * m),
        )
        for name, value in expected:
            np.testing.assert_allclose(out[name][m], value)
    assert out["LAST"].tolist() == [-(2**63), 0, 1, 2]


def test_prefix_sum_by_where() -> None:
    c = cascade("Y[i] = sum(k) A[k] where k <= i", "Y", inputs="A[k]")
    a = RNG.normal(size=9)
    np.testing.assert_allclose(interpret(c, {"A": a}, extents={"i": 9})["Y"], a.cumsum())


def test_gather_by_an_integer_tensor() -> None:
    c = cascade(
        "O[b, m, d] = sum(j) K[b, idx[b, m, j], d] * W[b, m, j]",
        "O",
        inputs="K[b, n, d] idx[b, m, j] W[b, m, j]",
        typed=[("idx", "int")],
    )
    k, w = RNG.normal(size=(2, 6, 3)), RNG.normal(size=(2, 5, 4))
    idx = RNG.integers(0, 6, (2, 5, 4))
    rows = np.stack([k[b][idx[b]] for b in range(2)])
    for memory in (1, 10_000):
        out = interpret(c, {"K": k, "idx": idx, "W": w}, memory_bytes=memory)
        np.testing.assert_allclose(out["O"], np.einsum("bmjd,bmj->bmd", rows, w))


def test_an_index_may_leave_its_tensor_where_the_point_is_absent() -> None:
    text = "Y[n] = {}"
    a = np.arange(4.0)
    for body, expected in (
        ("A[n - 1] where n > 0", [0, 0, 1, 2]),
        ("A[n - 1] if n > 0 else 9.0", [9, 0, 1, 2]),
        ("A[n] where n > 0 and A[n - 1] > 0.5", [0, 0, 2, 3]),
        ("A[n] where not (n == 0 or A[n - 1] < 0.5)", [0, 0, 2, 3]),
        ("or_else(A[n] / A[n], A[n + 3])", [3, 1, 1, 1]),
        ("(A[n] / A[n]) * A[n - 1]", [0, 0, 1, 2]),
        ("A[clamp(2 * n - 1, 0, N - 1)]", [0, 1, 3, 3]),
    ):
        out = interpret(cascade(text.format(body), "Y", inputs="A[n]"), {"A": a})
        assert out["Y"].tolist() == expected, body


def test_an_index_that_leaves_its_tensor_is_named() -> None:
    c = cascade("Y[n] = A[n + 1]", "Y", inputs="A[n]")
    with pytest.raises(AttncError, match=r"`A` is read at n = 4, but holds n = 0 .. 3") as e:
        interpret(c, {"A": np.zeros(4)})
    assert e.value.code == "E601"


def test_a_remainder_is_an_error() -> None:
    with pytest.raises(AttncError, match=r"`H / G` = 6 / 4 leaves a remainder: H=6, G=4") as e:
        interpret(softmax("n <= m"), qkv(h=6, g=4))
    assert e.value.code == "E602"
    c = cascade("Y[n] = A[n @ 2] where n % 2 == 0", "Y", inputs="A[n]")
    assert interpret(c, {"A": np.arange(4.0)})["Y"].tolist() == [0, 0, 1, 0]
    with pytest.raises(AttncError, match=r"`n / 2` = 1 / 2 leaves a remainder"):
        interpret(cascade("Y[n] = A[n @ 2]", "Y", inputs="A[n]"), {"A": np.arange(4.0)})


def test_selection_breaks_ties_by_the_lowest_index() -> None:
    c = cascade(
        """
        top[m, n] = topk(n, k) A[m, n]
        seen[m, n] = topk(n, 2) A[m, n] where n > 0
        mass[m, n] = topp(n, 0.7) A[m, n]
        """,
        "top seen mass",
        inputs="A[m, n]",
        params=[ParamDecl("k", "int", 2)],
    )
    a = np.array([[0.2, 0.4, 0.2, 0.2], [0.1, 0.1, 0.1, 0.7]])
    out = interpret(c, {"A": a})
    assert out["top"].astype(int).tolist() == [[1, 1, 0, 0], [1, 0, 0, 1]]
    assert out["seen"].astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 0, 1]]
    assert out["mass"].astype(int).tolist() == [[1, 1, 1, 0], [0, 0, 0, 1]]
    few = interpret(c, {"A": a[:, :1]}, params={"k": 3})
    assert few["top"].all() and not few["seen"].any() and few["mass"].all()


def test_selected_blocks_as_a_mask() -> None:
    c = cascade(
        """
        sel[i, c] = topk(c, 1) G[i, c]
        Y[m] = sum(n) A[n] where sel[m // 2, n // 3]
        """,
        "Y",
        inputs="G[i, c] A[n]",
    )
    out = interpret(c, {"G": np.array([[0.0, 1], [1, 0]]), "A": np.arange(6.0)}, extents={"m": 4})
    assert out["Y"].tolist() == [12, 12, 3, 3]


def test_concatenated_keys() -> None:
    c = cascade(
        """
        S[m, n] = concat(n: x, c) A[m, x]; B[c] * float(m) where n <= m + 2
        Y[m] = sum(n) S[m, n]
        """,
        "S Y",
        inputs="A[m, x] B[c]",
    )
    a, b = RNG.normal(size=(3, 2)), RNG.normal(size=3)
    whole = np.concatenate([a, np.arange(3)[:, None] * b], 1)
    whole[np.arange(5) > np.arange(3)[:, None] + 2] = 0
    for memory in (1, 10_000):
        out = interpret(c, {"A": a, "B": b}, memory_bytes=memory)
        np.testing.assert_allclose(out["S"], whole)
        np.testing.assert_allclose(out["Y"], whole.sum(1))


def test_errors_carry_the_statement_and_its_source() -> None:
    c = cascade("Y[n] = A[n + 1]", "Y", inputs="A[n]")
    span = Span(1, 1, 1, 5)
    c = replace(c, source="Y[n] = A[n+1]", statements=(replace(c.statements[0], span=span),))
    with pytest.raises(AttncError) as e:
        interpret(c, {"A": np.zeros(4)})
    assert e.value.span == span and "Y[n] = A[n+1]\n" in str(e.value)


def test_pointwise_functions() -> None:
    x = np.array([-2.5, -0.5, 0.0, 0.5, 3.0])
    expected = {
        "exp": np.exp(x),
        "exp2": 2**x,
        "tanh": np.tanh(x),
        "sigmoid": 1 / (1 + np.exp(-x)),
        "softplus": np.log(1 + np.exp(x)),
        "relu": np.maximum(x, 0),
        "silu": x / (1 + np.exp(-x)),
        "gelu": [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x],
        "erf": [math.erf(v) for v in x],
        "abs": abs(x),
        "sign": np.sign(x),
        "sin": np.sin(x),
        "cos": np.cos(x),
        "stopgrad": x,
    }
    for op, values in expected.items():
        out = interpret(cascade(f"Y[n] = {op}(X[n])", "Y", inputs="X[n]"), {"X": x})
        np.testing.assert_allclose(out["Y"], values, rtol=1e-15, atol=1e-16, err_msg=op)


def test_every_operator_has_a_rule() -> None:
    assert RULES.keys() == OPS.keys()
