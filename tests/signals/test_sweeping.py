"""Signals that were taken or dropped leave their table after a while, but none that may still be needed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import pgflow
from pgflow import faults
from pgflow.store.database.connections import Database
from pgflow.store.exchange import sweeping
from pgflow.store.exchange.sweeping import PAGES, Sweeper
from tests.waiting import until

DAY = 86_400.0


@pgflow.signal
@dataclass
class Tick:
    n: int


@pgflow.signal
@dataclass
class Later:
    n: int


@pgflow.workflow
async def endless(ctx: pgflow.WorkflowContext) -> None:
    async def turn(ctx: pgflow.WorkflowContext, n: int) -> pgflow.Continue[int] | pgflow.Break[None]:
        await ctx.listen(Tick)
        return pgflow.Continue(n + 1)

    await ctx.loop(turn, 0, keep_iterations=0)


def ask(dsn: str, query: str, *values: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def put(dsn: str, name: str, **columns: str) -> None:
    """A signal whose other columns are SQL expressions."""
    given = {
        "id": "gen_random_uuid()",
        "workflow_id": "gen_random_uuid()",
        "body": "'{}'",
        "created_at": "now() - interval '30 days'",
    } | columns
    ask(dsn, f"INSERT INTO pgflow.signals (name, {', '.join(given)}) VALUES (%s, {', '.join(given.values())})", name)


def names(dsn: str) -> list[str]:
    return [name for (name,) in ask(dsn, "SELECT DISTINCT name FROM pgflow.signals ORDER BY name")]


async def swept(dsn: str, keep: float = DAY) -> Sweeper:
    """After one whole walk."""
    ask(dsn, "UPDATE pgflow.chores SET next_at = now()")
    sweeper = Sweeper(Database(dsn), keep)
    assert await sweeper.look() >= sweeper.pause
    await sweeper._line.drop()
    return sweeper


OLD, YOUNG = "now() - interval '25 hours'", "now() - interval '23 hours'"


async def test_what_goes_and_what_stays(dsn: str) -> None:
    put(dsn, "consumed long ago", number="1", consumed_at=OLD)
    put(dsn, "dropped long ago", dropped_at=OLD)
    put(dsn, "stays: consumed lately", number="1", consumed_at=YOUNG)
    put(dsn, "stays: dropped lately", dropped_at=YOUNG)
    put(dsn, "stays: in a mailbox", number="1")
    put(dsn, "stays: on its way")
    put(dsn, "stays: sent a moment ago", number="1", consumed_at=OLD, created_at="now()")
    sweeper = await swept(dsn)
    assert all(name.startswith("stays") for name in names(dsn)) and len(names(dsn)) == 5
    assert sweeper.removed == 2
    ask(dsn, "UPDATE pgflow.signals SET created_at = now() - interval '1 hour'")
    await swept(dsn, keep=0)
    assert names(dsn) == ["stays: in a mailbox", "stays: on its way"]


async def test_dead_letters_stay_with_their_workflow(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        live = await client.dispatch(endless)
        put(dsn, "stays: of a live workflow", workflow_id=f"'{live.id}'", dropped_at=OLD, problem="'unfit'")
        put(dsn, "of one that has ended", dropped_at=OLD, problem="'unfit'")
        put(dsn, "stays: of one that has ended lately", dropped_at=YOUNG, problem="'unfit'")
    await swept(dsn)
    assert all(name.startswith("stays") for name in names(dsn)) and len(names(dsn)) == 2


async def test_what_was_numbered_while_its_receiver_ended(dsn: str) -> None:
    """Neither taken nor dropped: the end did not see it, and nobody else will."""
    async with pgflow.Client(dsn) as client:
        live, failed, ended, lately = [(await client.dispatch(endless)).id for _ in range(4)]
    for name, id in (
        ("stays: live", live),
        ("stays: failed", failed),
        ("ended", ended),
        ("stays: ended lately", lately),
    ):
        put(dsn, name, workflow_id=f"'{id}'", number="1")
    for status, at, id in (("failed", OLD, failed), ("completed", OLD, ended), ("cancelled", YOUNG, lately)):
        ask(dsn, f"UPDATE pgflow.workflows SET status = '{status}', completed_at = {at} WHERE id = '{id}'")
    await swept(dsn)
    assert all(name.startswith("stays") for name in names(dsn)) and len(names(dsn)) == 3


@pytest.mark.parametrize(
    ("run", "worker", "goes"),
    [
        (None, None, True),
        ("sleeping", None, True),
        ("paused", None, False),
        ("pending", None, False),
        ("failed", None, False),
        ("running", ("2 hours", "10 s"), True),
        ("running", ("1 minute", "10 s"), False),
        ("running", ("2 hours", "-1 s"), False),
        ("running", None, False),
    ],
)
async def test_what_its_sender_may_send_again_stays(
    dsn: str, run: str | None, worker: tuple[str, str] | None, goes: bool
) -> None:
    """A sender that was cut off between the signal and its own row sends the same signal again, however long that
    takes.
    """
    async with pgflow.Client(dsn) as client:
        sender = await client.dispatch(endless)
    if worker is not None:
        ask(
            dsn,
            "INSERT INTO pgflow.workers (host, pid, version, queues, started_at, expires_at) "
            "VALUES ('here', 1, '1', '{}', now() - %s::interval, now() + %s::interval)",
            *worker,
        )
    if run is None:
        ask(dsn, "DELETE FROM pgflow.runs")
    else:
        ask(dsn, "UPDATE pgflow.runs SET status = %s, worker_id = (SELECT id FROM pgflow.workers)", run)
    put(dsn, "sent by it", sender_id=f"'{sender.id}'", number="1", consumed_at=OLD)
    await swept(dsn)
    assert names(dsn) == ([] if goes else ["sent by it"])


def fill(dsn: str, rows: int = 12_000) -> int:
    """Many signals that may go, and one in a hundred that may not; the pages of the table."""
    ask(
        dsn,
        "INSERT INTO pgflow.signals (id, workflow_id, name, body, created_at, number, consumed_at) "
        "SELECT gen_random_uuid(), gen_random_uuid(), 'tick', '{}', now() - interval '3 days', n, "
        "CASE WHEN n %% 100 > 0 THEN now() - interval '2 days' END FROM generate_series(1, %s) AS n",
        rows,
    )
    ((pages,),) = ask(dsn, "SELECT (pg_relation_size('pgflow.signals') / 8192)::int")
    assert pages > 2 * PAGES
    return int(pages)


async def test_by_a_few_pages_at_a_time(dsn: str) -> None:
    """Whatever the size of the table, and without reading all of it for each of them."""
    pages = fill(dsn)
    walked: list[int] = []

    async def note() -> None:
        walked.extend(place for (place,) in ask(dsn, "SELECT place FROM pgflow.chores WHERE name = 'signals'"))

    with faults.install({"sweeper.after_pages": note}):
        sweeper = await swept(dsn)
    assert walked == [*range(PAGES, pages, PAGES), pages]
    assert sweeper.removed == 12_000 - 120
    assert ask(dsn, "SELECT count(*), count(consumed_at) FROM pgflow.signals") == [(120, 0)]
    text = Database(dsn).statement("chore_signals").decode()
    values = {
        "holder": sweeper._holder,
        "lease": 1,
        "first": "(0,0)",
        "behind": "(64,0)",
        "until": 64,
        "keep": 1.0,
        "moment": 1.0,
    }
    async with await Database(dsn).connect("explain") as connection:
        plan = await (await connection.execute(("EXPLAIN " + text).encode(), values)).fetchall()
    told = "\n".join(line for (line,) in plan)
    assert "Tid Range Scan on signals" in told and "Seq Scan on signals" not in told, told


async def test_one_at_a_time(dsn: str) -> None:
    """While one is at it the others leave it alone; when its lease is over another goes on from its place, and it
    stops.
    """
    pages = fill(dsn)
    first, second = Sweeper(Database(dsn), DAY), Sweeper(Database(dsn), DAY)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        if not reached.is_set():
            reached.set()
            await go_on.wait()

    with faults.install({"sweeper.after_pages": hold}):
        walk = asyncio.create_task(first.look())
        await asyncio.wait_for(reached.wait(), 20)
        assert await second.look() < second.pause and second.removed == 0
        ask(dsn, "UPDATE pgflow.chores SET held_until = now() WHERE name = 'signals'")
        await second.look()
        go_on.set()
        await walk
    assert first.removed and second.removed and first.removed + second.removed == 12_000 - 120
    query = (
        "SELECT place, held_until, next_at > now() + interval '50 minutes' FROM pgflow.chores WHERE name = 'signals'"
    )
    assert ask(dsn, query) == [(0, None, True)]
    assert await first.look() > 1.0 and pages
    for sweeper in (first, second):
        await sweeper._line.drop()


async def test_it_waits_for_nobody(dsn: str) -> None:
    """What somebody has locked is left for the next time."""
    for number in range(3):
        put(dsn, f"tick {number}", number="1", consumed_at=OLD)
    with psycopg.connect(dsn) as stranger:
        stranger.execute("SELECT FROM pgflow.signals WHERE name = 'tick 1' FOR UPDATE")
        await swept(dsn)
        assert names(dsn) == ["tick 1"]
    await swept(dsn)
    assert names(dsn) == []


async def test_a_workflow_that_loops_for_ever_keeps_none(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "MOMENT", 0.0)
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[endless], signal_keep=0):
        handle = await client.dispatch(endless)
        await client.signal(Later(0), to=handle.id)
        for n in range(100):
            await client.signal(Tick(n), to=handle.id)

        async def gone() -> bool:
            return ask(dsn, "SELECT name, count(*) FROM pgflow.signals GROUP BY name") == [("later", 1)]

        await until(gone, patience=60)


async def test_a_database_that_refuses_does_not_end_the_worker(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """A role that has no right to the table: the worker works, and says so."""
    ask(dsn, "ALTER TABLE pgflow.chores RENAME TO chores_of_before")
    sweeper = Sweeper(Database(dsn), 0.0)
    task = asyncio.create_task(sweeper.run())

    async def told() -> bool:
        return any(
            "removing what is old failed, the next try is in" in record.getMessage() for record in caplog.records
        )

    await until(told)
    assert not task.done()
    ask(dsn, "ALTER TABLE pgflow.chores_of_before RENAME TO chores")
    put(dsn, "tick", number="1", consumed_at=OLD)

    async def gone() -> bool:
        return names(dsn) == []

    await until(gone, patience=60)
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("keep", [-1, "a day", float("nan"), 1e12])
def test_settings_out_of_their_range(keep: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="signal_keep"):
        pgflow.Worker("postgresql:///app", workflows=[endless], signal_keep=keep)
