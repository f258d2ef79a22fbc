"""Small specs for the derivation's tests: a head of inputs, then the lines under test."""

from __future__ import annotations

import re
from pathlib import Path

from attnc.dsl import load_text
from attnc.ir.build_plan import sweeps
from attnc.ir.derived import Derived
from attnc.ir.pipeline import plan
from attnc.ir.plan import Plan
from attnc.ir.recheck import recheck

SPECS = Path(__file__).parent / "specs"

_INPUTS = {
    "Q": "Q[b, m, d]",
    "K": "K[b, n, d]",
    "V": "V[b, n, e]",
    "V2": "V2[b, n, e]",
    "bias": "bias[n]",
    "row": "row[m]",
    "tau": "tau[b]",
    "w": "w[m]",
    "doc": "doc[n]: int",
}


def spec(lines: str, output: str = "O[b, m, e]") -> str:
    """A spec around `lines`, which may use S, the score, and the inputs above."""
    body = f"S[b, m, n] = (sum(d) Q[b, m, d] * K[b, n, d]) / sqrt(D) + bias[n]\n{lines}\n"
    used = set(re.findall(r"(\w+)\[", body))
    inputs = "".join(f"input {text}\n" for name, text in _INPUTS.items() if name in used)
    return f"attention example\n{inputs}{body}output {output}\n"


def planned(lines: str, output: str = "O[b, m, e]") -> Plan:
    """The plan of `spec(lines, output)`."""
    return plan(load_text(spec(lines, output)))


def derived(lines: str, output: str = "O[b, m, e]") -> Derived:
    """The only sweep stage's derivation."""
    (stage,) = sweeps(planned(lines, output))
    assert stage.derived is not None
    return stage.derived


def sweep_counts(text: str) -> tuple[int, ...]:
    """Passes of each sweep stage of a spec, checked against the cascade as it is written."""
    cascade = load_text(text)
    made = plan(cascade)
    for seed in range(2):
        assert recheck(made, seed, cascade) < 1e-9
    return tuple(s.derived.sweeps for s in sweeps(made) if s.derived is not None)
