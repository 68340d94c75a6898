"""`pgflow dev`: a server, migrated, a worker; until Ctrl-C, and again with the same data. About 6 seconds."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

import pgflow

ROOT = Path(__file__).parent.parent.parent
SHOP = """
import pgflow

@pgflow.workflow
async def double(ctx: pgflow.WorkflowContext, number: int) -> int:
    return number * 2
"""


def start(place: Path, *targets: str) -> tuple[subprocess.Popen[str], str]:
    """The process and its server's DSN, as the first line names it."""
    command = [sys.executable, str(ROOT / "cli.py"), "dev", *targets, "--directory", str(place / "data")]
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    (first, second) = shlex.split(process.stdout.readline())
    name, _, dsn = second.partition("=")
    assert (first, name) == ("export", "PGFLOW_DATABASE_URL")
    return process, dsn


def test_until_ctrl_c_and_again(place: Path) -> None:
    (place / "shop.py").write_text(SHOP)
    process, dsn = start(place, "shop")
    with pgflow.SyncClient(dsn) as client:
        handle = client.dispatch("double", number=21)
        assert handle.output(timeout=30) == 42
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)

    process, dsn = start(place)
    with pgflow.SyncClient(dsn) as client:
        assert client.output(handle.id) == 42
        assert client.dispatch("double", number=1).info().status == "pending"
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0 and told == ""


def test_what_it_cannot_start_with(place: Path) -> None:
    command = [sys.executable, str(ROOT / "cli.py"), "dev", "nowhere", "--directory", str(place / "data")]
    ran = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("Error: no module 'nowhere' can be imported from ")
    assert not (place / "data").exists()
