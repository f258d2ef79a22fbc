"""Every library spec's kernels, in Triton's interpreter, against float64 on awkward inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
import torch

from attnc.api import load
from attnc.codegen import emit
from attnc.ir.frame import ParamValue
from attnc.library import entries
from attnc.runtime.verify import verify

FAST = {"causal", "gqa", "lse", "relu_l1", "clipped_softmax", "document", "streaming_llm"}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Families of one softmax under a mask: with few heads, on what a mask can get wrong, and in one
# dtype but for a few specs that stand for a kind of mask each.
MASKS = {"block", "document", "longca", "neighborhood", "partition", "window"}
KINDS = {"block_sparse", "causal_document", "na2d", "strided", "swin", "titans_mac"}
# Types other than the first are read and written alike at every head.
FEW_HEADS = {"H": 2, "G": 1}
MASKED: Mapping[str, Any] = {
    "shape": {"B": 1, "H": 2, "G": 1},
    "cases": ("ragged", "one row", "one key", "no key", "hidden"),
}
# Settings that leave other loops, beside the defaults.
SETTINGS: tuple[tuple[str, Mapping[str, ParamValue]], ...] = (
    ("clear", {"text": 0, "width": 9, "radius": 3}),
    ("dilated_causal", {"window": 4, "dilation": 9}),
    ("dilated_na", {"window": 4, "dilation": (3, 2)}),
    ("longca_sliding_window", {"window": 0}),
    ("na1d", {"window": 16, "stride": 16}),
    ("na1d", {"window": 12, "stride": 5, "dilation": 3}),
    ("na1d", {"window": 9, "stride": 30, "dilation": 2, "causal": True}),
    ("na2d", {"window": (4, 3), "stride": (4, 2), "causal": (True, False)}),
    ("na3d", {"window": (2, 9, 3), "stride": (1, 2, 3), "dilation": (2, 1, 1)}),
    ("sliding_window", {"window": 1}),
    ("streaming_llm", {"sink": 0, "window": 200}),
    ("swin", {"window": 4, "shift": 2}),
    ("titans_mac", {"persistent": 17, "window": 30, "sliding": True}),
)


def calls() -> Iterator[object]:
    for entry in entries():
        mask = entry.family in MASKS
        for dtype in DTYPES[:1] if mask and entry.name not in KINDS else DTYPES:
            marks = () if entry.name in FAST else pytest.mark.slow
            how = MASKED if mask else {}
            yield pytest.param(entry.name, dtype, how, marks=marks, id=f"{entry.name}-{dtype}")


@cache
def emitted(name: str) -> str:
    return emit(load(name).plan)


@pytest.mark.parametrize(("name", "dtype", "how"), list(calls()))
def test_kernels_are_right(name: str, dtype: torch.dtype, how: Mapping[str, Any]) -> None:
    plan = load(name).plan
    if not how and dtype != DTYPES[0]:
        extents = {r.extent_name for r in plan.written.ranks}
        how = {"shape": {h: n for h, n in FEW_HEADS.items() if h in extents}}
    report = verify(plan, lambda: emitted(name), dtype=dtype, backend="interpreter", **how)
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "params"), SETTINGS, ids=str)
def test_kernels_are_right_in_other_settings(name: str, params: Mapping[str, ParamValue]) -> None:
    plan = load(name).plan
    how = {**MASKED, "cases": ("ragged", "one row"), "params": params}
    report = verify(plan, lambda: emitted(name), backend="interpreter", **how)
    assert report.ok, str(report)
