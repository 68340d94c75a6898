"""The processes that are measured: `pgflow worker` itself, unchanged, and the floor."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import psycopg

ROOT = Path(__file__).resolve().parent.parent
LOOK = 0.01
"""Seconds between two looks at what is waited for, unless a look is expensive."""

GIVE_UP = 300.0
"""Seconds after which a measurement is given up."""


def wait_until(condition: Callable[[], bool], what: str, seconds: float = GIVE_UP, every: float = LOOK) -> None:
    """Wait for a condition, looking `every` so many seconds.

    Raises:
        TimeoutError: it did not come true in time.
    """
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(every)


class Process:
    """A Python process that can be stopped in mid-air (`freeze`), so that work can be laid out before it begins."""

    def __init__(self, arguments: list[str]) -> None:
        self._process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT)
        self._info = psutil.Process(self._process.pid)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def check(self) -> None:
        """Raise if the process has ended by itself."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.returncode}")

    def send(self, fate: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(fate)

    def freeze(self) -> None:
        """Stop it where it is."""
        self._process.send_signal(signal.SIGSTOP)
        wait_until(lambda: self._info.status() == psutil.STATUS_STOPPED, "the process stops")

    def go_on(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def cpu(self) -> float:
        """Seconds of CPU that it has used, its threads included."""
        times = self._info.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> float:
        """Resident megabytes."""
        return float(self._info.memory_info().rss) / 2**20

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class WorkerProcess(Process):
    """`pgflow worker` on the benchmarks' workflows, with default settings unless `options` say otherwise."""

    def __init__(self, dsn: str, *options: str) -> None:
        before = _registered(dsn)
        super().__init__(["cli.py", "worker", "benchmarks.flows", "--dsn", dsn, "--log-level", "error", *options])
        self._dsn = dsn

        def ready() -> bool:
            self.check()
            return bool(_registered(dsn) - before)

        wait_until(ready, "the worker registers itself")


class FloorProcess(Process):
    """The bare loop of `benchmarks.floor`; it works like a worker that knows two workflows by heart."""

    def __init__(self, dsn: str) -> None:
        super().__init__(["-m", "benchmarks.floor", dsn])

        def ready() -> bool:
            self.check()
            return _listens(dsn)

        wait_until(ready, "the floor listens")


def _registered(dsn: str) -> set[object]:
    with psycopg.connect(dsn) as connection:
        return {row[0] for row in connection.execute("SELECT id FROM pgflow.workers")}


def _listens(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'floor listener' AND state = 'idle' "
            "AND query LIKE 'LISTEN%'"
        ).fetchone()
    return found is not None and found[0] == 1
