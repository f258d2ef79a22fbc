"""Extents and parameters of a call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attnc.errors import AttncError
from attnc.ir.cascade import ParamDecl
from attnc.ir.interpret import bind_extents, check_params, interpret
from tests.ir.test_interpret import qkv, softmax
from tests.ir.written import cascade

GRID = cascade("Y[my] = sum(mx) A[my * MX + mx]", "Y", inputs="A[m]", grids=[("m", "my", "mx")])


def test_extents_come_from_shapes() -> None:
    shapes = {name: x.shape for name, x in qkv().items()}
    found = bind_extents(softmax("n <= m"), shapes, {})
    assert found == {"b": 2, "h": 4, "m": 5, "d": 3, "g": 2, "n": 7, "e": 6}


def test_a_missing_component_is_solved_for() -> None:
    assert bind_extents(GRID, {"A": (12,)}, {"MX": 4}) == {"m": 12, "mx": 4, "my": 3}
    assert bind_extents(GRID, {"A": (12,)}, {"my": 12}) == {"m": 12, "mx": 1, "my": 12}


def test_a_grid_is_the_product_of_its_components() -> None:
    c = cascade("Y[m] = float(m) * B[my, mx]", "Y", inputs="B[my, mx]", grids=[("m", "my", "mx")])
    assert bind_extents(c, {"B": (3, 4)}, {})["m"] == 12


def test_concatenated_extents_add_up() -> None:
    c = cascade("S[n] = concat(n: x, c) A[x]; B[c]", "S", inputs="A[x] B[c]")
    assert bind_extents(c, {"A": (2,), "B": (3,)}, {})["n"] == 5
    with pytest.raises(AttncError, match=r"`N = X \+ C` does not hold: A\[x=2\], B\[c=3\], N=6"):
        bind_extents(c, {"A": (2,), "B": (3,)}, {"N": 6})


@pytest.mark.parametrize(
    ("shapes", "extra", "code", "message"),
    [
        ({"A": (12,)}, {}, "E504", r"nothing gives the extent of rank `m[xy]`: A\[m=12\]"),
        ({"A": (12,)}, {"MX": 5}, "E505", r"`M = MY \* MX` does not hold: A\[m=12\], MX=5"),
        (
            {"A": (12,)},
            {"MX": 3, "MY": 3},
            "E505",
            r"`M = MY \* MX` does not hold: A\[m=12\], MX=3, MY=3",
        ),
        ({"A": (12,)}, {"MZ": 3}, "E504", "`MZ` is no rank"),
        ({"A": (12,)}, {"MX": -3}, "E504", "is a length, not -3"),
        ({"A": (3, 4)}, {}, "E502", r"`A\[m\]` has 1 axes, the tensor has 2: shape \(3, 4\)"),
        ({}, {}, "E503", r"input `A\[m\]` is missing"),
        ({"A": (1,), "a": (1,)}, {}, "E503", "`a` is no input"),
    ],
)
def test_what_does_not_fit(
    shapes: dict[str, tuple[int, ...]], extra: dict[str, int], code: str, message: str
) -> None:
    with pytest.raises(AttncError, match=message) as e:
        bind_extents(GRID, shapes, extra)
    assert e.value.code == code


def test_extents_that_disagree_show_every_binding() -> None:
    t = qkv()
    t["K"] = t["K"][..., :2]
    with pytest.raises(AttncError) as e:
        interpret(softmax("n <= m"), t)
    assert e.value.code == "E501"
    assert e.value.message == (
        "rank `d` has two extents, 3 and 2: "
        "Q[b=2, h=4, m=5, d=3], K[b=2, g=2, n=7, d=2], V[b=2, g=2, n=7, e=6]"
    )


PARAMS = cascade(
    "Y[n] = A[n]",
    "Y",
    inputs="A[n]",
    params=[
        ParamDecl("window", "int", 8, low=1),
        ParamDecl("scale", "float", low=0, high=1, low_open=True),
        ParamDecl("flag", "bool", False),
        ParamDecl("tile", "int", (2, 3), length=2),
    ],
)


def test_parameters_take_defaults_and_their_own_type() -> None:
    found = check_params(PARAMS, {"scale": 1, "tile": [np.int64(4), 5]})
    assert found == {"window": 8, "scale": 1.0, "flag": False, "tile": (4, 5)}
    assert [type(v) for v in found.values()] == [int, float, bool, tuple]


@pytest.mark.parametrize(
    ("values", "code", "message"),
    [
        ({}, "E507", "parameter `scale: float` of `written` has no value"),
        ({"windw": 3}, "E506", "`windw` is no parameter"),
        ({"window": 0}, "E509", r"parameter `window` is in \[1, inf\), not 0"),
        ({"window": 2.5}, "E508", "parameter `window` is int, not 2.5"),
        ({"window": True}, "E508", "parameter `window` is int, not True"),
        ({"scale": 0}, "E509", r"parameter `scale` is in \(0, 1\], not 0"),
        ({"scale": float("nan")}, "E509", "not nan"),
        ({"scale": "1"}, "E508", "parameter `scale` is float, not '1'"),
        ({"scale": 10**400}, "E508", "parameter `scale` is float"),
        ({"flag": 1}, "E508", "parameter `flag` is bool, not 1"),
        ({"tile": 3}, "E508", r"parameter `tile` is int\[2\], not 3"),
        ({"tile": (3,)}, "E508", r"parameter `tile` is int\[2\]"),
    ],
)
def test_parameters_that_do_not_fit(values: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(AttncError, match=message) as e:
        check_params(PARAMS, values if "scale" in values or not values else values | {"scale": 1})
    assert e.value.code == code


def test_an_unknown_parameter_names_the_nearest() -> None:
    with pytest.raises(AttncError) as e:
        check_params(PARAMS, {"windw": 3})
    assert e.value.hint == "did you mean `window`?"
