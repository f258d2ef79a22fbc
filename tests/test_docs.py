"""What the pages say is so: commands run, code runs, what a command prints is what it prints.

A fenced block may be preceded by a comment for the reader of the source:
`<!-- not run: why -->`, or `<!-- printed by COMMAND -->` for what a command prints. In the latter,
a line of dots stands for what the page leaves out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

_BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^>]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_DOTS = re.compile(r"^ *\.\.\.\n", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the comment before it."""

    page: Path
    line: int
    language: str
    text: str
    note: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def _blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, m.start()) + 1, m["language"], m["text"], m["note"] or "")
        for m in _BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in _blocks(page)]
RUN = [b for b in BLOCKS if not b.note.startswith(("not run: ", "printed by "))]


def _run(command: list[str], folder: Path) -> str:
    # The command of this checkout, whatever is installed.
    script = folder / "bin" / "attnc"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m attnc "$@"\n')
    script.chmod(0o755)
    environment = dict(
        os.environ,
        PATH=os.pathsep.join([str(script.parent), os.environ["PATH"]]),
        PYTHONPATH=str(ROOT),
        ATTNC_CACHE_DIR=str(folder / "cache"),
    )
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_block_says_what_it_is(page: Path) -> None:
    fences = re.findall(r"^```", page.read_text(encoding="utf-8"), re.MULTILINE)
    blocks = _blocks(page)
    assert len(fences) == 2 * len(blocks)
    assert all(b.language in ("", "sh", "python", "attn", "text") for b in blocks)


@pytest.mark.parametrize("block", [b for b in RUN if b.language == "sh"], ids=str)
def test_a_command_of_a_page_runs(block: Block, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    _run(["bash", "-euo", "pipefail", "-c", block.text], tmp_path)


@pytest.mark.parametrize("block", [b for b in RUN if b.language == "python"], ids=str)
def test_code_of_a_page_runs(block: Block, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(block.text, encoding="utf-8")
    _run([sys.executable, "code.py"], tmp_path)


@pytest.mark.parametrize("block", [b for b in RUN if b.language == "attn"], ids=str)
def test_a_spec_of_a_page_is_right(block: Block, tmp_path: Path) -> None:
    (tmp_path / "page.attn").write_text(block.text, encoding="utf-8")
    _run([sys.executable, "-m", "attnc", "check", "page.attn"], tmp_path)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.note.startswith("printed by ")], ids=str)
def test_a_command_prints_what_the_page_shows(
    block: Block, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    printed = _run(["bash", "-euc", block.note.removeprefix("printed by ")], tmp_path)
    if request.config.getoption("--update-golden"):
        page = block.page.read_text(encoding="utf-8")
        block.page.write_text(page.replace(block.text, _refreshed(block.text, printed)), "utf-8")
        return
    for part in _DOTS.split(block.text):
        assert part in printed, "`make golden` rewrites it"


def _refreshed(shown: str, printed: str) -> str:
    """The excerpts between dots, from the same first line to the same last line of what is new."""
    parts = re.split(f"({_DOTS.pattern})", shown, flags=re.MULTILINE)
    for i, part in enumerate(parts[::2]):
        if lines := part.strip("\n").split("\n") if part else []:
            start = printed.index(lines[0])
            end = printed.index(lines[-1], start) + len(lines[-1])
            parts[2 * i] = part.replace("\n".join(lines), printed[start:end])
    return "".join(parts)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.name)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    _run([sys.executable, str(example)], tmp_path)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
