"""Everything through a pooler in transaction mode: polling finds all work, and nothing stays behind in sessions that
belong to nobody.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import psycopg

import pgflow
from tests.crashing import until_killed
from tests.pooler import Pooler, pooler


@pgflow.signal
@dataclass
class Go:
    by: int


@pgflow.message
@dataclass
class Gone:
    by: int


@pgflow.activity
async def add(ctx: pgflow.ActivityContext, number: int) -> int:
    return number + 1


@pgflow.activity(transactional=True)
async def keep(ctx: pgflow.ActivityContext, number: int) -> int:
    for _ in range(10):  # more often than psycopg takes to prepare a statement
        await ctx.connection.execute("INSERT INTO kept VALUES (%s)", [number])
    return number


@pgflow.activity(transactional=True)
def keep_in_thread(ctx: pgflow.ActivityContext, number: int) -> int:
    ctx.connection.execute("INSERT INTO kept VALUES (%s)", [number])
    return number


@pgflow.workflow
async def child(ctx: pgflow.WorkflowContext, number: int) -> int:
    return await ctx.activity(add, number)


@pgflow.workflow
async def everything(ctx: pgflow.WorkflowContext, number: int) -> int:
    await ctx.activity(keep, number)
    await ctx.activity(keep_in_thread, number)
    go: Go | None = await ctx.listen(Go)
    assert go is not None

    async def turn(ctx: pgflow.WorkflowContext, left: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        return pgflow.Break(left) if left == 0 else pgflow.Continue(await ctx.activity(add, left - 2))

    await ctx.loop(turn, 25)
    await ctx.sleep(1.1)
    await ctx.publish(Gone(number))
    handle = await ctx.dispatch(child, number)
    return go.by + await handle.output()


WORKFLOWS = [child, everything]

LEFT = """
SELECT (SELECT array_agg(statement) FROM pg_prepared_statements),
    (SELECT array_agg(c) FROM pg_listening_channels() AS c),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
    (SELECT array_agg(name) FROM pg_settings WHERE source = 'session')
"""


def nothing_is_left(between: Pooler) -> None:
    """Whoever is given one of its sessions next finds it as if new."""
    between.stop()
    assert between.torn == between.refused == 0
    for session in between.sessions:
        assert session.connection.execute(LEFT).fetchone() == (None, None, 0, None)


async def test_every_feature(dsn: str) -> None:
    """Two workers, and clients of either kind."""
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept (number int)")
    with pooler(dsn) as between:
        async with (
            pgflow.Client(between.dsn) as client,
            pgflow.Worker(between.dsn, workflows=WORKFLOWS),
            pgflow.Worker(between.dsn, workflows=WORKFLOWS),
            client.subscribe(Gone) as gone,
        ):
            handles = await client.dispatch_many(everything, [{"number": number} for number in range(20)])
            handles += [await client.dispatch(everything, number) for number in range(20, 30)]
            ended = asyncio.create_task(asyncio.to_thread(by_a_thread, between.dsn))
            for handle in handles:
                await client.signal(Go(100), to=handle.id)
            assert [await handle.output(60) for handle in handles] == [101 + number for number in range(30)]
            assert await ended == 201
            async with asyncio.timeout(20):
                told = {(await anext(gone)).by for _ in range(31)}
            assert told == {*range(30), 100}
        nothing_is_left(between)
    with psycopg.connect(dsn) as connection:
        kept = connection.execute("SELECT number, count(*) FROM kept GROUP BY 1 ORDER BY 1").fetchall()
        assert kept == [(number, 11) for number in [*range(30), 100]]


def by_a_thread(dsn: str) -> Any:
    with pgflow.SyncClient(dsn) as client:
        handle = client.dispatch(everything, 100)
        client.signal(Go(100), to=handle.id)
        return handle.output(60)


async def test_a_dead_worker_is_known_by_its_lease(dsn: str) -> None:
    with pooler(dsn) as between:
        async with pgflow.Client(between.dsn) as client:
            handle = await client.dispatch(child, 1)
            await until_killed(between.dsn, "tests.worker.test_pooler", "journal.after")
            with psycopg.connect(dsn) as connection:
                assert connection.execute(
                    "UPDATE pgflow.workers SET expires_at = now() RETURNING lock_key"
                ).fetchall() == [(None,)]
            async with pgflow.Worker(between.dsn, workflows=WORKFLOWS):
                assert await handle.output(30) == 2
        nothing_is_left(between)
