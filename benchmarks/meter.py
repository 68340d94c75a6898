"""What a stretch of work cost the server: bytes of WAL, commits, statements, seconds of CPU."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

import psutil
import psycopg

_SNAPSHOT = """
SELECT
    pg_current_wal_insert_lsn() - '0/0'::pg_lsn,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
    (SELECT coalesce(sum(s.calls), 0) FROM pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid
        WHERE d.datname = %(name)s)
"""


@dataclass(slots=True)
class Cost:
    """What was spent between `start` and `stop`."""

    seconds: float
    wal: float
    """Bytes of write-ahead log, of the whole server."""
    commits: float
    """Transactions that wrote something: those that wait for the disk."""
    statements: float
    """Of the database, the observer's taken off."""
    cpu: float
    """Seconds of CPU of all the server's processes."""


class Meter:
    """Measures one database from outside of it.

    Transactions are counted by their ids, not by the server's statistics, which sessions report with a delay.

    Example:
        meter = Meter(admin, dsn)
        meter.start()
        ...
        cost = meter.stop()
    """

    def __init__(self, admin: psycopg.Connection[tuple[object, ...]], dsn: str) -> None:
        self._admin = admin
        self._name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        self._before: list[float] = []
        self._cpu: dict[int, float] = {}
        self._began = 0.0
        self.own = 0
        """Statements of the observer itself, to be taken off."""

    def start(self) -> None:
        """Begin, right after a checkpoint."""
        self._admin.execute("CHECKPOINT")
        self._before, self.own = self._snapshot(), 0
        self._cpu = self._cpu_times()
        self._began = time.perf_counter()

    def stop(self) -> Cost:
        """The work is done: what it came to."""
        seconds = time.perf_counter() - self._began
        wal, commits, statements = (
            after - before for after, before in zip(self._snapshot(), self._before, strict=True)
        )
        cpu = sum(seconds - self._cpu.get(pid, 0.0) for pid, seconds in self._cpu_times().items())
        return Cost(seconds, wal, commits, statements - self.own, cpu)

    def _snapshot(self) -> list[float]:
        row = self._admin.execute(_SNAPSHOT, {"name": self._name}).fetchone()
        assert row is not None
        return [float(value) for value in row]  # type: ignore[arg-type]

    def _cpu_times(self) -> dict[int, float]:
        """Seconds of CPU by process of the server; one that ends meanwhile is not counted."""
        found: dict[int, float] = {}
        for row in self._admin.execute("SELECT pid FROM pg_stat_activity").fetchall():
            pid = int(str(row[0]))
            with suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                found[pid] = float(times.user + times.system)
        return found
