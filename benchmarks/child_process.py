"""Run functions in a child process that is replaced when it hangs, dies or breaks its device.

An illegal access on a GPU makes every later call of its process fail, and a kernel that hangs
cannot be interrupted: neither must cost the results of what comes after it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any


class ChildProcess:
    """A process that runs one function at a time; started when it is first needed."""

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._pipe: Connection[Any, Any] | None = None

    def run(self, function: Callable[..., Any], *args: object, timeout: float) -> Any:
        """What the function gives, which like its arguments must be picklable.

        Raises RuntimeError with the text of its exception, or where the process dies; TimeoutError
        where there is no answer within `timeout` seconds.
        """
        pipe = self._started()
        try:
            pipe.send((function, args))
            answered = pipe.poll(timeout)
            ok, found, healthy = pipe.recv() if answered else (False, "", False)
        except (EOFError, OSError):
            self.stop()
            raise RuntimeError("the process died") from None
        if not healthy:
            self.stop()
        if not answered:
            raise TimeoutError(f"no answer in {timeout:.0f} s")
        if not ok:
            raise RuntimeError(found)
        return found

    def stop(self) -> None:
        """End the process; the next call starts another one."""
        if self._process is not None and self._pipe is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None

    def _started(self) -> Connection[Any, Any]:
        if self._pipe is None:
            # a fork would share the parent's state of the device
            context = get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,))
            self._process.start()
            theirs.close()
        return self._pipe


def _serve(pipe: Connection[Any, Any]) -> None:
    """Answer calls with (whether it returned, its result or error, whether the device works)."""
    while True:
        try:
            function, args = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            found = True, function(*args)
        except Exception as e:
            code = getattr(e, "code", type(e).__name__)
            found = False, f"{code}: {(str(e).splitlines() or [''])[0]}"
        pipe.send((*found, _device_works()))


def _device_works() -> bool:
    torch = sys.modules.get("torch")
    try:
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    except Exception:
        return False
    return True
