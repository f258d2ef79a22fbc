"""What an attention is compared with: causal if its mask is, found out by counting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.api import load
from attnc.compilation import complete_shape
from attnc.runtime.cost.baseline import baseline
from attnc.runtime.cost.call import Call


def _call(
    spec: str, shape: Mapping[str, int], tensors: Mapping[str, Any] | None = None, **params: Any
) -> Call:
    attention = load(spec, **params)
    extents = complete_shape(attention.plan, shape)
    return Call(attention.plan, attention.run_time_params, extents, "bf16", tensors or {})


@pytest.mark.parametrize(
    ("spec", "shape", "params", "expected"),
    [
        ("sdpa", {}, {}, "none"),
        ("causal", {}, {}, "causal"),
        ("sliding_window", {"M": 1 << 20, "N": 1 << 20}, {}, "causal"),
        # As many keys as queries is what makes a causal baseline.
        ("sliding_window", {"M": 1, "N": 64}, {}, "none"),
        ("gqa", {"M": 64, "N": 64}, {}, "causal"),
        ("longca_sliding_window", {}, {}, "none"),
        ("na1d", {"M": 64, "N": 64}, {"window": 8}, "none"),
        ("na1d", {"M": 64, "N": 64}, {"window": 8, "causal": True}, "causal"),
        ("gna", {"MT": 4, "MY": 5, "MX": 6, "NT": 4, "NY": 5, "NX": 6}, {}, "none"),
        ("lssar", {}, {}, "causal"),
    ],
)
def test_masks_of_the_library(
    spec: str, shape: Mapping[str, int], params: Mapping[str, Any], expected: str
) -> None:
    assert baseline(_call(spec, shape, **params)) == expected


@pytest.mark.parametrize("causal", [(t, y) for t in (True, False) for y in (True, False)])
def test_a_plane_is_causal_if_no_key_comes_later_in_row_major_order(
    causal: tuple[bool, bool],
) -> None:
    shape = {"MY": 6, "MX": 7, "NY": 6, "NX": 7}
    call = _call("na2d", shape, causal=causal, window=(1, 3))
    # A window of one row sees no later row, whatever `causal` says of rows.
    assert baseline(call) == ("causal" if causal[1] else "none")


def test_documents_are_counted_with_their_data() -> None:
    doc = np.arange(64).reshape(1, 64) // 10
    shape = {"B": 1, "M": 64, "N": 64}
    assert baseline(_call("causal_document", shape, {"doc": doc})) == "causal"
    assert baseline(_call("document", shape, {"doc": doc})) == "none"
    # Each token its own document: nobody sees anybody else.
    assert baseline(_call("document", shape, {"doc": np.arange(64)[None]})) == "causal"


_SPEC = """attention drawn

input Q[h, m, d]
input K[h, n, d]
input V[h, n, e]

mask seen[h, m, n] = {mask}

S[h, m, n] = sum(d) Q[h, m, d] * K[h, n, d]
P[h, m, n] = softmax(n) S[h, m, n]  where seen[h, m, n]
O[h, m, e] = sum(n) P[h, m, n] * V[h, n, e]

output O[h, m, e]
"""
_SIDE = st.sampled_from(["m", "n", "m // 3", "n % 4", "m + n", "m * 2", "n * n", "h * m"])


@settings(max_examples=25, deadline=None)
@given(
    left=_SIDE,
    right=_SIDE,
    off=st.integers(-3, 3),
    joined=st.sampled_from(["and n <= m", "", "or"]),
)
def test_it_agrees_with_looking_at_every_point(
    left: str, right: str, off: int, joined: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mask = f"{left} <= {right} + {off} " + (joined if joined != "or" else "or n == m")
    file: Path = tmp_path_factory.mktemp("drawn") / "drawn.attn"
    file.write_text(_SPEC.format(mask=mask), encoding="utf-8")
    call = _call(str(file), {"H": 2, "M": 21, "N": 21, "D": 16, "E": 16})
    points = ((h, m, n) for h in range(2) for m in range(21) for n in range(m + 1, 21))
    seen = any(eval(mask, {"h": h, "m": m, "n": n}) for h, m, n in points)
    assert baseline(call) == ("none" if seen else "causal")
