"""`pgflow worker` as a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows

ROOT = Path(__file__).parent.parent.parent


class WorkerProcess:
    """One `pgflow worker` with the workflows of `flows`, and its log."""

    def __init__(self, scene: Scene, *options: str, dsn: str | None = None) -> None:
        self.scene = scene
        self._log = (
            Path(os.environ["PGFLOW_TEST_LOGS"]) / f"worker{len(os.listdir(os.environ['PGFLOW_TEST_LOGS']))}.log"
        )
        command = [sys.executable, "cli.py", "worker", "tests.worker.flows:ALL", *options]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stderr=log, env={**os.environ, flows.VARIABLE: dsn or scene.database.dsn}
            )
        self.pid = self._process.pid

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    @property
    def code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    @property
    def ids(self) -> list[int]:
        """Its registrations that the database knows of."""
        return self.scene.all("SELECT id FROM workers WHERE pid = %s", self.pid)

    async def registered(self) -> int:
        """Wait until it works; its number."""
        await until(lambda: self.ids or self.code is not None, "the worker's registration")
        assert self.ids, self.log
        return self.ids[0]

    async def logged(self, text: str) -> None:
        """Wait until its log says `text`."""
        await until(lambda: text in self.log or self.code is not None, f"{text!r} in the log")
        assert text in self.log, self.log

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; the exit code."""
        await until(lambda: self.code is not None, "the worker's end")
        assert self.code is not None
        return self.code

    def remove(self) -> None:
        """See to it that nothing is left of it."""
        if self.code is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


@contextmanager
def worker_process(scene: Scene, *options: str, dsn: str | None = None) -> Iterator[WorkerProcess]:
    """A worker that is gone at the end of the block."""
    process = WorkerProcess(scene, *options, dsn=dsn)
    try:
        yield process
    finally:
        process.remove()


@contextmanager
def unreachable(dsn: str) -> Iterator[None]:
    """No connection to this database lives on, and no new one is let in; the tests' own stay."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    with psycopg.connect(make_conninfo(dsn, dbname="postgres"), autocommit=True) as connection:
        closed = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        connection.execute(closed.format(sql.Identifier(name), sql.SQL("false")))
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = %s AND backend_type = 'client backend' AND application_name LIKE 'pgflow %%'",
            [name],
        )
        try:
            yield
        finally:
            connection.execute(closed.format(sql.Identifier(name), sql.SQL("true")))


def run_of(scene: Scene, workflow_id: UUID) -> Any:
    """Status, worker and epoch of a run; None when it has ended."""
    found = scene.all("SELECT status, worker_id, epoch FROM runs WHERE workflow_id = %s", workflow_id)
    return found[0] if found else None


async def marked(scene: Scene, what: str, times: int = 1) -> None:
    """Wait until an activity has left its mark."""
    await until(
        lambda: scene.one("SELECT count(*) FROM public.marks WHERE what = %s", what) >= times, f"the mark {what!r}"
    )


def let_go_on(scene: Scene, name: str) -> None:
    """Let the activity `name` go on."""
    scene.do("INSERT INTO public.marks (what, process, attempt) VALUES (%s, 0, 0)", f"{name} goes on")


def marks(scene: Scene) -> list[tuple[str, int, int]]:
    """The marks that activities have left, in order: what, process, attempt."""
    return scene.all("SELECT what, process, attempt FROM public.marks WHERE process <> 0 ORDER BY number")
