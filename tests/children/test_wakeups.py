"""A parent is woken by its child's end whatever happens in between: workers here poll so rarely that only a wake-up
helps.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

import pgflow
from pgflow import faults
from pgflow.execution.engine import crossings
from pgflow.model.writes import Inquiry
from pgflow.store.exchange.inquiries import Inquiries
from tests.children.flows import Go, over_one_that_waits, waiting
from tests.waiting import status, until

NEVER = 3600.0


async def test_a_parent_whose_row_is_locked_when_the_end_is_delivered(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[over_one_that_waits, waiting], poll=NEVER):
        handle = await client.dispatch(over_one_that_waits)
        await status(client, handle, "sleeping")
        (child,) = await client.list(parent_id=handle.id)
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await connection.execute("SELECT FROM pgflow.runs WHERE workflow_id = %s FOR UPDATE", [handle.id])
            passed = 0

            async def pass_over() -> None:
                nonlocal passed
                passed += 1

            await client.signal(Go(), to=child.id)
            await client.output(child.id, timeout=20)
            with faults.install({"mailbox.before_deliver": pass_over}):
                async with asyncio.timeout(20):
                    while passed < 3:
                        await asyncio.sleep(0.005)
            assert (await handle.info()).status == "sleeping"
            await connection.rollback()
        assert await handle.output(timeout=20) == "went"


async def test_a_parent_that_went_to_sleep_before_it_heard(dsn: str) -> None:
    """The end is delivered by another worker while the parent's suspension is on its way; its own worker hears of it
    only after.
    """
    async with (
        pgflow.Client(dsn) as client,
        pgflow.Worker(dsn, workflows=[over_one_that_waits], poll=NEVER) as owner,
        pgflow.Worker(dsn, workflows=[waiting], poll=NEVER),
    ):
        assert (session := owner._session) is not None
        writes = 0
        suspending, delivered, asleep = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def write() -> None:
            nonlocal writes
            if asyncio.current_task() is session.journal._background.task:
                writes += 1
                if writes == 2:  # the first one has recorded the child
                    suspending.set()
                    await delivered.wait()

        async def deliver() -> None:
            if asyncio.current_task() is session._deliverer._background.task and suspending.is_set():
                await asleep.wait()

        async def run() -> Any:
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
                cursor = await connection.execute(
                    "SELECT status, mailbox FROM pgflow.runs WHERE workflow_id = %s", [handle.id]
                )
                return await cursor.fetchone()

        async def told() -> bool:
            return bool(await run() == ("running", 1))

        async def pending() -> bool:
            return bool(await run() == ("pending", 1))

        with faults.install({"journal.before": write, "mailbox.before_deliver": deliver}):
            handle = await client.dispatch(over_one_that_waits)
            await suspending.wait()
            (child,) = await client.list(parent_id=handle.id)
            await client.signal(Go(), to=child.id)
            await until(told)
            delivered.set()
            await until(pending)
            asleep.set()
            assert await handle.output(timeout=20) == "went"


@pgflow.workflow
async def over_two_that_wait(ctx: pgflow.WorkflowContext) -> list[str]:
    children = [await ctx.dispatch(waiting) for _ in range(2)]
    return list(await asyncio.gather(*[child.output() for child in children]))


async def test_children_that_were_asked_of_just_now_are_asked_of_again_a_little_later(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    ask = Inquiries.ask

    def noting(self: Inquiries, inquiry: Inquiry) -> None:
        waits.append(inquiry.wait)
        ask(self, inquiry)

    monkeypatch.setattr(Inquiries, "ask", noting)
    monkeypatch.setattr(
        crossings, "time", SimpleNamespace(monotonic=lambda: 1.0)
    )  # each question is put just after the last
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[over_two_that_wait, waiting], poll=NEVER):
        handle = await client.dispatch(over_two_that_wait)
        await status(client, handle, "sleeping")
        for child in await client.list(parent_id=handle.id):
            await client.signal(Go(), to=child.id)
        assert await handle.output(timeout=20) == ["went", "went"]
    assert max(waits) > 0
