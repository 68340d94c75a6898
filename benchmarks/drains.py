"""Drains: so many workflows laid out, then worked off by one process (or several) that was running already."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg

import pgflow
from benchmarks.meter import Cost, Meter
from benchmarks.processes import Process, wait_until
from benchmarks.server import Server
from pgflow.definitions.descriptors import Workflow

WARM_UP = 300
"""Workflows that run first, so that no statement is prepared and no module imported while the clock runs."""


_LIVE = """
SELECT EXISTS (SELECT FROM pgflow.runs WHERE status IN ('pending', 'sleeping') AND wake_at IS NOT NULL)
    OR EXISTS (SELECT FROM pgflow.runs WHERE status = 'running')
"""
"""Whether anything is left to do: by the indexes of claims, since failed ones stay."""


@dataclass(slots=True)
class Drain:
    """What draining cost."""

    count: int
    cost: Cost
    cpu: float
    """Seconds of the workers' CPU."""
    memory: float
    """Resident megabytes of the largest worker at the end."""

    @property
    def rate(self) -> float:
        """Workflows a second."""
        return self.count / self.cost.seconds


def drain(
    server: Server, start: Callable[[str], Process], workflow: Workflow[..., object], count: int, processes: int = 1
) -> Drain:
    """Have `count` workflows worked off in a database of their own by processes that `start(dsn)` gives."""
    with server.database() as dsn:
        return drain_in(server, dsn, start, workflow, count, processes)


def drain_in(
    server: Server,
    dsn: str,
    start: Callable[[str], Process],
    workflow: Workflow[..., object],
    count: int,
    processes: int = 1,
) -> Drain:
    """Have `count` workflows worked off in a database in which there may be others that have ended.

    The processes are started and warmed up, then stopped in mid-air while the workflows are dispatched, and go on when
    the clock starts.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(start(dsn)) for _ in range(processes)]
        client = stack.enter_context(pgflow.SyncClient(dsn))
        watch = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        admin = stack.enter_context(server.admin())
        meter = Meter(admin, dsn)

        def drained() -> bool:
            for worker in workers:
                worker.check()
            meter.own += 1
            return watch.execute(_LIVE, prepare=True).fetchone() == (False,)

        client.dispatch_many(workflow, [{}] * WARM_UP)
        wait_until(drained, "the warm-up ends")
        for worker in workers:
            worker.freeze()
        client.dispatch_many(workflow, [{}] * count)
        watch.execute("VACUUM (ANALYZE)")
        cpu = sum(worker.cpu() for worker in workers)
        meter.start()
        for worker in workers:
            worker.go_on()
        wait_until(drained, f"{count} workflows end")
        cost = meter.stop()
        cpu = sum(worker.cpu() for worker in workers) - cpu
        memory = max(worker.memory() for worker in workers)
        return Drain(count, cost, cpu, memory)
