"""`pgflow workflow show` and `client.explain`: why a workflow waits, in words."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner

import pgflow
from pgflow.cli import main, watch
from tests.waiting import until


@pgflow.signal
@dataclass
class Word:
    text: str


@pgflow.signal
@dataclass
class Other:
    number: int


@pgflow.activity(retry=pgflow.RetryPolicy(initial=3600, maximum=3600))
async def fails(ctx: pgflow.ActivityContext) -> None:
    raise ValueError("the bank is closed")


@pgflow.activity
async def hangs(ctx: pgflow.ActivityContext) -> None:
    BEGUN.set()
    await RELEASED.wait()


BEGUN, RELEASED = asyncio.Event(), asyncio.Event()


@pgflow.workflow
async def kid(ctx: pgflow.WorkflowContext) -> None:
    await ctx.listen(Word)


@pgflow.workflow
async def waits(ctx: pgflow.WorkflowContext) -> None:
    """It waits for something of each kind."""
    child = await ctx.dispatch(kid)

    async def timed(ctx: pgflow.WorkflowContext) -> None:
        async with ctx.timeout(timedelta(hours=2)):
            await ctx.listen(Word)

    await asyncio.gather(child.output(), ctx.sleep(timedelta(hours=1)), ctx.activity(fails), ctx.branch(timed))


@pgflow.workflow
async def stuck(ctx: pgflow.WorkflowContext) -> None:
    await ctx.activity(hangs)


@pgflow.workflow
async def broken(ctx: pgflow.WorkflowContext) -> None:
    raise ValueError("no")


def shown(dsn: str, id: UUID, *options: str) -> str:
    environment = {"PGFLOW_DATABASE_URL": dsn, "PGFLOW_SCHEMA": None}
    result = CliRunner().invoke(main, ["workflow", "show", str(id), *options], env=environment, prog_name="pgflow")
    assert result.exit_code == 0, result.output
    return result.stdout


def timeless(text: str) -> str:
    """A text without how long it is from now, and where its lines end."""
    return re.sub(r" \(in [^)]*\)|\s+", " ", text).replace("  ", " ")


def execute(dsn: str, query: str, *values: Any) -> None:
    with psycopg.connect(dsn, autocommit=True) as sql:
        sql.execute(query.encode(), values)


async def test_what_a_sleeping_one_waits_for(dsn: str) -> None:
    """Each pending step is a sentence; signals that it does not listen for are said to be none of those."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[waits, kid]):
        handle = await client.dispatch(waits)

        async def asleep() -> bool:
            pending = [event for event in await handle.history() if event.status == "pending"]
            failed = any(event.attempts for event in pending)
            return len(pending) == 5 and failed and (await client.get(handle.id)).status == "sleeping"

        await until(asleep)
        (child,) = await client.list(parent_id=handle.id)

        async def child_asleep() -> bool:
            return (await client.get(child.id)).status == "sleeping"

        await until(child_asleep)
        await handle.signal(Other(1))
        await handle.signal(Other(2))

        async def delivered() -> bool:
            return len((await handle.explain()).mailbox) == 2

        await until(delivered)
        found = await client.explain(handle.id)
    reasons = "\n".join(found.reasons)
    assert f"It waits at {{2}} for its child 'kid' {child.id}, which is sleeping." in found.reasons
    for expected in (
        "It sleeps at {3} until 2",
        "(in 59 min ",
        "The activity 'fails' at {4}: attempt 2 is due at 2",
        "; the last one failed with ValueError: the bank is closed.",
        "The deadline at {5, 1} passes at 2",
        "It waits at {5, 2} for a signal of type word.",
        "Unread in its mailbox: 2 other; it listens for none of these types.",
    ):
        assert expected in reasons, reasons
    assert [(one.id, one.name, one.status) for one in found.children] == [(child.id, "kid", "sleeping")]
    assert [signal.name for signal in found.mailbox] == ["other", "other"] and found.more == []
    printed = await asyncio.to_thread(shown, dsn, handle.id)
    told = json.loads(await asyncio.to_thread(shown, dsn, handle.id, "--json"))["reasons"]
    assert list(map(timeless, told)) == list(map(timeless, found.reasons))
    assert all(timeless(reason) in timeless(printed) for reason in found.reasons)
    assert all(text in printed for text in ("why it is there", "unread signals", "children that have not ended"))


async def test_one_that_runs(dsn: str) -> None:
    """Its worker is named; asked to cancel or pause it says so; a worker that is silent is named as such."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[stuck]):
        handle = await client.dispatch(stuck)
        await BEGUN.wait()
        info = await client.get(handle.id)
        found = await handle.explain()
        assert found.reasons[0].startswith(f"Worker {info.worker_id} (") and found.reasons[0].endswith(") runs it.")
        assert found.reasons[1] == "Its history is empty so far: what runs for the first time is recorded when it ends."
        execute(dsn, "UPDATE pgflow.runs SET pause_requested = true, cancel_requested = true")
        asked = " ".join((await handle.explain()).reasons)
        RELEASED.set()
        assert "It was asked to pause" in asked and "It was asked to cancel" in asked


async def test_where_nobody_takes_it(dsn: str) -> None:
    """No worker of its queue; then one that is dead; then the moment that it was dispatched for."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(kid, queue="mail")
        (reason,) = (await handle.explain()).reasons
        assert "no living worker serves the queue 'mail': start one with `pgflow worker --queue mail`" in reason
        worker = (
            "INSERT INTO pgflow.workers (host, pid, version, queues, expires_at) "
            "VALUES ('here', 7, '1', '{mail}', now() + %s::interval)"
        )
        execute(dsn, worker, "-1 min")
        assert "no living worker" in (await handle.explain()).reasons[0]
        execute(dsn, worker, "1 hour")
        (reason,) = (await handle.explain()).reasons
        assert "1 living worker of the queue 'mail' may take it as soon as there is room" in reason
        execute(dsn, "UPDATE pgflow.workers SET names = '{other}'")
        (reason,) = (await handle.explain()).reasons
        assert "no living worker of the queue 'mail' knows the workflow 'kid': deploy its code" in reason
        later = await client.dispatch(kid, run_at=datetime.now(UTC) + timedelta(days=3, hours=1, seconds=30))
        (reason,) = (await later.explain()).reasons
        assert "dispatched for a later moment: 2" in reason and "(in 3 d 1 h)" in reason
        never = (
            "UPDATE pgflow.runs SET status = 'running', epoch = 1, claim = 1, worker_id = "
            "(SELECT min(id) FROM pgflow.workers) WHERE workflow_id = %s"
        )
        execute(dsn, never, handle.id)
        (reason,) = (await handle.explain()).reasons
        assert "(here, process 7), which held it, has not been heard of since 2" in reason
        execute(dsn, "DELETE FROM pgflow.workers")
        (reason,) = (await handle.explain()).reasons
        assert reason.endswith("which held it, is gone: another takes it over within seconds.")


async def test_the_ends(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[broken, kid]):
        failed, paused, done = (
            await client.dispatch(broken),
            await client.dispatch(kid, run_at=datetime.now(UTC) + timedelta(days=1)),
            await client.dispatch(kid),
        )
        await done.cancel()
        for handle in (failed, done):
            with pytest.raises(pgflow.PgflowError):
                await handle.output()
        await paused.pause()
        assert (await failed.explain()).reasons == [
            "It failed: `pgflow workflow retry` runs it again from the step that failed."
        ]
        assert (await paused.explain()).reasons == ["It is paused: `pgflow workflow resume` lets it go on."]
        assert (await done.explain()).reasons == []
        execute(dsn, "UPDATE pgflow.runs SET fork_before = '2' WHERE workflow_id = %s", failed.id)
        assert "`pgflow workflow fork --before '{2}'`" in (await failed.explain()).reasons[0]
        with pytest.raises(pgflow.WorkflowNotFound):
            await client.explain(uuid4())
        with pytest.raises(ValueError, match="uuid|UUID"):
            await client.explain("7")


async def test_long_lists_are_cut(dsn: str) -> None:
    """A mailbox and a family of any size cost the same to explain."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(kid)
        execute(
            dsn,
            "INSERT INTO pgflow.signals (id, workflow_id, name, body, number) "
            "SELECT gen_random_uuid(), %s, 'word', '{}', n FROM generate_series(1, 3000) AS n",
            handle.id,
        )
        many = await client.dispatch_many(kid, [{}] * 30)
        execute(dsn, "UPDATE pgflow.workflows SET parent_id = %s WHERE id = ANY(%s)", handle.id, [h.id for h in many])
        found = await handle.explain()
    assert len(found.mailbox) == len(found.children) == 20 and found.more == ["mailbox", "children"]
    assert any("20 word and more." in reason for reason in found.reasons)


def test_watch_prints_what_changes_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """What is the same is printed once; the last look is the one that says that it has ended."""
    states = iter([1, 1, 2, 2, 3])
    pauses: list[float] = []

    def look() -> tuple[int, bool]:
        state = next(states)
        print(state, "after", len(pauses))
        return state, state == 3

    watch.watched(look, pauses.append)
    assert capsys.readouterr().out == "1 after 0\n2 after 2\n3 after 4\n" and pauses == [watch.EVERY] * 4


async def test_watch_ends_with_the_workflow(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[kid]):
        handle = await client.dispatch(kid)
        watched = asyncio.create_task(asyncio.to_thread(shown, dsn, handle.id, "--watch"))
        await handle.signal(Word("go"))
        printed = await watched
    assert printed.rstrip().splitlines()[-1] and "completed" in printed
