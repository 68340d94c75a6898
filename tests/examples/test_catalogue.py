"""The demo itself, on a part of the standard library. About 6 seconds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("asyncio", "concurrent", "email", "importlib", "json", "multiprocessing", "unittest", "xml")


def test_the_demo(tmp_path: Path) -> None:
    """A worker is killed while activities are in flight, they are begun again, and every file is counted once."""
    for name in PACKAGES:
        shutil.copytree(
            Path(sysconfig.get_path("stdlib")) / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    files = len(list(tmp_path.rglob("*.py")))
    ran = subprocess.run(
        [sys.executable, "-m", "examples.catalogue", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"worker \d +process \d+, KILLED after .* s", ran.stdout), ran.stdout
    assert f"{files} results of `summarise`, {files} different files: every file counted once." in ran.stdout
    assert re.search(r"The crash interrupted [1-9]\d* activities", ran.stdout), ran.stdout
    assert "DIFFERENT" not in ran.stdout and ran.stdout.endswith("\n")
