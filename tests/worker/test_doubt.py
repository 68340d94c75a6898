"""While it is not known what a worker's database has, nothing is begun. About 2 seconds."""

from __future__ import annotations

import asyncio

import pgflow
from pgflow import faults
from tests.store.scene import Scene, until

began: list[str] = []
go_on: asyncio.Event


@pgflow.activity
async def step(ctx: pgflow.ActivityContext, name: str) -> str:
    began.append(name)
    await go_on.wait()
    return name


@pgflow.workflow
async def single(ctx: pgflow.WorkflowContext, name: str) -> str:
    return await ctx.activity(step, name)


async def test_no_attempt_begins_while_the_fence_is_in_doubt(scene: Scene, client: pgflow.Client) -> None:
    """What it would do might follow from what the database has lost."""
    global go_on
    go_on = asyncio.Event()
    began.clear()
    doubted, held = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        doubted.set()
        await held.wait()

    async with pgflow.Worker(scene.database.dsn, workflows=[single], activities=1) as worker:
        first = await client.dispatch(single, "first")
        await until(lambda: began == ["first"], "the first attempt")
        second = await client.dispatch(single, "second")
        await until(lambda: scene.all("SELECT status FROM runs") == ["running"] * 2, "the second claim")
        assert worker._tenure is not None
        tenure, number = worker._tenure, worker.id
        await until(lambda: len(tenure.runs) == 2, "its answer")
        with faults.install({"fence.before": hold}):
            tenure.fence.doubt()
            await doubted.wait()
            go_on.set()
            await until(lambda: tenure.journal.backlog, "the end of the first attempt")
            for _ in range(100):
                await asyncio.sleep(0)
            assert began == ["first"]
            held.set()
            assert [await first.output(20), await second.output(20)] == ["first", "second"]
        assert began == ["first", "second"]
        assert worker.id != number
