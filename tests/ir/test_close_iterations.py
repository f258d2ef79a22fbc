"""Iterations read at their end say the same as the closed forms that `close_iterations` finds."""

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
from attnc.ir.close_iterations import close_iterations
from attnc.ir.interpret import interpret
from attnc.ir.merge_tiles import merge_tiles
from attnc.ir.pipeline import plan
from attnc.ir.plan import SweepStage
from attnc.ir.show import show_cascade
from attnc.library import text

CASCADES = Path(__file__).parents[1] / "cascades"
# Tiles, points of a tile.
TILES = [(3, 4), (1, 5), (5, 1), (0, 3)]

HEAD = """\
attention stepped
input Q[m, d]
input K[n, d]
input V[n, e]
input A[n]
input B[m, n]
"""
SCORES = "S[m, n] = sum(d) Q[m, d] * K[n, d]\n"


def spec(lines: str, outputs: str) -> Cascade:
    used = [x for x in HEAD.splitlines() if not x.startswith("input") or _is_read(lines, x)]
    return load_text("\n".join([*used, lines, f"output {outputs}"]))


def _is_read(lines: str, declaration: str) -> bool:
    return re.search(rf"\b{declaration.split()[1][0]}\[", lines) is not None


def inputs(cascade: Cascade, n: int = 6, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Normal values; `n` is the extent of rank n, and of a rank with components."""
    random = np.random.default_rng(3)
    sizes = {r.name: 2 + i % 3 for i, r in enumerate(cascade.ranks)} | {"b": 2, "h": 4, "g": 2}
    sizes |= {r.name: n for r in cascade.ranks if r.components or r.name == "n"}
    return {t.name: random.normal(size=[sizes[r] for r in t.ranks]) * scale for t in cascade.inputs}


def assert_same(
    a: Cascade, b: Cascade, given: dict[str, np.ndarray], **extents: int
) -> dict[str, np.ndarray]:
    want, got = (interpret(c, given, extents=extents) for c in (a, b))
    assert want.keys() == got.keys()
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-9, atol=1e-12)
    return want


def closed(cascade: Cascade) -> Cascade:
    """The closed form, in which nothing is stepped along any more."""
    result, certificates = close_iterations(cascade)
    assert certificates and {c.law for c in certificates} == {"close"}
    assert not any(r.iterative for r in result.ranks)
    return result


def lines(cascade: Cascade) -> list[str]:
    return [re.sub(" +", " ", x) for x in show_cascade(cascade).strip().splitlines()]


def assert_left_alone(cascade: Cascade) -> None:
    result, certificates = close_iterations(cascade)
    assert result is cascade and not certificates
    with pytest.raises(AttncError) as refused:
        plan(cascade)
    assert refused.value.code == "E901"


# the written forms of online softmax ------------------------------------------------------------


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("name", ["softmax_1_pass", "softmax_rescaled"])
def test_written_cascades(name: str, tiles: tuple[int, int]) -> None:
    cascade = load_text((CASCADES / f"{name}.attn").read_text())
    flat = closed(cascade)
    whole, _ = merge_tiles(flat)
    for scale in (1.0, 1e3):
        given = inputs(cascade, tiles[0] * tiles[1], scale)
        assert_same(cascade, flat, given, M1=tiles[0], M0=tiles[1])
        assert_same(cascade, whole, given, M0=tiles[1])


@pytest.mark.parametrize("tiles", TILES)
def test_library_spec(tiles: tuple[int, int]) -> None:
    cascade = load_text(text("sdpa_1pass"))
    whole, _ = merge_tiles(closed(cascade))
    given = inputs(cascade, tiles[0] * tiles[1])
    assert_same(cascade, whole, given, N1=tiles[0], N0=tiles[1])


def test_library_spec_is_one_sweep_in_one_pass() -> None:
    (stage,) = plan(load_text(text("sdpa_1pass"))).stages
    assert isinstance(stage, SweepStage)
    assert len(stage.passes) == 1 and stage.swept == "n" and stage.row == "m"
    assert stage.derived is not None
    laws = {(c.law, c.tensor) for c in stage.derived.certificates}
    assert {(law, t) for law in ("close", "merge") for t in ("RM", "RD", "RNV")} < laws
    assert ("iterate", "RNV") in laws


def test_certificates_cite_the_telescoping_factor() -> None:
    _, certificates = close_iterations(load_text(text("sdpa_1pass")))
    maximum, total, _ = certificates
    assert maximum.reason == "stepping along n1 from the identity to the end is a max"
    assert total.reason.endswith("telescope to exp(RM[b, h, n1 + 1, m] - RM[b, h, N1, m])")
    assert total.span is not None


def test_average_at_every_step_is_refused() -> None:
    """It divides by a sum on the way: where that is 0, the average is absent from then on."""
    assert_left_alone(load_text((CASCADES / "softmax_1_pass_divided.attn").read_text()))
    assert_left_alone(load_text((CASCADES / "toy_iterative.attn").read_text()))


@settings(max_examples=20)
@given(
    names=st.permutations(["a", "z", "tile", "key", "k1", "k0"]),
    tensors=st.permutations(["W", "Z1", "MAX", "X", "QQ", "LM", "Y_"]),
)
def test_names_do_not_matter(names: list[str], tensors: list[str]) -> None:
    written = (CASCADES / "softmax_1_pass.attn").read_text()
    new = dict(zip(["m1", "m0", "m", "p", "e", "f"], names, strict=True))
    new |= {r.upper(): n.upper() for r, n in new.items()}
    new |= dict(zip(["RM", "RD", "RNV", "PRM", "SLD", "SLNV", "LM"], tensors, strict=True))
    cascade = load_text(re.sub(r"\b\w+\b", lambda w: new.get(w[0], w[0]), written))
    whole, _ = merge_tiles(closed(cascade))
    assert len(whole.statements) == 7
    assert_same(cascade, whole, inputs(cascade, 6), **{names[1].upper(): 3})


# one point at a step ----------------------------------------------------------------------------

ONLINE = """
X[m, 0] = -inf
X[m, n + 1] = max(X[m, n], S[m, n])
Z[m, 0] = 0
Z[m, n + 1] = Z[m, n] * exp(X[m, n] - X[m, n + 1]) + exp(S[m, n] - X[m, n + 1])
"""


@pytest.mark.parametrize("n", [0, 1, 6])
def test_without_tiles(n: int) -> None:
    cascade = spec(SCORES + ONLINE + "L[m] = X[m, N] + log(Z[m, N])", "L[m]")
    result = closed(cascade)
    assert lines(result) == [
        "S[m, n] = sum(d) Q[m, d] * K[n, d]",
        "X[m] = max(n) S[m, n]",
        "Z[m] = sum(n) exp(S[m, n] - X[m])",
        "L[m] = X[m] + log(Z[m])",
    ]
    assert_same(cascade, result, inputs(cascade, n))


def test_definitions_in_any_order() -> None:
    statements = ONLINE.strip().splitlines()
    backwards = "\n".join([*statements[::2], *reversed(statements[1::2])])
    cascade = spec(SCORES + backwards + "\nL[m] = X[m, N] + log(Z[m, N])", "L[m]")
    result = closed(cascade)
    assert [x.split("[")[0] for x in lines(result)] == ["S", "X", "Z", "L"]
    assert_same(cascade, result, inputs(cascade))


@pytest.mark.parametrize("map", ["exp", "exp2"])
def test_scaled_base(map: str) -> None:
    online = ONLINE.replace("X[m, n] - X[m, n + 1]", "(X[m, n] - X[m, n + 1]) / sqrt(D)")
    online = online.replace("S[m, n] - X[m, n + 1]", "(S[m, n] - X[m, n + 1]) / sqrt(D)")
    cascade = spec(SCORES + online.replace("exp(", f"{map}(") + "O[m] = Z[m, N]", "O[m]")
    assert_same(cascade, closed(cascade), inputs(cascade))


@pytest.mark.parametrize(
    ("step", "start", "expected"),
    [
        ("X[n] + A[n]", "0", "sum(n) A[n]"),
        ("X[n] - A[n] * A[n]", "0.0", "sum(n) (-(A[n] * A[n]))"),
        ("A[n] + X[n] + 1.0", "0", "sum(n) A[n] + 1.0"),
        ("max(A[n], X[n])", "-inf", "max(n) A[n]"),
        ("min(X[n], A[n])", "inf", "min(n) A[n]"),
        ("A[n] * X[n]", "1", "prod(n) A[n]"),
    ],
)
def test_running_reductions(step: str, start: str, expected: str) -> None:
    cascade = spec(f"X[0] = {start}\nX[n + 1] = {step}\nO[] = X[N]", "O[]")
    result = closed(cascade)
    assert lines(result) == [f"X[] = {expected}", "O[] = X[]"]
    for n in (0, 1, 6):
        assert_same(cascade, result, inputs(cascade, n))


@pytest.mark.parametrize(
    ("step", "start", "op"),
    [("X[n] or A[n] > 1.0", "false", "any"), ("X[n] and A[n] > -1.0", "true", "all")],
)
def test_running_logic(step: str, start: str, op: str) -> None:
    cascade = spec(f"X[0] = {start}\nX[n + 1] = {step}\nO[] = if X[N] then 1.0 else 2.0", "O[]")
    result = closed(cascade)
    assert lines(result)[0].startswith(f"X[] = {op}(n)")
    for n in (0, 1, 6):
        assert_same(cascade, result, inputs(cascade, n))


# real recurrences -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "outputs"),
    [
        # A state that decays.
        ("H[0, e] = 0\nH[n + 1, e] = A[n] * H[n, e] + V[n, e]\nO[e] = H[N, e]", "O[e]"),
        # A decay that is a ratio, but not of what the update is relative to.
        (
            """X[0] = 0
            X[n + 1] = X[n] + A[n]
            H[0] = 0
            H[n + 1] = H[n] * exp(X[n] - X[n + 1]) + A[n]
            O[] = H[N]""",
            "O[]",
        ),
        # Values on the way.
        ("H[0, e] = 0\nH[n + 1, e] = H[n, e] + V[n, e]\nO[n, e] = H[n + 1, e]", "O[n, e]"),
        (
            "X[0] = -inf\nX[n + 1] = max(X[n], A[n])\nO[] = sum(n) A[n] * X[n + 1] / X[N]",
            "O[]",
        ),
        # Not from the identity on, or not over all of it.
        ("X[0] = 1\nX[n + 1] = X[n] + A[n]\nO[] = X[N]", "O[]"),
        ("X[0] = -inf\nX[n + 1] = min(X[n], A[n])\nO[] = X[N]", "O[]"),
        ("X[0] = 0\nX[n + 1] = X[n] + A[n]\nO[] = X[N // 2]", "O[]"),
        # An alternating sum, a square, a maximum of a multiple.
        ("X[0] = 0\nX[n + 1] = A[n] - X[n]\nO[] = X[N]", "O[]"),
        ("X[0] = 0\nX[n + 1] = X[n] * X[n] + A[n]\nO[] = X[N]", "O[]"),
        ("X[0] = 0\nX[n + 1] = X[n] + X[n] * A[n]\nO[] = X[N]", "O[]"),
        ("X[0] = -inf\nX[n + 1] = max(0.5 * X[n], A[n])\nO[] = X[N]", "O[]"),
        # An update that may be absent, which the iteration is from then on.
        ("X[0] = 0\nX[n + 1] = X[n] + 1 / A[n]\nO[] = X[N]", "O[]"),
        (
            SCORES
            + "T[m, n] = S[m, n] where n <= m\n"
            + "X[m, 0] = 0\nX[m, n + 1] = X[m, n] + T[m, n]\nO[m] = X[m, N]",
            "O[m]",
        ),
        # A base that may still be -inf after a step.
        (
            SCORES.strip()
            + "\nT[m, n] = S[m, n] + B[m, n]"
            + ONLINE.replace("S[", "T[")
            + "O[m] = Z[m, N]",
            "O[m]",
        ),
        # The base one step behind: at first it is -inf.
        (
            SCORES
            + ONLINE[: ONLINE.index("Z[m, n + 1]")]
            + "Z[m, n + 1] = (Z[m, n] + exp(S[m, n] - X[m, n])) * exp(X[m, n] - X[m, n + 1])\n"
            + "O[m] = Z[m, N]",
            "O[m]",
        ),
        # A running minimum as base: exp(inf) at first.
        (
            SCORES + ONLINE.replace("max", "min").replace("-inf", "inf") + "O[m] = Z[m, N]",
            "O[m]",
        ),
        # Two maps.
        (
            SCORES + ONLINE.replace("exp(S", "exp2(S").replace("exp(X", "exp(X") + "O[m] = Z[m, N]",
            "O[m]",
        ),
        # The iteration itself is wanted.
        ("X[0] = 0\nX[n + 1] = X[n] + A[n]\nO[] = X[N]", "O[], X[n]"),
    ],
)
def test_recurrences_are_left_alone(written: str, outputs: str) -> None:
    assert_left_alone(spec(written, outputs))


def test_products_of_many_sums_are_not_distributed() -> None:
    product = " * ".join(["(A[n] + 1.0)"] * 40)
    assert_left_alone(spec(f"X[0] = 0\nX[n + 1] = X[n] + X[n] * {product}\nO[] = X[N]", "O[]"))


def test_first_tile_must_not_be_hidden() -> None:
    """From a hidden first tile on the written form is absent; its closed form would not be."""
    written = (CASCADES / "softmax_1_pass.attn").read_text()
    scores = "BQK[m1, m0, p] = sum(e) Q[e, p] * BK[e, m1, m0]\n"
    shown = "BQK[m1, m0, p] = DOT[m1, m0, p] where m1 > 0\n"
    assert scores in written
    cascade = load_text(written.replace(scores, scores.replace("BQK", "DOT") + shown))
    assert np.all(interpret(cascade, inputs(cascade, 6), extents={"M0": 2})["AV"] == 0)
    assert_left_alone(cascade)


def test_cascade_without_iterations_is_left_alone() -> None:
    for name in ("sdpa", "sdpa_2pass", "sliding_window"):
        cascade = load_text(text(name))
        assert close_iterations(cascade) == (cascade, ())
