"""What a mask is evaluated with: extents from the shape or tensors, and only what it needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import attnc
from attnc.errors import AttncError
from attnc.masks import Mask, masks


def _mask(spec: str, shape: dict[str, int], **tensors: Any) -> Mask:
    attention = attnc.load(spec)
    (found,) = masks(attention.plan, attention.run_time_params, shape, tensors)
    return found


@pytest.mark.parametrize(
    "shape", [{"MY": 4, "MX": 5}, {"NY": 4, "NX": 5}, {"M": 20, "MX": 5}, {"my": 4, "mx": 5}]
)
def test_queries_and_keys_share_the_extents_given(shape: dict[str, int]) -> None:
    mask = _mask("na2d", {**shape, "B": 1, "D": 64})
    assert (mask.coordinates("m"), mask.coordinates("n")) == (("my", "mx"), ("ny", "nx"))
    assert [mask.extent(r) for r in ("m", "my", "mx", "n", "ny", "nx")] == [20, 4, 5, 20, 4, 5]


def test_keys_may_differ_from_queries() -> None:
    mask = _mask("causal", {"M": 3, "N": 7})
    assert (mask.extent("m"), mask.extent("n"), mask.coordinates("m")) == (3, 7, ("m",))


def test_components_that_no_mask_reads_need_no_extent() -> None:
    assert _mask("gpsa", {"M": 6}).coordinates("m") == ("m",)
    assert _mask("gpsa", {"MY": 2, "MX": 3}).coordinates("m") == ("my", "mx")


def test_captured_tensors_of_torch_and_numpy_give_extents() -> None:
    for doc in (torch.zeros(2, 9, dtype=torch.int32), np.zeros((2, 9), np.uint8)):
        mask = _mask("document", {}, doc=doc)
        assert [mask.extent(r) for r in "bmn"] == [2, 9, 9]
        assert mask.bound.tensors["doc"].dtype == np.int64
        assert mask.visibility.grid == ("b",)


@pytest.mark.parametrize(
    ("spec", "shape", "tensors", "code", "says"),
    [
        ("na2d", {"MY": 4}, {}, "E504", "MX, NX"),
        ("na2d", {"M": 21, "MX": 5}, {}, "E505", "M = MY * MX"),
        ("sdpa", {"X": 3}, {}, "E504", "`X`"),
        ("sdpa", {"M": -1}, {}, "E504", "length"),
        ("strided", {"M": 9}, {}, "E504", "H"),
        ("document", {"M": 9}, {}, "E503", "`doc[b, n]: int`"),
        ("document", {}, {"dco": np.zeros((2, 9), int)}, "E503", "`dco`"),
        ("document", {}, {"doc": np.zeros((2, 9))}, "E513", "float64"),
        ("document", {}, {"doc": np.zeros(9, int)}, "E502", "axes"),
        ("document", {"N": 8}, {"doc": np.zeros((2, 9), int)}, "E501", "two extents"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_said(
    spec: str, shape: dict[str, int], tensors: dict[str, Any], code: str, says: str
) -> None:
    with pytest.raises(AttncError) as e:
        _mask(spec, shape, **tensors)
    assert e.value.code == code
    assert says in e.value.message
