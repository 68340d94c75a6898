"""A worker whose database goes away, and one that breaks inside. About 8 seconds."""

from __future__ import annotations

import asyncio

import pytest

import pgflow
from pgflow import faults
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows
from tests.worker.processes import let_go_on, marked, run_of, unreachable


async def test_a_short_outage_costs_nothing(scene: Scene, client: pgflow.Client) -> None:
    """Within the lease, what is in memory goes on, under another number: no attempt is repeated."""
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL, lease=60) as worker:
        handle = await client.dispatch(flows.holding, "work")
        await marked(scene, "work begins")
        number = worker.id
        with unreachable(scene.database.dsn):
            let_go_on(scene, "work")
            await marked(scene, "work ends")
        assert await handle.output(30) == "work of attempt 1"
        assert worker.id not in (None, number)
        assert scene.all("SELECT id FROM workers") == [worker.id]
    assert [e.attempts for e in await client.history(handle.id)] == [1, 1, 1]


async def test_a_worker_survives_an_outage_that_outlasts_its_lease(
    scene: Scene, client: pgflow.Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL, lease=1) as worker:
        handle = await client.dispatch(flows.holding, "work")
        await marked(scene, "work begins")
        number = worker.id
        with unreachable(scene.database.dsn):
            await until(lambda: "registering again failed" in caplog.text, "a new beginning that fails")
        await marked(scene, "work begins", times=2)
        assert worker.id not in (None, number)
        let_go_on(scene, "work")
        assert await handle.output(30) == "work of attempt 1"


async def test_a_stop_ends_the_attempts_to_register_anew(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL, lease=1) as worker:
        with unreachable(scene.database.dsn):
            await until(lambda: "registering again failed" in caplog.text, "a new beginning that fails")
            worker.stop()
            assert worker._running is not None
            await asyncio.wait_for(worker._running, 30)


@pytest.mark.parametrize("point", ["claims.before_read", "loops.before", "mailbox.before_deliver"])
async def test_a_broken_part_ends_the_worker_and_hands_everything_back(
    scene: Scene, client: pgflow.Client, point: str
) -> None:
    """A worker that holds its lease and does nothing would be worse than none."""
    held = await client.dispatch(flows.holding, "work")
    worker = pgflow.Worker(scene.database.dsn, workflows=flows.ALL, lease=3600, poll=0.05)
    running = asyncio.create_task(worker.run())
    await marked(scene, "work begins")

    def fail() -> None:
        raise RuntimeError("a part of the engine breaks")

    with faults.install({point: fail}):
        looping = await client.dispatch(flows.turning, 100, 5)
        with pytest.raises(RuntimeError, match="a part of the engine breaks"):
            await asyncio.wait_for(running, 30)
    assert run_of(scene, held.id)[:2] == ("pending", None)
    assert run_of(scene, looping.id)[:2] == ("pending", None)
    assert scene.all("SELECT id FROM workers") == []
    let_go_on(scene, "work")
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL):
        assert await held.output(30) == "work of attempt 1"
        assert await looping.output(30) == 100


async def test_a_lease_that_is_lost_while_the_worker_stops(scene: Scene, client: pgflow.Client) -> None:
    """What it was about to hand back is others' already: it waits for nothing."""
    worker = pgflow.Worker(scene.database.dsn, workflows=flows.ALL, lease=1, grace=3600)
    running = asyncio.create_task(worker.run())
    handle = await client.dispatch(flows.holding, "work")
    await marked(scene, "work begins")
    worker.stop()
    scene.do("DELETE FROM workers")
    async with asyncio.timeout(60):
        await running
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL):
        await marked(scene, "work begins", times=2)
        let_go_on(scene, "work")
        assert await handle.output(30) == "work of attempt 1"
