"""Waking what sleeps: attempts that wait are made at once, and nothing of the code's own is cut short."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import pgflow
from tests.cli.test_audit import Command
from tests.waiting import status, until

BROKEN: list[str] = []
TRIED: list[str] = []


@pytest.fixture(autouse=True)
def clean() -> None:
    BROKEN.clear()
    TRIED.clear()


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=3, initial=timedelta(days=1), jitter=False))
async def call(ctx: pgflow.ActivityContext, what: str) -> str:
    TRIED.append(what)
    if BROKEN:
        raise ConnectionError("the bank is away")
    return f"{what} at attempt {ctx.attempt}"


@pgflow.workflow
async def pays(ctx: pgflow.WorkflowContext) -> list[str]:
    return list(await asyncio.gather(ctx.activity(call, "one"), ctx.activity(call, "two")))


@pgflow.workflow
async def naps(ctx: pgflow.WorkflowContext) -> str:
    try:
        async with ctx.timeout(timedelta(days=1)):
            await ctx.sleep(timedelta(days=2))
    except TimeoutError:
        return "timed out"
    return "slept"


WORKFLOWS = [pays, naps]


def ask(dsn: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query, values).fetchall()


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_attempts_that_wait_are_made_at_once(dsn: str, elsewhere: bool) -> None:
    """By the worker that has it in memory, as it was before, or by another one; by the hint alone."""
    BROKEN.append("yes")
    async with pgflow.Client(dsn, actor="kim") as client:
        async with pgflow.Worker(dsn, workflows=WORKFLOWS, poll=60):
            handle = await client.dispatch(pays)
            await status(client, handle, "sleeping")
            assert sorted(TRIED) == ["one", "two"]
            if not elsewhere:
                assert await client.wake(handle.id, reason="try") is True
                await until(lambda: sorted(TRIED) == ["one", "one", "two", "two"], "the second attempts")
                await status(client, handle, "sleeping")
                BROKEN.clear()
                assert await handle.wake() is True
                assert await handle.output(30) == ["one at attempt 3", "two at attempt 3"]
        if elsewhere:
            BROKEN.clear()
            assert await handle.wake() is True
            async with pgflow.Worker(dsn, workflows=WORKFLOWS, poll=60):
                assert await handle.output(30) == ["one at attempt 2", "two at attempt 2"]
        entries = await client.audit(handle.id, operation="wake")
        assert (entries[-1].actor, entries[-1].details) == ("kim", {"attempts": 2})


@pytest.mark.parametrize("cached", [0, 1000])
async def test_sleeps_and_deadlines_stay(dsn: str, cached: int) -> None:
    query = "SELECT kind, wake_at FROM pgflow.events ORDER BY location"
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        handle = await client.dispatch(naps)
        await status(client, handle, "sleeping")
        before, epoch = ask(dsn, query), ask(dsn, "SELECT epoch, wake_at FROM pgflow.runs")[0]
        assert await client.wake(handle.id) is True
        await until(lambda: ask(dsn, "SELECT epoch FROM pgflow.runs") == [(epoch[0] + 1,)], "a look")
        await status(client, handle, "sleeping")
        assert ask(dsn, query) == before
        assert ask(dsn, "SELECT wake_at FROM pgflow.runs") == [(epoch[1],)]


async def test_who_does_not_sleep(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        pending = await client.dispatch(pays, queue="nowhere")
        assert await pending.wake() is False
        await client.pause(pending.id)
        assert await pending.wake() is False
        await client.terminate(pending.id)
        assert await pending.wake() is False
        with pytest.raises(pgflow.WorkflowNotFound):
            await client.wake("00000000-0000-7000-8000-000000000000")
        assert await client.audit(operation="wake") == []


def test_the_command_and_the_synchronous_client(dsn: str) -> None:
    with pgflow.SyncClient(dsn) as client, psycopg.connect(dsn, autocommit=True) as sql:
        handle = client.dispatch(naps)
        sql.execute("UPDATE pgflow.runs SET status = 'sleeping', epoch = 1")
        assert client.wake(handle.id) is True and handle.wake() is False
        sql.execute("UPDATE pgflow.runs SET status = 'sleeping'")
        command = Command(dsn)
        assert command("workflow", "wake", str(handle.id), "--reason", "why not") == "it looks again"
        assert command("workflow", "wake", str(handle.id), code=1) == "it does not sleep"
        assert "Example:" in command("workflow", "wake", "--help")
        assert [entry.reason for entry in client.audit(operation="wake")] == ["why not", None]
