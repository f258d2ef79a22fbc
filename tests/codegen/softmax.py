"""Softmax attention under a mask, for tests of masks."""

from __future__ import annotations

_SPEC = """attention masked
{declared}
input Q[b, h, m, {over}]
input K[b, h, n, {over}]
input V[b, h, n, e]
S[b, h, m, n] = sum({over}) Q[b, h, m, {over}] * K[b, h, n, {over}]
P[b, h, m, n] = softmax(n) S[b, h, m, n]  where {where}
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h, n, e]
output O[b, h, m, e]
"""


def masked_softmax(where: str, declared: str = "", over: str = "d") -> str:
    """The spec `masked`; `declared`: ranks, params and inputs of the mask, `over`: the feature."""
    return _SPEC.format(declared=declared, where=where, over=over)
