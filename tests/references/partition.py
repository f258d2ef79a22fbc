"""References of attentions inside the parts of a grid: tokens are sorted into parts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Inputs, Outputs, Params, plain


def spatial(x: Inputs, p: Params) -> Outputs:
    return _factored(x, p, same_frame=True)


def temporal(x: Inputs, p: Params) -> Outputs:
    return _factored(x, p, same_frame=False)


def _factored(x: Inputs, p: Params, same_frame: bool) -> Outputs:
    """Frames, or places, of the queries and keys are paired by number."""
    m = torch.arange(p["MF"] * p["MP"]).view(p["MF"], p["MP"])
    n = torch.arange(p["NF"] * p["NP"]).view(p["NF"], p["NP"])
    parts = zip(*((m, n) if same_frame else (m.T, n.T)), strict=False)
    return {"O": plain.attention(x, _paired(m.numel(), n.numel(), list(parts)))}


def _paired(queries: int, keys: int, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    seen = torch.zeros(queries, keys, dtype=torch.bool)
    for q, k in parts:
        seen[q[:, None], k] = True
    return seen


def maxvit_block(x: Inputs, p: Params) -> Outputs:
    return swin(x, {**p, "shift": 0})


def swin(x: Inputs, p: Params) -> Outputs:
    """Cyclic shift, windows of the padded plane, and the mask of what was wrapped around."""
    window, shift = p["window"], p["shift"]
    seen, rows = [], []
    for axis in "YX":
        part, place = _shifted(p[f"M{axis}"], window, shift)
        key_part, key_place = _shifted(p[f"N{axis}"], window, shift)
        seen.append(part[:, None] == key_part)
        rows.append(key_place - place[:, None] + window - 1)
    bias = plain.bias_of_offsets(x["bias"], *rows)
    return {"O": plain.attention(x, torch.kron(*seen), bias)}


def _shifted(length: int, window: int, shift: int) -> tuple[Tensor, Tensor]:
    """The part of each token of an axis and its place in the window, after the shift."""
    padded = math.ceil(length / window) * window
    part, place = torch.zeros(padded, dtype=torch.long), torch.zeros(padded, dtype=torch.long)
    shifted = torch.arange(padded).roll(-shift)
    for number, tokens in enumerate(torch.split(shifted, window)):
        part[tokens] = torch.where(tokens < shift, -1, number)
        place[tokens] = torch.arange(len(tokens))
    return part[:length], place[:length]


def maxvit_grid(x: Inputs, p: Params) -> Outputs:
    """The axis as [grid, length / grid]: tokens of equal second coordinate see each other."""
    grid = p["grid"]
    seen, rows = [], []
    for axis in "YX":
        place, part = _gridded(p[f"M{axis}"], grid)
        key_place, key_part = _gridded(p[f"N{axis}"], grid)
        seen.append(part[:, None] == key_part)
        rows.append(key_place - place[:, None] + grid - 1)
    bias = plain.bias_of_offsets(x["bias"], *rows)
    return {"O": plain.attention(x, torch.kron(*seen), bias)}


def _gridded(length: int, grid: int) -> tuple[Tensor, Tensor]:
    assert length % grid == 0
    steps = torch.arange(length).view(grid, length // grid)
    ones = torch.ones_like(steps)
    place, part = torch.arange(grid)[:, None], torch.arange(length // grid)
    return (place * ones).flatten(), (part * ones).flatten()


def halonet(x: Inputs, p: Params) -> Outputs:
    """Block by block; key j of the neighbourhood and query i are at the relative place j - i."""
    q, b, halo = x["Q"], p["block"], p["halo"]
    seen, relative = [], []
    for axis in "YX":
        rows = torch.zeros(p[f"M{axis}"], p[f"N{axis}"], dtype=torch.bool)
        offsets = torch.zeros(rows.shape, dtype=torch.long)
        for i in range(rows.shape[0]):
            start = i // b * b - halo
            for j in range(b + 2 * halo):
                if 0 <= start + j < rows.shape[1]:
                    rows[i, start + j] = True
                    offsets[i, start + j] = j - i % b + b - 1
        seen.append(rows)
        relative.append(offsets)
    q = q.reshape(*q.shape[:2], p["MY"], p["MX"], q.shape[-1])
    of_rows, of_columns = q @ x["RY"].T, q @ x["RX"].T  # [b, h, my, mx, ry]
    ry = relative[0][:, None].expand(p["MY"], p["MX"], -1).expand(*q.shape[:2], -1, -1, -1)
    rx = relative[1].expand(p["MY"], *relative[1].shape).expand(*q.shape[:2], -1, -1, -1)
    both = of_rows.gather(-1, ry)[..., None] + of_columns.gather(-1, rx)[..., None, :]
    score = plain.dots(x["Q"], x["K"]) + both.flatten(4).flatten(2, 3)
    weights = plain.softmax(score / math.sqrt(q.shape[-1]), torch.kron(*seen))
    return {"O": plain.apply(weights, x["V"])}
