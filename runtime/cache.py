"""A disk cache of what is expensive to make: emitted modules, reports, tuned configurations.

An entry is a folder of files, named by the hash of what it was made from, with a manifest of
checksums. It is written under a temporary name and renamed, so other processes see it whole or not
at all; an entry that is not as its manifest says is removed and counts as absent. No lock is held:
processes that build the same entry at once each write it, and any of them is right.

Where the folder cannot be written, a warning goes to stderr once and the process continues with a
folder of its own, removed at exit: a full disk or a read-only home must not stop a training run.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from attnc.errors import AttncError

_DEFAULT_BYTES = 512 * 2**20
_MANIFEST = "manifest.json"
# A temporary folder this old belongs to nobody who is still alive.
_ABANDONED_SECONDS = 3600.0


def content_key(*parts: str | bytes) -> str:
    """The key of what is made from these parts by these versions of attnc, triton and torch."""
    digest = hashlib.sha256()
    for part in (*_versions(), *parts):
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


@cache
def _versions() -> tuple[str, ...]:
    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return ""

    return tuple(f"{p} {of(p)}" for p in ("attnc", "triton", "torch"))


def default_root() -> Path:
    """ATTNC_CACHE_DIR, else `attnc` in the platform's folder for caches."""
    if given := os.environ.get("ATTNC_CACHE_DIR"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "attnc"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/attnc"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attnc"


def _default_bytes() -> int:
    given = os.environ.get("ATTNC_CACHE_BYTES")
    if given is None:
        return _DEFAULT_BYTES
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise AttncError(
            "E822",
            f"ATTNC_CACHE_BYTES is `{given[:60]}`, not a number of bytes",
            hint=f"the default is {_DEFAULT_BYTES} (512 MiB)",
        )
    return int(given)


class Cache:
    """Entries under `root`, at most `limit` bytes of them: the least recently used go first.

    The bound is enforced at a process's first write and whenever it has written a sixteenth of it
    (so it may be exceeded by that much); the entry just written always stays.
    """

    def __init__(self, root: str | Path | None = None, *, limit: int | None = None) -> None:
        self.root = default_root() if root is None else Path(root)
        self.limit = _default_bytes() if limit is None else limit
        self._unswept: float = float("inf")

    def get(self, key: str) -> dict[str, bytes] | None:
        """The files of an entry; None where there is none, or none that is intact."""
        entry = self.path(key)
        try:
            manifest = json.loads((entry / _MANIFEST).read_bytes())
            files = {name: (entry / _plain(name)).read_bytes() for name in manifest}
            if any(_checksum(files[name]) != manifest[name] for name in files):
                raise ValueError("torn")
        except FileNotFoundError:
            if entry.is_dir():
                self._discard(entry)
            return None
        except (OSError, ValueError, TypeError, RecursionError):
            self._discard(entry)
            return None
        try:
            os.utime(entry)
        except OSError:
            pass  # read-only: its age says nothing then, and nobody can evict it either
        return files

    def put(self, key: str, files: Mapping[str, bytes]) -> Path:
        """Store an entry, in place of any there was; returns its folder.

        Raises E821 if even the process's own temporary folder cannot be written.
        """
        try:
            entry = self._write(key, files)
        except OSError as e:
            try:
                self.root = _own_root(self.root, e)
                entry = self._write(key, files)
            except OSError as again:
                raise AttncError(
                    "E821",
                    f"no cache folder can be written: {again}",
                    hint="ATTNC_CACHE_DIR names one with space in it",
                ) from None
        self._unswept += sum(map(len, files.values()))
        if self._unswept > self.limit / 16:
            self._sweep(keep=entry)
        return entry

    def path(self, key: str) -> Path:
        """The folder that an entry has, or would have."""
        assert len(key) >= 8 and key.isalnum(), key
        return self.root / key[:2] / key

    def _write(self, key: str, files: Mapping[str, bytes]) -> Path:
        entry = self.path(key)
        entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = Path(tempfile.mkdtemp(prefix="tmp-", dir=self.root))
        try:
            for name, data in files.items():
                (made / _plain(name)).write_bytes(data)
            manifest = {name: _checksum(data) for name, data in files.items()}
            (made / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
            for _ in range(8):
                try:
                    return made.rename(entry)
                except OSError as e:
                    # A folder with files in it cannot be renamed over: the old entry goes first.
                    if e.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise
                    self._discard(entry)
            return entry  # others keep writing the same: theirs is as good
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _discard(self, entry: Path) -> None:
        """Remove an entry: first from sight, in one step, then from the disk."""
        try:
            grave = Path(tempfile.mkdtemp(prefix="tmp-", dir=self.root))
            try:
                entry.rename(grave / "entry")
            finally:
                shutil.rmtree(grave, ignore_errors=True)
        except OSError:
            pass  # another process was faster, or the folder is read-only

    def _sweep(self, keep: Path) -> None:
        self._unswept = 0
        entries = []
        now = time.time()
        for folder in _folders(self.root):
            if not folder.name.startswith("tmp-"):
                entries += [(*_age_and_size(e), e) for e in _folders(folder)]
            elif now - _age_and_size(folder)[0] > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        total = sum(size for _, size, _ in entries)
        for _, size, entry in sorted(entries):
            if total <= self.limit:
                return
            if entry != keep:
                self._discard(entry)
                total -= size


def _plain(name: str) -> str:
    if name in ("", ".", "..", _MANIFEST) or any(c in name for c in "/\\\0"):
        raise ValueError(f"not a file name: {name!r}")
    return name


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _folders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _age_and_size(entry: Path) -> tuple[float, int]:
    """When an entry was last used, in seconds since the epoch, and its bytes."""
    try:
        with os.scandir(entry) as files:
            return entry.stat().st_mtime, sum(f.stat().st_size for f in files)
    except OSError:
        return 0.0, 0


@cache
def _temporary_root() -> Path:
    root = tempfile.mkdtemp(prefix="attnc-cache-")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return Path(root)


_warned: set[Path] = set()


def _own_root(root: Path, why: OSError) -> Path:
    """A folder of this process, instead of one that cannot be written; warns once for each."""
    if root not in _warned:
        _warned.add(root)
        print(
            f"attnc: warning: cannot write the cache folder `{root}` ({why.strerror or why}); "
            "nothing is kept beyond this process. ATTNC_CACHE_DIR names another folder.",
            file=sys.stderr,
        )
    return _temporary_root()
