"""The library is found by listing its folder, and every mistake in naming a spec has a message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attnc.dsl import format_spec, parse
from attnc.errors import AttncError
from attnc.library import entries, names, resolve, text


def test_names_are_the_files() -> None:
    folder = Path(__file__).parents[2] / "library" / "specs"
    assert names() == tuple(sorted(f.stem for f in folder.glob("*.attn")))


@pytest.mark.parametrize("name", names())
def test_a_file_holds_the_attention_of_its_name_after_its_citation(name: str) -> None:
    lines = text(name).splitlines()
    assert lines[0].startswith("# ")
    assert f"attention {name}" in lines
    assert max(map(len, lines)) <= 100
    assert format_spec(parse(text(name))) == text(name)


def test_entries_are_complete() -> None:
    assert tuple(e.name for e in entries()) == names()
    for entry in entries():
        assert entry.family
        assert entry.summary.endswith(".")
        assert re.search(r" (19|20)\d\d, ", entry.citation), entry
    causal = next(e for e in entries() if e.name == "causal")
    assert causal.family == "softmax"
    assert causal.citation.startswith("Vaswani et al. 2017")


def test_a_library_name_resolves_to_its_text() -> None:
    assert resolve("causal") == (text("causal"), "causal.attn")


def test_a_path_resolves_to_the_files_text(tmp_path: Path) -> None:
    spec = tmp_path / "mine.attn"
    spec.write_text("attention mine\n", encoding="utf-8-sig")
    assert resolve(str(spec)) == ("attention mine\n", str(spec))


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        ("slidng_window", "E701", "did you mean `sliding_window`?"),
        ("qqqq", "E701", "attnc list"),
        ("", "E701", "attnc list"),
        ("missing.attn", "E702", "no such file"),
        ("x\0.attn", "E702", "not a file name"),
        ("/" + "x" * 9999, "E702", "file name too long"),
    ],
)
def test_names_and_paths_that_lead_nowhere(given: str, code: str, says: str) -> None:
    with pytest.raises(AttncError) as caught:
        resolve(given)
    assert caught.value.code == code
    assert says in str(caught.value)


def test_files_that_are_no_spec(tmp_path: Path) -> None:
    long, binary = tmp_path / "long.attn", tmp_path / "binary.attn"
    long.write_bytes(b"#" * (2 << 20))
    binary.write_bytes(b"attention \xff\xfe")
    for path, code in ((tmp_path, "E702"), (long, "E703"), (binary, "E704")):
        with pytest.raises(AttncError) as caught:
            resolve(str(path))
        assert caught.value.code == code
