"""Retrying a failed workflow: what failed runs again, what is recorded does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

import pgflow
from tests.waiting import status

ONCE = pgflow.RetryPolicy(max_attempts=1)
RAN: list[str] = []
BROKEN: set[str] = set()


@pgflow.activity(retry=ONCE)
async def work(ctx: pgflow.ActivityContext, name: str) -> str:
    RAN.append(name)
    if name in BROKEN:
        raise RuntimeError(f"{name} is broken")
    return name


@pgflow.workflow
async def sequence(ctx: pgflow.WorkflowContext) -> list[str]:
    return [await ctx.activity(work, name) for name in "abc"]


@pgflow.workflow
async def joined(ctx: pgflow.WorkflowContext) -> list[str]:
    return await ctx.join(*[ctx.activity(work, name) for name in "abc"])


@pgflow.workflow
async def grouped(ctx: pgflow.WorkflowContext) -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ctx.activity(work, name)) for name in "abc"]
        sleeping = group.create_task(ctx.sleep(0.3))
    assert sleeping.done()
    return [task.result() for task in tasks]


@pgflow.workflow
async def raced(ctx: pgflow.WorkflowContext) -> list[str]:
    """The first failure cancels what sleeps beside it: a retry has to sleep again."""

    def late(name: str) -> Callable[[pgflow.WorkflowContext], Awaitable[str]]:
        async def branch(ctx: pgflow.WorkflowContext) -> str:
            await ctx.sleep(0.2)
            return await ctx.activity(work, name)

        return branch

    async with asyncio.TaskGroup() as group:
        first = group.create_task(ctx.activity(work, "a"))
        tasks = [group.create_task(ctx.branch(late(name))) for name in "bc"]
    return [task.result() for task in [first, *tasks]]


@pgflow.workflow
async def compensating(ctx: pgflow.WorkflowContext) -> str:
    try:
        return await ctx.activity(work, "a")
    except pgflow.ActivityFailed:
        await ctx.activity(work, "undo")
        raise


@pgflow.workflow
async def looping(ctx: pgflow.WorkflowContext) -> int:
    async def turn(ctx: pgflow.WorkflowContext, n: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        await ctx.activity(work, f"turn {n}")
        return pgflow.Break(n) if n == 6 else pgflow.Continue(n + 1)

    return await ctx.loop(turn, 0, commit_interval=2)


@pgflow.workflow
async def hasty(ctx: pgflow.WorkflowContext) -> str:
    async with ctx.timeout(0.05 if "slow" in BROKEN else 30):
        await ctx.sleep(0.5)
    return "in time"


@pgflow.workflow
async def wrong(ctx: pgflow.WorkflowContext) -> str:
    await ctx.activity(work, "a")
    if "code" in BROKEN:
        raise KeyError("of its own")
    return "mended"


WORKFLOWS = [sequence, joined, grouped, raced, compensating, looping, hasty, wrong]


@pytest.fixture(autouse=True)
def clean() -> None:
    RAN.clear()
    BROKEN.clear()


async def fails(handle: pgflow.WorkflowHandle[Any], said: str) -> None:
    with pytest.raises(pgflow.WorkflowFailed, match=said):
        await handle.output(timeout=20)


async def test_the_failed_step_runs_again_and_the_recorded_ones_do_not(dsn: str) -> None:
    BROKEN.add("b")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(sequence)
        await fails(handle, "b is broken")
        await client.retry(handle.id)
        await fails(handle, "b is broken")
        BROKEN.clear()
        await client.retry(handle.id)
        assert await handle.output(timeout=20) == ["a", "b", "c"]
        assert RAN == ["a", "b", "b", "b", "c"]
        info = await handle.info()
        assert (info.status, info.error) == ("completed", None)
        with pytest.raises(pgflow.PgflowError, match="is completed, expected a failed one"):
            await client.retry(handle.id)


@pytest.mark.parametrize("workflow", [joined, grouped, raced])
async def test_failures_that_left_together(dsn: str, workflow: Any) -> None:
    """And what was abandoned by that exit runs too."""
    BROKEN.update("ac")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(workflow)
        await fails(handle, "a is broken|sub-exception")
        BROKEN.clear()
        await client.retry(handle.id)
        assert await handle.output(timeout=20) == ["a", "b", "c"]
        assert RAN.count("b") == 1 or workflow is not joined
        assert {event.status for event in await client.history(handle.id)} == {"completed"}


async def test_a_failure_that_was_compensated_is_refused_and_fork_is_named(dsn: str) -> None:
    BROKEN.add("a")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(compensating)
        await fails(handle, "a is broken")
        with pytest.raises(
            pgflow.PgflowError, match=r"had gone on from the failure of the step at \{1\}.*fork\(.*before=\{1\}\)"
        ):
            await client.retry(handle.id)
        assert (await handle.info()).status == "failed"
        BROKEN.clear()
        forked = await client.fork(handle.id, before="{1}")
        assert await forked.output(timeout=20) == "a"


@pgflow.workflow
async def compensating_in_time(ctx: pgflow.WorkflowContext) -> str:
    """The block hears of its deadline as of a cancellation, and cleans up before the `TimeoutError` leaves it."""
    async with ctx.timeout(0.1):
        try:
            await ctx.sleep(60 if "slow" in BROKEN else 0.01)
        except asyncio.CancelledError:
            await ctx.activity(work, "undo")
            raise
    return "in time"


@pgflow.workflow
async def compensating_by_version(ctx: pgflow.WorkflowContext) -> str:
    try:
        return await ctx.activity(work, "a")
    except pgflow.ActivityFailed:
        await ctx.check_version(2)
        raise


@pgflow.workflow
async def compensating_no_more(ctx: pgflow.WorkflowContext) -> str:
    try:
        return await ctx.activity(work, "a")
    except pgflow.ActivityFailed:
        await ctx.removed("activity", "undo")
        raise


@pytest.mark.parametrize("workflow", [compensating_in_time, compensating_by_version, compensating_no_more])
async def test_whatever_the_code_goes_on_with_is_a_compensation(dsn: str, workflow: Any) -> None:
    """A retry that was taken would meet its rows, and be refused by the replay."""
    BROKEN.update({"a", "slow"})
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[workflow]):
        handle = await client.dispatch(workflow)
        await fails(handle, "a is broken|passed after")
        with pytest.raises(pgflow.PgflowError, match=r"had gone on from the failure of the step at \{1\}.*fork\("):
            await client.retry(handle.id)
        BROKEN.clear()
        forked = await client.fork(handle.id, before="{1}")
        assert await forked.output(timeout=20) in ("a", "in time")


async def test_a_retry_that_the_replay_refuses_names_fork(dsn: str) -> None:
    """What only the worker can find, since it takes the code: here another edition of it."""

    @pgflow.workflow(name="compensating")
    async def without(ctx: pgflow.WorkflowContext) -> str:
        return await ctx.activity(work, "a")

    @pgflow.workflow(name="compensating")
    async def wrapping(ctx: pgflow.WorkflowContext) -> str:
        try:
            return await ctx.activity(work, "a")
        except pgflow.ActivityFailed:
            await ctx.activity(work, "undo")
            raise RuntimeError("undone") from None

    @pgflow.workflow(name="compensating")
    async def otherwise(ctx: pgflow.WorkflowContext) -> str:
        try:
            return await ctx.activity(work, "a")
        except pgflow.ActivityFailed:
            await ctx.sleep(1)
            raise

    BROKEN.add("a")
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=[wrapping]):
            handle = await client.dispatch(wrapping)
            await fails(handle, "undone")
        for edition, said in (
            (otherwise, r"diverged at \{2\}.*or fork it before \{2\}"),
            (without, r"goes on with 1 more step.*or fork it before \{2\}"),
        ):
            await client.retry(handle.id)
            async with pgflow.Worker(dsn, workflows=[edition]):
                await fails(handle, said)


async def test_within_a_loop(dsn: str) -> None:
    BROKEN.add("turn 5")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(looping)
        await fails(handle, "turn 5 is broken")
        BROKEN.clear()
        await client.retry(handle.id)
        assert await handle.output(timeout=20) == 6
        assert RAN == [f"turn {n}" for n in (0, 1, 2, 3, 4, 5, 5, 6)]


async def test_after_a_timeout_its_deadline_counts_anew(dsn: str) -> None:
    BROKEN.add("slow")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(hasty)
        await fails(handle, "TimeoutError")
        BROKEN.clear()
        await client.retry(handle.id)
        assert await handle.output(timeout=20) == "in time"


async def test_after_an_error_of_its_own_code_under_mended_code(dsn: str) -> None:
    BROKEN.add("code")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(wrong)
        await fails(handle, "of its own")
        BROKEN.clear()
        await client.retry(handle.id)
        assert await handle.output(timeout=20) == "mended"
        assert RAN == ["a"]


async def test_after_a_divergence_under_mended_code(dsn: str) -> None:
    @pgflow.workflow(name="edited")
    async def before(ctx: pgflow.WorkflowContext) -> str:
        await ctx.activity(work, "a")
        await ctx.sleep(3600)
        return "before"

    @pgflow.workflow(name="edited")
    async def broken(ctx: pgflow.WorkflowContext) -> str:
        await ctx.sleep(1)
        return "broken"

    @pgflow.workflow(name="edited")
    async def mended(ctx: pgflow.WorkflowContext) -> str:
        await ctx.activity(work, "a")
        await ctx.removed("sleep")
        return "mended"

    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=[before]):
            handle = await client.dispatch(before)
            await status(client, handle, "sleeping")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("UPDATE pgflow.runs SET wake_at = now()")
        rows = await client.history(handle.id)
        async with pgflow.Worker(dsn, workflows=[broken]):
            await fails(handle, "HistoryDiverged.*the code expected sleep of version 1, history holds activity")
        assert await client.history(handle.id) == rows
        await client.retry(handle.id)
        async with pgflow.Worker(dsn, workflows=[mended]):
            assert await handle.output(timeout=20) == "mended"


async def test_unique_keys(dsn: str) -> None:
    """A failed workflow frees its key, and takes it again with a retry, unless another has it."""
    BROKEN.add("a")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        first = await client.dispatch(sequence, tags={"order": 7}, unique=True)
        await fails(first, "a is broken")
        async with asyncio.timeout(20):
            second = await client.dispatch(sequence, tags={"order": 7}, unique=True, queue="elsewhere")
        assert second.id != first.id
        with pytest.raises(pgflow.PgflowError, match=f"meanwhile the live workflow {second.id} has its name and tags"):
            await client.retry(first.id)
        await client.cancel(second.id)
        BROKEN.clear()
        async with pgflow.Worker(dsn, workflows=WORKFLOWS, queues=["elsewhere"]):
            with pytest.raises(pgflow.WorkflowCancelled):
                await second.output(timeout=20)
        await client.retry(first.id)
        assert await first.output(timeout=20) == ["a", "b", "c"]


async def test_unknown(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        with pytest.raises(pgflow.WorkflowNotFound, match="retry: there is no workflow"):
            await client.retry("00000000-0000-0000-0000-000000000000")
