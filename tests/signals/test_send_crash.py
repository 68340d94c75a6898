"""Crossings cut off: a worker that dies, or loses its lease, between the signal's commit and its row sends it once."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
import pytest

import pgflow
from pgflow import faults
from tests.crashing import until_killed
from tests.signals.test_send import WORKFLOWS, by_tags, crowd, receiver, sender
from tests.waiting import until

TAKE_AWAY = "UPDATE pgflow.runs SET status = 'pending', wake_at = now(), worker_id = NULL WHERE workflow_id = %s"


def sent(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT count(*) FROM pgflow.signals").fetchone()
        assert found is not None
        return int(found[0])


async def test_killed_between_the_signal_and_its_row(dsn: str) -> None:
    """The next worker sends it again under the same id: it stays where it went, though the tags now lead elsewhere."""
    async with pgflow.Client(dsn) as client:
        listening = await client.dispatch(receiver, 1, queue="later", tags={"order": 7})
        other = await client.dispatch(receiver, 1, queue="later", tags={"order": 7})
        sending = await client.dispatch(by_tags, 7)
        await until_killed(dsn, "tests.signals.test_send", "crossings.after")
        assert sent(dsn) == 1 and await client.history(sending.id) == []
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute("UPDATE pgflow.workflows SET tags = '{}' WHERE id = %s", [listening.id])
        async with pgflow.Worker(dsn, workflows=WORKFLOWS, queues=["default", "later"]):
            id = await sending.output(timeout=30)
            assert await listening.output(timeout=30) == ["tags"]
            (event,) = await client.history(sending.id)
            assert event.output == {"id": str(id), "to": str(listening.id)}
        assert sent(dsn) == 1 and (await other.info()).status == "sleeping"


async def test_killed_before(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        listening = await client.dispatch(receiver, 1, queue="later")
        direct = await client.dispatch(sender, listening.id)
        await until_killed(dsn, "tests.signals.test_send", "crossings.before")
        assert sent(dsn) == 0
        async with pgflow.Worker(dsn, workflows=WORKFLOWS, queues=["default", "later"]):
            await direct.output(timeout=30)
            assert await listening.output(timeout=30) == ["eva"]


async def test_whoever_lost_the_lease_writes_nothing(dsn: str) -> None:
    """The lease is taken away while the signal is committed and not recorded: the next owner sends it again, to no
    effect.
    """
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        if not held.is_set():
            held.set()
            await go_on.wait()

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        listening = await client.dispatch(receiver, 1)
        with faults.install({"crossings.after": hold}):
            sending = await client.dispatch(sender, listening.id)
            await held.wait()
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
                await connection.execute(TAKE_AWAY, [sending.id])
            async with pgflow.Worker(dsn, workflows=WORKFLOWS):
                go_on.set()
                await sending.output(timeout=20)
        assert await listening.output(timeout=20) == ["eva"]
        assert sent(dsn) == 1


@pytest.mark.parametrize("change", ["worker_id = NULL", "epoch = epoch + 1"])
async def test_whoever_lost_the_lease_sends_nothing(dsn: str, change: str, caplog: pytest.LogCaptureFixture) -> None:
    """The lease is taken away before the statement that sends: it sends for the others alone."""
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        if not held.is_set():
            held.set()
            await go_on.wait()

    async def dropped() -> bool:
        return "left this worker" in caplog.text

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        listening = await client.dispatch(receiver, 1)
        with faults.install({"crossings.before": hold}):
            sending = await client.dispatch(sender, listening.id)
            await held.wait()
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
                await connection.execute(
                    f"UPDATE pgflow.runs SET status = 'paused', {change} WHERE workflow_id = %s", [sending.id]
                )
            go_on.set()
            await until(dropped)
            assert sent(dsn) == 0
            fine = await client.dispatch(sender, listening.id, "fine")
            await fine.output(timeout=20)
        assert await listening.output(timeout=20) == ["fine"]


async def test_a_busy_sender_comes_with_the_next_batch(dsn: str) -> None:
    """Somebody else has locked the sender's row: its signals wait, those of others do not."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        listening = await client.dispatch(receiver, 41)
        locked = asyncio.Event()
        async with await psycopg.AsyncConnection.connect(dsn) as connection:

            async def lock() -> None:
                if not locked.is_set():
                    locked.set()
                    await connection.execute("SELECT FROM pgflow.runs WHERE workflow_id = %s FOR UPDATE", [slow.id])

            with faults.install({"crossings.before": lock}):
                id = uuid4()
                slow = pgflow.WorkflowHandle(client, id, crowd)
                await client.dispatch(crowd, listening.id, 40, id=id)
                await locked.wait()
                fast = await client.dispatch(sender, listening.id, "fast")
                await fast.output(timeout=20)
                assert (await slow.info()).status == "running"
                await connection.rollback()
                assert await slow.output(timeout=20) == 40
        assert await listening.output(timeout=20) == ["fast", *map(str, range(40))]
