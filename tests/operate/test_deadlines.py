"""Deadlines of whole workflows: who is cancelled by them, who is ended in SQL, and what comes of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import pgflow
from pgflow import faults
from tests.crashing import until_killed
from tests.waiting import status, until

DONE: list[str] = []


@pgflow.signal
@dataclass
class Go:
    text: str


@pytest.fixture(autouse=True)
def clean() -> None:
    DONE.clear()


@pgflow.activity
async def note(ctx: pgflow.ActivityContext, what: str) -> None:
    DONE.append(what)


@pgflow.activity
async def stay(ctx: pgflow.ActivityContext) -> None:
    DONE.append("stays")
    try:
        await asyncio.Event().wait()
    finally:
        DONE.append("left")


@pgflow.workflow(timeout=timedelta(hours=1))
async def listens(ctx: pgflow.WorkflowContext) -> str:
    go: Go = await ctx.listen(Go)
    return go.text


@pgflow.workflow(timeout=3600)
async def compensates(ctx: pgflow.WorkflowContext) -> None:
    try:
        await ctx.listen(Go)
    except asyncio.CancelledError:
        await ctx.activity(note, "compensating")
        await ctx.listen(Go)
        await ctx.activity(note, "compensated")
        raise


@pgflow.workflow(timeout=3600)
async def returns(ctx: pgflow.WorkflowContext) -> str:
    try:
        await ctx.activity(stay)
    except asyncio.CancelledError:
        await ctx.activity(note, "caught")
    return "returned"


@pgflow.workflow(timeout=3600)
async def works(ctx: pgflow.WorkflowContext) -> None:
    await ctx.activity(stay)


@pgflow.workflow
async def parent(ctx: pgflow.WorkflowContext) -> str:
    child = await ctx.dispatch(listens.options(timeout=0.05))
    try:
        return await child.output()
    except pgflow.WorkflowTimeout as error:
        return error.error_message


@pgflow.workflow
async def fails_by_its_child(ctx: pgflow.WorkflowContext) -> None:
    await (await ctx.dispatch(listens.options(timeout=0.05))).output()


WORKFLOWS = [listens, compensates, returns, works, parent, fails_by_its_child]


def sql(dsn: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query, values)
        return cursor.fetchall() if cursor.description else []


def make_due(dsn: str, handle: Any) -> None:
    """Let the deadline be now."""
    sql(dsn, "UPDATE pgflow.runs SET deadline = now() WHERE workflow_id = %s", handle.id)


def passed(dsn: str, handle: Any) -> list[tuple[Any, ...]]:
    """Let the deadline be now, and pass; what `pass_deadlines` says of it."""
    make_due(dsn, handle)
    return sql(dsn, "SELECT ended, after FROM pgflow.pass_deadlines() WHERE id = %s", handle.id)


async def timed_out(handle: Any, match: str = "it had not ended within") -> None:
    with pytest.raises(pgflow.WorkflowTimeout, match=match):
        await handle.output(30)


async def test_by_a_hint_and_a_timer_alone(dsn: str) -> None:
    """The worker does not poll, knows neither name nor queue of the one, and has the other asleep."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, poll=60):
        await asyncio.sleep(0)
        asleep = await client.dispatch(listens)
        await status(client, asleep, "sleeping")
        unknown = await client.start(listens.options(name="nobody's", queue="nowhere", timeout=0.3))
        short = await client.dispatch(listens.options(timeout=timedelta(seconds=0.3)))
        await timed_out(unknown, r"no worker has taken it within 0.3 s")
        await timed_out(short)
        assert (await asleep.info()).status == "sleeping"


async def test_without_hints(dsn: str) -> None:
    """The next look finds it."""
    async with pgflow.Client(dsn, hints=False) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, poll=0.1):
        handle = await client.start(listens.options(name="nobody's", timeout=0.2))
        await timed_out(handle, "no worker has taken it")


async def test_why_it_waits(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(compensates)
        await status(client, handle, "sleeping")
        assert "The deadline of the whole workflow is" in " ".join((await client.explain(handle.id)).reasons)
        passed(dsn, handle)
        await until(lambda: DONE == ["compensating"])
        assert "Its deadline has passed" in " ".join((await client.explain(handle.id)).reasons)


async def test_many_at_once(dsn: str) -> None:
    """More than one statement takes."""
    async with pgflow.Client(dsn) as client:
        handles = await client.dispatch_many(listens, [{}] * 250)
        sql(dsn, "UPDATE pgflow.runs SET deadline = now()")
        async with pgflow.Worker(dsn, workflows=[parent], poll=60):
            for handle in handles:
                await timed_out(handle, "no worker has taken it")


async def test_one_that_compensates_needs_its_time(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(compensates)
        await status(client, handle, "sleeping")
        assert passed(dsn, handle) == [(False, 3600.0)]
        await until(lambda: DONE == ["compensating"])
        await status(client, handle, "sleeping")
        assert passed(dsn, handle) == [], "it has one deadline, which has passed"
        await handle.signal(Go("on"))
        await timed_out(handle, "it had not ended within 3600 s, and was cancelled")
        assert DONE == ["compensating", "compensated"]
        info = await handle.info()
        assert (info.status, info.error and info.error["type"]) == ("failed", "WorkflowTimeout")


async def test_a_body_that_returns_is_completed(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(returns)
        await until(lambda: DONE == ["stays"])
        make_due(dsn, handle)
        sql(dsn, "SELECT pgflow.pass_deadlines()")
        assert await handle.output(30) == "returned"
        assert sorted(DONE) == ["caught", "left", "stays"]


async def test_one_that_runs(dsn: str) -> None:
    """It is in memory, and hears of it there; a retry runs again what was cut off."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, poll=60):
        handle = await client.dispatch(works)
        await until(lambda: DONE == ["stays"])
        assert passed(dsn, handle) == [(False, 3600.0)]
        await timed_out(handle)
        await until(lambda: DONE == ["stays", "left"])
        await client.retry(handle.id)
        await until(lambda: DONE == ["stays", "left", "stays"])


async def test_a_pause_does_not_stop_it(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        begun = await client.dispatch(listens)
        await status(client, begun, "sleeping")
        await client.pause(begun.id)
        fresh = await client.dispatch(listens, queue="nowhere", unique=True)
        await client.pause(fresh.id)
        assert passed(dsn, begun) == [(False, 3600.0)]
        assert passed(dsn, fresh) == [(True, 3600.0)]
        await timed_out(begun)
        await timed_out(fresh, "no worker has taken it")
        again = await client.dispatch(listens, queue="nowhere", unique=True)
        assert again.id != fresh.id, "the key is free"
        with pytest.raises(pgflow.PgflowError, match="is unique, and meanwhile"):
            await client.retry(fresh.id)


async def test_all_workers_are_down(dsn: str) -> None:
    """One dies in the middle of its compensation, and nobody is there when the deadline of the other passes."""
    async with pgflow.Client(dsn) as client:
        killed = await client.dispatch(compensates)
        asleep = await client.dispatch(listens)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            await status(client, killed, "sleeping")
            await status(client, asleep, "sleeping")
        make_due(dsn, killed)
        await until_killed(dsn, __name__, "journal.before", 2)
        assert sql(dsn, "SELECT timed_out, deadline FROM pgflow.runs WHERE workflow_id = %s", killed.id) == [
            (3600.0, None)
        ]
        make_due(dsn, asleep)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            await timed_out(asleep)
            await until(lambda: DONE == ["compensating"])
            await killed.signal(Go("on"))
            await timed_out(killed)


async def test_during_another_cancel(dsn: str) -> None:
    """Whoever cancels first says how it ends, and the compensation is not cut short."""
    async with pgflow.Client(dsn) as client:
        early = await client.dispatch(compensates, queue="nowhere")
        async with pgflow.Worker(dsn, workflows=WORKFLOWS, queues=["default", "nowhere"]):
            handle = await client.dispatch(compensates)
            await status(client, handle, "sleeping")
            await status(client, early, "sleeping")
            await client.cancel(handle.id)
            await until(lambda: DONE == ["compensating"])
            await status(client, handle, "sleeping")
            assert passed(dsn, handle) == []
        await client.cancel(early.id)
        assert passed(dsn, early) == [], "the request waits for its delivery"
        async with pgflow.Worker(dsn, workflows=WORKFLOWS, queues=["default", "nowhere"]):
            for one in (handle, early):
                await one.signal(Go("on"))
                with pytest.raises(pgflow.WorkflowCancelled):
                    await one.output(30)
        assert DONE.count("compensated") == 2


async def test_a_cancel_after_the_deadline(dsn: str) -> None:
    """It is delivered as any second request, and the workflow ends by its deadline all the same."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(compensates)
        await status(client, handle, "sleeping")
        passed(dsn, handle)
        await until(lambda: DONE == ["compensating"])
        await status(client, handle, "sleeping")
        await client.cancel(handle.id)
        await timed_out(handle)
        with pytest.raises(pgflow.PgflowError, match=r"had gone on .* fork\("):
            await client.retry(handle.id)


async def test_a_retry_counts_anew(dsn: str) -> None:
    """It runs again what the deadline had cancelled."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(listens)
        await status(client, handle, "sleeping")
        passed(dsn, handle)
        await timed_out(handle)
        await client.retry(handle.id)
        await status(client, handle, "sleeping")
        query = "SELECT deadline > now() + interval '50 minutes', timed_out FROM pgflow.runs WHERE workflow_id = %s"
        assert sql(dsn, query, handle.id) == [(True, None)]
        await handle.signal(Go("at last"))
        assert await handle.output(30) == "at last"


async def test_a_retry_of_one_that_was_never_claimed(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(listens)
        assert passed(dsn, handle) == [(True, 3600.0)]
        await timed_out(handle, "no worker has taken it")
        await client.retry(handle.id)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            await handle.signal(Go("at last"))
            assert await handle.output(30) == "at last"


async def test_forks_of_one_that_has_compensated(dsn: str) -> None:
    """Before its deadline one has another, behind it the compensation goes on to the same end."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(compensates)
        await status(client, handle, "sleeping")
        passed(dsn, handle)
        await until(lambda: DONE == ["compensating"])
        await handle.signal(Go("on"))
        await timed_out(handle)
        with pytest.raises(pgflow.PgflowError, match=r"fork\(.*before=\{1\}\)"):
            await client.retry(handle.id)
        before, behind = await client.fork(handle.id, "{1}"), await client.fork(handle.id, "{3}")
        query = "SELECT deadline > now(), timed_out FROM pgflow.runs WHERE workflow_id = %s"
        assert sql(dsn, query, before.id) == [(True, None)]
        assert sql(dsn, query, behind.id) == [(None, 3600.0)]
        await behind.signal(Go("on"))
        await timed_out(behind)


async def test_who_carries_it(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        ids = [handle.id for handle in await client.dispatch_many(listens.options(timeout=60), [{}, {}])]
        ids.append((await client.dispatch(listens.options(timeout=None))).id)
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            ids.append((await client.dispatch(listens, connection=connection)).id)
            ids.append((await client.dispatch(listens.options(timeout=1), unique=True, connection=connection)).id)
        ids += [id for (id,) in sql(dsn, "SELECT pgflow.dispatch('listens', timeout => interval '2 minutes')")]
        ids += [
            id
            for (id,) in sql(
                dsn, "SELECT pgflow.dispatch('listens', tags => '{\"a\": 1}', is_unique => true, timeout => '30 days')"
            )
        ]
    with pgflow.SyncClient(dsn) as same:
        ids.append(same.start(listens.options(timeout=5)).id)
    query = (
        "SELECT w.timeout, extract(epoch FROM r.deadline - w.created_at)::float8 FROM pgflow.workflows AS w "
        "JOIN pgflow.runs AS r ON r.workflow_id = w.id WHERE w.id = %s"
    )
    wanted = [60.0, 60.0, None, 3600.0, 1.0, 120.0, 2_592_000.0, 5.0]
    assert [sql(dsn, query, id) for id in ids] == [[(timeout, timeout)] for timeout in wanted]


async def test_children(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, poll=60):
        handle = await client.dispatch(parent)
        assert "within 0.05 s" in await handle.output(30)
        with pytest.raises(pgflow.WorkflowFailed) as caught:
            await (await client.dispatch(fails_by_its_child)).output(30)
        assert type(caught.value) is pgflow.WorkflowFailed, "it had no deadline itself"


def test_wrong_timeouts(dsn: str) -> None:
    for wrong in (0, -1, float("nan"), "1", True, 1e12):
        with pytest.raises(ValueError, match="timeout of a workflow"):
            listens.options(timeout=wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout of a workflow"):
            pgflow.workflow(timeout=wrong)  # type: ignore[arg-type]
    with pgflow.SyncClient(dsn) as client, pytest.raises(TypeError, match="timeout"):
        client.dispatch(listens, timeout=5)  # it would be an argument of the workflow
    for wrong in ("0", "-1 second", "200 years"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="timeout is"):
            sql(dsn, "SELECT pgflow.dispatch('listens', timeout => %s)", wrong)
    assert sql(dsn, "SELECT count(*) FROM pgflow.workflows") == [(0,)]


async def test_beside_a_claim(dsn: str) -> None:
    """What a claim has locked is left for the next time, and is cancelled then."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(listens)
        make_due(dsn, handle)
        async with await psycopg.AsyncConnection.connect(dsn) as other:
            await other.execute("UPDATE pgflow.runs SET status = 'running', epoch = 1, worker_id = 7, wake_at = NULL")
            assert sql(dsn, "SELECT id FROM pgflow.pass_deadlines()") == []
        assert sql(dsn, "SELECT ended FROM pgflow.pass_deadlines()") == [(False,)]
        assert sql(dsn, "SELECT status, cancel_requested, timed_out FROM pgflow.runs") == [("running", True, 3600.0)]


async def test_beside_the_write_that_ends_it(dsn: str) -> None:
    """The deadline passes while the last rows are on their way: it has returned."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        if DONE and not reached.is_set():
            reached.set()
            await go_on.wait()

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(listens)
        await status(client, handle, "sleeping")
        with faults.install({"journal.before": write}):
            DONE.append("now")
            await handle.signal(Go("in time"))
            await reached.wait()
            assert passed(dsn, handle) == [(False, 3600.0)]
            go_on.set()
            assert await handle.output(30) == "in time"


async def test_while_it_is_handed_back(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        worker = pgflow.Worker(dsn, workflows=WORKFLOWS, grace=0.1)
        async with worker:
            handle = await client.dispatch(returns)
            await until(lambda: DONE == ["stays"])
            worker.stop()
            assert passed(dsn, handle) == [(False, 3600.0)]
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            assert await handle.output(30) == "returned"
        assert "caught" in DONE


@pytest.mark.parametrize("name", ["claim", "claim_hinted", "claim_suspected", "dispatch_fresh", "journal_outcomes"])
def test_who_has_none_has_the_same_statements(name: str) -> None:
    from pgflow.store.database.connections import statement

    assert b"deadline" not in statement(name, "pgflow") and b"timed_out" not in statement(name, "pgflow")


async def test_a_rewind_counts_anew(dsn: str) -> None:
    """From before the cancellation; from behind it the compensation goes on, to the same end."""
    query = "SELECT deadline > now(), timed_out FROM pgflow.runs WHERE workflow_id = %s"
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            handle = await client.dispatch(compensates)
            await status(client, handle, "sleeping")
            passed(dsn, handle)
            await until(lambda: DONE == ["compensating"])
            await handle.signal(Go("on"))
            await timed_out(handle)
        await client.rewind(handle.id, "{4}")
        assert sql(dsn, query, handle.id) == [(None, 3600.0)]
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            await timed_out(handle)
        assert DONE.count("compensated") == 2
        await client.rewind(handle.id, "{1}")
        assert sql(dsn, query, handle.id) == [(True, None)]
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            await handle.output(30)  # the signal has come back, and it had time for that
