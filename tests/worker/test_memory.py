"""What a sleeping workflow costs: neither a thread, nor, after a while, memory. About 3 seconds."""

from __future__ import annotations

import gc
import threading

import pytest

import pgflow
from pgflow.execution.engine.run import Run
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows

SLEEPERS = 1000


def runs_of(worker: pgflow.Worker) -> int:
    """How many are in this process's memory, whoever holds them."""
    gc.collect()
    return sum(isinstance(found, Run) and found.host is worker._session for found in gc.get_objects())


async def test_sleepers_leave_memory_and_hold_no_thread(
    scene: Scene, client: pgflow.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflow.worker.run_cache.KEPT", 0.2)
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL, poll=0.1) as worker:
        threads = threading.active_count()
        await client.dispatch_many(flows.sleeper, [{"number": n, "seconds": 3600} for n in range(SLEEPERS)])
        await until(
            lambda: scene.one("SELECT count(*) FROM runs WHERE status = 'sleeping' AND worker_id IS NULL") == SLEEPERS,
            "everybody asleep",
        )
        assert threading.active_count() == threads
        await until(lambda: runs_of(worker) == 0, "no run in memory")
