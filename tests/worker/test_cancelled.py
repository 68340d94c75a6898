"""When the task of `run()` is cancelled, nothing of the worker is left, and what it held is free for others."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import pytest

import pgflow
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows
from tests.worker.processes import let_go_on, marked, marks

OF_THE_WORKER = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgflow %%' AND datname = current_database() "
    "AND backend_type = 'client backend'"
)


@asynccontextmanager
async def nothing_left(scene: Scene, dsn: str) -> AsyncIterator[list[pgflow.WorkflowHandle[Any]]]:
    """Two workflows to run; afterwards none of them is anybody's, and no task, thread or connection is left."""
    async with pgflow.Client(dsn) as client:
        handles = [
            await client.dispatch(flows.holding, name, thread) for name, thread in (("async", False), ("thread", True))
        ]
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    yield handles
    assert asyncio.all_tasks() == tasks
    await until(lambda: scene.one(OF_THE_WORKER) == 0, "the end of the connections")
    assert scene.all("SELECT id FROM workers") == []
    assert scene.all("SELECT DISTINCT status, worker_id, suspicions FROM runs") == [("pending", None, None)]
    let_go_on(scene, "thread")  # nothing can end a thread; nobody takes what comes of it
    await until(
        lambda: not [one for one in set(threading.enumerate()) - threads if one.name.startswith("pgflow")],
        "the threads' end",
    )


async def cancel(running: asyncio.Task[Any], times: int = 1) -> None:
    for _ in range(times):
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await running


def worker(dsn: str, **settings: Any) -> pgflow.Worker:
    return pgflow.Worker(dsn, workflows=flows.ALL, **{"grace": 0.1, **settings})


@pytest.mark.parametrize(("times", "grace"), [(1, 0.0), (2, 0.0), (2, 600.0)])
async def test_while_activities_run(scene: Scene, dsn: str, times: int, grace: float) -> None:
    """A second cancellation waits for nobody."""
    async with nothing_left(scene, dsn):
        running = asyncio.create_task(worker(dsn, grace=grace).run())
        for name in ("async", "thread"):
            await marked(scene, f"{name} begins")
        await cancel(running, times)
    let_go_on(scene, "async")
    await asyncio.sleep(0.05)
    assert "async ends" not in [what for what, _, _ in marks(scene)]


async def test_it_is_a_stop(scene: Scene, dsn: str) -> None:
    """Activities that end within the grace period are recorded."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(flows.holding, "work")
        running = asyncio.create_task(worker(dsn, grace=600.0).run())
        await marked(scene, "work begins")
        running.cancel()
        await asyncio.sleep(0)
        assert not running.done()
        let_go_on(scene, "work")
        with pytest.raises(asyncio.CancelledError):
            await running
        assert [event.output for event in await client.history(handle.id) if event.name == "held"] == [
            "work of attempt 1"
        ]


async def test_at_any_moment(scene: Scene, dsn: str) -> None:
    """During the start, claims, work and the stop; once, twice, three times."""
    chance = random.Random(4)
    for _ in range(20):
        scene.do("DELETE FROM public.marks; DELETE FROM events; DELETE FROM runs; DELETE FROM workflows")
        async with nothing_left(scene, dsn):
            running = asyncio.create_task(worker(dsn).run())
            if chance.random() < 0.5:
                for _ in range(chance.randrange(60)):
                    await asyncio.sleep(0)
            else:
                await asyncio.sleep(chance.random() * 0.3)
            for _ in range(chance.randrange(3)):
                running.cancel()
                await asyncio.sleep(chance.choice([0, 0, 0.01, 0.1]))
            await cancel(running)


async def test_by_a_timeout_and_by_a_group(scene: Scene, dsn: str) -> None:
    async with nothing_left(scene, dsn):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker(dsn).run(), 0.3)
        with suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(worker(dsn).run())
                await marked(scene, "async begins")
                raise ValueError("the application fails")


@pytest.mark.parametrize("moment", ["entering", "inside", "leaving"])
async def test_around_a_block(scene: Scene, dsn: str, moment: str) -> None:
    entered, leaving = asyncio.Event(), asyncio.Event()

    async def block() -> None:
        async with worker(dsn, grace=600.0 if moment == "leaving" else 0.0):
            entered.set()
            if moment == "inside":
                await asyncio.sleep(3600)
            await marked(scene, "async begins")
            leaving.set()

    async with nothing_left(scene, dsn):
        running = asyncio.create_task(block())
        if moment == "entering":
            await until(lambda: scene.one(OF_THE_WORKER), "the start")
        else:
            await (entered if moment == "inside" else leaving).wait()
        await cancel(running)


async def test_while_nobody_answers(scene: Scene) -> None:
    """A server that takes the connection and says nothing holds up no end."""
    async with await asyncio.start_server(lambda reader, writer: asyncio.sleep(3600), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        before = asyncio.all_tasks()
        running = asyncio.create_task(worker(f"host=127.0.0.1 port={port} dbname=nothing user=nobody").run())
        await until(lambda: len(asyncio.all_tasks() - before) > 2, "the connection")
        await cancel(running)
        for task in asyncio.all_tasks() - before:
            task.cancel()  # the server's own


async def test_a_worker_runs_once(scene: Scene, dsn: str) -> None:
    made = worker(dsn)
    async with made:
        with pytest.raises(pgflow.WorkerMisused, match="is already running"):
            await made.run()
        with pytest.raises(RuntimeError, match="is already running"):
            async with made:
                pass
        assert made.id is not None
    for _ in range(2):
        with pytest.raises(pgflow.WorkerMisused, match="has been stopped.*create another"):
            await made.run()
    with pytest.raises(pgflow.PgflowError, match="has been stopped"):
        async with made:
            pass
    early = worker(dsn)
    early.stop()
    with pytest.raises(pgflow.WorkerMisused, match="has been stopped"):
        await early.run()


async def test_a_worker_whose_start_failed_may_be_run_again(scene: Scene, dsn: str, database_dsn: str) -> None:
    made = worker(database_dsn)
    with pytest.raises(pgflow.SchemaOutdated):
        await made.run()
    pgflow.migrate(database_dsn)
    running = asyncio.create_task(made.run())
    await made.ready.wait()
    made.stop()
    await running
    with psycopg.connect(database_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM pgflow.workers").fetchone() == (0,)
