"""Signals from end to end: sent by clients and SQL, taken once and in order, whatever the workflow does meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import BaseModel

import pgflow
from pgflow import faults
from pgflow.definitions.packets import signal_name
from tests.waiting import status, until


@pgflow.signal
@dataclass
class Approved:
    by: str


@pgflow.signal(name="reading")
class Reading(BaseModel):
    value: int


@pgflow.signal
@dataclass
class Stop:
    pass


@pgflow.activity
async def note(ctx: pgflow.ActivityContext, text: str) -> str:
    return text


@pgflow.workflow
async def approval(ctx: pgflow.WorkflowContext) -> str:
    approved = await ctx.listen(Approved)
    assert isinstance(approved, Approved)
    return approved.by


@pgflow.workflow
async def patient(ctx: pgflow.WorkflowContext, seconds: float) -> str | None:
    approved = await ctx.listen(Approved, timeout=seconds)
    return None if approved is None else approved.by


@pgflow.workflow
async def collect(ctx: pgflow.WorkflowContext) -> list[int]:
    """Every reading until a stop, one at a time, for ever if need be."""

    async def turn(
        ctx: pgflow.WorkflowContext, seen: list[int]
    ) -> pgflow.Continue[list[int]] | pgflow.Break[list[int]]:
        signal = await ctx.listen(Reading, Stop)
        if isinstance(signal, Stop):
            return pgflow.Break(seen)
        await ctx.activity(note, str(signal.value))
        return pgflow.Continue([*seen, signal.value])

    return await ctx.loop(turn, [], commit_interval=3)


@pgflow.workflow
async def batches(ctx: pgflow.WorkflowContext, wanted: int) -> list[int]:
    found: list[int] = []
    while len(found) < wanted:
        found += [reading.value for reading in await ctx.listen_many(Reading, limit=7)]
    return found


@pgflow.workflow
async def two_ears(ctx: pgflow.WorkflowContext) -> list[str]:
    first, second = ctx.listen(Approved), ctx.listen(Approved)
    return [signal.by for signal in await asyncio.gather(first, second)]


WORKFLOWS: list[pgflow.Workflow[Any, Any]] = [approval, patient, collect, batches, two_ears]


@pytest.mark.parametrize("cached", [1000, 0])
async def test_a_signal_wakes_who_sleeps_on_it(dsn: str, cached: int) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        handle = await client.dispatch(approval)
        await status(client, handle, "sleeping")
        info = await handle.info()
        assert (info.waiting_for, info.worker_id, info.wake_at) == (["approved"], None, None)
        (pending,) = await client.history(handle.id)
        assert (pending.kind, pending.name, pending.status) == ("listen", "approved", "pending")
        id = await client.signal(Approved("eva"), to=handle.id)
        assert await handle.output(timeout=20) == "eva"
        (event,) = await client.history(handle.id)
        assert event.output == {"id": str(id), "name": "approved", "body": {"by": "eva"}}


async def test_a_signal_that_came_before(dsn: str) -> None:
    """It waits in the mailbox until the code listens, also over the start of the first worker."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(approval)
        await client.signal(Approved("adam"), to=handle.id)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            assert await handle.output(timeout=20) == "adam"


@pytest.mark.parametrize("cached", [1000, 0])
async def test_each_is_taken_once_in_the_order_of_arrival(dsn: str, cached: int) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        handle = await client.dispatch(collect)
        many = await client.dispatch(batches, 50)
        for value in range(50):
            await client.signal(Reading(value=value), to=handle.id)
            await client.signal(Reading(value=value), to=many.id)
        await client.signal(Stop(), to=handle.id)
        assert await handle.output(timeout=30) == list(range(50))
        assert await many.output(timeout=30) == list(range(50))
    with psycopg.connect(dsn) as connection:
        left = connection.execute("SELECT count(*) FROM pgflow.signals WHERE consumed_at IS NULL").fetchone()
        assert left == (0,)


async def test_two_workers_share_the_delivery(dsn: str) -> None:
    async with (
        pgflow.Client(dsn) as client,
        pgflow.Worker(dsn, workflows=WORKFLOWS),
        pgflow.Worker(dsn, workflows=WORKFLOWS),
    ):
        handles = await client.dispatch_many(collect, [{} for _ in range(20)])
        for value in range(10):
            await asyncio.gather(*[client.signal(Reading(value=value), to=handle.id) for handle in handles])
        await asyncio.gather(*[client.signal(Stop(), to=handle.id) for handle in handles])
        for handle in handles:
            assert await handle.output(timeout=30) == list(range(10))


async def test_a_timeout_passes_and_survives_a_restart(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            short = await client.dispatch(patient, 0.05)
            assert await short.output(timeout=20) is None
            long = await client.dispatch(patient, 2.0)
            await status(client, long, "sleeping")
            wake_at = (await long.info()).wake_at
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            assert await long.output(timeout=20) is None
            (event,) = await client.history(long.id)
            assert (event.kind, event.status, event.output) == ("listen", "completed", None)
            assert wake_at is not None and event.completed_at is not None and event.completed_at >= wake_at


async def test_of_two_listens_the_lower_location_takes_the_signal(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(two_ears)
        await status(client, handle, "sleeping")
        await client.signal(Approved("first"), to=handle.id)
        await client.signal(Approved("second"), to=handle.id)
        assert await handle.output(timeout=20) == ["first", "second"]


async def test_by_workflow_and_tags(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        older = await client.dispatch(approval, tags={"order": 7, "shop": "north"})
        await client.dispatch(approval, tags={"order": 7, "shop": "south"})
        other = await client.dispatch(approval, tags={"order": 8})
        await client.signal(Approved("eva"), workflow=approval, tags={"order": 7})
        assert await older.output(timeout=20) == "eva"
        await client.signal(Approved("adam"), workflow="approval", tags={"order": 8})
        assert await other.output(timeout=20) == "adam"


async def test_nobody_receives(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        with pytest.raises(pgflow.WorkflowNotFound, match="there is no workflow .*nothing was sent"):
            await client.signal(Approved("eva"), to=uuid4())
        assert await client.signal(Approved("eva"), to=uuid4(), missing_ok=True) is None
        with pytest.raises(pgflow.WorkflowNotFound, match='no live workflow "approval" has the tags {"order":9}'):
            await client.signal(Approved("eva"), workflow=approval, tags={"order": 9})
        ended = await client.dispatch(patient, 0.01)
        await ended.output(timeout=20)
        with pytest.raises(pgflow.WorkflowNotFound, match="is completed, nothing was sent"):
            await client.signal(Approved("eva"), to=ended.id)
        with pytest.raises(TypeError, match="expected a class declared by @pgflow.signal"):
            await client.signal("text", to=ended.id)
        with pytest.raises(TypeError, match="found neither"):
            await client.signal(Approved("eva"))
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM pgflow.signals").fetchone() == (0,)


async def test_what_is_left_at_the_end_is_marked(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(approval)
        await status(client, handle, "sleeping")
        await client.signal(Reading(value=1), to=handle.id)
        await client.signal(Approved("eva"), to=handle.id)
        await client.signal(Approved("late"), to=handle.id)
        assert await handle.output(timeout=20) == "eva"

        async def marked() -> bool:
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                cursor = await connection.execute(
                    "SELECT name, consumed_at IS NOT NULL, dropped_at IS NOT NULL FROM pgflow.signals ORDER BY arrival"
                )
                return await cursor.fetchall() == [
                    ("reading", False, True),
                    ("approved", True, False),
                    ("approved", False, True),
                ]

        await until(marked)


async def test_from_sql_and_within_a_transaction(dsn: str) -> None:
    """A rolled back signal was never sent; one of an open transaction delays nobody and arrives with its commit."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(approval, tags={"order": 7})
        other = await client.dispatch(approval)
        await status(client, handle, "sleeping")
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await connection.execute("SELECT pgflow.signal(%s, 'approved', '{\"by\": \"nobody\"}')", [handle.id])
            await connection.rollback()
            await connection.execute(
                "SELECT pgflow.signal('approval', '{\"order\": 7}', 'approved', '{\"by\": \"sql\"}')"
            )
            await client.signal(Approved("joined"), to=other.id, connection=connection)
            third = await client.dispatch(approval)
            await client.signal(Approved("meanwhile"), to=third.id)
            assert await third.output(timeout=20) == "meanwhile"
            await connection.commit()
        assert await handle.output(timeout=20) == "sql"
        assert await other.output(timeout=20) == "joined"


def test_listens_are_checked() -> None:
    with pytest.raises(TypeError, match="expected a class declared by @pgflow.signal, found <class 'int'>"):
        signal_name(int, "ctx.listen")

    class Sub(Approved):
        pass

    with pytest.raises(TypeError, match="found <class"):
        signal_name(Sub, "ctx.listen")


def test_the_sync_client_signals(dsn: str) -> None:
    with pgflow.SyncClient(dsn) as client:
        handle = client.dispatch(approval)
        assert client.signal(Approved("eva"), to=handle.id) is not None
        assert client.signal(Approved("eva"), to=uuid4(), missing_ok=True) is None


async def test_no_signal_overtakes_an_earlier_one_whose_receiver_was_locked(dsn: str) -> None:
    """More than one delivery takes, and the receiver's row is locked for the first of them only."""
    count = 1100
    async with (
        pgflow.Client(dsn) as client,
        pgflow.Worker(dsn, workflows=[collect], poll=3600.0),
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as watch,
        await psycopg.AsyncConnection.connect(dsn) as busy,
    ):
        handle = await client.dispatch(collect)
        await status(client, handle, "sleeping")
        await busy.execute("SELECT FROM pgflow.runs WHERE workflow_id = %s FOR UPDATE", [handle.id])
        looks = 0

        async def look() -> None:
            nonlocal looks
            cursor = await watch.execute("SELECT EXISTS (SELECT FROM pgflow.signals WHERE number IS NULL)")
            looks += await cursor.fetchone() == (True,)
            if looks == 2:
                await busy.rollback()

        with faults.install({"mailbox.before_deliver": look}):
            await watch.execute(
                "SELECT pgflow.signal(%s, 'reading', json_build_object('value', n)) FROM generate_series(1, %s) AS n",
                [handle.id, count],
            )
            await client.signal(Stop(), to=handle.id)
            assert await handle.output(timeout=30) == list(range(1, count + 1))
        assert looks > 2
