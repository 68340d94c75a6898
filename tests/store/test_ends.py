"""Whatever ends a workflow enters it in `ends`, and what had ended before is entered by one worker at a time. About 5
seconds.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pgflow
from pgflow import faults
from pgflow.store.database.connections import Database
from pgflow.store.exchange import sweeping
from pgflow.store.exchange.sweeping import LATEST, Sweeper
from pgflow.store.schema import migrations
from pgflow.store.schema.migrations import migrate
from tests.waiting import until

DATED = """
    SELECT DISTINCT r.created_at = w.created_at FROM pgflow.runs AS r JOIN pgflow.workflows AS w ON w.id = r.workflow_id
"""


class Refused(Exception):
    pass


@pgflow.workflow
async def job(ctx: pgflow.WorkflowContext, how: str = "") -> None:
    if how == "fails":
        raise Refused("no")
    if how == "sleeps":
        await ctx.sleep(3600)


def ask(dsn: str, query: str, *values: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


ENTERED = "SELECT status, queue, priority FROM pgflow.ends WHERE workflow_id = %s"
RIGHT = """
    SELECT count(*) FROM pgflow.workflows AS w FULL JOIN pgflow.ends AS e
    ON e.workflow_id = w.id AND e.status = w.status AND e.created_at = w.created_at AND e.name = w.name
        AND e.ended_at = coalesce(w.completed_at, w.created_at)
    WHERE (w.id IS NULL OR w.status IN ('completed', 'cancelled')) AND (w.id IS NULL OR e.workflow_id IS NULL)
"""
"""Ended workflows that are not entered, and entries that are of none."""


async def test_every_kind_of_end(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[job], queues=["slow"]):
        completed = await client.dispatch(job, queue="slow", priority=3)
        await completed.output(30)
        asleep, terminated = [await client.dispatch(job, "sleeps", queue="slow") for _ in range(2)]

        async def sleeping() -> bool:
            return await client.count(status="sleeping") == 2

        await until(sleeping)
        await client.cancel(asleep.id)
        with pytest.raises(pgflow.WorkflowCancelled):
            await asleep.output(30)
        await client.terminate(terminated.id)
        never = await client.dispatch(job)
        await client.cancel(never.id)
        failed = await client.dispatch(job, "fails", queue="slow")
        with pytest.raises(pgflow.WorkflowFailed):
            await failed.output(30)
        assert ask(dsn, ENTERED, completed.id) == [("completed", "slow", 3)]
        assert ask(dsn, ENTERED, asleep.id) == ask(dsn, ENTERED, terminated.id) == [("cancelled", "slow", 0)]
        assert ask(dsn, ENTERED, never.id) == [("cancelled", "default", 0)]
        assert ask(dsn, ENTERED, failed.id) == []
        assert [info.id for info in await client.list(error_type="Refused")] == [failed.id]
        assert [info.id for info in await client.list(queue="slow", status="completed")] == [completed.id]
        info = await client.get(completed.id)
        assert (info.queue, info.priority) == ("slow", 3)
        # A fork keeps the time of its dispatch, also where lists go by it.
        await client.fork(asleep.id, before="{1}")
        assert ask(dsn, DATED) == [(True,)]
        ask(dsn, "DELETE FROM pgflow.workflows WHERE id = %s", never.id)
    assert ask(dsn, ENTERED, never.id) == [] and ask(dsn, RIGHT) == [(0,)]


def test_an_end_that_is_taken_back(dsn: str) -> None:
    """By a transaction that is rolled back, and by whoever lets a workflow go on."""
    with pgflow.SyncClient(dsn) as client:
        handle = client.dispatch(job)
        with psycopg.connect(dsn) as sql:
            sql.execute("SELECT pgflow.terminate(%s)", [handle.id])
            sql.rollback()
        assert ask(dsn, ENTERED, handle.id) == [] and client.count(status="pending") == 1
        client.terminate(handle.id)
        ask(dsn, "SELECT pgflow.forget_end(%s)", handle.id)
        assert ask(dsn, ENTERED, handle.id) == []


OLD = """
    ALTER TABLE pgflow.workflows SET (fillfactor = 10);
    INSERT INTO pgflow.workflows (id, name, input, status, error, created_at, completed_at)
    SELECT md5(n::text)::uuid, 'job', '{}',
        CASE WHEN n % 3 = 0 THEN 'completed' WHEN n % 3 = 1 THEN 'failed' END,
        CASE WHEN n % 3 = 1 THEN '{"type": "Refused"}'::json END,
        now() - n * interval '1 s', CASE WHEN n % 3 < 2 THEN now() END
    FROM generate_series(1, 45000) AS n;
    INSERT INTO pgflow.runs (workflow_id, name, status)
    SELECT id, name, coalesce(status, 'paused') FROM pgflow.workflows WHERE status IS DISTINCT FROM 'completed'
"""
WRONG = """
    SELECT count(*) FROM pgflow.runs AS r JOIN pgflow.workflows AS w ON w.id = r.workflow_id
    WHERE r.created_at IS DISTINCT FROM w.created_at OR r.error_type IS DISTINCT FROM w.error->>'type'
        OR r.failed_at IS DISTINCT FROM w.completed_at
"""


@pytest.fixture
def old(database_dsn: str) -> str:
    """A database of before, of which the upgrade enters nothing since it is large."""
    migrations.upgrade(database_dsn, revision="0016")
    ask(database_dsn, OLD)
    migrate(database_dsn)
    return database_dsn


async def test_what_ended_before_is_entered_once(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are right before, meanwhile and afterwards; one that dies halfway is followed by another."""
    monkeypatch.setattr(sweeping, "SHARE", 1e9)
    assert ask(old, "SELECT count(*) FROM pgflow.ends") == [(0,)]
    assert ask(old, "SELECT count(*) FROM pg_indexes WHERE indexname = 'workflows_parent'") == [(0,)]
    died = False

    def die() -> None:
        nonlocal died
        if not died:
            died = True
            raise psycopg.OperationalError("gone")

    first, second = Sweeper(Database(old), 86_400), Sweeper(Database(old), 86_400)
    async with pgflow.Client(old) as client:
        filters: list[dict[str, Any]] = [{"status": "completed"}, {"error_type": "Refused"}, {"status": "paused"}]

        async def look() -> list[Any]:
            return [[info.id for info in await client.list(limit=50, **asked)] for asked in filters]

        before = await look()
        assert all(len(page) == 50 for page in before)
        with faults.install({"sweeper.after_ends": die}):
            with pytest.raises(psycopg.OperationalError):
                await first.look()
            ((some,),) = ask(old, "SELECT count(*) FROM pgflow.ends")
            assert 0 < some < 15_000 and await look() == before
            assert ask(old, "SELECT place FROM pgflow.chores WHERE name = 'ends'") == [(sweeping.PAGES,)]
            ask(old, "UPDATE pgflow.chores SET held_until = now() WHERE name = 'ends'")
            await client.terminate((await client.list(status="paused", limit=1))[0].id)
            await second.look()
        assert ask(old, "SELECT FROM pgflow.chores WHERE name = 'ends'") == []
        assert ask(old, RIGHT) == [(0,)] and ask(old, "SELECT count(*) FROM pgflow.ends") == [(15_001,)]
        assert ask(old, WRONG) == [(0,)]
        after = await look()
        assert after[:2] == before[:2] and after[2][:-1] == before[2][1:]
        assert await client.count(status="failed", limit=20_000) == 15_000
        assert await second._look_at_ends() >= LATEST  # it is never done again
    for sweeper in (first, second):
        await sweeper._line.drop()
