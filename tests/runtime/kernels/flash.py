# type: ignore
# ruff: noqa
"""A module as the compiler emits it: one online-softmax kernel and the function that launches it."""

import torch
import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
DEFAULT = torch.float16


@triton.jit
def visible(rows, columns, window):
    return (columns[None, :] <= rows[:, None]) & (rows[:, None] - columns[None, :] < window)


@triton.jit
def forward(
    Q, K, V, O, LSE, scale, window, H, M, N, D, E,
    q_b, q_h, q_m, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_e, o_b, o_h, o_m, o_e,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_D: tl.constexpr, TILE_E: tl.constexpr,
):  # fmt: skip
    b = (tl.program_id(1) // H).to(tl.int64)
    h = (tl.program_id(1) % H).to(tl.int64)
    m = tl.program_id(0) * TILE_M + tl.arange(0, TILE_M)
    d = tl.arange(0, TILE_D)
    e = tl.arange(0, TILE_E)
    q_at = Q + b * q_b + h * q_h + m[:, None] * q_m + d[None, :] * q_d
    q = tl.load(q_at, mask=(m[:, None] < M) & (d[None, :] < D), other=0.0)
    top = tl.full([TILE_M], -float("inf"), tl.float32)
    total = tl.zeros([TILE_M], tl.float32)
    acc = tl.zeros([TILE_M, TILE_E], tl.float32)
    for start in range(0, N, TILE_N):
        n = start + tl.arange(0, TILE_N)
        k_at = K + b * k_b + h * k_h + n[None, :] * k_n + d[:, None] * k_d
        k = tl.load(k_at, mask=(n[None, :] < N) & (d[:, None] < D), other=0.0)
        s = tl.dot(q, k) * (scale * LOG2E)
        s = tl.where(visible(m, n, window) & (n[None, :] < N), s, -float("inf"))
        new_top = tl.maximum(top, tl.max(s, 1))
        base = tl.where(new_top == -float("inf"), 0.0, new_top)
        p = tl.exp2(s - base[:, None])
        fix = tl.exp2(top - base)
        total = total * fix + tl.sum(p, 1)
        v_at = V + b * v_b + h * v_h + n[:, None] * v_n + e[None, :] * v_e
        v = tl.load(v_at, mask=(n[:, None] < N) & (e[None, :] < E), other=0.0)
        acc = acc * fix[:, None] + tl.dot(p.to(v.dtype), v)
        top = new_top
    o = tl.where(total[:, None] > 0, acc / total[:, None], 0.0)
    o_at = O + b * o_b + h * o_h + m[:, None] * o_m + e[None, :] * o_e
    tl.store(o_at, o.to(O.dtype.element_ty), mask=(m[:, None] < M) & (e[None, :] < E))
    tl.store(
        LSE + tl.program_id(1).to(tl.int64) * M + m, (top + tl.log2(total)) / LOG2E, mask=m < M
    )


def attention(q, k, v, window):
    """Causal attention over the last `window` keys: q, k, v [b, h, length, width]; (o, lse)."""
    (b, h, m, d), (n, e) = q.shape, v.shape[2:]
    o = torch.empty((b, h, m, e), dtype=q.dtype, device=q.device)
    lse = torch.empty((b, h, m), dtype=torch.float32, device=q.device)
    tiles = dict(TILE_M=32, TILE_N=16, TILE_D=max(16, triton.next_power_of_2(d)),
                 TILE_E=max(16, triton.next_power_of_2(e)))  # fmt: skip
    forward[(triton.cdiv(m, 32), b * h)](
        q, k, v, o, lse, d**-0.5, window, h, m, n, d, e,
        *q.stride(), *k.stride(), *v.stride(), *o.stride(), **tiles,
    )  # fmt: skip
    return o, lse
