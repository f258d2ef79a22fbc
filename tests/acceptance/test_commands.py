"""What a user mistypes, breaks or lacks: every command says what is wrong, in one error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from attnc.library import text

Command = Callable[..., CompletedProcess[str]]
SMALL = "B=1,H=2,G=1,M=5,N=9,D=8,E=8"


def refused(done: CompletedProcess[str], code: str) -> None:
    """The user's error: its code on stderr, nothing on stdout, status 1."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert f"error[{code}]" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("name", "written", "derived"), [("sdpa", 3, 1), ("lssar", 3, 2), ("clipped_softmax", 3, 2)]
)
def test_explain_counts_passes_and_names_the_forcing_line(
    attnc: Command, name: str, written: int, derived: int
) -> None:
    passes = json.loads(attnc("explain", name, "--json").stdout)["passes"]["n"]
    assert (passes["written"], passes["derived"]) == (written, derived)
    assert len(passes["forced_by"]) == derived - 1
    for line in passes["forced_by"]:
        assert text(name).splitlines()[line["line"] - 1].strip() == line["text"].strip()


def test_an_unknown_target(attnc: Command, tmp_path: Path) -> None:
    refused(attnc("compile", "sdpa", "--target", "gtx", "-o", "made"), "E801")
    assert not (tmp_path / "made").exists()


def test_a_file_where_the_folder_should_be(attnc: Command, tmp_path: Path) -> None:
    (tmp_path / "made").write_text("mine")
    done = attnc("compile", "sdpa", "--source-only", "-o", "made")
    refused(done, "E713")
    assert (tmp_path / "made").read_text() == "mine"


def test_a_shape_that_does_not_fit(attnc: Command) -> None:
    refused(attnc("verify", "causal", "--shape", "B=1,X=3"), "E504")
    refused(attnc("verify", "causal", "--shape", "B=1,H=3,G=2,M=4,N=4,D=8,E=8"), "E831")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "E010"),
        (b"\xff\xfe\x00", "E704"),
        (b"attention a\ninput Q[b]\nO[b] = " + b"exp(" * 5000 + b"Q[b]" + b")" * 5000, "E008"),
        (b"attention a\ninput Q[b]\nO[b] = Q[b] * " + b"9" * 5000 + b"\noutput O[b]\n", "E007"),
        (b"attention a\ndef f(x): return f(x)\ninput Q[b]\nO[b] = f(Q[b])\noutput O[b]\n", "E401"),
        (b'attention a\n"""never ends\n', "E005"),
        (b"attention a\n" + b"# text\n" * 9000, "E003"),
    ],
    ids=["empty", "no text", "deep", "digits", "recursion", "docstring", "long"],
)
def test_a_file_that_is_no_spec(attnc: Command, tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "bad.attn").write_bytes(content)
    refused(attnc("check", "bad.attn"), code)


def test_a_folder_and_a_missing_file(attnc: Command, tmp_path: Path) -> None:
    (tmp_path / "folder.attn").mkdir()
    for name in ("folder.attn", "missing.attn"):
        done = attnc("explain", name)
        assert (done.returncode, done.stdout) == (1, "")
        assert name in done.stderr


def test_a_cache_that_cannot_be_written(attnc: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = attnc("verify", "sdpa", "--shape", SMALL, ATTNC_CACHE_DIR=str(tmp_path / "file"))
    assert done.returncode == 0, done.stderr


# In a process of its own: load a spec and call its emitted module once.
LOAD = """
import attnc, sys, time
attention = attnc.load("causal")
print(attention.module.__file__)
"""


def test_processes_that_load_at_once_share_one_cache(shell: Command, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: shell("-c", LOAD), range(3)))
    assert [d.returncode for d in done] == [0, 0, 0], [d.stderr for d in done]
    (file,) = {d.stdout.strip() for d in done}
    assert Path(file).is_file()
    assert not list((tmp_path / "cache").glob("**/tmp-*"))


def test_a_torn_cache_entry_is_made_again(shell: Command) -> None:
    file = Path(shell("-c", LOAD).stdout.strip())
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    done = shell("-c", LOAD)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).read_bytes() == whole
