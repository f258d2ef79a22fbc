"""Calls of library specs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import attnc
from attnc.compilation import complete_shape
from attnc.runtime.cost.call import Call


@pytest.fixture(scope="session")
def make_call() -> Callable[..., Call]:
    """`make_call(spec, shape, dtype=.., tensors=.., **params)`."""

    def make(
        spec: str, shape: dict[str, int], *, dtype: str = "bf16", tensors: Any = None, **params: Any
    ) -> Call:
        attn = attnc.load(spec, **params)
        extents = complete_shape(attn.plan, shape)
        return Call(attn.plan, attn.run_time_params, extents, dtype, tensors or {})

    return make
