"""`make demo`: two workers make a catalogue of the standard library; one of them is killed on the way.

Everything is real: a PostgreSQL of its own, `pgflow worker` processes, SIGKILL. At the end a report, read from the database.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from contextlib import ExitStack
from pathlib import Path

import psycopg
from rich.console import Console
from rich.live import Live

import pgflow
from examples.catalogue.count import count
from examples.catalogue.display import Picture
from examples.catalogue.flows import walk
from examples.catalogue.report import report
from pgflow.embedded import Postgres

KILL_AFTER = 0.35
"""The share of the files after which a worker is killed."""

GIVE_UP = 300.0
"""Seconds after which the demo ends without having finished."""


def main() -> int:
    """Run the demo; returns 0 when the catalogue is right."""
    warnings.simplefilter("ignore", SyntaxWarning)  # the library's own tests are full of odd code
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
        expected = count_files()
        catalogue = client.dispatch(walk)
        killed = watch(console, connection, workers, expected, catalogue.id)
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
            [sys.executable, "-W", "ignore::SyntaxWarning", "cli.py", "worker", "examples.catalogue.flows", "--threads", "4"],
            cwd=Path(__file__).resolve().parent.parent.parent,
            stdout=log,
            stderr=log,
        )


def count_files() -> int:
    """How many files there will be, for the progress bar and the moment of the kill."""
    from examples.catalogue.count import all_files

    return len(all_files())


def watch(
    console: Console,
    connection: psycopg.Connection[tuple[object, ...]],
    workers: list[subprocess.Popen[bytes]],
    expected: int,
    catalogue: uuid.UUID,
) -> int:
    """Show the progress until every workflow has ended; kill a worker on the way. Returns the process that was killed."""
    picture = Picture(connection, [worker.pid for worker in workers], expected)
    victim = workers[0]
    until = time.monotonic() + GIVE_UP
    with Live(console=console, refresh_per_second=8, transient=False) as live:
        while True:
            state = picture.read()
            live.update(picture.draw(state))
            if victim.poll() is None and state.files >= expected * KILL_AFTER:
                victim.send_signal(signal.SIGKILL)
                victim.wait()
                picture.killed(victim.pid)
            if state.ended:
                return victim.pid
            if time.monotonic() > until:
                raise SystemExit(f"The demo did not end within {GIVE_UP:g} s; it is at {state}.")
            time.sleep(0.12)


def stop(workers: list[subprocess.Popen[bytes]]) -> None:
    """End the workers that are still there, as a deployment does."""
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    for worker in workers:
        worker.wait()


if __name__ == "__main__":
    sys.exit(main())
