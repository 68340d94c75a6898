"""Ending workflows without a worker and without their code, and cancelling what no worker has ever had."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest

import pgflow
from pgflow import faults
from pgflow.client.handle import WorkflowHandle
from pgflow.store.exchange.deliveries import DeliveryQueue
from tests.waiting import status, until

BEGUN: list[str] = []


@pgflow.signal
@dataclass
class Word:
    text: str


@pytest.fixture(autouse=True)
def clean() -> None:
    BEGUN.clear()


@pgflow.activity
async def stay(ctx: pgflow.ActivityContext) -> None:
    BEGUN.append("stay")
    try:
        await asyncio.Event().wait()
    finally:
        BEGUN.append("left")


@pgflow.activity
async def note(ctx: pgflow.ActivityContext, what: str) -> None:
    BEGUN.append(what)


@pgflow.workflow
async def stubborn(ctx: pgflow.WorkflowContext) -> None:
    """It swallows whatever cancels it."""
    while True:
        try:
            await ctx.activity(stay)
        except asyncio.CancelledError:
            await ctx.activity(note, "swallowed")


@pgflow.workflow
async def asleep(ctx: pgflow.WorkflowContext) -> None:
    try:
        await ctx.listen(Word)
    finally:
        await ctx.activity(note, "compensated")


@pgflow.workflow
async def parent(ctx: pgflow.WorkflowContext) -> str:
    child = await ctx.dispatch(asleep)
    try:
        await child.output()
    except pgflow.WorkflowTerminated as error:
        return f"terminated: {'why not' in str(error)}"
    return "?"


@pgflow.workflow
async def above(ctx: pgflow.WorkflowContext) -> None:
    await (await ctx.dispatch(asleep)).output()


ALL = [stubborn, asleep, parent, above]


def rows(dsn: str, query: str, *values: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as sql:
        return sql.execute(query.encode(), values).fetchall()


async def test_one_that_runs_and_swallows_cancels(dsn: str) -> None:
    """Its worker hears of it at once, ends the activity in flight, and goes on with others."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL, poll=60):
        handle = await client.dispatch(stubborn, tags={"a": 1}, unique=True)
        await until(lambda: BEGUN == ["stay"], "the activity")
        assert await client.terminate(handle.id, reason="why not") is True
        with pytest.raises(pgflow.WorkflowTerminated, match="was terminated by an operator: why not") as raised:
            await handle.output(20)
        assert isinstance(raised.value, pgflow.WorkflowCancelled)
        await until(lambda: BEGUN == ["stay", "left"], "the activity has been cancelled")
        info = await handle.info()
        assert (info.status, info.error) == (
            "cancelled",
            {"type": "WorkflowTerminated", "message": "terminated by an operator: why not"},
        )
        assert rows(dsn, "SELECT count(*) FROM pgflow.runs") == [(0,)]
        assert await client.terminate(handle.id) is False, "it has ended"
        (entry,) = await client.audit(handle.id)
        assert (entry.operation, entry.reason) == ("terminate", "why not")
        again = await client.dispatch(stubborn, tags={"a": 1}, unique=True)
        assert again.id != handle.id, "its unique key is free"
        await until(lambda: BEGUN[-1] == "stay", "the worker goes on")
        await client.terminate(again.id)


@pytest.mark.parametrize("paused", [False, True])
async def test_one_that_sleeps_or_is_paused_and_whose_code_is_gone(dsn: str, paused: bool) -> None:
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=ALL):
            handle = await client.dispatch(asleep)
            await status(client, handle, "sleeping")
        if paused:
            await client.pause(handle.id)
        await client.signal(Word("too late"), to=handle.id)
        assert await client.terminate(handle.id)
        with pytest.raises(pgflow.WorkflowTerminated):
            await handle.output(20)
        async with pgflow.Worker(dsn, workflows=[parent]):
            await until(
                lambda: rows(dsn, "SELECT count(*) FROM pgflow.signals WHERE dropped_at IS NULL") == [(0,)],
                "the signal is dropped",
            )
    assert BEGUN == [], "nothing is compensated"


async def test_who_waits_for_it_is_told(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        handle = await client.dispatch(parent)
        await status(client, handle, "sleeping")
        (child,) = await client.list(parent_id=handle.id)
        await status(client, WorkflowHandle(client, child.id, None), "sleeping")
        await client.terminate(child.id, reason="why not")
        assert await handle.output(20) == "terminated: True"


async def test_a_worker_that_holds_its_parent_as_well(dsn: str) -> None:
    """The parent has news by the same hint; the child's worker hears of its end nevertheless."""

    @pgflow.workflow
    async def busy(ctx: pgflow.WorkflowContext) -> None:
        child = await ctx.dispatch(stubborn)
        await asyncio.gather(child.output(), ctx.activity(note, "beside"), ctx.activity(stay), return_exceptions=True)

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[busy, stubborn], poll=60):
        handle = await client.dispatch(busy)
        await until(lambda: sorted(BEGUN) == ["beside", "stay", "stay"], "both are in memory")
        (child,) = await client.list(parent_id=handle.id)
        await client.terminate(child.id)
        await until(lambda: BEGUN.count("left") == 1, "the child's activity has been cancelled")
        await client.terminate(handle.id)


def left(times: int) -> bool:
    return BEGUN.count("left") == times


async def test_a_look_that_fails_is_made_again(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    look, looks = DeliveryQueue.gone, 0

    async def fails_at_times(queue: DeliveryQueue, ids: Collection[UUID]) -> list[UUID]:
        nonlocal looks
        looks += 1
        if looks % 2 == 0:
            raise psycopg.OperationalError("the connection is lost")
        return await look(queue, ids)

    monkeypatch.setattr(DeliveryQueue, "gone", fails_at_times)
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL, poll=60):
        handles = [await client.dispatch(stubborn) for _ in range(3)]
        await until(lambda: BEGUN == ["stay"] * 3, "the activities")
        for ended in range(3):
            await client.terminate(handles[ended].id)
            await until(partial(left, ended + 1), "its activity has been cancelled")


async def test_its_children_are_asked_to_cancel(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        handle = await client.dispatch(above)
        await until(lambda: rows(dsn, "SELECT status FROM pgflow.runs WHERE name = 'asleep'") == [("sleeping",)])
        (child,) = await client.list(parent_id=handle.id)
        await client.terminate(handle.id)
        with pytest.raises(pgflow.WorkflowCancelled):
            await WorkflowHandle(client, child.id, None).output(20)
        assert BEGUN == ["compensated"]


async def test_a_failed_one_has_ended(dsn: str) -> None:
    @pgflow.workflow
    async def fails(ctx: pgflow.WorkflowContext) -> None:
        raise ValueError("no")

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[fails]):
        handle = await client.dispatch(fails)
        with pytest.raises(pgflow.WorkflowFailed):
            await handle.output(20)
        assert await client.terminate(handle.id) is False
        assert (await handle.info()).status == "failed"
        with pytest.raises(pgflow.WorkflowNotFound, match="terminate: there is no workflow"):
            await client.terminate("00000000-0000-0000-0000-000000000001")


async def test_beside_the_batch_that_ends_it(dsn: str) -> None:
    """Whoever comes first decides; the other finds it ended, and nothing is told twice."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        for _ in range(10):
            handle = await client.dispatch(asleep)
            await status(client, handle, "sleeping")
            await asyncio.gather(
                client.signal(Word("go"), to=handle.id), client.terminate(handle.id), return_exceptions=True
            )
            try:
                await handle.output(20)
            except pgflow.WorkflowTerminated:
                pass
    assert rows(dsn, "SELECT count(*) FROM pgflow.runs") == [(0,)]


async def test_nothing_of_the_old_owner_takes_effect(dsn: str) -> None:
    """A worker that hears nothing finds out at its next write."""
    goes = asyncio.Event()

    @pgflow.activity
    async def wait(ctx: pgflow.ActivityContext) -> None:
        BEGUN.append("wait")
        await goes.wait()

    @pgflow.workflow
    async def flow(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(wait)
        await ctx.activity(note, "after")
        await ctx.dispatch(asleep)

    async with pgflow.Client(dsn, hints=False) as client, pgflow.Worker(dsn, workflows=[flow, asleep], poll=60):
        handle = await client.dispatch(flow)
        async with pgflow.Client(dsn) as loud:
            await loud.dispatch(flow)  # wakes the worker
        await until(lambda: BEGUN == ["wait", "wait"], "both")
        await client.terminate(handle.id)
        goes.set()
        await until(lambda: rows(dsn, "SELECT count(*) FROM pgflow.workflows WHERE name = 'asleep'") == [(1,)])
    assert BEGUN.count("after") == 1
    assert rows(dsn, "SELECT count(*) FROM pgflow.events WHERE workflow_id = %s", handle.id) == [(0,)]


@pytest.mark.parametrize("point", ["loops.before", "loops.after_progress", "loops.after_move", "loops.before_commit"])
async def test_beside_the_advancement_of_a_loop(dsn: str, point: str) -> None:
    """Whichever comes first, the worker lives and no row is half moved."""
    gate, reached = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await gate.wait()

    async def turn(ctx: pgflow.WorkflowContext, n: int) -> pgflow.Continue[int]:
        await ctx.activity(note, f"turn {n}")
        return pgflow.Continue(n + 1)

    @pgflow.workflow
    async def looping(ctx: pgflow.WorkflowContext) -> None:
        await ctx.loop(turn, 0, commit_interval=1)

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[looping, asleep]) as worker:
        with faults.install({point: hold}):
            handle = await client.dispatch(looping)
            await reached.wait()
            ending = asyncio.create_task(client.terminate(handle.id))
            if point != "loops.before_commit":  # there the advancement has the run's row, and it waits for that
                assert await ending
            gate.set()
            assert await ending
            with pytest.raises(pgflow.WorkflowTerminated):
                await handle.output(20)
        other = await client.dispatch(asleep)
        await status(client, other, "sleeping")
        await client.terminate(other.id)
        assert worker.id is not None
        both = "SELECT location FROM pgflow.events INTERSECT SELECT location FROM pgflow.forgotten_events"
        assert rows(dsn, both) == []


@pytest.mark.parametrize("paused", [False, True])
async def test_what_no_worker_has_ever_had_is_cancelled_at_once(dsn: str, paused: bool) -> None:
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch("unknown", tags={"a": 1}, unique=True)
        if paused:
            await client.pause(handle.id)
        assert await client.cancel(handle.id, reason="ordered twice") is True
        assert (await handle.info()).status == "cancelled"
        with pytest.raises(pgflow.WorkflowCancelled) as raised:
            await handle.output(20)
        assert type(raised.value) is pgflow.WorkflowCancelled
        assert await client.cancel(handle.id) is False
        assert [entry.operation for entry in await client.audit(handle.id)][:1] == ["cancel"]
        assert (await client.dispatch("unknown", tags={"a": 1}, unique=True)).id != handle.id


async def test_a_fork_that_nobody_has_claimed_may_compensate(dsn: str) -> None:
    """It has the history of another."""
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=ALL):
            handle = await client.dispatch(asleep)
            await status(client, handle, "sleeping")
            await client.signal(Word("go"), to=handle.id)
            await handle.output(20)
        BEGUN.clear()
        forked = await client.fork(handle.id, before="{2}")
        await client.cancel(forked.id)
        assert (await forked.info()).status == "pending"
        async with pgflow.Worker(dsn, workflows=ALL):
            with pytest.raises(pgflow.WorkflowCancelled):
                await forked.output(20)


async def test_in_the_callers_transaction_a_cancel_is_taken_back(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, await psycopg.AsyncConnection.connect(dsn) as connection:
        handle = await client.dispatch("unknown")
        await client.cancel(handle.id, connection=connection)
        await connection.rollback()
        assert (await handle.info()).status == "pending"
