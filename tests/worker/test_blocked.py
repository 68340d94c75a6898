"""Careless code on the event loop is named, and costs no lease. About 8 seconds."""

from __future__ import annotations

import json
import signal

import pgflow
from tests.store.scene import Scene
from tests.worker import flows
from tests.worker.processes import worker_process


async def test_blocked_loop_is_named_and_keeps_its_lease(scene: Scene, client: pgflow.Client) -> None:
    """For twice its lease, before the eyes of another worker. The log is JSON, one object a line."""
    with worker_process(scene, "--lease", "1", "--log-format", "json") as worker:
        number = await worker.registered()
        async with pgflow.Worker(scene.database.dsn, workflows=[flows.sums], lease=1):
            handles = [await client.dispatch(flows.blocking, 2.0), await client.dispatch(flows.computing, 2.0)]
            assert await handles[0].output(30) == worker.pid
            assert await handles[1].output(30) == 4
        assert worker.ids == [number], "it had to register again"
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
    assert scene.all("SELECT DISTINCT attempts FROM events") == [1]
    lines = [json.loads(line) for line in worker.log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    blocked = [line["message"] for line in lines if "event loop has been blocked" in line["message"]]
    assert len(blocked) == 2
    assert "in block" in blocked[0] and "`async def` activity" in blocked[0]
    assert f'workflow "computing" {handles[1].id}' in blocked[1] and "in computing" in blocked[1]
    (slow,) = [line["message"] for line in lines if "did not come to rest" in line["message"]]
    assert f'workflow "computing" {handles[1].id}' in slow
