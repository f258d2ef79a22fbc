"""Certificates hold; false ones are found out; parts of the keys merge to the whole."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest

from attnc.dsl import load_text
from attnc.ir.build_plan import sweeps
from attnc.ir.certify import certify
from attnc.ir.derived import Certificate, Derived
from attnc.ir.expr import Apply, Number
from attnc.ir.merge_states import merge_states
from attnc.ir.pipeline import plan
from attnc.ir.recheck import recheck
from tests.ir.derived import SPECS, derived, planned

FILES = sorted(SPECS.glob("*.attn"))
SOFTMAX = "P[b, m, n] = softmax(n) S[b, m, n]\nO[b, m, e] = sum(n) P[b, m, n] * V[b, n, e]"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_certificate_holds(file: Path) -> None:
    for stage in sweeps(plan(load_text(file.read_text()))):
        assert stage.derived is not None
        for check in certify(stage.derived):
            assert check.numeric < 1e-12 and check.points > 0, check.certificate
            assert check.symbolic, check.certificate


def test_softmax_uses_these_laws() -> None:
    laws = [c.law for c in derived(SOFTMAX).certificates]
    assert laws == ["iterate", "iterate", "defer", *["local-then-fix"] * 3]


def test_two_passes_recompute_the_score() -> None:
    lines = SOFTMAX.replace("P[b, m, n] * V", "tanh(P[b, m, n]) * V")
    again = [c for c in derived(lines).certificates if c.law == "recompute"]
    assert [c.tensor for c in again] == ["sum_S"]
    assert "2 sweeps" in again[0].reason


def _with(d: Derived, c: Certificate) -> Derived:
    return replace(d, certificates=(c,))


@pytest.mark.parametrize("law", ["defer", "iterate"])
def test_a_false_certificate_is_found_out(law: str) -> None:
    d = derived(SOFTMAX)
    c = next(c for c in d.certificates if c.law == law)
    (check,) = certify(_with(d, replace(c, after=Apply("mul", (c.after, Number(1.001))))))
    assert not check.symbolic and check.numeric > 1e-4


def test_a_map_that_is_not_monotone_is_found_out() -> None:
    d = derived(SOFTMAX)
    score = d.states[0].body
    claim = Certificate("monotone", "G", "", Apply("mul", (score, score)), score)
    (check,) = certify(_with(d, claim))
    assert not check.symbolic and check.numeric > 1e-3


def test_a_state_without_its_correction_does_not_merge() -> None:
    d = derived(SOFTMAX)
    bare = tuple(replace(s, base=None, unit=None) for s in d.states)
    claims = tuple(c for c in d.certificates if c.law == "local-then-fix")
    checks = certify(replace(d, states=bare, certificates=claims[1:]))
    assert all(c.numeric > 1e-3 for c in checks)


def test_merges_are_the_split_form_of_attention() -> None:
    """Two parts of softmax: numerator and denominator move to the common maximum."""
    d = derived(SOFTMAX)
    top, total, out = merge_states(d).values()
    assert isinstance(top, Apply) and top.op == "max"
    for merged in (total, out):
        assert isinstance(merged, Apply) and merged.op == "add"
        assert all(isinstance(part, Apply) and part.op == "mul" for part in merged.args)


def test_recheck_sees_a_wrong_plan() -> None:
    right = planned(SOFTMAX)
    assert recheck(right) < 1e-12
    other = planned(SOFTMAX.replace("softmax(n) S", "softmax1(n) S"))
    assert recheck(right, 0, other.cascade) > 1e-3


def test_recheck_asks_for_equal_infinities() -> None:
    lines = SOFTMAX + "\nG[b, m] = max(n) S[b, m, n] where n < m"
    made = planned(lines, "O[b, m, e], G[b, m]")
    assert recheck(made) < 1e-12
    low = planned(lines.replace("where n < m", "where n <= m"), "O[b, m, e], G[b, m]")
    assert recheck(made, 0, low.cascade) == inf


def test_compiling_does_not_import_sympy() -> None:
    code = "import sys, attnc.ir.pipeline, attnc.ir.certify; sys.exit('sympy' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_checks_are_the_same_every_time() -> None:
    d = derived(SOFTMAX)
    assert certify(d, 1) == certify(d, 1)
    assert np.isfinite([c.numeric for c in certify(d, 2)]).all()
