"""Children from end to end: started once, awaited at no cost, their failure and cancellation reaching the parent."""

from __future__ import annotations

import psycopg
import pytest

import pgflow
from tests.children.flows import (
    WORKFLOWS,
    Go,
    branches,
    by_name,
    catching,
    doubling,
    family,
    forgetful,
    generations,
    in_time,
    over_one_that_waits,
    parent,
    passing_on,
    turns,
    waiting,
)
from tests.waiting import status, until

CACHED = pytest.mark.parametrize("cached", [1000, 0])


@CACHED
async def test_there_and_back(dsn: str, cached: int) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        handle = await client.dispatch(parent, 21)
        assert await handle.output(timeout=20) == 42
        dispatched, awaited = await client.history(handle.id)
        assert (dispatched.kind, dispatched.name, dispatched.input) == ("child_workflow", "doubling", {"number": 21})
        assert (awaited.kind, awaited.name, awaited.input) == ("child_output", "doubling", dispatched.output)
        assert awaited.output == {"value": 42}
        (child,) = await client.list(parent_id=handle.id)
        assert (child.name, child.tags, child.queue) == ("doubling", {"number": 21}, "default")
        assert str(child.id) == dispatched.output["id"]
        assert await (await client.dispatch(by_name, 4)).output(timeout=20) == 8


@CACHED
async def test_in_branches_turns_and_generations(dsn: str, cached: int) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        branched = await client.dispatch(branches, 3)
        looping = await client.dispatch(turns, 5)
        deep = await client.dispatch(generations, 6)
        assert await branched.output(timeout=30) == [0, 2, 4, 200]
        assert await looping.output(timeout=30) == 20
        assert await deep.output(timeout=30) == 7
        places = {(event.location, event.kind) for event in await client.history(branched.id)}
        assert {("{4, 1}", "child_output"), ("{5, 1}", "child_workflow"), ("{6}", "child_output")} <= places
    with psycopg.connect(dsn) as connection:
        roots = connection.execute(
            "SELECT DISTINCT root_id FROM pgflow.workflows WHERE name = 'generations'"
        ).fetchall()
        assert sorted(roots, key=str) == sorted([(None,), (deep.id,)], key=str)


@CACHED
async def test_a_failure_reaches_the_parent(dsn: str, cached: int) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        caught = await client.dispatch(catching, "no luck")
        assert await caught.output(timeout=20) == ["ValueError", "no luck", "True"]
        _, event, _ = await client.history(caught.id)
        assert (event.kind, event.status) == ("child_output", "failed")
        assert event.error is not None
        assert (event.error["status"], event.error["type"], event.error["message"]) == (
            "failed",
            "ValueError",
            "no luck",
        )
        with pytest.raises(
            pgflow.WorkflowFailed, match='WorkflowFailed: workflow "failing" .* failed: ValueError: no luck'
        ):
            await (await client.dispatch(passing_on, "no luck")).output(timeout=20)


@CACHED
async def test_a_cancellation_reaches_the_parent(dsn: str, cached: int) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        handle = await client.dispatch(over_one_that_waits)
        await status(client, handle, "sleeping")
        (child,) = await client.list(parent_id=handle.id)
        await client.cancel(child.id)
        assert await handle.output(timeout=20) == f"cancelled {child.id}"


async def test_a_parent_sleeps_while_its_child_runs(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            handle = await client.dispatch(over_one_that_waits)
            await status(client, handle, "sleeping")
            info = await handle.info()
            assert (info.worker_id, info.wake_at, info.waiting_for) == (None, None, [])
            _, pending = await client.history(handle.id)
            assert (pending.kind, pending.status) == ("child_output", "pending")
            (child,) = await client.list(parent_id=handle.id)
            await until(lambda: listens(client, child.id))
        # Neither has a worker any more; the next ones share the work: one has the parent, the other the child.
        async with (
            pgflow.Worker(dsn, workflows=[over_one_that_waits]),
            pgflow.Worker(dsn, workflows=[waiting]),
        ):
            await client.signal(Go(), to=child.id)
            assert await handle.output(timeout=20) == "went"


async def listens(client: pgflow.Client, id: object) -> bool:
    return (await client.get(str(id))).status == "sleeping"


async def test_a_child_that_ended_before_it_is_awaited(dsn: str) -> None:
    @pgflow.workflow
    async def late(ctx: pgflow.WorkflowContext) -> int:
        child = await ctx.dispatch(doubling, 1)
        await ctx.sleep(1.5)
        return (await child.output()).value + (await child.output()).value

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[late, doubling]):
        assert await (await client.dispatch(late)).output(timeout=20) == 4


async def test_a_timeout_around_the_wait(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(in_time)
        assert await handle.output(timeout=20) == "too late"
        (child,) = await client.list(parent_id=handle.id)
        assert child.status == "sleeping"


async def test_children_outlive_their_parent(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        child = await (await client.dispatch(forgetful, False)).output(timeout=20)
        await client.signal(Go(), to=child)
        assert await client.output(child, timeout=20) == "went"


async def test_cancel_reaches_children_that_are_not_detached(dsn: str) -> None:
    @pgflow.workflow
    async def two(ctx: pgflow.WorkflowContext) -> None:
        attached = await ctx.dispatch(waiting, tags={"sort": "attached"})
        await ctx.dispatch(waiting, tags={"sort": "detached"}, detached=True)
        await attached.output()

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[two, waiting]):
        handle = await client.dispatch(two)
        await status(client, handle, "sleeping")
        await client.cancel(handle.id)
        with pytest.raises(pgflow.WorkflowCancelled):
            await handle.output(timeout=20)
        (attached,) = await client.list(parent_id=handle.id, tags={"sort": "attached"})
        (detached,) = await client.list(parent_id=handle.id, tags={"sort": "detached"})
        with pytest.raises(pgflow.WorkflowCancelled):
            await client.output(attached.id, timeout=20)
        assert detached.status == "sleeping"


async def test_queue_and_priority_are_the_parent_s_unless_told_otherwise(dsn: str) -> None:
    @pgflow.workflow
    async def chooser(ctx: pgflow.WorkflowContext) -> None:
        await ctx.dispatch(waiting, tags={"sort": "same"})
        await ctx.dispatch(waiting, tags={"sort": "other"}, queue="elsewhere", priority=-2)

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[chooser], queues=["fast"]):
        handle = await client.dispatch(chooser, queue="fast", priority=7)
        await handle.output(timeout=20)
        (same,) = await client.list(tags={"sort": "same"})
        (other,) = await client.list(tags={"sort": "other"})
        assert (same.queue, same.priority) == ("fast", 7)
        assert (other.queue, other.priority) == ("elsewhere", -2)


async def test_a_retry_of_the_parent_retries_the_child(dsn: str) -> None:
    attempts: list[int] = []

    @pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
    async def flaky(ctx: pgflow.ActivityContext) -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("not yet")
        return "now"

    @pgflow.workflow
    async def flaking(ctx: pgflow.WorkflowContext) -> str:
        return await ctx.activity(flaky)

    @pgflow.workflow
    async def over_flaking(ctx: pgflow.WorkflowContext) -> str:
        return await (await ctx.dispatch(flaking)).output()

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[flaking, over_flaking]):
        handle = await client.dispatch(over_flaking)
        with pytest.raises(pgflow.WorkflowFailed, match="not yet"):
            await handle.output(timeout=20)
        await client.retry(handle.id)
        assert await handle.output(timeout=20) == "now"
        assert len(await client.list(parent_id=handle.id)) == 1


async def test_arguments_that_do_not_fit(dsn: str) -> None:
    @pgflow.workflow
    async def clumsy(ctx: pgflow.WorkflowContext) -> list[str]:
        said: list[str] = []
        for call in (
            lambda: ctx.dispatch(doubling),
            lambda: ctx.dispatch(doubling, object()),
            lambda: ctx.dispatch("doubling", 7),
            lambda: ctx.dispatch(doubling, 7, tags={"deep": {}}),
            lambda: ctx.dispatch(doubling.fn, 7),  # type: ignore[call-overload]
        ):
            try:
                await call()
            except (TypeError, ValueError, pgflow.SerializationError) as error:
                said.append(type(error).__name__)
        return said

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[clumsy]):
        handle = await client.dispatch(clumsy)
        assert await handle.output(timeout=20) == [
            "TypeError",
            "SerializationError",
            "TypeError",
            "ValueError",
            "TypeError",
        ]
        assert await client.history(handle.id) == []


async def test_output_in_a_task_without_a_branch_is_refused(dsn: str) -> None:
    import asyncio

    @pgflow.workflow
    async def careless(ctx: pgflow.WorkflowContext) -> None:
        child = await ctx.dispatch(doubling, 1)

        async def elsewhere() -> None:
            await child.output()

        await asyncio.gather(elsewhere())

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[careless, doubling]):
        with pytest.raises(pgflow.WorkflowFailed, match="NondeterminismError.*was used from two tasks"):
            await (await client.dispatch(careless)).output(timeout=20)


async def test_a_fan_out_and_back(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(family, 500)
        assert await handle.output(timeout=60) == sum(2 * i for i in range(500))
        with psycopg.connect(dsn) as connection:
            children = connection.execute(
                "SELECT count(*), count(DISTINCT parent_id) FROM pgflow.workflows WHERE parent_id IS NOT NULL"
            )
            assert children.fetchone() == (500, 1)
