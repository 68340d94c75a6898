"""A storm: a mixed load on workers that are killed all the time, until so many have died; then calm, until all has
ended.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

import pgflow
from tests.kill import load
from tests.kill.invariants import violations
from tests.kill.launcher import UNREACHABLE
from tests.kill.wire import Wire

ROOT = Path(__file__).parent.parent.parent

PATIENCE = 60.0
"""Seconds without any workflow ending after which something is stuck."""


@dataclass
class Storm:
    """What happened."""

    killed: Counter[str] = field(default_factory=Counter)
    """Deaths by where they struck."""
    failed: list[str] = field(default_factory=list)
    """Workers that ended by an error of their own."""
    workflows: int = 0
    """Those started from outside, and their children."""
    violations: list[str] = field(default_factory=list)


class Weather:
    """The launcher's process, and what it tells."""

    def __init__(self, dsn: str, through: str | None, workers: int, mean_life: float, seed: int, log: Path) -> None:
        self.storm = Storm()
        self._sql = psycopg.connect(dsn, autocommit=True)
        self._errors = log.open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kill.launcher", str(workers), str(mean_life), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, load.VARIABLE: dsn, **({} if through is None else {load.THROUGH: through})},
            cwd=ROOT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def kills(self) -> int:
        """How many have been killed so far."""
        return sum(self.storm.killed.values())

    @property
    def alive(self) -> bool:
        """Whether the launcher is."""
        return self._process.poll() is None

    def order(self, what: str) -> None:
        """Tell the launcher."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n".encode())
        self._process.stdin.flush()

    def end(self) -> None:
        """Let the workers end by themselves, and wait for them."""
        self.order("stop")
        self._process.wait(60)
        self._reader.join()
        self._sql.close()
        self._errors.close()

    def kill(self) -> None:
        """End everything at once."""
        if self.alive:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told: dict[str, Any] = json.loads(line)
            if "ended" not in told:
                continue
            if told["code"] == -9:
                self._sql.execute("INSERT INTO kills (token, how) VALUES (%s, %s)", [told["ended"], told["how"]])
                self.storm.killed[told["how"]] += 1
            elif told["code"] not in (0, UNREACHABLE):
                self.storm.failed.append(f"a worker ended with {told['code']}")


def rage(
    dsn: str,
    log: Path,
    *,
    kills: int,
    seed: int,
    ends: int = 0,
    workers: int = 4,
    mean_life: float = 0.6,
    live: int = 100,
    until: float = float("inf"),
    through: Wire | None = None,
) -> Storm:
    """Keep so many workflows live, and kill workers, until enough have died; then let everything end, and judge it.

    Args:
        dsn: a database with the schema and nothing in it.
        log: where the workers' errors go.
        kills: how many must die.
        seed: of what is started and who dies.
        ends: how many workflows must have ended before it may be calm.
        workers: how many run at a time.
        mean_life: seconds that a worker lives.
        live: workflows that have not ended, at most.
        until: the monotonic time at which the storm ends even with fewer deaths.
        through: the wire by which workers reach the database; it is calm when the storm is.
    """
    chance = random.Random(seed)
    with psycopg.connect(dsn, autocommit=True) as sql:
        sql.execute(load.SIDE_TABLES.encode())
        weather = Weather(dsn, None if through is None else through.dsn, workers, mean_life, seed, log)
        storm = weather.storm
        patience = _Patience(sql)
        try:
            with pgflow.SyncClient(dsn) as client:
                while (weather.kills < kills or patience.ended < ends) and time.monotonic() < until and weather.alive:
                    missing = live - patience.look()
                    if missing >= live // 5:
                        for workflow in load.ROOTS:
                            numbers = [chance.randint(1, 1000) for _ in range(missing // len(load.ROOTS) + 1)]
                            client.dispatch_many(workflow, [{"number": number} for number in numbers])
                    time.sleep(0.05)  # the pace of the load, not a wait for anything
                weather.order("calm")
                if through is not None:
                    through.calm = True
                while patience.look():
                    time.sleep(0.05)
            weather.end()
        finally:
            weather.kill()
        storm.workflows = sql.execute("SELECT count(*) FROM pgflow.workflows").fetchone()[0]  # type: ignore[index]
        storm.violations = storm.failed + violations(sql, late=through is not None)
    return storm


class _Patience:
    """Counts what is still to end, and fails when nothing ends any more."""

    def __init__(self, sql: psycopg.Connection[Any]) -> None:
        self._sql = sql
        self.ended = -1
        """How many workflows have ended."""
        self._since = time.monotonic()

    def look(self) -> int:
        """How many workflows have not ended.

        Raises:
            AssertionError: nothing has ended for too long.
        """
        row = self._sql.execute(
            "SELECT count(*) FILTER (WHERE status IS NULL), count(status) FROM pgflow.workflows"
        ).fetchone()
        assert row is not None
        left, ended = row
        if ended != self.ended or not left:
            self.ended, self._since = ended, time.monotonic()
        elif time.monotonic() - self._since > PATIENCE:
            stuck = self._sql.execute(
                "SELECT r.workflow_id::text, r.name, r.status, r.worker_id, r.epoch, r.wake_at::text, now()::text, "
                "(SELECT json_agg(e.location || ' ' || e.kind || ' ' || e.status ORDER BY e.location) FROM "
                "pgflow.events AS e  WHERE e.workflow_id = r.workflow_id) FROM pgflow.runs AS r LIMIT 20"
            ).fetchall()
            raise AssertionError(f"no workflow has ended for {PATIENCE:g} s; stuck:\n" + "\n".join(map(str, stuck)))
        return int(left)
