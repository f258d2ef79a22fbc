"""Independent pieces of a computation, each in a Python thread that has torch to itself.

torch's own threads meet before and after each call. Threads that run whole pieces meet once, and
torch lets go of the interpreter while it computes. A piece computes the same in whatever thread.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TypeAlias

import torch

Piece: TypeAlias = Callable[[], None]

# Held for short changes, without calls to torch, to what is kept between calls.
BOOKS = threading.Lock()


def run_pieces(pieces: Iterable[Piece], threads: int) -> None:
    """Run all pieces, `threads` at a time; what the first that fails raises is raised here.

    They begin in this order and see the caller's grad and inference modes. In the calling thread
    run: a single piece, pieces of a piece, and pieces whose calls to torch something listens to.
    """
    waiting = deque(pieces)
    threads = min(threads, len(waiting))
    if threads > 1 and not (_here.working or _listened_to()):
        threads = _pool.grow(threads)
        if threads > 1:
            _share(_Job(waiting), threads)
    while waiting:
        waiting.popleft()()


def _listened_to() -> bool:
    """Whether the state of the calling thread changes what torch does, or watches it."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
    )


@dataclass(slots=True)
class _Job:
    """Pieces that a few workers take in turn; `left` has a token per worker still at it."""

    waiting: deque[Piece]
    left: deque[None] = field(default_factory=deque)
    ended: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None
    grad: bool = field(default_factory=torch.is_grad_enabled)
    inference: bool = field(default_factory=torch.is_inference_mode_enabled)

    def work(self) -> None:
        """One worker's part."""
        try:
            with torch.inference_mode(self.inference), torch.set_grad_enabled(self.grad):
                while piece := self._next():
                    piece()
        except BaseException as e:
            self.failure = e
            self.waiting.clear()
        finally:
            self.left.pop()
            if not self.left:
                self.ended.set()

    def _next(self) -> Piece | None:
        try:
            return self.waiting.popleft()
        except IndexError:
            return None


def _share(job: _Job, threads: int) -> None:
    """Have workers do a job; an interrupt ends it after the pieces that are under way."""
    job.left.extend([None] * threads)
    try:
        for _ in range(threads):
            _pool.jobs.put(job)
        try:
            job.ended.wait()
        except BaseException:
            job.waiting.clear()
            job.ended.wait()
            raise
    finally:
        job.waiting.clear()
    if job.failure is not None:
        try:
            raise job.failure
        finally:
            job.failure = None  # its traceback leads back here


class _Here(threading.local):
    """What a thread knows about itself."""

    working = False


@dataclass(slots=True)
class _Pool:
    """Threads that wait for jobs as long as the process lives."""

    jobs: SimpleQueue[_Job] = field(default_factory=SimpleQueue)
    size: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def grow(self, size: int) -> int:
        """Have so many threads; how many of them there are, which a system may limit."""
        with self.lock:
            if self.size < size:
                limit = torch.get_num_threads()
                try:
                    while self.size < size:
                        self._start()
                except RuntimeError:
                    pass
                finally:
                    # A thread's own limit is also the one that later threads begin with.
                    torch.set_num_threads(limit)
            return min(size, self.size)

    def _start(self) -> None:
        ready = threading.Event()
        threading.Thread(target=_serve, args=(self.jobs, ready), daemon=True).start()
        ready.wait()
        self.size += 1


def _serve(jobs: SimpleQueue[_Job], ready: threading.Event) -> None:
    _here.working = True
    # A thread takes over the process's limit when it first needs one: before it gets its own.
    torch.get_num_threads()
    torch.set_num_threads(1)
    ready.set()
    while True:
        job = jobs.get()
        job.work()
        del job


_here = _Here()
_pool = _Pool()


def _forget() -> None:
    """A fork has none of its parent's threads."""
    global _pool
    _pool = _Pool()
    _here.working = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
    os.register_at_fork(
        before=BOOKS.acquire, after_in_parent=BOOKS.release, after_in_child=BOOKS.release
    )
