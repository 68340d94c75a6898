"""Builds the wheel of this checkout, installs it elsewhere and uses it there: nothing that it needs may be missing.

Needs what pip needs to build a package (hatchling, which it fetches), so `.ci/run` runs it and the tests do not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

USE = """
import os, sys
import pgflow, pgflow.embedded
assert pgflow.__file__.startswith(sys.argv[1]), pgflow.__file__
with pgflow.embedded.Postgres() as server:
    pgflow.migrate(server.dsn)
    with pgflow.SyncClient(server.dsn) as client:
        print(client.dispatch("anything").info().status)
"""


def main() -> int:
    """Build, compare, install, use."""
    with tempfile.TemporaryDirectory(prefix="pgflow-wheel-") as place:
        build, target = Path(place, "build"), Path(place, "target")
        run("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(build), str(ROOT))
        (wheel,) = build.glob("*.whl")
        with zipfile.ZipFile(wheel) as opened:
            held = {name for name in opened.namelist() if ".dist-info/" not in name}
        if held != expected():
            print(
                f"the wheel lacks {sorted(expected() - held)} and has {sorted(held - expected())} too many; see "
                "pyproject.toml"
            )
            return 1
        run("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel))
        told = run("-W", "ignore", "-c", USE, str(target), cwd=place, path=target)
        if told.strip() != "pending":
            print(f"a workflow that was dispatched by the installed wheel is {told.strip()!r}, expected 'pending'")
            return 1
    return 0


def expected() -> set[str]:
    """The package's files, and the migrations where the installed package looks for them."""
    tracked = subprocess.run(
        ["git", "ls-files", "pgflow", "alembic"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    return {
        name.replace("alembic/", "pgflow/migrations/", 1) if name.startswith("alembic/") else name for name in tracked
    }


def run(*arguments: str, cwd: str | Path = ROOT, path: Path | None = None) -> str:
    """Another Python; what it prints."""
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return ran.stdout


if __name__ == "__main__":
    sys.exit(main())
