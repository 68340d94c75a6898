"""One request to cancel is delivered once, however often a worker looks while the delivery is on its way."""

from __future__ import annotations

import asyncio

import pgflow
from pgflow import faults
from tests.waiting import status, until


@pgflow.activity
async def clean(ctx: pgflow.ActivityContext) -> str:
    return "clean"


@pgflow.workflow
async def tidy(ctx: pgflow.WorkflowContext) -> str:
    try:
        await ctx.sleep(3600)
        return "slept"
    except asyncio.CancelledError:
        for _ in range(3):
            await ctx.sleep(0.3)
            await ctx.activity(clean)
        return "tidy"


async def test_a_look_while_the_cancellation_is_being_written(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[tidy]) as worker:
        assert worker._session is not None
        mail = worker._session._deliverer
        handle = await client.dispatch(tidy)
        await status(client, handle, "sleeping")
        writing, go_on, looks = asyncio.Event(), asyncio.Event(), 0

        async def write() -> None:
            if not writing.is_set():
                writing.set()
                await go_on.wait()

        async def look() -> None:
            nonlocal looks
            looks += writing.is_set()

        async def looked() -> bool:
            mail.look()
            return looks >= 3

        with faults.install({"journal.before": write, "mailbox.before_deliver": look}):
            await client.cancel(handle.id)
            await writing.wait()
            await until(looked)
            go_on.set()
            assert await handle.output(timeout=20) == "tidy"
