"""Emitted modules run in the interpreter, next to compiled ones, and bf16 is right there."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnc.errors import AttncError
from attnc.runtime.interpreter import interpreter_available, round_to_bf16, widen_bf16
from attnc.runtime.machine_code import Argument, Pointer, compile_kernel, specialise
from attnc.runtime.modules import load_module, load_source
from attnc.runtime.targets import load_target

FLASH = Path(__file__).parent / "kernels" / "flash.py"

# Whatever of Triton's library is itself jitted, called as a function and as a method.
LIBRARY = """
import triton
import triton.language as tl

@triton.jit
def twice(x):
    return x + x

@triton.jit
def kernel(X, Y, count, TILE: tl.constexpr):
    i = tl.arange(0, TILE)
    x = tl.load(X + i, mask=i < count, other=0.0).to(tl.float32)
    for step in range(0, count, TILE):
        x = twice(x) * 0.5 + step
    y = tl.sigmoid(x) + tl.softmax(x) + tl.sum(x, 0) + x.max(0) + tl.min(x, 0)
    y += tl.cumsum(x, 0) + tl.flip(x, 0) + tl.sort(x, 0) + tl.cdiv(count, 3) + tl.zeros_like(x)
    y += tl.argmax(x, 0) + tl.maximum(x, 0.5)
    tl.store(Y + i, y, mask=i < count)

def run(x):
    import torch
    y = torch.empty_like(x)
    kernel[(1,)](x, y, x.numel(), TILE=16)
    return y
"""


def library_by_torch(x: torch.Tensor) -> torch.Tensor:
    parts = [x.sigmoid(), x.softmax(0), x.sum(), x.max(), x.min(), x.cumsum(0), x.flip(0)]
    parts += [x.sort().values, torch.tensor(6.0), x.argmax(), x.clamp(min=0.5)]
    return sum((p.expand(16) for p in parts), torch.zeros(16))


def attention_by_torch(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    m, n = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])[None, :]
    s = (q @ k.mT) * q.shape[3] ** -0.5
    s = s.masked_fill((n > m) | (m - n >= window), -torch.inf)
    return s.softmax(-1).nan_to_num() @ v, s.logsumexp(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("window", [13, 0])
def test_an_interpreted_kernel_is_as_exact_as_torch(dtype: torch.dtype, window: int) -> None:
    assert interpreter_available()
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(1, 2, length, width).to(dtype)
        for length, width in ((45, 24), (37, 24), (37, 40))
    )
    o, lse = load_module(FLASH, interpret=True).attention(q, k, v, window)
    exact, exact_lse = attention_by_torch(q.double(), k.double(), v.double(), window)
    straight, _ = attention_by_torch(q, k, v, window)
    step = torch.finfo(dtype).eps * exact.abs().max()
    allowed = 2 * (straight.double() - exact).abs().max() + step
    assert (o.double() - exact).abs().max() <= allowed
    torch.testing.assert_close(lse.double(), exact_lse, rtol=1e-5, atol=1e-5)


def test_transposed_inputs_are_interpreted_in_place() -> None:
    q, k, v = (torch.randn(1, 17, 2, 16).transpose(1, 2) for _ in range(3))
    before = [t.clone() for t in (q, k, v)]
    o, _ = load_module(FLASH, interpret=True).attention(q, k, v, 5)
    torch.testing.assert_close(o, attention_by_torch(q, k, v, 5)[0])
    assert all(torch.equal(a, b) for a, b in zip(before, (q, k, v), strict=True))


def test_the_library_is_interpreted_too() -> None:
    x = torch.linspace(-1, 1, 16)[torch.randperm(16)]
    y = load_source(LIBRARY, "library", interpret=True).run(x)
    torch.testing.assert_close(y, library_by_torch(x))


def compiled_binary(module: Any) -> bytes:
    target = load_target("h100")
    arguments: dict[str, Argument] = {
        "X": Pointer("fp32"),
        "Y": Pointer("fp32"),
        "count": 16,
        "TILE": 16,
    }
    special = specialise(module.kernel, arguments, target)
    return compile_kernel(
        module.kernel, signature=special.signature, constexprs=special.constexprs,
        attrs=special.attrs, target=target, num_warps=1,
    ).binary  # fmt: skip


def test_interpreting_leaves_the_compiler_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_ALWAYS_COMPILE", "1")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module = load_source(LIBRARY, "library")
    before = compiled_binary(module)
    interpreted = load_source(LIBRARY, "library", interpret=True)
    x = torch.linspace(-1, 1, 16)
    y = interpreted.run(x)
    assert compiled_binary(module) == before
    torch.testing.assert_close(interpreted.run(x), y, rtol=0, atol=0)


@pytest.mark.parametrize("variable", ["0", "1"])
def test_triton_interpret_does_not_matter(variable: str, tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text(LIBRARY)
    script = """
        import torch
        from attnc.runtime.modules import load_module
        x = torch.linspace(-1, 1, 16).bfloat16().float()
        print(load_module("library.py", interpret=True).run(x).tolist())
    """
    environment = {**os.environ, "TRITON_INTERPRET": variable}
    environment["PYTHONPATH"] = os.pathsep.join(p or os.getcwd() for p in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    x = torch.linspace(-1, 1, 16).bfloat16().float()
    values = [float(v) for v in done.stdout.strip("[]\n").split(",")]
    torch.testing.assert_close(torch.tensor(values), library_by_torch(x))


def test_the_same_content_is_loaded_once(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("x = object()\n")
    first = load_module(path)
    assert load_module(str(path)) is first
    assert load_module(path, interpret=True) is not first
    path.write_text("x = object()\ny = 1\n")
    assert load_module(path) is not first


OPERATOR = """
import torch

@torch.library.custom_op(f"{__name__}::lengthen", mutates_args=())
def lengthen(x: torch.Tensor) -> torch.Tensor:
    return x + len(__name__)
"""


def test_a_module_can_register_operators_under_its_own_name() -> None:
    modules = [load_source(OPERATOR, "my-operator", interpret=i) for i in (False, True)]
    assert all(m.__name__.isidentifier() for m in modules)
    x = torch.zeros(1)
    assert [int(m.lengthen(x)) for m in modules] == [len(m.__name__) for m in modules]


def test_a_module_that_fails_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("raise ValueError('once more')\n")
    loaded = set(sys.modules)
    for _ in range(2):
        with pytest.raises(ValueError, match="once more"):
            load_module(path)
    assert set(sys.modules) == loaded


def test_a_module_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    for name in ("absent.py", "latin.py", ""):
        with pytest.raises(AttncError, match="cannot read module") as e:
            load_module(tmp_path / name)
        assert e.value.code == "E814"


@given(st.lists(st.floats(width=32), min_size=1, max_size=8))
def test_bf16_is_rounded_as_torch_does(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    ours = torch.from_numpy(widen_bf16(round_to_bf16(array)))
    theirs = torch.from_numpy(array).bfloat16().float()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
