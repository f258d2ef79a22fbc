"""Cascades over tiles say the same as the cascades over whole ranks that `merge_tiles` makes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.cascade import Cascade
from attnc.ir.interpret import interpret
from attnc.ir.merge_tiles import merge_tiles
from attnc.ir.pipeline import plan
from attnc.ir.plan import SweepStage
from attnc.ir.show import show_cascade
from attnc.library import text

CASCADES = Path(__file__).parents[1] / "cascades"
# Tiles, points of a tile.
TILES = [(3, 4), (1, 5), (5, 1), (0, 3), (2, 0)]

HEAD = """\
attention tiled
rank n = (i, j)
input Q[m, d]
input K[n, d]
input V[n, e]
input B[m, n]
input C[i]
"""
SCORES = "S[m, i, j] = sum(d) Q[m, d] * K[i * J + j, d]\n"


def spec(lines: str, outputs: str) -> Cascade:
    used = [x for x in HEAD.splitlines() if not x.startswith("input") or _reads(lines, x)]
    return load_text("\n".join([*used, lines, f"output {outputs}"]))


def _reads(lines: str, declaration: str) -> bool:
    return re.search(rf"\b{declaration.split()[1][0]}\[", lines) is not None


def inputs(cascade: Cascade, tiles: tuple[int, int], scale: float = 1.0) -> dict[str, np.ndarray]:
    """Normal values; extents from 2 up by place of the rank, tiled ranks aside."""
    random = np.random.default_rng(7)
    grid = next(r for r in cascade.ranks if r.components)
    sizes = {r.name: 2 + i % 3 for i, r in enumerate(cascade.ranks)}
    sizes |= {"b": 2, "h": 4, "g": 2, grid.name: tiles[0] * tiles[1]}
    sizes |= dict(zip(grid.components, tiles, strict=True))
    return {t.name: random.normal(size=[sizes[r] for r in t.ranks]) * scale for t in cascade.inputs}


def assert_same(
    a: Cascade, b: Cascade, given: dict[str, np.ndarray], tiles: tuple[int, int]
) -> None:
    """Equal to rounding, in float64; NaN nowhere."""
    grid = next(r for r in a.ranks if r.components)
    extents = dict(zip(grid.components, tiles, strict=True))
    want, got = (interpret(c, given, extents=extents) for c in (a, b))
    assert want.keys() == got.keys()
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-9, atol=1e-12)


def merged(cascade: Cascade) -> Cascade:
    """The merged cascade, which mentions no component but in masks."""
    result, certificates = merge_tiles(cascade)
    assert certificates and {c.law for c in certificates} == {"merge"}
    return result


def lines(cascade: Cascade) -> list[str]:
    return [re.sub(" +", " ", x) for x in show_cascade(cascade).strip().splitlines()]


def assert_left_alone(cascade: Cascade) -> None:
    result, certificates = merge_tiles(cascade)
    assert result is cascade and not certificates


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("name", ["softmax_local_max", "softmax_split"])
def test_written_cascades(name: str, tiles: tuple[int, int]) -> None:
    cascade = load_text((CASCADES / f"{name}.attn").read_text())
    for scale in (1.0, 1e3):
        assert_same(cascade, merged(cascade), inputs(cascade, tiles, scale), tiles)


def test_library_spec_is_one_sweep_in_one_pass() -> None:
    cascade = load_text(text("sdpa_2pass"))
    (stage,) = plan(cascade).stages
    assert isinstance(stage, SweepStage)
    assert len(stage.passes) == 1 and stage.swept == "n" and stage.row == "m"
    assert stage.derived is not None
    laws = [(c.law, c.tensor) for c in stage.derived.certificates]
    assert laws[:3] == [("merge", "GM"), ("merge", "GD"), ("merge", "AV")]
    assert ("iterate", "AV") in laws


def test_certificates_cite_what_cancels() -> None:
    _, certificates = merge_tiles(load_text(text("sdpa_2pass")))
    reasons = {c.tensor: c.reason for c in certificates}
    assert reasons["GM"] == "over n1 and then over n0 is over n"
    assert reasons["GD"] == "over n1 and then over n0 is over n, and LM[b, h, m, n1] cancels"
    assert all(c.span is not None for c in certificates)


def test_cascade_without_tiles_is_left_alone() -> None:
    for name in ("sdpa", "sliding_window", "lse"):
        assert_left_alone(load_text(text(name)))


SHOWN = "T[m, i, j] = S[m, i, j] where {}"
LOCAL = """
L[m, i] = max(j) T[m, i, j]
W[m, i, j] = exp(T[m, i, j] - L[m, i])
Z[m, i] = sum(j) W[m, i, j]
U[m, i, e] = sum(j) W[m, i, j] * V[i * J + j, e]
G[m] = max(i) L[m, i]
R[m] = sum(i) Z[m, i] * exp(L[m, i] - G[m])
O[m, e] = sum(i) U[m, i, e] * exp(L[m, i] - G[m]) / R[m]
"""


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize(
    "mask",
    [
        "i * J + j <= m",  # whole tiles are hidden
        "i * J + j >= 2 * J + 1",  # the first ones, and a part of one
        "i >= m and j > 0",  # tiles as blocks
        "i > I",  # everything
    ],
)
def test_hidden_tiles(mask: str, tiles: tuple[int, int]) -> None:
    cascade = spec(SCORES + SHOWN.format(mask) + LOCAL, "O[m, e]")
    assert_same(cascade, merged(cascade), inputs(cascade, tiles), tiles)


def test_masks_on_the_reductions() -> None:
    """What hides a point from its tile's maximum has to hide it from the sum, too."""
    local = LOCAL.replace("T[m, i, j]", "S[m, i, j]").splitlines()
    shown = [x + " where i * J + j <= m" if "(j)" in x or "W[m, i, j] =" in x else x for x in local]
    cascade = spec(SCORES + "\n".join(shown), "O[m, e]")
    result = merged(cascade)
    assert "R[m] = sum(n) exp(S[m, n] - G[m]) where n <= m" in lines(result)
    assert_same(cascade, result, inputs(cascade, (3, 4)), (3, 4))


def test_tiles_of_minus_infinity() -> None:
    biased = "T[m, i, j] = S[m, i, j] + B[m, i * J + j]"
    cascade = spec(SCORES + biased + LOCAL, "O[m, e]")
    given = inputs(cascade, (3, 4))
    for hidden in (slice(0, 4), slice(3, 9), slice(8, 12), slice(0, 12)):
        given["B"][0, hidden] = -np.inf
        assert_same(cascade, merged(cascade), given, (3, 4))


def test_mask_keeps_its_components() -> None:
    cascade = spec(SCORES + SHOWN.format("i >= m and j > 0") + LOCAL, "O[m, e]")
    assert "T[m, n] = S[m, n] where i >= m and j > 0" in lines(merged(cascade))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("O[e] = sum(j, i) V[j + J * i, e]", "O[e] = sum(n) V[n, e]"),
        ("T[i, e] = sum(j) V[i * J + j, e]\nO[e] = sum(i) T[i, e]", "O[e] = sum(n) V[n, e]"),
        ("T[j, e] = sum(i) V[i * J + j, e]\nO[e] = sum(j) T[j, e]", "O[e] = sum(n) V[n, e]"),
        (
            "T[i, e] = sum(j) V[i * J + j, e]\nO[e] = sum(i) T[i, e] * C[i]",
            "O[e] = sum(n) V[n, e] * C[i]",
        ),
        (
            "T[i, e] = max(j) V[i * J + j, e]\nO[e] = max(i) T[i, e] + C[i]",
            "O[e] = max(n) V[n, e] + C[i]",
        ),
        (
            "T[i, e] = max(j) V[i * J + j, e]\nO[e] = max(i) T[i, e] * exp(C[i])",
            "O[e] = max(n) V[n, e] * exp(C[i])",
        ),
        (
            "T[i, e] = prod(j) V[i * J + j, e]\nO[e] = prod(i) T[i, e]",
            "O[e] = prod(n) V[n, e]",
        ),
        (
            "T[i, e] = sum(j) V[i * J + j, e] where j > 0\nO[e] = sum(i) T[i, e] where i > 0",
            "O[e] = sum(n) V[n, e] where i > 0 and j > 0",
        ),
    ],
)
def test_nested_reductions(written: str, expected: str) -> None:
    cascade = spec(written, "O[e]")
    result = merged(cascade)
    assert lines(result) == [expected]
    assert_same(cascade, result, inputs(cascade, (3, 4)), (3, 4))


@pytest.mark.parametrize("map", ["exp", "exp2"])
@pytest.mark.parametrize(
    ("exponent", "scale"),
    [
        ("0.5 * (T[m, i, j] - L[m, i])", "0.5"),
        ("(T[m, i, j] - L[m, i]) / sqrt(D)", "1 / sqrt(D)"),
        ("T[m, i, j] * 0.5 + B[m, i * J + j] - 0.5 * L[m, i]", "0.5"),
    ],
)
def test_scaled_bases_cancel(exponent: str, scale: str, map: str) -> None:
    cascade = spec(
        f"""{SCORES}T[m, i, j] = S[m, i, j] where i * J + j <= m
        L[m, i] = max(j) T[m, i, j]
        Z[m, i] = sum(j) {map}({exponent})
        G[m] = max(i) L[m, i]
        O[m] = sum(i) Z[m, i] * {map}(({scale}) * (L[m, i] - G[m]))""",
        "O[m]",
    )
    assert_same(cascade, merged(cascade), inputs(cascade, (3, 4)), (3, 4))


def test_finite_base_need_not_be_a_maximum() -> None:
    cascade = spec(
        f"""{SCORES}
        L[m, i] = sum(d) Q[m, d] * K[i * J, d]
        Z[m, i] = sum(j) exp(S[m, i, j] - L[m, i])
        G[m] = max(i, j) S[m, i, j]
        O[m] = sum(i) Z[m, i] * exp(L[m, i] - G[m])""",
        "O[m]",
    )
    assert_same(cascade, merged(cascade), inputs(cascade, (3, 4)), (3, 4))


@pytest.mark.parametrize(
    ("written", "outputs"),
    [
        # A summary that is wanted.
        ("L[m, i] = max(j) S[m, i, j]", "L[m, i]"),
        # Every tile normalised by itself.
        (
            "W[m, i, j] = softmax(j) S[m, i, j]\nO[m] = sum(i, j) W[m, i, j] * S[m, i, j]",
            "O[m]",
        ),
        # Not the tile's maximum, and not known to be finite.
        (
            """L[m, i] = max(j) S[m, i, j] where j <= m
            Z[m, i] = sum(j) exp(S[m, i, j] - L[m, i])
            O[m] = sum(i) Z[m, i] * exp(L[m, i])""",
            "O[m]",
        ),
        # A negative multiple of it: exp(inf) where nothing is seen.
        (
            """M[m, i] = max(j) S[m, i, j] where j <= m
            Z[m, i] = sum(j) exp(M[m, i] - S[m, i, j]) where j <= m
            O[m] = sum(i) Z[m, i] * exp(-M[m, i])""",
            "O[m]",
        ),
        # The square of a sum, the sum of maxima, the product of two sums.
        ("L[m, i] = sum(j) S[m, i, j]\nO[m] = sum(i) L[m, i] * L[m, i]", "O[m]"),
        ("L[m, i] = max(j) S[m, i, j]\nO[m] = sum(i) L[m, i]", "O[m]"),
        (
            """L[m, i] = sum(j) S[m, i, j]
            R[m, i] = sum(j) exp(S[m, i, j])
            O[m] = sum(i) L[m, i] * R[m, i]""",
            "O[m]",
        ),
        # A factor that may be negative stays outside a maximum.
        ("L[m, i] = max(j) S[m, i, j]\nO[m] = max(i) L[m, i] * C[i]", "O[m]"),
        # A base that is absent here and there, and takes its points with it.
        (
            """L[m, i] = sum(d) Q[m, d] * K[i * J, d]
            Z[m, i] = sum(j) exp(S[m, i, j] - 1 / L[m, i])
            O[m] = sum(i) Z[m, i] * exp(1 / L[m, i])""",
            "O[m]",
        ),
        # Different maps.
        (
            """L[m, i] = max(j) S[m, i, j]
            Z[m, i] = sum(j) exp(S[m, i, j] - L[m, i])
            O[m] = sum(i) Z[m, i] * exp2(L[m, i])""",
            "O[m]",
        ),
        # Over tiles only, and an output with a tile's axes.
        ("O[m] = sum(i, j) S[m, i, j] * C[i]\nR[] = sum(i) C[i]", "O[m], R[]"),
        ("O[m, i, j] = exp(S[m, i, j])", "O[m, i, j]"),
    ],
)
def test_what_depends_on_the_tile_stays(written: str, outputs: str) -> None:
    assert_left_alone(spec(f"{SCORES}\n{written}", outputs))


def test_extents_of_components_may_still_be_given() -> None:
    cascade = merged(load_text(text("sdpa_2pass")))
    given = inputs(cascade, (3, 4))
    without = interpret(cascade, given)["AV"]
    np.testing.assert_array_equal(interpret(cascade, given, extents={"N0": 4})["AV"], without)
    with pytest.raises(AttncError, match="does not hold"):
        interpret(cascade, given, extents={"N0": 5})


@settings(max_examples=20)
@given(
    names=st.permutations(["a", "z", "tile", "key", "k1", "k0", "row", "u"]),
    tensors=st.permutations(["W", "Z1", "MAX", "X", "QQ", "RM", "Y_"]),
)
def test_names_do_not_matter(names: list[str], tensors: list[str]) -> None:
    written = (CASCADES / "softmax_split.attn").read_text()
    new = dict(zip(["m1", "m0", "m", "p", "e", "f"], names, strict=False))
    new |= {r.upper(): n.upper() for r, n in new.items()}
    new |= dict(zip(["LM", "SLD", "GM", "GD", "SLNV", "BQK", "PLM"], tensors, strict=True))
    renamed = re.sub(r"\b\w+\b", lambda w: new.get(w[0], w[0]), written)
    cascade = load_text(renamed)
    result = merged(cascade)
    assert len(result.statements) == 7
    assert_same(cascade, result, inputs(cascade, (2, 3)), (2, 3))
