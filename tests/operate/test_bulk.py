"""Operating many workflows at once: by ids and by filters, some refuse, nobody else is held up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

import pgflow
from tests.waiting import until

BROKEN: set[str] = set()


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def work(ctx: pgflow.ActivityContext, what: str) -> str:
    if what in BROKEN:
        raise RuntimeError(f"{what} is broken")
    return what


@pgflow.workflow
async def job(ctx: pgflow.WorkflowContext, what: str = "a") -> str:
    return await ctx.activity(work, what)


@pgflow.workflow
async def compensating(ctx: pgflow.WorkflowContext) -> str:
    try:
        return await ctx.activity(work, "a")
    except pgflow.ActivityFailed:
        await ctx.activity(work, "undo")
        raise


@pytest.fixture(autouse=True)
def clean() -> None:
    BROKEN.clear()


def ask(dsn: str, query: str) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as sql:
        cursor = sql.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


async def test_all_failed_ones_are_retried_but_those_that_refuse(dsn: str) -> None:
    BROKEN.add("a")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[job, compensating]):
        jobs = await client.dispatch_many(job, [{} for _ in range(5)], tags={"kind": "x"})
        saga = await client.dispatch(compensating, tags={"kind": "x"})
        await until(lambda: ask(dsn, "SELECT count(*) FROM pgflow.runs WHERE status = 'failed'") == [(6,)])
        BROKEN.clear()
        would = await client.retry_many(tags={"kind": "x"}, dry_run=True)
        assert len(would.done) == 5 and list(would.refused) == [saga.id]
        assert ask(dsn, "SELECT count(*) FROM pgflow.runs WHERE status = 'failed'") == [(6,)], "nothing was done"
        assert await client.audit() == []
        result = await client.retry_many(tags={"kind": "x"}, reason="mended")
        assert sorted(result.done) == sorted(handle.id for handle in jobs) and not result.more
        assert list(result.refused) == [saga.id]
        assert "had gone on from the failure" in result.refused[saga.id] and "fork it" in result.refused[saga.id]
        for handle in jobs:
            assert await handle.output(20) == "a"
        entries = await client.audit()
        assert [(e.operation, e.reason) for e in entries] == [("retry", "mended")] * 5
        assert (await client.retry_many(name="job")).done == [], "none is left"


async def test_any_filter_of_a_list_will_do(dsn: str) -> None:
    """Also what workflows have come to; the statuses of the operation go with it, unless others are named."""
    BROKEN.add("a")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[job]):
        failed = await client.dispatch_many(job, [{} for _ in range(3)])
        late = await client.dispatch(job, run_at=datetime.now(UTC) + timedelta(days=1))
        await until(lambda: ask(dsn, "SELECT count(*) FROM pgflow.runs WHERE status = 'failed'") == [(3,)])
        ids = sorted(handle.id for handle in failed)
        hour = datetime.now(UTC) - timedelta(hours=1)
        assert (await client.retry_many(error_type="OSError", dry_run=True)).done == []
        for asked in ({"error_type": "ActivityFailed"}, {"ended_after": hour}, {"created_after": hour}):
            assert sorted((await client.retry_many(**asked, dry_run=True)).done) == ids, asked
        both = await client.terminate_many(status=["failed", "pending"], created_after=hour, dry_run=True)
        assert both.done == [late.id] and sorted(both.refused) == ids, "failed ones refuse, and are named"
        with pytest.raises(TypeError, match="retry_many.. got an unexpected keyword argument 'nmae'"):
            await client.retry_many(nmae="job")  # type: ignore[call-arg]


async def test_by_ids(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        first, second = [await client.dispatch(job) for _ in range(2)]
        unknown = uuid4()
        result = await client.pause_many(ids=[first.id, str(second.id), unknown, first.id])
        assert sorted(result.done) == sorted([first.id, second.id])
        assert "there is no workflow" in result.refused[unknown]
        result = await client.resume_many(ids=[first.id])
        assert result.done == [first.id]
        result = await client.resume_many(ids=[first.id])
        assert result.refused == {first.id: "it is not paused"}
        result = await client.cancel_many(ids=[first.id])
        assert result.done == [first.id]
        result = await client.cancel_many(ids=[first.id])
        assert result.refused == {first.id: "it has ended already"}
        assert (await client.cancel_many(ids=[])).done == []


async def test_more_than_the_limit_and_more_than_a_page(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgflow.client.bulk._PAGE", 2)
    monkeypatch.setattr("pgflow.client.bulk._AT_ONCE", 3)
    async with pgflow.Client(dsn) as client:
        all_ids = [handle.id for handle in await client.dispatch_many("gone", [{} for _ in range(9)])]
        result = await client.terminate_many(name="gone", limit=4)
        assert sorted(result.done) == sorted(all_ids)[-4:] and result.more, "the youngest first"
        result = await client.terminate_many(name="gone", limit=5)
        assert len(result.done) == 5 and not result.more
        assert ask(dsn, "SELECT DISTINCT status FROM pgflow.workflows") == [("cancelled",)]


async def test_one_that_somebody_has_locked_holds_up_no_other(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        handles = await client.dispatch_many(job, [{} for _ in range(3)])
        with psycopg.connect(dsn) as sql:
            sql.execute("SELECT FROM pgflow.runs WHERE workflow_id = %s FOR UPDATE", [handles[1].id])
            result = await client.terminate_many(name="job")
            assert sorted(result.done) == sorted([handles[0].id, handles[2].id])
            assert list(result.refused) == [handles[1].id] and "lock timeout" in result.refused[handles[1].id]
        assert (await client.terminate_many(name="job")).done == [handles[1].id]


async def test_many_that_are_locked_are_waited_for_once(dsn: str) -> None:
    """What was done before them is locked meanwhile."""
    async with pgflow.Client(dsn) as client, await psycopg.AsyncConnection.connect(dsn) as stranger:
        handles = [await client.dispatch("unknown") for _ in range(40)]
        await stranger.execute("SELECT FROM pgflow.runs WHERE workflow_id <> %s FOR UPDATE", (handles[0].id,))
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as own:
            # Waiting a second for each would take longer than this by far.
            await own.execute("SET statement_timeout = '30s'")
            cursor = await own.execute(
                "SELECT id, refused FROM pgflow.operate_many('terminate', %s)", ([handle.id for handle in handles],)
            )
            answers: dict[UUID, str | None] = dict(await cursor.fetchall())
    assert [id for id, refused in answers.items() if refused is None] == [handles[0].id]
    assert len(answers) == 40


async def test_without_hints(dsn: str) -> None:
    async with pgflow.Client(dsn, hints=False) as client:
        handle = await client.dispatch(job)
        with psycopg.connect(dsn, autocommit=True) as sql:
            ((channel,),) = sql.execute("SELECT 'pgflow_done_' || left(md5('pgflow'), 16)").fetchall()
            sql.execute(f"LISTEN {channel}".encode())
            assert (await client.terminate_many(ids=[handle.id])).done == [handle.id]
            assert list(sql.notifies(timeout=0.2)) == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "expected ids, or a filter .* found neither"),
        ({"tags": {}}, "found neither"),
        ({"ids": [], "name": "job"}, "expected ids or a filter, found ids and name"),
        ({"ids": "0198c0de-0000-7000-8000-000000000000"}, "expected several ids"),
        ({"ids": ["x"]}, "UUID"),
        ({"name": "job", "limit": 0}, "limit=0: expected a whole number, at least 1"),
        ({"name": "job", "limit": True}, "limit=True"),
        ({"name": "job", "status": "broken"}, "status='broken'"),
        ({"tags": {"a": []}}, "flat"),
        ({"name": "job", "reason": "x" * 2001}, "2,?000"),
    ],
)
async def test_bad_input_changes_nothing(dsn: str, asked: dict[str, Any], said: str) -> None:
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(job)
        for method in ("cancel_many", "pause_many", "resume_many", "retry_many", "terminate_many"):
            with pytest.raises((ValueError, TypeError, pgflow.SerializationError), match=said):
                await getattr(client, method)(**asked)
        assert (await handle.info()).status == "pending"


def test_a_synchronous_client(dsn: str) -> None:
    with pgflow.SyncClient(dsn) as client:
        handle = client.dispatch("gone")
        assert client.cancel_many(name="gone").done == [handle.id]
        assert client.terminate(client.dispatch("gone").id) is True


def test_by_sql(dsn: str) -> None:
    with pgflow.SyncClient(dsn) as client:
        id: UUID = client.dispatch("gone").id
    assert ask(dsn, f"SELECT * FROM pgflow.operate_many('terminate', ARRAY['{id}']::uuid[])") == [(id, None)]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="the operation is 'drop'"):
        ask(dsn, "SELECT * FROM pgflow.operate_many('drop', '{}')")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="there are 1001 ids, expected at most 1000"):
        ask(
            dsn,
            "SELECT pgflow.operate_many('cancel', ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 1001)))",
        )
