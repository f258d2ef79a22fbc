"""What a user has: a shell, Python, torch, and the module that was emitted for him."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnc.api import Attention
from attnc.codegen import emit
from attnc.dsl import load_text
from attnc.ir.bind import check_params
from attnc.runtime.launch import public_function
from attnc.runtime.modules import load_source

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python ARGS` in an empty folder; it finds attnc, and a cache that is empty at first."""

    def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *args],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "ATTNC_CACHE_DIR": str(tmp_path / "cache"),
                **env,
            },
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def attnc(
    shell: Callable[..., subprocess.CompletedProcess[str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run an attnc command in a process of its own; never is a traceback shown."""

    def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        done = shell("-m", "attnc", *args, **env)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def attention() -> Callable[[str], Attention]:
    """A spec's text as a function of tensors."""

    def make(spec: str) -> Attention:
        cascade = load_text(spec, "spec.attn")
        return Attention(cascade, check_params(cascade, {}))

    return make


@pytest.fixture(scope="session")
def kernel() -> Callable[[Attention], Callable[..., Any]]:
    """The public function of the emitted module, its kernels run by Triton's interpreter."""

    def make(attention: Attention) -> Callable[..., Any]:
        return public_function(load_source(emit(attention.plan), attention.name, interpret=True))

    return make
