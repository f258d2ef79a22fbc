"""Compile kernels of emitted module files in processes of their own, several at a time.

A process of its own compiles whatever TRITON_INTERPRET says here, survives a crash of LLVM or
ptxas, can be stopped, and needs no torch: that makes it faster than compiling in this one.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from attnc.errors import AttncError
from attnc.runtime.machine_code import Argument, CompiledKernel
from attnc.runtime.targets import Target


@dataclass(frozen=True, slots=True)
class Job:
    """One kernel of the module file at `path`, to be compiled for arguments like these."""

    path: str
    kernel: str
    arguments: Mapping[str, Argument]
    target: Target
    num_warps: int = 4
    num_stages: int = 3
    maxnreg: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An `AttncError` on its way between processes."""

    code: str
    message: str
    hint: str = ""


def compile_module(
    path: str | Path,
    kernel: str,
    arguments: Mapping[str, Argument],
    *,
    target: Target,
    num_warps: int = 4,
    num_stages: int = 3,
    timeout: float = 300.0,
) -> CompiledKernel:
    """Compile one kernel of an emitted module file; raises what `compile_kernel` raises."""
    job = Job(str(path), kernel, arguments, target, num_warps, num_stages)
    (result,) = compile_many([job], timeout=timeout)
    if isinstance(result, AttncError):
        raise result
    return result


def compile_many(
    jobs: Iterable[Job], *, processes: int | None = None, timeout: float = 300.0
) -> tuple[CompiledKernel | AttncError, ...]:
    """Compile all jobs, in at most `processes` processes (default: the CPUs we may use).

    A job that fails gives its error in its place. `timeout` is in seconds per kernel.
    """
    waiting: queue.SimpleQueue[tuple[int, Job]] = queue.SimpleQueue()
    for item in enumerate(jobs):
        waiting.put(item)
    count = waiting.qsize()
    size = max(1, min(count, processes or cpus()))
    results: dict[int, CompiledKernel | AttncError] = {}

    def serve(scratch: str) -> None:
        with _Worker(scratch, timeout) as worker:
            while (item := _next(waiting)) is not None:
                place, job = item
                results[place] = worker.compile(job)

    with (
        # Triton's own cache is unbounded, and there is ours: give it a throwaway.
        tempfile.TemporaryDirectory(prefix="attnc-compile-") as scratch,
        ThreadPoolExecutor(size) as pool,
    ):
        try:
            for done in [pool.submit(serve, scratch) for _ in range(size)]:
                done.result()
        finally:
            # interrupted: nobody waits for the rest
            while _next(waiting) is not None:
                pass
    return tuple(results[i] for i in range(count))


def _next(waiting: queue.SimpleQueue[tuple[int, Job]]) -> tuple[int, Job] | None:
    try:
        return waiting.get_nowait()
    except queue.Empty:
        return None


def cpus() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Worker:
    """A compiling process, started when there is a job for it, and again after it died."""

    def __init__(self, scratch: str, timeout: float) -> None:
        self._timeout = timeout
        self._environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        self._environment["TRITON_CACHE_DIR"] = scratch
        self._environment["PYTHONPATH"] = os.pathsep.join(p or os.getcwd() for p in sys.path)
        self._log: IO[bytes] = tempfile.TemporaryFile()
        self._process: subprocess.Popen[bytes] | None = None
        self._timed_out = False

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._log.close()

    def compile(self, job: Job) -> CompiledKernel | AttncError:
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(self._timeout, self._time_out)
        timer.start()
        try:
            pickle.dump(job, process.stdin)
            process.stdin.flush()
            answer = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            return self._autopsy(job)
        finally:
            timer.cancel()
        if isinstance(answer, Failure):
            return AttncError(answer.code, answer.message, hint=answer.hint)
        assert isinstance(answer, CompiledKernel)
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            # -P: a file in the current directory must not shadow a module
            [sys.executable, "-P", "-m", "attnc.runtime.compile_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._environment,
            # its ptxas dies with it
            start_new_session=True,
        )

    def _time_out(self) -> None:
        self._timed_out = True
        self._kill()

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _stop(self) -> None:
        """Let the process end (or end it, should it be stuck) and free its pipes."""
        if self._process is None:
            return
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        self._process.stdout.close()
        self._process = None

    def _autopsy(self, job: Job) -> AttncError:
        self._stop()
        if self._timed_out:
            self._timed_out = False
            why = f"it takes longer than {self._timeout:g} s"
        else:
            self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, self._log.tell() - 4000))
            lines = self._log.read().decode(errors="replace").strip().splitlines()
            why = f"the compiler crashed: {lines[-1][:300] if lines else 'it left no message'}"
        return AttncError(
            "E813", f"kernel `{job.kernel}` does not compile for `{job.target.name}`: {why}"
        )
