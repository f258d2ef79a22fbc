"""A mechanism that nobody named, from a text file to a kernel, through the command line alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

SPEC = """\
attention tempered
\"\"\"Scores made positive, raised to a learned power per head, normalised beside a constant.\"\"\"
input Q[b, h, m, d]
input K[b, g, n, d]
input V[b, g, n, e]
input bias[h, m, n]
input p[h]
S[b, h, m, n] = sum(d) Q[b, h, m, d] * K[b, h // (H / G), n, d] / sqrt(D)
W[b, h, m, n] = softplus(S[b, h, m, n] + bias[h, m, n]) ** (0.5 + abs(p[h]))
Z[b, h, m] = 1 + (sum(n) W[b, h, m, n])
A[b, h, m, n] = W[b, h, m, n] / Z[b, h, m]
O[b, h, m, e] = sum(n) A[b, h, m, n] * V[b, h // (H / G), n, e]
output O[b, h, m, e]
"""

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "tempered.attn"
    path.write_text(SPEC, encoding="utf-8")
    return str(path)


def test_it_is_right_and_one_pass(attnc: Command, spec: str) -> None:
    assert attnc("check", spec).returncode == 0
    passes = json.loads(attnc("explain", spec, "--json").stdout)["passes"]["n"]
    assert (passes["written"], passes["derived"]) == (2, 1)


def test_it_verifies(attnc: Command, spec: str) -> None:
    shape = "B=1,H=6,G=2,M=17,N=33,D=40,E=72"
    done = attnc("verify", spec, "--shape", shape, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["ok"] is True


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_it_verifies_at_awkward_shapes(attnc: Command, spec: str, dtype: str) -> None:
    done = attnc("verify", spec, "--dtype", dtype)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_it_compiles_for_a_gpu_that_is_not_there(attnc: Command, spec: str, tmp_path: Path) -> None:
    shape = "B=1,H=32,G=8,M=4096,N=4096,D=128,E=128"
    done = attnc("compile", spec, "--target", "h100", "--shape", shape, "-o", "made", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads(done.stdout)
    (kernel,) = made["kernels"]
    assert kernel["spills"] == 0
    assert (tmp_path / "made" / "tempered.py").exists()


def test_the_starter_goes_all_the_way(attnc: Command) -> None:
    assert attnc("new", "mine").returncode == 0
    assert attnc("check", "mine.attn").returncode == 0
    done = attnc("verify", "mine.attn", "--shape", "B=1,H=2,G=1,M=5,N=9,D=8,E=8")
    assert done.returncode == 0, done.stdout + done.stderr
