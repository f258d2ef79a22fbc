"""The disk cache: whole entries only, bounded, safe between processes, never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attnc.errors import AttncError
from attnc.runtime import cache as cache_module
from attnc.runtime.cache import Cache, content_key, default_root

KEY = content_key("source")
FILES = {"module.py": b"x = 1\n" * 100, "report.json": b"{}"}


def test_an_entry_is_read_as_it_was_written(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.get(KEY) is None
    folder = cache.put(KEY, FILES)
    assert (folder / "module.py").read_bytes() == FILES["module.py"]
    assert Cache(tmp_path).get(KEY) == FILES
    cache.put(KEY, {"module.py": b"other"})
    assert cache.get(KEY) == {"module.py": b"other"}
    assert not list(tmp_path.glob("tmp-*"))


def test_a_key_tells_parts_apart() -> None:
    keys = {content_key(*parts) for parts in (("ab",), ("a", "b"), ("", "ab"), ("ba",), ())}
    assert len(keys) == 5
    assert content_key("a", b"b") == content_key("a", "b")


def truncated(entry: Path) -> None:
    (entry / "module.py").write_bytes(b"x = 1")


def flipped(entry: Path) -> None:
    (entry / "module.py").write_bytes(FILES["module.py"][:-2] + b"2\n")


def without_file(entry: Path) -> None:
    (entry / "report.json").unlink()


def without_manifest(entry: Path) -> None:
    (entry / "manifest.json").unlink()


def torn_manifest(entry: Path) -> None:
    (entry / "manifest.json").write_text('{"module.py": ')


def empty_manifest(entry: Path) -> None:
    (entry / "manifest.json").write_text("")


def odd_manifest(entry: Path) -> None:
    (entry / "manifest.json").write_text('["module.py"]')


def escaping_manifest(entry: Path) -> None:
    (entry / "manifest.json").write_text('{"../../../../etc/passwd": "0"}')


def a_file(entry: Path) -> None:
    for file in entry.iterdir():
        file.unlink()
    entry.rmdir()
    entry.write_text("not a folder")


@pytest.mark.parametrize(
    "damage",
    [truncated, flipped, without_file, without_manifest, torn_manifest, empty_manifest,
     odd_manifest, escaping_manifest, a_file],
)  # fmt: skip
def test_a_damaged_entry_is_absent_and_can_be_rebuilt(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    cache = Cache(tmp_path)
    damage(cache.put(KEY, FILES))
    assert cache.get(KEY) is None
    assert not cache.path(KEY).exists()
    damage(cache.put(KEY, FILES))
    cache.put(KEY, FILES)
    assert cache.get(KEY) == FILES


def aged(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder, (then, then))


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=5000)
    keys = [content_key(str(i)) for i in range(6)]
    for age, key in enumerate(keys[:4]):
        entry = cache.put(key, {"data": bytes(1000)})
        aged(entry, 100 - age)
    assert cache.get(keys[0]) is not None  # used just now
    for key in keys[4:]:
        cache.put(key, {"data": bytes(1000)})
    kept = [i for i, key in enumerate(keys) if cache.get(key) is not None]
    assert kept == [0, 3, 4, 5]
    assert sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file()) <= 5000


def test_an_entry_larger_than_the_bound_stays_until_the_next(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=10)
    cache.put(KEY, FILES)
    assert cache.get(KEY) == FILES
    cache.put(content_key("next"), {"a": b"12"})
    assert cache.get(KEY) is None


def test_abandoned_temporary_folders_are_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "tmp-old", tmp_path / "tmp-new"
    for folder in (old, new):
        folder.mkdir()
    aged(old, 7200)
    Cache(tmp_path).put(KEY, FILES)
    assert not old.exists()
    assert new.exists()


def test_a_folder_that_cannot_be_written_warns_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    for root in (tmp_path / "file", tmp_path / "file", tmp_path / "file" / "below"):
        cache = Cache(root)
        assert cache.get(KEY) is None
        cache.put(KEY, FILES)
        assert cache.get(KEY) == FILES
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("warning: cannot write the cache folder") == 2
    assert (tmp_path / "file").read_text() == "in the way"


def test_nowhere_to_write_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(cache_module, "_temporary_root", lambda: tmp_path / "file")
    with pytest.raises(AttncError, match="no cache folder can be written") as e:
        Cache(tmp_path / "file").put(KEY, FILES)
    assert e.value.code == "E821"


def test_the_root_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "mine"))
    assert default_root() == tmp_path / "mine"
    monkeypatch.delenv("ATTNC_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_root() == tmp_path / "xdg" / "attnc"


@pytest.mark.parametrize("given", ["", "lots", "-1", "1e9", "9" * 5000])
def test_a_bound_that_is_no_number(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNC_CACHE_BYTES", given)
    with pytest.raises(AttncError, match="ATTNC_CACHE_BYTES") as e:
        Cache()
    assert e.value.code == "E822"


@pytest.mark.parametrize("name", ["../x", "a/b", "", "..", "manifest.json"])
def test_a_file_stays_inside_its_entry(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        Cache(tmp_path).put(KEY, {name: b""})


HAMMER = """
import sys, random
from attnc.runtime.cache import Cache, content_key
root, seed = sys.argv[1], int(sys.argv[2])
cache = Cache(root, limit=60_000)
random.seed(seed)
read = 0
for step in range(150):
    name = str(random.randrange(12))
    want = {"a": (name * 3000).encode(), "b": name.encode() * 500}
    got = cache.get(content_key(name))
    assert got is None or got == want, "a torn entry was read"
    read += got is not None
    cache.put(content_key(name), want)
print(read)
"""


def test_concurrent_processes_never_see_a_torn_entry(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, str(tmp_path), str(seed)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for seed in range(4)
    ]  # fmt: skip
    for worker in workers:
        out, err = worker.communicate(timeout=60)
        assert worker.returncode == 0, err
        assert err == ""
        assert int(out) > 0
    assert not list(tmp_path.glob("tmp-*"))
    cache = Cache(tmp_path, limit=60_000)
    cache.put(KEY, FILES)
    assert sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file()) <= 60_000
