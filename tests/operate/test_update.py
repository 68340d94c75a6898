"""Changing the queue, the priority and the moment of workflows that wait."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import pgflow
from tests.waiting import status, until

RAN: list[str] = []


@pgflow.signal
@dataclass
class Go:
    text: str


@pgflow.activity
async def stay(ctx: pgflow.ActivityContext) -> None:
    RAN.append("stay")
    await asyncio.Event().wait()


@pgflow.workflow
async def quick(ctx: pgflow.WorkflowContext) -> str:
    return "done"


@pgflow.workflow
async def waits(ctx: pgflow.WorkflowContext) -> str:
    go: Go = await ctx.listen(Go)
    return go.text


@pgflow.workflow
async def busy(ctx: pgflow.WorkflowContext) -> None:
    await ctx.activity(stay)


ALL = [quick, waits, busy]
LATER = datetime.now(UTC) + timedelta(days=30)


@pytest.fixture(autouse=True)
def clean() -> None:
    RAN.clear()


def run_of(dsn: str, handle: Any) -> Any:
    with psycopg.connect(dsn, autocommit=True) as sql:
        query = "SELECT queue, priority, wake_at FROM pgflow.runs WHERE workflow_id = %s"
        return sql.execute(query, (handle.id,)).fetchone()


async def test_one_that_was_put_off_is_started_now(dsn: str) -> None:
    """By the hint alone: the worker does not poll."""
    async with pgflow.Client(dsn, actor="kim") as client, pgflow.Worker(dsn, workflows=ALL, poll=60):
        await (await client.dispatch(quick)).output(20)
        handle = await client.dispatch(quick, run_at=LATER)
        assert await client.update(handle.id, run_at=datetime(2020, 1, 1, tzinfo=UTC), reason="now") is True
        assert await handle.output(20) == "done"
        (entry,) = await client.audit(handle.id, operation="update")
        assert (entry.actor, entry.reason) == ("kim", "now")


async def test_one_that_is_long_due_is_seen_by_a_worker_that_has_gone_on(dsn: str) -> None:
    """It is older than all that the worker has taken of the queue."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(quick, queue="nobody's")
        async with pgflow.Worker(dsn, workflows=ALL, queues=["here"], poll=60):
            for _ in range(3):
                await (await client.dispatch(quick, queue="here")).output(20)
            assert await client.update(handle.id, queue="here") is True
            assert await handle.output(20) == "done"


async def test_a_sleeper_goes_on_where_it_was_moved(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=ALL, queues=["old"]):
            handle = await client.dispatch(waits, queue="old")
            await status(client, handle, "sleeping")
            assert await client.update(handle.id, queue="new", priority=7) is True
            assert run_of(dsn, handle)[:2] == ("new", 7)
            await client.signal(Go("there"), to=handle.id)
            await until(lambda: run_of(dsn, handle)[2] is not None, "the signal has woken it")
            await (await client.dispatch(quick, queue="old")).output(20)
            assert run_of(dsn, handle)[2] is not None, "its last worker, which goes on claiming, has left it"
        async with pgflow.Worker(dsn, workflows=ALL, queues=["new"]):
            assert await handle.output(20) == "there"


async def test_what_is_refused_changes_nothing(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        ended = await client.dispatch(quick)
        await ended.output(20)
        asleep = await client.dispatch(waits)
        await status(client, asleep, "sleeping")
        runs = await client.dispatch(busy)
        await until(lambda: RAN == ["stay"], "the activity")
        with pytest.raises(pgflow.PgflowError, match="is completed, expected one that is pending, sleeping or paused"):
            await client.update(ended.id, priority=1)
        with pytest.raises(pgflow.PgflowError, match="is running, expected .* Pause it first"):
            await client.update(runs.id, priority=1)
        before = run_of(dsn, asleep)
        with pytest.raises(pgflow.PgflowError, match="has begun already, its run_at can no longer be changed"):
            await client.update(asleep.id, run_at=LATER, priority=3)
        assert run_of(dsn, asleep) == before
        assert await client.update(asleep.id, priority=before[1]) is False
        with pytest.raises(ValueError, match="nothing is given"):
            await client.update(asleep.id)
        with pytest.raises(ValueError, match="run_at"):
            await client.update(asleep.id, run_at=datetime(2030, 1, 1))
        with pytest.raises(pgflow.WorkflowNotFound):
            await client.update("00000000-0000-7000-8000-000000000000", priority=1)
        assert await client.audit(operation="update") == []
        await client.terminate(runs.id)


async def test_beside_a_claim(dsn: str) -> None:
    """It waits for the claim that has the row, and then sees that the workflow runs."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(quick)
        async with await psycopg.AsyncConnection.connect(dsn) as other:
            await other.execute(
                "UPDATE pgflow.runs SET status = 'running', epoch = 1, wake_at = NULL WHERE workflow_id = %s",
                (handle.id,),
            )
            asked = asyncio.ensure_future(client.update(handle.id, priority=9))
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as watch:
                waiting = (
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE "
                    "'%update_workflow%' AND datname = current_database()"
                )
                while (await (await watch.execute(waiting)).fetchone()) != (1,):
                    assert not asked.done(), "it waits"
                    await asyncio.sleep(0.01)
            await other.commit()
        with pytest.raises(pgflow.PgflowError, match="is running"):
            await asked
        assert run_of(dsn, handle)[1] == 0


def test_the_synchronous_client_and_one_that_is_paused(dsn: str) -> None:
    with pgflow.SyncClient(dsn) as client:
        handle = client.dispatch(quick)
        client.pause(handle.id)
        assert client.update(handle.id, run_at=LATER, queue="q") is True
        client.resume(handle.id)
        assert run_of(dsn, handle) == ("q", 0, LATER)
