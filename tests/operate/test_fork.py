"""Forking: a new workflow from a copy of the history before a step."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import psycopg
import pytest

import pgflow
from tests.waiting import status

RAN: list[str] = []


@pgflow.activity
async def work(ctx: pgflow.ActivityContext, name: str) -> str:
    RAN.append(name)
    return name


@pgflow.workflow
async def sequence(ctx: pgflow.WorkflowContext, last: str) -> list[str]:
    first = [await ctx.activity(work, name) for name in "ab"]
    chance = str(ctx.uuid4())
    return [*first, await ctx.activity(work, last), chance]


@pgflow.workflow
async def nested(ctx: pgflow.WorkflowContext) -> list[str]:
    """Three outer turns of three inner ones each."""

    async def outer(
        ctx: pgflow.WorkflowContext, seen: list[str]
    ) -> pgflow.Continue[list[str]] | pgflow.Break[list[str]]:
        number = len(seen) // 3

        async def inner(ctx: pgflow.WorkflowContext, n: int) -> pgflow.Continue[int] | pgflow.Break[int]:
            await ctx.activity(work, f"{number}.{n}")
            return pgflow.Break(n) if n == 2 else pgflow.Continue(n + 1)

        await ctx.activity(work, f"outer {number}")
        await ctx.loop(inner, 0, commit_interval=1)
        state = [*seen, *[f"{number}.{n}" for n in range(3)]]
        return pgflow.Break(state) if len(state) == 9 else pgflow.Continue(state)

    return await ctx.loop(outer, [], commit_interval=1, keep_iterations=2)


WORKFLOWS: list[pgflow.Workflow[Any, Any]] = [sequence, nested]
ALL = [f"{i}.{j}" for i in range(3) for j in range(3)]


@pytest.fixture(autouse=True)
def clean() -> None:
    RAN.clear()


@pytest.mark.parametrize(("before", "again"), [("{1}", "abc"), ("{2}", "bc"), ("3", "c")])
async def test_a_sequence(dsn: str, before: str, again: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        origin = await client.dispatch(sequence, "c", tags={"order": 7})
        output = await origin.output(timeout=20)
        RAN.clear()
        forked = await client.fork(origin.id, before=before)
        assert await forked.output(timeout=20) == output  # the same seed gives the same chance
        assert RAN == list(again)
        info = await forked.info()
        assert (info.name, info.tags, info.input) == ("sequence", {"order": 7}, {"last": "c"})
        assert (await origin.output(timeout=20)) == output


async def test_into_turns_that_have_been_forgotten(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        origin = await client.dispatch(nested)
        assert await origin.output(timeout=20) == ALL
        kept = [event for event in await client.history(origin.id, forgotten=True) if event.kind == "activity"]
        assert [event.input["name"] for event in kept if event.iteration == 1 and "outer" in event.input["name"]] == [
            "outer 1"
        ]
        for before, again in (
            ("{1, 2, 1}", ["outer 1", "1.0", "1.1", "1.2", "outer 2", "2.0", "2.1", "2.2"]),
            ("{1, 3, 1}", ["outer 2", "2.0", "2.1", "2.2"]),
            ("{1, 3, 2, 2, 1}", ["2.1", "2.2"]),
            ("{1, 3, 2, 3, 1}", ["2.2"]),
        ):
            RAN.clear()
            forked = await client.fork(origin.id, before=before)
            assert await forked.output(timeout=20) == ALL, before
            assert RAN == again, before


async def test_refusals(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        origin = await client.dispatch(nested)
        await origin.output(timeout=20)
        with pytest.raises(pgflow.WorkflowNotFound, match=r"has no step at \{1, 1, 1\}"):
            await client.fork(origin.id, before="{1, 1, 1}")
        with pytest.raises(pgflow.WorkflowNotFound, match="fork: there is no workflow"):
            await client.fork(uuid.uuid4(), before="{1}")
        with pytest.raises(ValueError, match="is no location"):
            await client.fork(origin.id, before="one")
        assert len(await client.list()) == 1


async def test_a_workflow_that_goes_on(dsn: str) -> None:
    """Its fork leaves it as it is."""

    @pgflow.workflow
    async def waiting(ctx: pgflow.WorkflowContext) -> str:
        name = await ctx.activity(work, "a")
        await ctx.sleep(3600)
        return name

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[waiting]):
        origin = await client.dispatch(waiting, queue="default")
        await status(client, origin, "sleeping")
        before = await client.history(origin.id)
        forked = await client.fork(origin.id, before="{2}")
        await status(client, forked, "sleeping")
        assert RAN == ["a"]
        assert await client.history(origin.id) == before


async def test_before_what_was_cancelled_later(dsn: str) -> None:
    """The place is a branch, which has no place in the order of completion: the fork is not cancelled by what came
    after.
    """

    @pgflow.workflow
    async def branching(ctx: pgflow.WorkflowContext) -> str:
        name = await ctx.activity(work, "a")
        await ctx.branch(lambda branch: branch.sleep(0.3 if forked else 3600))
        return name

    forked: list[bool] = []
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[branching]):
        origin = await client.dispatch(branching)
        await status(client, origin, "sleeping")
        await client.cancel(origin.id)
        with pytest.raises(pgflow.WorkflowCancelled):
            await origin.output(timeout=20)
        forked.append(True)
        again = await client.fork(origin.id, before="{2}")
        assert await again.output(timeout=20) == "a"


async def test_beside_what_was_cancelled_later(dsn: str) -> None:
    """The cancellation came after the step at the place: the fork is not told of it, and the step beside goes on."""

    @pgflow.workflow
    async def beside(ctx: pgflow.WorkflowContext) -> None:
        sleeping = asyncio.ensure_future(ctx.sleep(3600))
        await ctx.activity(work, "a")
        await ctx.activity(work, "b")
        await sleeping

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[beside]):
        origin = await client.dispatch(beside)
        await status(client, origin, "sleeping")
        await client.cancel(origin.id)
        with pytest.raises(pgflow.WorkflowCancelled):
            await origin.output(timeout=20)
        forked = await client.fork(origin.id, before="{3}")
        await status(client, forked, "sleeping")
        assert RAN == ["a", "b", "b"]
        assert [event.status for event in await client.history(forked.id)] == ["pending", "completed", "completed"]
        await client.cancel(forked.id)
        with pytest.raises(pgflow.WorkflowCancelled):
            await forked.output(timeout=20)


@pytest.mark.parametrize("said", [True, False])
async def test_a_timeout_that_ended_when_it_was_written(dsn: str, said: bool) -> None:
    """It was open around a step that was written with it, whether its row says when it ended or leaves that out."""
    async with pgflow.Client(dsn) as client:
        origin = await client.dispatch(sequence, "c")
        with psycopg.connect(dsn) as sql:
            for location, kind in (("1", "timeout"), ("2", "activity")):
                sql.execute(
                    "INSERT INTO pgflow.events (workflow_id, location, kind, status, completed_at) "
                    "VALUES (%s, %s, %s, 'completed', CASE WHEN %s THEN now() END)",
                    [origin.id, location, kind, said],
                )
        forked = await client.fork(origin.id, before="{2}")
        assert [(event.kind, event.status) for event in await client.history(forked.id)] == [("timeout", "pending")]
