"""Cancelling: the code gets a CancelledError, once, and may compensate; in the same way live and on replay."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import pgflow
from pgflow import faults
from tests.waiting import status, until

GATE: dict[str, asyncio.Event] = {}


@pgflow.activity
async def note(ctx: pgflow.ActivityContext, text: str) -> str:
    return text


@pgflow.activity(timeout=None)
async def endless(ctx: pgflow.ActivityContext) -> None:
    GATE["endless"].set()
    await asyncio.Event().wait()


@pgflow.workflow
async def sleeper(ctx: pgflow.WorkflowContext) -> str:
    await ctx.sleep(timedelta(days=1))
    return "slept"


@pgflow.workflow
async def worker_bee(ctx: pgflow.WorkflowContext) -> str:
    await ctx.activity(endless)
    return "ended"


@pgflow.workflow
async def careful(ctx: pgflow.WorkflowContext) -> str:
    await ctx.activity(note, "reserved")
    try:
        await ctx.sleep(timedelta(days=1))
    except asyncio.CancelledError:
        await ctx.activity(note, "released")
        await ctx.sleep(timedelta(seconds=1.2))
        return await ctx.activity(note, "compensated")
    return "slept"


@pgflow.workflow
async def reraises(ctx: pgflow.WorkflowContext) -> None:
    try:
        await ctx.sleep(timedelta(days=1))
    finally:
        await ctx.activity(note, "released")


@pgflow.workflow
async def grouped(ctx: pgflow.WorkflowContext, how: str) -> list[str]:
    heard: list[str] = []

    async def branch(name: str, ctx: pgflow.WorkflowContext) -> None:
        try:
            await ctx.sleep(timedelta(days=1))
        except asyncio.CancelledError:
            heard.append(name)
            await ctx.activity(note, name)
            raise

    first = ctx.branch(lambda ctx: branch("first", ctx))
    second = ctx.branch(lambda ctx: branch("second", ctx))
    try:
        if how == "gather":
            await asyncio.gather(first, second)
        elif how == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(first)
                group.create_task(second)
        else:
            async with ctx.timeout(timedelta(days=2)):
                await ctx.join(first, second)
    except asyncio.CancelledError:
        return heard
    return ["not cancelled"]


WORKFLOWS: list[pgflow.Workflow[Any, Any]] = [sleeper, worker_bee, careful, reraises, grouped]


async def test_a_sleeping_workflow(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(sleeper)
        await status(client, handle, "sleeping")
        assert await client.cancel(handle.id) is True
        with pytest.raises(pgflow.WorkflowCancelled):
            await handle.output(timeout=20)
        (event,) = await client.history(handle.id)
        assert (event.kind, event.status) == ("sleep", "cancelled")
        assert await client.cancel(handle.id) is False
        info = await handle.info()
        assert info.status == "cancelled" and info.completed_at is not None


async def test_a_running_activity_is_cancelled(dsn: str) -> None:
    GATE["endless"] = asyncio.Event()
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS) as worker:
        handle = await client.dispatch(worker_bee)
        await GATE["endless"].wait()
        assert await client.cancel(handle.id) is True
        with pytest.raises(pgflow.WorkflowCancelled):
            await handle.output(timeout=20)
        (event,) = await client.history(handle.id)
        assert (event.name, event.status) == ("endless", "cancelled")
        assert worker.id is not None


@pytest.mark.parametrize("claimed_first", [False, True])
async def test_before_the_first_worker(dsn: str, claimed_first: bool) -> None:
    """The request waits with the workflow while it cannot be ended at once, and ends it then; if it is claimed before
    that, its first step is cancelled, and nothing of it runs.
    """
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(careful)
        with psycopg.connect(dsn) as sql:
            sql.execute("SELECT FROM pgflow.runs FOR NO KEY UPDATE")
            assert await client.cancel(handle.id) is True
            if claimed_first:
                sql.execute("UPDATE pgflow.runs SET cancel_requested = true")
                sql.execute("DELETE FROM pgflow.requests")
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            with pytest.raises(pgflow.WorkflowCancelled):
                await handle.output(timeout=20)
        events = [(event.name, event.status, event.attempts) for event in await client.history(handle.id)]
        assert events == ([("note", "cancelled", 0)] if claimed_first else [])


@pytest.mark.parametrize("cached", [1000, 0])
async def test_compensation_with_further_steps(dsn: str, cached: int) -> None:
    """Over a sleep, and so over a replay of the cancellation where nothing is kept in memory."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        handle = await client.dispatch(careful)
        await status(client, handle, "sleeping")
        await client.cancel(handle.id)
        assert await handle.output(timeout=20) == "compensated"
        assert [(e.location, e.status) for e in await client.history(handle.id)] == [
            ("{1}", "completed"),
            ("{2}", "cancelled"),
            ("{3}", "completed"),
            ("{4}", "completed"),
            ("{5}", "completed"),
        ]
        assert (await handle.info()).status == "completed"


async def test_a_finally_that_lets_it_pass(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(reraises)
        await status(client, handle, "sleeping")
        await client.cancel(handle.id)
        with pytest.raises(pgflow.WorkflowCancelled):
            await handle.output(timeout=20)
        assert [e.status for e in await client.history(handle.id)] == ["cancelled", "completed"]


@pytest.mark.parametrize("cached", [1000, 0])
@pytest.mark.parametrize("how", ["gather", "group", "timeout"])
async def test_inside_of_what_waits_for_several(dsn: str, how: str, cached: int) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        handle = await client.dispatch(grouped, how)
        await status(client, handle, "sleeping")
        await client.cancel(handle.id)
        assert await handle.output(timeout=20) in (["first", "second"], [])
        sleeps = [e for e in await client.history(handle.id) if e.kind == "sleep"]
        assert [e.status for e in sleeps] == ["cancelled", "cancelled"]
        with psycopg.connect(dsn) as connection:
            rows = connection.execute("SELECT count(DISTINCT seq) FROM pgflow.events WHERE kind = 'sleep'").fetchone()
            assert rows == (1,)


async def test_from_sql(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(sleeper)
        await status(client, handle, "sleeping")
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            cursor = await connection.execute("SELECT pgflow.cancel(%s)", [handle.id])
            assert await cursor.fetchone() == (True,)
            await connection.rollback()
            await client.cancel(handle.id, connection=connection)
            await connection.commit()
        with pytest.raises(pgflow.WorkflowCancelled):
            await handle.output(timeout=20)


async def test_two_requests_before_a_delivery_are_one(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(careful)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            await status(client, handle, "sleeping")
        await client.cancel(handle.id)
        await client.cancel(handle.id)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            assert await handle.output(timeout=20) == "compensated"


async def test_pause_and_resume(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(sleeper)
        await status(client, handle, "sleeping")
        assert await client.pause(handle.id) is True
        assert (await handle.info()).status == "paused"
        assert await client.resume(handle.id) is True
        await status(client, handle, "sleeping")
        assert await client.resume(handle.id) is False
        await client.pause(handle.id)
        await client.cancel(handle.id)
        with pytest.raises(pgflow.WorkflowCancelled):
            await handle.output(timeout=20)
        assert await client.pause(handle.id) is False
        with pytest.raises(pgflow.WorkflowNotFound, match="pause: there is no workflow"):
            await client.pause("00000000-0000-0000-0000-000000000000")


async def test_a_running_workflow_pauses_when_its_activity_has_ended(dsn: str) -> None:
    GATE["endless"] = asyncio.Event()
    GATE["release"] = asyncio.Event()

    @pgflow.activity
    async def gated(ctx: pgflow.ActivityContext) -> int:
        GATE["endless"].set()
        await GATE["release"].wait()
        return 7

    @pgflow.workflow
    async def steps(ctx: pgflow.WorkflowContext) -> int:
        found = await ctx.activity(gated)
        await ctx.activity(note, "after")
        return found

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[steps]) as worker:
        handle = await client.dispatch(steps)
        await GATE["endless"].wait()

        async def told() -> bool:
            assert worker._session is not None
            return worker._session.runs[handle.id].pausing

        assert await client.pause(handle.id) is True
        await until(told)
        assert (await handle.info()).status == "running"
        GATE["release"].set()
        await status(client, handle, "paused")
        assert [e.status for e in await client.history(handle.id)] == ["completed"]
        await client.resume(handle.id)
        assert await handle.output(timeout=20) == 7


@pgflow.workflow
async def starts_strangers(ctx: pgflow.WorkflowContext) -> None:
    await ctx.dispatch("nobody's", queue="nowhere", run_at=ctx.now() + timedelta(days=1))
    child = await ctx.dispatch("nobody's", queue="nowhere")
    await child.output()


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_children_that_nobody_has_ever_had(dsn: str, how: str) -> None:
    """They need no worker that knows their name, nor do those who wait for them."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[starts_strangers], poll=60):
        handle = await client.dispatch(starts_strangers)
        await status(client, handle, "sleeping")
        children = await client.list(parent_id=handle.id)
        await client.pause(children[0].id)
        assert [child.status for child in await client.list(parent_id=handle.id)].count("paused") == 1
        await getattr(client, how)(handle.id)
        with pytest.raises(pgflow.WorkflowCancelled):
            await handle.output(30)
        assert len(children) == 2
        for child in children:
            with pytest.raises(pgflow.WorkflowCancelled):
                await client.handle("nobody's", child.id).output(30)
        assert [entry.workflow_id for entry in await client.audit(operation=how)] == [handle.id]


async def test_a_child_whose_deliverer_dies(dsn: str) -> None:
    """The request was delivered, and nobody came to end the child: the next worker does."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch("nobody's", queue="nowhere")
        with psycopg.connect(dsn, autocommit=True) as sql:
            sql.execute("INSERT INTO pgflow.requests (workflow_id, kind) VALUES (%s, 'cancel')", [handle.id])

        def die() -> None:
            raise psycopg.OperationalError("gone")

        with faults.install({"deadlines.before": die}):
            async with pgflow.Worker(dsn, workflows=[starts_strangers]):
                await until(lambda: asked(dsn), "the request is delivered")
        assert (await handle.info()).status == "pending"
        async with pgflow.Worker(dsn, workflows=[starts_strangers]):
            with pytest.raises(pgflow.WorkflowCancelled):
                await handle.output(30)


def asked(dsn: str) -> bool:
    with psycopg.connect(dsn, autocommit=True) as sql:
        return sql.execute("SELECT cancel_requested FROM pgflow.runs").fetchone() == (True,)
