"""The state of a run of `gpu.py`: results so far, the time that is left, and what is skipped."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from child_process import ChildProcess
from gpu_contestants import first_line

from attnc.files import replace_text

# Seconds that a single step may take.
_STEP = 90.0


@dataclass(slots=True)
class Run:
    """The state of a run: results so far, and when it has to end (of `time.monotonic`).

    target: what the model takes the GPU for, None where it knows no such device
    """

    tiny: bool
    seconds: float
    end: float
    verify_end: float
    json: Path | None
    target: str | None = None
    result: dict[str, Any] = field(default_factory=dict)

    def left(self, end: float | None = None) -> float:
        """Seconds that the next step may take; 0 or less: none."""
        return min(_STEP, (self.end if end is None else end) - time.monotonic())

    def until(self, end: float | None = None) -> float:
        """Seconds for a step. Raises TimeoutError if there are none."""
        left = self.left(end)
        if left <= 0:
            raise TimeoutError("no time left")
        return left

    def write(self) -> None:
        """Replace the JSON file by the results so far."""
        if self.json is not None:
            replace_text(self.json, json.dumps(self.result, indent=1) + "\n")


@contextmanager
def taken(children: SimpleQueue[ChildProcess]) -> Iterator[ChildProcess]:
    """A child process that no one else uses meanwhile."""
    child = children.get()
    try:
        yield child
    finally:
        children.put(child)


@contextmanager
def skipping(what: str) -> Iterator[None]:
    """An error becomes a line on stderr."""
    try:
        yield
    except Exception as e:
        text = first_line(e).removeprefix("RuntimeError: ")
        print(f"{what}: cannot run here: {text}", file=sys.stderr, flush=True)
