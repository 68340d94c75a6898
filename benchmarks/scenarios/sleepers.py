"""Sleeping workflows: what a thousand that are due cost to wake among few and among 100,000 others;
memory, idle CPU.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg

import pgflow
from benchmarks.figures import Figure, ratio
from benchmarks.flows import sleeper
from benchmarks.plan import Plan
from benchmarks.processes import WorkerProcess, wait_until
from pgflow.store.database.channels import wake_channel

DUE = 1_000
"""Workflows that are due at one moment."""

FAR = timedelta(days=30)

_BRING_FORWARD = """
WITH moment AS MATERIALIZED (SELECT now() + interval '1 s' AS at),
rows AS (
    UPDATE pgflow.events SET wake_at = moment.at FROM moment WHERE workflow_id = ANY (%(ids)s) AND status = 'pending'
),
due AS (
    UPDATE pgflow.runs SET wake_at = moment.at FROM moment WHERE workflow_id = ANY (%(ids)s)
)
SELECT at, pg_notify(%(channel)s, 'default') FROM moment
"""
"""Moves deadlines to a second from now, so that however slow the machine is, the worker is ready and idle by then."""


def run(plan: Plan) -> list[Figure]:
    """The same wakings among few and among many."""
    few, many = 100, plan.scaled(100_000)
    among_few = Sleepers(plan, few)
    among_many = Sleepers(plan, many)
    waiting = plan.scaled(10_000)
    memory, idle = park(plan, waiting)
    return [
        Figure(f"wake {DUE:,} of {few}", "ms", among_few.took, "from the deadline to the last one's end, cold worker"),
        Figure(f"wake {DUE:,} of {many:,}", "ms", among_many.took),
        ratio(f"wake among {many:,} / among {few}", among_many.took, among_few.took),
        Figure(f"worker CPU, wake {DUE:,} of {many:,}", "ms", among_many.cpu),
        ratio("the same / among few", among_many.cpu, among_few.cpu),
        Figure(f"worker's memory, {waiting:,} sleeping", "MB", [memory]),
        Figure(f"worker's idle CPU, {waiting:,} sleeping", "cores", [idle]),
    ]


class Sleepers:
    """Measured among so many others that sleep for long."""

    def __init__(self, plan: Plan, others: int) -> None:
        self.took: list[float] = []
        """Milliseconds from the deadline to the end of the last one."""
        self.cpu: list[float] = []
        """Milliseconds of the worker's CPU meanwhile."""
        with (
            plan.server.database() as dsn,
            pgflow.SyncClient(dsn) as client,
            psycopg.connect(dsn, autocommit=True) as watch,
        ):
            lull(dsn, client, watch, others)
            for _ in range(plan.repeats):
                self._wake(dsn, client, watch)

    def _wake(self, dsn: str, client: pgflow.SyncClient, watch: psycopg.Connection[tuple[object, ...]]) -> None:
        ids = lull(dsn, client, watch, DUE)
        with WorkerProcess(dsn) as cold:
            cpu = cold.cpu()
            row = watch.execute(_BRING_FORWARD, {"ids": ids, "channel": wake_channel("pgflow")}).fetchone()
            assert row is not None
            wait_until(lambda: left(watch, ids) == 0, "those that are due end", every=0.1)
            self.cpu.append(1000 * (cold.cpu() - cpu))
        took = watch.execute(
            "SELECT extract(epoch FROM max(completed_at) - %s) * 1000 FROM pgflow.workflows", [row[0]]
        ).fetchone()
        assert took is not None
        self.took.append(float(str(took[0])))


def lull(dsn: str, client: pgflow.SyncClient, watch: psycopg.Connection[tuple[object, ...]], count: int) -> list[UUID]:
    """Put so many workflows to sleep for long, by a worker that ends then."""
    until = datetime.now(UTC) + FAR
    with WorkerProcess(dsn):
        handles = client.dispatch_many(sleeper, [{"until": until}] * count)
        wait_until(lambda: all_sleep(watch), f"{count} workflows sleep", every=0.1)
    watch.execute("VACUUM (ANALYZE)")
    return [handle.id for handle in handles]


def left(watch: psycopg.Connection[tuple[object, ...]], ids: list[UUID]) -> int:
    """How many of these workflows have not ended."""
    row = watch.execute("SELECT count(*) FROM pgflow.runs WHERE workflow_id = ANY (%s)", [ids]).fetchone()
    assert row is not None
    return int(str(row[0]))


def all_sleep(watch: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Whether every workflow sleeps."""
    return watch.execute("SELECT EXISTS (SELECT FROM pgflow.runs WHERE status <> 'sleeping')").fetchone() == (False,)


def park(plan: Plan, count: int) -> tuple[float, float]:
    """Memory in megabytes and CPU in cores of a worker that has put so many to sleep."""
    until = datetime.now(UTC) + FAR
    with (
        plan.server.database() as dsn,
        pgflow.SyncClient(dsn) as client,
        psycopg.connect(dsn, autocommit=True) as watch,
        WorkerProcess(dsn) as worker,
    ):
        client.dispatch_many(sleeper, [{"until": until}] * count)
        wait_until(lambda: all_sleep(watch), f"{count} workflows sleep", every=0.1)
        cpu, began = worker.cpu(), time.perf_counter()
        time.sleep(1 if plan.quick else 5)
        return worker.memory(), (worker.cpu() - cpu) / (time.perf_counter() - began)
