"""The evaluator on part of a cascade: boxes, tiles that read other tiles, memory, independence."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from attnc.ir.arrays import NUMPY, Arrays
from attnc.ir.cascade import Einsum, Rank
from attnc.ir.interpret import Scope, Value, evaluate, interpret, run_einsum
from attnc.ir.schedule import chunk_ranks, groups
from tests.ir.test_interpret import plain, qkv, softmax
from tests.ir.written import cascade, expression, statement

RNG = np.random.default_rng(3)


def test_evaluate_gives_the_box_in_its_order() -> None:
    a = RNG.normal(size=(4, 6))
    scope = Scope(
        tensors={"A": Value(a, ("m", "n"))}, box={"n": range(2, 5), "b": range(2), "m": range(1, 3)}
    )
    found = evaluate(expression("A[m, n] * 2.0"), scope, expression("n > m + 1"))
    assert found.axes == ("n", "b", "m") and found.origin == (2, 0, 1)
    np.testing.assert_array_equal(found.data[:, 1], 2 * a[1:3, 2:5].T)
    assert found.present is not None
    assert found.present[:, 0].tolist() == [[False, False], [True, False], [True, True]]
    assert evaluate(expression("m + n"), scope).present is None


def test_a_tile_reads_tiles_at_their_origin() -> None:
    """Softmax tile by tile: each tile's scores live in an array of the tile's size."""
    t = qkv(m=10, n=9)
    c = softmax("n <= m")
    o, _ = plain(t, np.arange(9) <= np.arange(10)[:, None])
    tensors = {x.name: Value(t[x.name], x.ranks) for x in c.inputs}
    extents = {"b": 2, "h": 4, "g": 2, "m": 10, "n": 9, "d": 3, "e": 6}
    whole = Scope(tensors=tensors, extents=extents)
    for m in (range(0, 4), range(4, 8), range(8, 10)):
        top = np.full((2, 4, len(m)), -np.inf)
        z, total = np.zeros(top.shape), np.zeros((*top.shape, 6))
        for n in (range(0, 4), range(4, 9)):
            scope = whole.at({"m": m, "n": n})
            found: dict[str, Value] = {}
            for s in c.statements[:3]:
                assert isinstance(s, Einsum)
                found[s.tensor] = run_einsum(s, scope.having(found))
            new = np.maximum(top, found["T"].data)
            found["T"] = Value(new, ("b", "h", "m"), None, (0, 0, m.start))
            for s in (
                *c.statements[3:5],
                statement("N[b, h, m, e] = sum(n) W[b, h, m, n] * V[b, h // (H @ G), n, e]"),
            ):
                assert isinstance(s, Einsum)
                found[s.tensor] = run_einsum(s, scope.having(found))
            with np.errstate(invalid="ignore"):
                fix = np.where(top == -np.inf, 0, np.exp(top - new))
            z, total = z * fix + found["Z"].data, total * fix[..., None] + found["N"].data
            top = new
        np.testing.assert_allclose(total / z[..., None], o[:, :, m.start : m.stop], atol=1e-14)


def test_an_iterative_index_moves_the_origin() -> None:
    scope = Scope(tensors={"H": Value(np.array([5.0]), ("t",), None, (3,))}, box={"t": range(3, 4)})
    step = statement("H[t + 1] = H[t] + 1.0")
    assert isinstance(step, Einsum)
    found = run_einsum(step, scope)
    assert found.origin == (4,) and found.axes == ("t",) and found.data.tolist() == [6.0]


@pytest.mark.parametrize("memory", [64, 1 << 20])
@pytest.mark.parametrize("op", ["sum", "max", "min", "prod"])
def test_reductions_in_pieces(op: str, memory: int) -> None:
    a = RNG.normal(size=(3, 20))
    s = statement(f"Y[m] = {op}(n) A[m, n] + 1.0 where n > m")
    assert isinstance(s, Einsum)
    scope = Scope(
        tensors={"A": Value(a, ("m", "n"))}, extents={"m": 3, "n": 20}, memory_bytes=memory
    )
    expected = [getattr(np, op)(a[m, m + 1 :] + 1) for m in range(3)]
    np.testing.assert_allclose(run_einsum(s, scope).data, expected)


def test_sums_of_products_of_many_shapes() -> None:
    """Every way in which the ranks of two or three factors can overlap, against numpy's einsum."""
    sizes = {"i": 2, "j": 3, "k": 4}
    spaces = ["", "i", "j", "k", "ij", "ik", "jk", "ijk"]
    for a, b, c in product(spaces, spaces, ["", "ik", "k"]):
        x, y, z = (RNG.normal(size=[sizes[r] for r in space]) for space in (a, b, c))
        named = list(zip("XYZ", (x, y, z), (a, b, c), strict=True))
        tensors = {n: Value(t if s else t.reshape(1), tuple(s) or ("",)) for n, t, s in named}
        text = " * ".join(f"{n}[{', '.join(s) or 0}]" for n, _, s in named)
        for reduced in ("k", "jk", "ijk"):
            out = "".join(r for r in "ijk" if r not in reduced)
            s = statement(f"O[{', '.join(out) or 0}] = sum({', '.join(reduced)}) {text} / 2.0")
            assert isinstance(s, Einsum)
            found = run_einsum(s, Scope(tensors=tensors, extents=sizes)).data
            ones = [np.ones(sizes[r]) for r in "ijk"]
            expected = np.einsum(f"{a},{b},{c},i,j,k->{out}", x, y, z, *ones) / 2
            np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-13)


def test_a_divisor_that_is_zero_makes_its_sum_empty() -> None:
    c = cascade("Y[m, e] = sum(n) W[m, n] * V[n, e] / Z[m]", "Y", inputs="W[m, n] V[n, e] Z[m]")
    w, v = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2))
    out = interpret(c, {"W": w, "V": v, "Z": np.array([2.0, 0, 4])})
    np.testing.assert_allclose(out["Y"], (w @ v) * np.array([[0.5], [0], [0.25]]))


def test_chunk_ranks_are_those_that_nothing_mixes() -> None:
    def ranks(text: str, outputs: str, inputs: str) -> tuple[str, ...]:
        c = cascade(text, outputs, inputs=inputs)
        return chunk_ranks(c, groups(c))

    c = softmax("n <= m")
    assert chunk_ranks(c, groups(c)) == ("b", "h", "m", "e")
    # X is read at another coordinate than the one written
    assert ranks("X[m] = A[m]\nY[m, k] = X[m] * X[k]", "Y", "A[m]") == ("k",)
    assert ranks("X[m] = A[m]\nY[m] = X[m] * X[M - 1 - m]", "Y", "A[m]") == ()
    # inputs may be read anywhere
    assert ranks("Y[m] = A[M - 1 - m]", "Y", "A[m]") == ("m",)
    # a column sum of what the rows give
    assert ranks("X[m, n] = A[m, n]\nY[n] = sum(m) X[m, n]", "X Y", "A[m, n]") == ("n",)
    # each output in chunks of its own ranks
    assert ranks("X[m] = A[m]\nY[n] = B[n]", "X Y", "A[m] B[n]") == ("m", "n")


def test_outputs_with_different_chunk_ranks() -> None:
    c = cascade(
        "X[b, m] = A[b, m]\nY[n] = B[n]\nZ[b] = C[b]\nU[m] = B[0] * float(m)",
        "X Y Z U",
        inputs="A[b, m] B[n] C[b]",
    )
    t = {"A": RNG.normal(size=(3, 4)), "B": RNG.normal(size=5), "C": RNG.normal(size=3)}
    out = interpret(c, t, memory_bytes=1)
    np.testing.assert_array_equal(out["X"], t["A"])
    np.testing.assert_array_equal(out["Y"], t["B"])
    np.testing.assert_array_equal(out["Z"], t["C"])
    np.testing.assert_array_equal(out["U"], t["B"][0] * np.arange(4))


def test_statements_that_no_output_needs_do_not_run() -> None:
    c = cascade("Y[n] = A[n]\nZ[n] = A[n + 1]", "Y", inputs="A[n]")
    assert interpret(c, {"A": np.ones(2)})["Y"].tolist() == [1, 1]


def test_memory_is_bounded() -> None:
    """1 x 2 x 600 x 700 scores are 6.7 MB an array, seven of them 47 MB; 4 MiB are allowed."""
    t = qkv(b=1, h=2, m=600, n=700, d=8, e=8)
    c = softmax("n <= m")
    interpret(c, qkv())
    tracemalloc.start()
    interpret(c, t, memory_bytes=4 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 << 20


def test_gathers_and_squares_in_bounded_memory() -> None:
    """A distance needs every (m, n, d) at once: 1.6 M points, in 1 MiB."""
    c = cascade("Y[m, n] = sum(d) pow(A[m, d] - A[n, d], 2.0)", "Y", inputs="A[m, d]")
    a = RNG.normal(size=(160, 64))
    tracemalloc.start()
    out = interpret(c, {"A": a}, extents={"n": 160}, memory_bytes=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(out["Y"], ((a[:, None] - a) ** 2).sum(-1))
    assert peak < 2 << 20


def test_common_subexpressions_are_computed_once() -> None:
    calls: list[tuple[int, ...]] = []

    def exp(x: Any) -> Any:
        calls.append(x.shape)
        return np.exp(x)

    spied: Arrays = replace(NUMPY, functions={**NUMPY.functions, "exp": exp})
    scope = Scope(spied, tensors={"A": Value(np.ones(3), ("n",))}, box={"n": range(3)})
    evaluate(expression("exp(A[n]) / (1.0 + exp(A[n])) + exp(2.0)"), scope)
    assert calls == [(3,)]


def test_a_component_of_an_iterated_parent_and_back() -> None:
    ranks = {r.name: r for r in (Rank("m", ("z", "y", "x")), *(Rank(c, (), "m") for c in "zyx"))}
    extents = {"m": 24, "z": 2, "y": 3, "x": 4}
    flat = Scope(extents=extents, ranks=ranks, box={"m": range(5, 20)})
    m = np.arange(5, 20)
    for c, expected in (("z", m // 12), ("y", m // 4 % 3), ("x", m % 4)):
        assert evaluate(expression(c), flat).data.tolist() == expected.tolist()
    grid = flat.at({"z": range(1, 2), "x": range(4), "y": range(3)})
    found = evaluate(expression("m"), grid).data
    assert found[0, 3, 2] == 1 * 12 + 2 * 4 + 3
