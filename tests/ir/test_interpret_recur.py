"""Iterative ranks: recurrences, FuseMax's one-pass cascades, what cannot be stepped."""

from __future__ import annotations

import numpy as np
import pytest

from attnc.errors import AttncError
from attnc.ir.interpret import interpret
from tests.ir.written import cascade

RNG = np.random.default_rng(11)


def test_toy_cascade_3_of_fusemax() -> None:
    c = cascade(
        """
        RY[0] = 0.0
        RZ[0] = 0.0
        RY[i + 1] = RY[i] + A[i] * B[i]
        RZ[i + 1] = or_else(RZ[i] * RY[i + 1] / RY[i], 0.0) + RY[i + 1] * A[i]
        Z[0] = RZ[I]
        """,
        "Z",
        inputs="A[i] B[i]",
    )
    a, b = RNG.random((2, 8)) + 0.1
    np.testing.assert_allclose(interpret(c, {"A": a, "B": b})["Z"], (a * b).sum() * a.sum())


CASCADE_5 = """
BK[e, m1, m0] = K[e, m1 * M0 + m0]
BV[f, m1, m0] = V[f, m1 * M0 + m0]
RM[0, p] = -inf
RD[0, p] = 0.0
RNV[f, 0, p] = 0.0
BQK[m1, m0, p] = sum(e) Q[e, p] * BK[e, m1, m0] {where}
LM[m1, p] = max(m0) BQK[m1, m0, p]
RM[m1 + 1, p] = max(RM[m1, p], LM[m1, p])
SLN[m1, m0, p] = exp(BQK[m1, m0, p] - RM[m1 + 1, p])
SLD[m1, p] = sum(m0) SLN[m1, m0, p]
SLNV[f, m1, p] = sum(m0) SLN[m1, m0, p] * BV[f, m1, m0]
PRM[m1, p] = exp(RM[m1, p] - RM[m1 + 1, p])
SPD[m1, p] = RD[m1, p] * PRM[m1, p]
RD[m1 + 1, p] = SLD[m1, p] + SPD[m1, p]
SPNV[f, m1, p] = RNV[f, m1, p] * PRM[m1, p]
RNV[f, m1 + 1, p] = SLNV[f, m1, p] + SPNV[f, m1, p]
AV[f, p] = RNV[f, M1, p] / RD[M1, p]
"""


def test_cascade_5_of_fusemax() -> None:
    c = cascade(
        CASCADE_5.format(where=""),
        "AV RM",
        inputs="Q[e, p] K[e, m] V[f, m]",
        grids=[("m", "m1", "m0")],
    )
    q, k, v = RNG.normal(size=(3, 5)), RNG.normal(size=(3, 12)), RNG.normal(size=(4, 12))
    w = np.exp(q.T @ k)
    out = interpret(c, {"Q": q, "K": k, "V": v}, extents={"m0": 4})
    np.testing.assert_allclose(out["AV"], ((w / w.sum(1, keepdims=True)) @ v.T).T)
    assert out["RM"].shape == (4, 5) and (out["RM"][0] == -np.inf).all()


def test_coupled_recurrences_step_together() -> None:
    c = cascade(
        """
        H[b, 0, d, e] = 0.0
        U[b, t, e] = V[b, t, e] - R[b, t, e]
        R[b, t, e] = sum(d) K[b, t, d] * H[b, t, d, e]
        H[b, t + 1, d, e] = H[b, t, d, e] + K[b, t, d] * U[b, t, e]
        O[b, t, e] = sum(d) Q[b, t, d] * H[b, t + 1, d, e]
        """,
        "O",
        inputs="Q[b, t, d] K[b, t, d] V[b, t, e]",
    )
    q, k, v = (RNG.normal(size=(2, 6, n)) for n in (3, 3, 4))
    expected = np.zeros((2, 6, 4))
    for b in range(2):
        h = np.zeros((3, 4))
        for t in range(6):
            h = h + np.outer(k[b, t], v[b, t] - k[b, t] @ h)
            expected[b, t] = q[b, t] @ h
    for memory in (1, 1 << 20):
        out = interpret(c, {"Q": q, "K": k, "V": v}, memory_bytes=memory)
        np.testing.assert_allclose(out["O"], expected)
    empty = interpret(c, {"Q": q[:, :0], "K": k[:, :0], "V": v[:, :0]})
    assert empty["O"].shape == (2, 0, 4)


def test_a_recurrence_may_run_downwards() -> None:
    c = cascade(
        """
        D[T, e] = 0
        U[t, e] = G[t, e] + D[t + 1, e]
        D[t, e] = A[t] * U[t, e]
        """,
        "D U",
        inputs="A[t] G[t, e]",
    )
    a, g = RNG.normal(size=6), RNG.normal(size=(6, 2))
    d = np.zeros((7, 2))
    for t in reversed(range(6)):
        d[t] = a[t] * (g[t] + d[t + 1])
    out = interpret(c, {"A": a, "G": g})
    np.testing.assert_allclose(out["D"], d)
    np.testing.assert_allclose(out["U"], g + d[1:])


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("Y[n] = Z[n] + A[n]\nZ[n] = Y[n]", "E603", "the definition of `Y`, `Z` is circular"),
        ("Y[n + 1] = Z[n + 1] + A[n]\nZ[n + 1] = Y[n + 1]", "E603", "`Y`, `Z` cannot be computed"),
        ("Y[n] = Y[n - 1] + Y[n + 1]", "E603", "`Y` cannot be computed step by step along `n`"),
        ("Y[n + 1] = Y[n] + A[n]", "E601", "`Y` is read along n, which has length 0"),
        ("Y[0] = 0.0\nY[n + 2] = Y[n + 1] + A[n]", "E601", "`Y` is read at n = 1"),
        ("Y[0] = 0.0\nY[n + 2] = A[n]", "E604", "up to n = 0 and again from 2 on"),
    ],
)
def test_recurrences_that_cannot_run(text: str, code: str, message: str) -> None:
    with pytest.raises(AttncError, match=message) as e:
        interpret(cascade(text, "Y", inputs="A[n]"), {"A": np.zeros(3)})
    assert e.value.code == code


def test_a_recurrence_may_read_all_its_past() -> None:
    c = cascade(
        """
        H[0] = 1.0
        S[t] = sum(k) H[k] where k <= t
        H[t + 1] = S[t]
        """,
        "H",
        inputs="A[t]",
    )
    assert interpret(c, {"A": np.zeros(5)}, extents={"k": 6})["H"].tolist() == [1, 1, 2, 4, 8, 16]
