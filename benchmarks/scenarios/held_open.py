"""Workflows at a steady rate beside a transaction that stays open: vacuum removes no dead row meanwhile.

Queues in tables are known to slow down by that until they no longer keep up. What is measured is the time from the
dispatch of a workflow without a step to its end, which is that of a claim and of a write, and what is left undone.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import psycopg

import pgflow
from benchmarks.figures import Figure, ratio
from benchmarks.flows import noop
from benchmarks.plan import Plan
from benchmarks.processes import WorkerProcess, wait_until

RATE = 800
"""Workflows a second."""

EVERY = 0.05
"""Seconds between two dispatches."""

SECONDS = 120
"""For how long the transaction stays open."""

WINDOW = 20
"""Seconds at the end over which times are compared."""


def run(plan: Plan) -> list[Figure]:
    """Without such a transaction, then with one."""
    window = plan.scaled(WINDOW)
    free = times(plan, window, window, held=False)
    held = times(plan, plan.scaled(SECONDS, 30), window, held=True)
    return [
        Figure("dispatch to end, p50", "ms", [free[0]], f"{RATE} workflows a second"),
        Figure("dispatch to end, p99", "ms", [free[1]]),
        Figure("the same beside an open transaction, p50", "ms", [held[0]], f"the last {window} s"),
        Figure("the same beside an open transaction, p99", "ms", [held[1]]),
        ratio("p99, with an open transaction / without", [held[1]], [free[1]]),
        Figure("undone when the last was dispatched", "workflows", [held[2]]),
    ]


def times(plan: Plan, seconds: int, window: int, held: bool) -> tuple[float, float, float]:
    """Milliseconds from dispatch to end in the last `window` of so many seconds (p50 and p99), and how many were undone
    then.
    """
    with ExitStack() as stack:
        dsn = stack.enter_context(plan.server.database())
        stack.enter_context(WorkerProcess(dsn))
        client = stack.enter_context(pgflow.SyncClient(dsn))
        watch = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        if held:
            other = stack.enter_context(psycopg.connect(dsn))
            other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            other.execute("SELECT txid_current()")
        dispatch_for(client, seconds)
        undone = _number(watch, "SELECT count(*) FROM pgflow.runs")
        wait_until(lambda: _number(watch, "SELECT count(*) FROM pgflow.runs") == 0, "the rest ends")
        found = watch.execute(
            """
            SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (
                ORDER BY extract(epoch FROM completed_at - created_at) * 1000)
            FROM pgflow.workflows
            WHERE created_at > (SELECT max(created_at) FROM pgflow.workflows) - make_interval(secs => %s)
            """,
            [window],
        ).fetchone()
        assert found is not None
        p50, p99 = found[0]
        return float(p50), float(p99), undone


def dispatch_for(client: pgflow.SyncClient, seconds: int) -> None:
    """Dispatch at the rate, whatever a dispatch takes."""
    began = time.monotonic()
    sent = 0
    pause = threading.Event()
    while (passed := time.monotonic() - began) < seconds:
        due = int(passed * RATE) - sent
        if due:
            client.dispatch_many(noop, [{}] * due)
            sent += due
        pause.wait(EVERY)


def _number(watch: psycopg.Connection[tuple[object, ...]], query: str) -> float:
    row = watch.execute(query.encode()).fetchone()
    assert row is not None
    return float(str(row[0]))
