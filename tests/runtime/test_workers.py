"""Pieces in threads of their own: all of them, once, with the caller's state and its errors."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from attnc.api import Attention, load
from attnc.dsl import load_text
from attnc.runtime import execute as engine
from attnc.runtime.workers import run_pieces


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_pieces(note: Callable[[], object], count: int = 8) -> list[object]:
    """What each of `count` pieces says, two at a time."""
    found: list[object] = []

    def piece() -> None:
        found.append(note())
        time.sleep(0.002)

    run_pieces([piece] * count, 2)
    return found


def test_every_piece_runs_once_two_at_a_time() -> None:
    together = threading.Barrier(2, timeout=30)
    found: list[int] = []

    def piece(i: int) -> None:
        together.wait()
        found.append(i)

    run_pieces([partial(piece, i) for i in range(20)], 2)
    assert sorted(found) == list(range(20))


def test_workers_leave_torch_to_others_as_it_was() -> None:
    assert set(in_pieces(torch.get_num_threads)) == {1}
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2
    x = torch.ones(3, requires_grad=True)
    seen: list[int] = []
    y = x * 2
    y.register_hook(lambda g: seen.append(torch.get_num_threads()))  # type: ignore[no-untyped-call]
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert seen == [2]


def test_an_exception_reaches_the_caller() -> None:
    begun: list[int] = []

    def piece(i: int) -> None:
        begun.append(i)
        if i == 3:
            raise ValueError("piece 3")
        time.sleep(0.002)

    with pytest.raises(ValueError, match="piece 3"):
        run_pieces([partial(piece, i) for i in range(100)], 2)
    assert len(begun) < 10
    assert len(in_pieces(threading.get_ident)) == 8


def test_an_interrupt_waits_for_what_is_under_way() -> None:
    main, under_way, begun = threading.get_ident(), set[int](), list[int]()

    def piece(i: int) -> None:
        under_way.add(i)
        begun.append(i)
        if i == 0:
            signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.05)
        under_way.remove(i)

    # A shell's background jobs ignore interrupts: Python raises nothing there by itself.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_pieces([partial(piece, i) for i in range(100)], 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not under_way
    assert len(begun) < 10


def test_pieces_of_pieces_do_not_wait_for_one_another() -> None:
    found: list[object] = []

    def piece() -> None:
        here = threading.get_ident()
        found.append(set(in_pieces(threading.get_ident)) == {here})

    run_pieces([piece] * 4, 2)
    assert found == [True] * 4


def test_workers_have_the_modes_of_the_caller() -> None:
    def modes() -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    assert set(in_pieces(modes)) == {(True, False)}
    with torch.no_grad():
        assert set(in_pieces(modes)) == {(False, False)}
    with torch.inference_mode():
        assert set(in_pieces(modes)) == {(False, True)}
    assert set(in_pieces(modes)) == {(True, False)}


@pytest.mark.parametrize(
    "mode",
    [
        TorchDispatchMode,
        TorchFunctionMode,
        partial(torch.autocast, "cpu"),
        partial(torch.device, "cpu"),
    ],
)
def test_what_listens_to_the_caller_hears_all(
    mode: Callable[[], AbstractContextManager[object]],
) -> None:
    with mode():
        assert set(in_pieces(threading.get_ident)) == {threading.get_ident()}
    assert threading.get_ident() not in in_pieces(threading.get_ident)


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_fork_has_workers_of_its_own() -> None:
    in_pieces(threading.get_ident)
    child = os.fork()
    if child == 0:
        os._exit(0 if len(in_pieces(threading.get_ident)) == 8 else 1)
    deadline = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
    assert ended == (child, 0)


BIASED = """
attention biased
param window: int = 100
input Q[b, h, m, d]
input K[b, g, n, d]
input V[b, g, n, e]
input doc[n]: int
S[b, h, m, n] = sum(d) Q[b, h, m, d] * K[b, h // (H / G), n, d]
P[b, h, m, n] = softmax(n) S[b, h, m, n]  where m - n < window * (h + 1) and doc[m] == doc[n]
O[b, h, m, e] = sum(n) P[b, h, m, n] * V[b, h // (H / G), n, e]
output O[b, h, m, e]
"""


def qkv(h: int, g: int, m: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = ((1, h, m, 16), (1, g, m, 16), (1, g, m, 8))
    return [torch.randn(shape, generator=random).to(dtype) for shape in shapes]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many threads shared each stage that was run."""
    found: list[int] = []

    def noted(pieces: list[Callable[[], None]], threads: int) -> None:
        found.append(min(threads, len(pieces)))
        run_pieces(pieces, threads)

    monkeypatch.setattr(engine, "run_pieces", noted)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "attention",
    [load("sdpa"), load("causal"), load("sliding_window", window=100), load("gqa"), load("lse")],
    ids=lambda a: a.name,
)
def test_results_do_not_depend_on_threads(
    attention: Attention, dtype: torch.dtype, shared: list[int]
) -> None:
    tensors = qkv(4, 4 if attention.name != "gqa" else 2, 700, dtype)
    two = attention(*tensors)
    assert shared == [2]
    torch.set_num_threads(1)
    one = attention(*tensors)
    assert shared == [2]
    for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (one, two)), strict=True):
        assert torch.equal(a, b)


def test_small_stages_stay_in_the_calling_thread(shared: list[int]) -> None:
    load("sdpa")(*qkv(2, 2, 64))
    assert not shared


def test_many_callers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PIECE_POINTS", 1 << 10)
    monkeypatch.setattr("attnc.runtime.layout._KEPT", 2)
    monkeypatch.setattr("attnc.runtime.layout.MASK_BYTES", 1 << 16)
    attention = Attention(load_text(BIASED), {"window": 100})
    calls = [(*qkv(4, 2, 200, seed=i), torch.arange(200) // (20 + 9 * (i % 4))) for i in range(40)]
    torch.set_num_threads(1)
    wanted = [attention(*call) for call in calls]
    torch.set_num_threads(2)
    with ThreadPoolExecutor(4) as callers:
        found = list(callers.map(lambda call: attention(*call), calls))
    assert all(map(torch.equal, found, wanted))


def test_an_error_in_a_tile_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(call: object, piece: object) -> None:
        raise RuntimeError(f"in {threading.current_thread() is threading.main_thread()}")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="in False"):
        patch.setattr(engine._Call, "tile", fail)
        load("sdpa")(*qkv(4, 4, 700))
    load("sdpa")(*qkv(4, 4, 700))
