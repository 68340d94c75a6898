"""Commits that wait for a standby that never answers: they do not count as done, and are not cancelled. About 10
seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

import pgflow
from pgflow.store.database.connections import Database
from pgflow.store.database.pipeline import flush
from pgflow.store.journal.activity_session import PURPOSE, AsyncSession
from tests.failover.servers import Server, place
from tests.failover.test_failover import come_true

WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'pgflow {}'"
CANCELLED = "canceling wait for synchronous replication"

began: list[str] = []
go_on: asyncio.Event


@pgflow.activity
async def step(ctx: pgflow.ActivityContext, name: str) -> str:
    began.append(name)
    await go_on.wait()
    return name


@pgflow.activity(transactional=True)
async def booking(ctx: pgflow.ActivityContext, name: str) -> str:
    began.append(name)
    await go_on.wait()
    await ctx.connection.execute("INSERT INTO effects VALUES (%s)", [name])
    return name


@pgflow.workflow
async def twice(ctx: pgflow.WorkflowContext, transactional: bool) -> list[str]:
    return [await ctx.activity(booking if transactional else step, "first"), await ctx.activity(step, "second")]


@pytest.fixture(scope="module")
def alone() -> Iterator[Server]:
    """A server without a standby."""
    with place() as made, made.server("alone") as server:
        yield server


@pytest_asyncio.fixture
async def lonely(alone: Server) -> AsyncIterator[Server]:
    """The same; at the end it waits for nobody."""
    global go_on
    began.clear()
    go_on = asyncio.Event()
    yield alone
    await asyncio.to_thread(wait_for, alone, "")


def wait_for(server: Server, names: str) -> None:
    """Let commits wait for standbys of these names, from now on."""
    server.do(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()")


def log_of(server: Server) -> str:
    return (server.home / "log").read_text()


@pytest.mark.parametrize("way", ["flush", "psycopg", "a transactional activity"])
async def test_whoever_gives_a_commit_up_does_not_cancel_it(lonely: Server, way: str) -> None:
    said = log_of(lonely).count(CANCELLED)
    session = await AsyncSession.open(Database(lonely.dsn))
    await session.begin()
    connection = await Database(lonely.dsn).connect(PURPOSE)
    await asyncio.to_thread(wait_for, lonely, "nobody")
    await come_true(lambda: lonely.all("SHOW synchronous_standby_names") == ["nobody"], "the setting")
    insert = b"INSERT INTO public.effects VALUES ('kept')"

    async def execute() -> None:
        if way == "flush":
            await flush(connection, (insert, {}))
        elif way == "psycopg":
            await connection.execute(insert)
        else:
            await session.execute(insert)
            await session.end(commit=True)

    task: asyncio.Task[Any] = asyncio.create_task(execute())
    await come_true(lambda: lonely.all(WAITING.format(PURPOSE)), "a commit that waits")
    task.cancel()
    for _ in range(3):  # a request to cancel would have arrived by then
        await come_true(lambda: lonely.all(WAITING.format(PURPOSE)), "a commit that waits")
    await asyncio.to_thread(wait_for, lonely, "")
    with pytest.raises(asyncio.CancelledError):
        await task
    await connection.close()
    await session.close()
    await come_true(lambda: lonely.all("SELECT 1 FROM effects WHERE what = 'kept'"), "the commit")
    lonely.do("DELETE FROM effects")
    assert log_of(lonely).count(CANCELLED) == said


@pytest.mark.parametrize("transactional", [False, True])
async def test_a_commit_that_somebody_cancels_is_not_believed(lonely: Server, transactional: bool) -> None:
    """The server says that it is done. Nothing is built on that until a standby has it, or none is waited for."""
    said = log_of(lonely).count(CANCELLED)
    async with pgflow.Client(lonely.dsn) as client, pgflow.Worker(lonely.dsn, workflows=[twice], lease=600):
        handle = await client.dispatch(twice, transactional)
        await come_true(lambda: began == ["first"], "an activity in flight")
        await asyncio.to_thread(wait_for, lonely, "nobody")
        await come_true(lambda: lonely.all("SHOW synchronous_standby_names") == ["nobody"], "the setting")
        go_on.set()
        waiting = WAITING.format("activity" if transactional else "journal")
        await come_true(lambda: lonely.all(waiting), "a commit that waits")
        (first,) = lonely.all(waiting)
        lonely.do(f"SELECT pg_cancel_backend({first})")
        await come_true(lambda: log_of(lonely).count(CANCELLED) > said, "the server's answer")
        await come_true(
            lambda: set(lonely.all(WAITING.format("transaction''s fate" if transactional else "journal"))) - {first},
            "the commit that makes sure",
        )
        assert lonely.all(f"SELECT count(*) FROM pgflow.events WHERE workflow_id = '{handle.id}'") == [1], (
            "it is there, for others to see"
        )
        assert began == ["first"]
        await asyncio.to_thread(wait_for, lonely, "")
        assert await handle.output(60) == ["first", "second"]
    assert began == ["first", "second"]
    assert lonely.all("SELECT what FROM effects") == ["first"] * transactional
    lonely.do("DELETE FROM effects")
