"""A worker that dies: how long until another one has what it held, when it is killed and when it only hangs."""

from __future__ import annotations

import signal
import time

import psycopg

import pgflow
from benchmarks.figures import Figure
from benchmarks.flows import holding
from benchmarks.plan import Plan
from benchmarks.processes import WorkerProcess, wait_until

HELD = 100
"""Workflows that the dead one was running."""


def run(plan: Plan) -> list[Figure]:
    """Killed several times; hung once, since that takes the whole lease."""
    killed = [take_over(plan, signal.SIGKILL) for _ in range(plan.scaled(2 * plan.repeats + 1, 3))]
    figures = [
        Figure(f"SIGKILL to {HELD} workflows running elsewhere", "ms", killed, "the other worker was there and idle"),
        Figure("the slowest of these", "ms", [max(killed)]),
    ]
    if not plan.quick:
        hung = take_over(plan, signal.SIGSTOP)
        figures.append(Figure(f"SIGSTOP to {HELD} workflows running elsewhere", "ms", [hung], "a lease of 15 s"))
    return figures


def take_over(plan: Plan, fate: signal.Signals) -> float:
    """Milliseconds from a signal to a worker until another one runs all that it ran."""
    with (
        plan.server.database() as dsn,
        psycopg.connect(dsn, autocommit=True) as watch,
        pgflow.SyncClient(dsn) as client,
        WorkerProcess(dsn) as first,
    ):
        client.dispatch_many(holding, [{}] * HELD)
        wait_until(lambda: _running(watch, epoch=1) == HELD, "the workflows run")
        with WorkerProcess(dsn) as second:
            began = time.perf_counter()
            first.send(fate)
            wait_until(lambda: _running(watch, epoch=2) == HELD, "the workflows run elsewhere", every=0.005)
            took = time.perf_counter() - began
            for worker in (first, second):
                worker.send(signal.SIGKILL)  # it would wait for its activities
            return 1000 * took


def _running(watch: psycopg.Connection[tuple[object, ...]], epoch: int) -> int:
    row = watch.execute(
        "SELECT count(*) FROM pgflow.runs WHERE status = 'running' AND epoch = %s", [epoch], prepare=True
    ).fetchone()
    assert row is not None
    return int(str(row[0]))
