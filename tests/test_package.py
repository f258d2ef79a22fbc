"""What is installed is whole: wheel and sdist hold the linked folders' files, data included."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ("codegen", "dsl", "ir", "library", "runtime")


def _expected() -> set[str]:
    """Every file of the package, as it is named in a wheel."""
    own = {p.relative_to(ROOT) for p in (ROOT / "attnc").glob("*") if p.is_file()}
    linked = {
        Path("attnc") / p.relative_to(ROOT)
        for stage in STAGES
        for p in (ROOT / stage).rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    return {str(p) for p in own | linked}


@pytest.mark.slow
def test_wheel_and_sdist_hold_every_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    skipped = ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
    copytree(ROOT, source, symlinks=True, ignore=skipped)
    build = "import setuptools.build_meta as b; b.build_wheel('../made'); b.build_sdist('../made')"
    (tmp_path / "made").mkdir()
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("made/*.whl")
    (sdist,) = tmp_path.glob("made/*.tar.gz")
    assert _expected() <= set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert _expected() <= names
