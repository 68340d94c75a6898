"""Rewinds of what history no longer holds: turns that are trimmed, children without a row or that have gone, an answer
that was lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest

import pgflow
from pgflow.uuid7 import uuid7
from tests.store.scene import Scene
from tests.waiting import status, until

RAN: list[str] = []


@pgflow.signal
@dataclass
class Note:
    text: str


@pgflow.activity
async def work(ctx: pgflow.ActivityContext, name: str) -> str:
    RAN.append(name)
    return name


@pgflow.workflow
async def child(ctx: pgflow.WorkflowContext, name: str) -> str:
    if name == "slow":
        name = (await ctx.listen(Note)).text
    return await ctx.activity(work, name)


@pgflow.workflow
async def parent(ctx: pgflow.WorkflowContext, name: str) -> list[str]:
    first = await ctx.activity(work, "before")
    started = await ctx.dispatch(child, name)
    return [first, await started.output()]


@pgflow.workflow
async def spawner(ctx: pgflow.WorkflowContext, turns: int) -> list[str]:
    async def turn(ctx: pgflow.WorkflowContext, seen: list[str]) -> Any:
        started = await ctx.dispatch(child, "slow")
        seen = [*seen, str(started.id)]
        return pgflow.Break(seen) if len(seen) == turns else pgflow.Continue(seen)

    return await ctx.loop(turn, [], commit_interval=1, keep_iterations=2)


@pgflow.workflow
async def taker(ctx: pgflow.WorkflowContext, turns: int) -> list[str]:
    async def turn(ctx: pgflow.WorkflowContext, seen: list[str]) -> Any:
        seen = [*seen, (await ctx.listen(Note)).text]
        return pgflow.Break(seen) if len(seen) == turns else pgflow.Continue(seen)

    return await ctx.loop(turn, [], commit_interval=1, keep_iterations=2)


WORKFLOWS: list[Any] = [child, parent, spawner, taker]


async def test_signals_taken_in_trimmed_turns_come_back(dsn: str) -> None:
    """In their order, as far as their rows are there."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(taker, 6)
        for text in "abcdef":
            await handle.signal(Note(text))
        assert await handle.output(timeout=60) == list("abcdef")
        assert (await handle.rewind(before="{1}")).signals == 6
        assert await handle.output(timeout=60) == list("abcdef")


async def test_children_of_trimmed_turns_are_cancelled(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(spawner, 6)
        first = [UUID(id) for id in await handle.output(timeout=60)]
        assert sorted((await handle.rewind(before="{1}", children="cancel")).children) == sorted(first)
        second = await handle.output(timeout=60)
        assert len(set(second) - {str(id) for id in first}) == 6
        for id in first:
            with pytest.raises(pgflow.WorkflowCancelled):
                await client.output(id, timeout=60)


async def test_a_child_whose_row_was_never_written_is_cancelled(dsn: str) -> None:
    """As after a crash between the two."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(parent, "slow")
        await status(client, handle, "sleeping")
        await handle.pause()
        (started,) = await client.list(name="child")
        with psycopg.connect(dsn, autocommit=True) as sql:
            sql.execute("DELETE FROM pgflow.events WHERE workflow_id = %s AND location > '1'", [handle.id])
        undone = await handle.rewind(before="{1}", children="cancel")
        assert undone.children == [started.id]
        with pytest.raises(pgflow.WorkflowCancelled):
            await client.output(started.id, timeout=60)
        await until(lambda: _children(dsn) == 2)


def _children(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as sql:
        row = sql.execute("SELECT count(*) FROM pgflow.workflows WHERE name = 'child'").fetchone()
    assert row is not None
    return int(row[0])


async def test_a_child_that_was_pruned_is_not_awaited_again(dsn: str) -> None:
    """Refused, with and without dry_run, and the workflow stays as it was; before its dispatch it can be rewound."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(parent, "quick")
        assert await handle.output(timeout=60) == ["before", "quick"]
        assert await client.prune(older_than=0, name="child") == 1
        for dry_run in (True, False):
            with pytest.raises(pgflow.PgflowError, match="that child has been removed.*Rewind before the step"):
                await handle.rewind(before="{3}", dry_run=dry_run)
        assert await handle.output(timeout=60) == ["before", "quick"]
        await handle.rewind(before="{2}")
        assert await handle.output(timeout=60) == ["before", "quick"] and _children(dsn) == 1


def test_a_request_that_is_sent_twice_is_done_once(dsn: str) -> None:
    """As a client does whose answer was lost; also when it has ended again meanwhile."""
    with pgflow.SyncClient(dsn) as client, psycopg.connect(dsn, autocommit=True) as sql:
        handle = client.dispatch(child, "quick")
        handle.pause()
        scene = Scene(dsn)
        scene.do(
            "INSERT INTO events (workflow_id, location, kind, name, status, completed_at, seq) "
            "VALUES (%s, '1', 'activity', 'work', 'completed', now(), 1)",
            handle.id,
        )
        asked = "SELECT pgflow.rewind(%s, '1', request => %s)"
        request = uuid7()
        first = sql.execute(asked, [handle.id, request]).fetchall()
        client.terminate(handle.id)
        ((again,),) = sql.execute(asked, [handle.id, request]).fetchall()
        assert (again["rewind"], again["steps"]) == (1, 1) and first[0][0]["rewind"] == 1
        assert scene.one("SELECT cardinality(rewinds) FROM workflows WHERE id = %s", handle.id) == 1
        scene.close()


def test_a_unique_one_is_not_rewound_beside_workers_of_before(dsn: str) -> None:
    """These would take the marked name for that of another workflow."""
    with pgflow.SyncClient(dsn) as client, psycopg.connect(dsn, autocommit=True) as sql:
        handle = client.dispatch(child.options(unique=True), "quick")
        client.terminate(handle.id)
        sql.execute(
            "INSERT INTO pgflow.events (workflow_id, location, kind, name, status, completed_at, seq) "
            "VALUES (%s, '1', 'activity', 'work', 'completed', now(), 1)",
            [handle.id],
        )
        sql.execute(
            "INSERT INTO pgflow.workers (host, pid, version, queues, expires_at) "
            "VALUES ('here', 7, '1', '{default}', now() + interval '1 min')"
        )
        with pytest.raises(pgflow.PgflowError, match="workers of an older version.*Replace them"):
            handle.rewind(before="{1}")
        sql.execute("UPDATE pgflow.workers SET names = '{child}'")
        assert handle.rewind(before="{1}").steps == 1
