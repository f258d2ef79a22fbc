"""Every library spec's kernels, in Triton's interpreter, against float64 on awkward inputs."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from attnc.api import load
from attnc.codegen import emit
from attnc.library import names
from attnc.runtime.verify import verify

FAST = {"causal", "gqa", "lse", "relu_l1", "clipped_softmax"}


def specs() -> list[object]:
    return [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in names()]


@cache
def emitted(name: str) -> str:
    return emit(load(name).plan)


@pytest.mark.parametrize("name", specs())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_kernels_are_right(name: str, dtype: torch.dtype) -> None:
    attention = load(name)
    report = verify(attention.plan, lambda: emitted(name), dtype=dtype, backend="interpreter")
    assert report.ok, str(report)
