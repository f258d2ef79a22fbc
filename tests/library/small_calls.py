"""A call of each library spec that has a mask, so small that each point can be evaluated."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from attnc.api import Attention, load
from attnc.library import names, text
from attnc.runtime.cases import draw, make_cases, small_params

MASKED = tuple(name for name in names() if " where " in text(name))


def small_call(name: str) -> tuple[Attention, Mapping[str, int], Mapping[str, Tensor]]:
    """The spec with params that hide something, a shape, and the tensors that masks may read."""
    written = load(name)
    attention = load(name, **small_params(written.plan, {}, written.run_time_params))
    case = make_cases(attention.plan, attention.run_time_params, {})[0]
    drawn = draw(attention.plan, case, torch.float32, 0)
    captured = {n: x for n, x in drawn.items() if not x.is_floating_point()}
    return attention, {rank.upper(): size for rank, size in case.extents.items()}, captured
