"""`make demo`: two workers make a catalogue of the standard library; one of them is killed on the way.

Everything is real: a PostgreSQL of its own, `pgflow worker` processes, SIGKILL. At the end a report, read from the
database.

    python -m examples.catalogue [DIRECTORY]    of the Python files in another directory
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

import psycopg
from rich.console import Console
from rich.live import Live

import pgflow
from examples.catalogue.count import DIRECTORY, all_files, count
from examples.catalogue.crash import kill_one
from examples.catalogue.display import Picture
from examples.catalogue.flows import walk
from examples.catalogue.report import report
from pgflow.embedded import Postgres

KILL_AFTER = 0.35
"""The share of the files after which a worker is killed."""

HOW = ("--concurrency", "16", "--threads", "4")
"""The workers' options: so few workflows at once that both have some at every moment."""

GIVE_UP = 300.0
"""Seconds after which the demo ends without having finished."""


def main() -> int:
    """Run the demo; returns 0 when the catalogue is right."""
    warnings.simplefilter("ignore", SyntaxWarning)  # the library's own tests are full of odd code
    if len(sys.argv) > 1:
        os.environ[DIRECTORY] = str(Path(sys.argv[1]).resolve())
    console = Console(width=None if sys.stdout.isatty() else 110)
    began = time.monotonic()
    with ExitStack() as stack:
        console.print("[bold]pgflow[/]: starting an embedded PostgreSQL and two workers")
        server = stack.enter_context(Postgres(settings={"shared_buffers": "128MB"}))
        os.environ["PGFLOW_DATABASE_URL"] = server.dsn
        pgflow.migrate(server.dsn)
        connection = stack.enter_context(psycopg.connect(server.dsn, autocommit=True))
        connection.execute(
            "CREATE TABLE attempts (workflow_id uuid, file text, process int, begun timestamptz DEFAULT now())"
        )
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgflow-demo-")))
        workers = [start_worker(number, logs) for number in (1, 2)]
        stack.callback(stop, workers)
        client = stack.enter_context(pgflow.SyncClient(server.dsn))
        expected = len(all_files())
        catalogue = client.dispatch(walk)
        killed = watch(console, connection, workers, expected)
        took = time.monotonic() - began
        console.print("counting again without pgflow ...")
        right = report(console, connection, catalogue.id, count(), killed, took)
        stop(workers)
        if not right:
            console.print("[red]The catalogue is wrong.[/] The workers' logs:")
            for log in sorted(logs.iterdir()):
                console.print(log.read_text(), markup=False)
    return 0 if right else 1


def start_worker(number: int, logs: Path) -> subprocess.Popen[bytes]:
    """One `pgflow worker` process."""
    with open(logs / f"worker-{number}.log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore::SyntaxWarning", "cli.py", "worker", "examples.catalogue.flows", *HOW],
            cwd=Path(__file__).resolve().parent.parent.parent,
            stdout=log,
            stderr=log,
        )


def watch(
    console: Console,
    connection: psycopg.Connection[tuple[object, ...]],
    workers: list[subprocess.Popen[bytes]],
    expected: int,
) -> int | None:
    """Show the progress until every workflow has ended; kill a worker on the way. Returns the process
    that was killed.
    """
    picture = Picture(connection, [worker.pid for worker in workers], expected)
    victim: subprocess.Popen[bytes] | None = None
    until = time.monotonic() + GIVE_UP
    with ExitStack() as stack:
        live = stack.enter_context(Live(console=console, refresh_per_second=8)) if console.is_terminal else None
        while True:
            state = picture.read()
            drawn = picture.draw(state)
            if live is not None:
                live.update(drawn)
            if state.ended:
                break
            if victim is None and state.files >= expected * KILL_AFTER:
                victim = kill_one(connection, workers)
                if victim is not None:
                    picture.killed(victim.pid)
                    if live is None:
                        console.print(picture.draw(picture.read()))
            if time.monotonic() > until:
                raise SystemExit(f"The demo did not end within {GIVE_UP:g} s; it is at {state}.")
            time.sleep(0.12)
    if live is None:
        console.print(drawn)
    return None if victim is None else victim.pid


def stop(workers: list[subprocess.Popen[bytes]]) -> None:
    """End the workers that are still there, as a deployment does."""
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    for worker in workers:
        worker.wait()


if __name__ == "__main__":
    sys.exit(main())
