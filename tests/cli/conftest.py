"""Commands as a user types them, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attnc.cli import main


@pytest.fixture
def in_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run `attnc ARGS` in an empty folder: exit status, stdout, stderr; no traceback is shown."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str, str]:
        try:
            status = main(args)
        except SystemExit as e:
            assert isinstance(e.code, int)
            status = e.code
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return run
