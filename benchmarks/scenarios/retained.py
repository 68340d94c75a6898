"""Ten million workflows that have ended, with their events: what each page of a list and each count takes, the rate of
steps and of workflows beside that in an empty database, and while old ones are pruned beside that while they are not.

What is loaded is as lists find it hardest: a tag that all have and one that a thousand have, a name that is rare, a
status that is rare, a parent of a tenth of all, a hundred workflows at each moment of dispatch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

import pgflow
from benchmarks.drains import drain_in
from benchmarks.figures import Figure, percentile, ratio
from benchmarks.flows import noop, steps
from benchmarks.plan import Plan
from benchmarks.processes import WorkerProcess

WORKFLOWS = 10_000_000
"""That have ended, each with four events."""

AT_ONCE = 250_000
"""Of them that one statement loads."""

BEGAN = datetime(2020, 1, 1, tzinfo=UTC)
PARENT = UUID(int=1)

PRUNED = 2_000
"""Workflows that one call removes."""

LIMIT = 10_000
"""Of a count."""

LOOKS = 60
"""Of each page, and of each count."""

_LOAD = """
WITH made AS MATERIALIZED (
    SELECT n, %(began)s::timestamptz + (n / 100) * interval '1 s' AS at,
        (lpad(to_hex((extract(epoch FROM %(began)s::timestamptz + (n / 100) * interval '1 s') * 1000)::bigint), 12, '0')
            || '7' || lpad(to_hex(n %% 4096), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid AS id,
        CASE WHEN n %% 5000 = 0 THEN 'rare' ELSE 'common' END AS name,
        CASE WHEN n %% 20000 = 1 THEN 'cancelled' WHEN n %% 1000 = 2 THEN 'failed' ELSE 'completed' END AS status,
        CASE WHEN n %% 10000 = 3 THEN 'slow' ELSE 'default' END AS queue
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
),
kept AS (
    INSERT INTO pgflow.workflows (id, name, tags, input, output, error, status, parent_id, created_at, completed_at)
    SELECT id, name,
        CASE WHEN n %% (%(all)s::bigint / 1000 + 1) = 0 THEN '{"all": 1, "few": 1}' ELSE '{"all": 1}' END::jsonb,
        '{"n": 1}', CASE WHEN status = 'completed' THEN '1'::json END,
        CASE WHEN status = 'failed' THEN '{"type": "OSError", "message": "no"}'::json END,
        status, CASE WHEN n %% 10 = 4 THEN %(parent)s::uuid END, at, at + interval '5 s'
    FROM made
),
failed AS (
    INSERT INTO pgflow.runs (workflow_id, name, queue, status, created_at, error_type, failed_at)
    SELECT id, name, queue, 'failed', at, 'OSError', at + interval '5 s' FROM made WHERE status = 'failed'
),
ended AS (
    INSERT INTO pgflow.ends (workflow_id, name, status, queue, priority, created_at, ended_at)
    SELECT id, name, status, queue, 0, at, at + interval '5 s' FROM made WHERE status <> 'failed'
)
INSERT INTO pgflow.events (workflow_id, location, seq, kind, name, status, attempts, created_at, input, output)
SELECT id, step::text, step, 'activity', 'nothing', 'completed', 1, at, '{}', '1'
FROM made CROSS JOIN generate_series(1, 4) AS step
"""


def run(plan: Plan) -> list[Figure]:
    """The lists first, while nothing younger is there; then the rates in alternation."""
    count = plan.workflows or plan.scaled(WORKFLOWS, 100)
    with plan.server.database() as empty, loaded(plan, count) as (full, took, size):
        figures = [
            Figure("load", "s", [took], f"{count:,} workflows that have ended, with {4 * count:,} events, and VACUUM"),
            Figure("size", "GB", [size]),
            *looks(full, count, 5 if plan.quick else LOOKS),
        ]
        for what, workflow, number in (("steps", steps, 1_000), ("workflows", noop, 20_000)):
            rates: dict[str, list[float]] = {empty: [], full: []}
            for _ in range(plan.repeats):
                for dsn, found in rates.items():
                    found.append(drain_in(plan.server, dsn, WorkerProcess, workflow, plan.scaled(number)).rate)
            figures += [
                Figure(f"{what}, beside those", "workflows/s", rates[full]),
                Figure(f"{what}, in an empty database", "workflows/s", rates[empty]),
                ratio(f"{what}, beside those / in an empty database", rates[full], rates[empty]),
            ]
        return figures + pruned(plan, full)


def pruned(plan: Plan, dsn: str) -> list[Figure]:
    """The rate of workflows while old ones are removed, as fast as one caller does that, and while none are."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    removed, seconds = 0, 0.0
    for _ in range(plan.repeats):
        for beside, found in rates.items():
            nothing: AbstractContextManager[list[int]] = nullcontext([])
            with pruning(dsn) if beside else nothing as done:
                began = time.perf_counter()
                found.append(drain_in(plan.server, dsn, WorkerProcess, noop, plan.scaled(20_000)).rate)
            if beside:
                removed, seconds = removed + sum(done), seconds + time.perf_counter() - began
    return [
        Figure("workflows, while old ones are pruned", "workflows/s", rates[True], f"{removed:,} were removed"),
        Figure("workflows, while none are", "workflows/s", rates[False]),
        ratio("workflows, while old ones are pruned / while none are", rates[True], rates[False]),
        Figure("pruned beside that", "workflows/s", [removed / seconds]),
    ]


@contextmanager
def pruning(dsn: str) -> Iterator[list[int]]:
    """Removes old workflows until the end of the block: how many each call removed."""
    done: list[int] = []
    stop = threading.Event()

    def prune() -> None:
        with pgflow.SyncClient(dsn) as client:
            while not stop.is_set():
                done.append(int(client.prune(older_than=timedelta(days=30), limit=PRUNED)))

    thread = threading.Thread(target=prune)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


@contextmanager
def loaded(plan: Plan, count: int) -> Iterator[tuple[str, float, float]]:
    """A database with so many workflows that have ended, the seconds that it took, and its size in gigabytes."""
    with plan.server.database() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        began = time.perf_counter()
        for first in range(0, count, AT_ONCE):
            last = min(first + AT_ONCE, count) - 1
            connection.execute(_LOAD, {"began": BEGAN, "first": first, "last": last, "all": count, "parent": PARENT})
        connection.execute("VACUUM (ANALYZE)")
        took = time.perf_counter() - began
        row = connection.execute("SELECT pg_database_size(current_database()) / 1e9").fetchone()
        assert row is not None
        yield dsn, took, float(row[0])


def asks(count: int) -> dict[str, dict[str, Any]]:
    """What is asked for, by what is said of it."""
    middle = BEGAN + timedelta(seconds=count // 200)
    soon = BEGAN + timedelta(seconds=count // 500)
    ten_thousand = {"created_after": middle, "created_before": middle + timedelta(seconds=100)}
    return {
        "nothing": {},
        "a rare name": {"name": "rare"},
        "completed (nearly all)": {"status": "completed"},
        "failed (one of 1,000)": {"status": "failed"},
        "cancelled (one of 20,000)": {"status": "cancelled"},
        "paused (none)": {"status": "paused"},
        "sleeping (none)": {"status": "sleeping"},
        "failed or cancelled": {"status": ["failed", "cancelled"]},
        "name and failed": {"name": "common", "status": "failed"},
        "name and type of error": {"name": "common", "error_type": "OSError"},
        "type of error": {"error_type": "OSError"},
        "a tag of all": {"tags": {"all": 1}},
        "a tag of a thousand": {"tags": {"few": 1}},
        "a tag of none": {"tags": {"none": 1}},
        "a queue (one of 10,000)": {"queue": "slow"},
        "the default queue": {"queue": "default"},
        "a parent (of a tenth)": {"parent_id": PARENT},
        "a signal waited for (none)": {"waiting_for": "approved"},
        "ended before a fifth": {"ended_before": soon},
        "ended in the last second": {"ended_after": BEGAN + timedelta(seconds=count // 100 + 4)},
        "10,000 by their dispatch, and a tag": {**ten_thousand, "tags": {"few": 1}},
        "10,000 by their dispatch, and a queue": {**ten_thousand, "queue": "slow"},
        "combined: a rare name, cancelled, by a parent": {"name": "rare", "status": "cancelled", "parent_id": PARENT},
        "combined: a tag of all and a queue": {"tags": {"all": 1}, "queue": "slow"},
        "combined: completed, by a queue": {"status": "completed", "queue": "slow"},
        "combined: a common name and no such tag": {"name": "common", "tags": {"none": 1}},
    }


def looks(dsn: str, count: int, times: int) -> list[Figure]:
    """Milliseconds of a page of each list, and of each count."""
    figures: list[Figure] = []
    with pgflow.SyncClient(dsn) as client:
        for what, asked in asks(count).items():
            for method in (client.list, client.count):
                took: list[float] = []
                found: pgflow.Page | pgflow.Count = pgflow.Page()
                for _ in range(times):
                    began = time.perf_counter()
                    found = method(**asked)
                    took.append(1000 * (time.perf_counter() - began))
                kind = method.__name__
                short = found.short if isinstance(found, pgflow.Page) else found.more and found < LIMIT
                note = f"{len(found) if isinstance(found, pgflow.Page) else found} found{', short' if short else ''}"
                figures += [
                    Figure(f"{kind}: {what}, p50", "ms", [percentile(took, 0.5)], note),
                    Figure(f"{kind}: {what}, p99", "ms", [percentile(took, 0.99)]),
                ]
    return figures
