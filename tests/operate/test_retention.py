"""How long ended workflows are kept: set by operators, declared by code, and kept to by the workers."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

import pgflow
from pgflow import faults
from pgflow.store.database.connections import Database
from pgflow.store.exchange import retaining
from pgflow.store.exchange.sweeping import Sweeper
from tests.cli.test_audit import Command
from tests.waiting import until

DAY = timedelta(days=1)
BROKEN: set[str] = set()


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def work(ctx: pgflow.ActivityContext) -> str:
    if BROKEN:
        raise RuntimeError("broken")
    return "done"


@pgflow.workflow
async def letter(ctx: pgflow.WorkflowContext) -> str:
    return await ctx.activity(work)


@pgflow.workflow(keep=timedelta(days=3))
async def parcel(ctx: pgflow.WorkflowContext) -> str:
    return "sent"


@pytest.fixture(autouse=True)
def clean() -> None:
    BROKEN.clear()


def ask(dsn: str, query: str) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as sql:
        cursor = sql.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def ids(dsn: str) -> set[UUID]:
    return {id for (id,) in ask(dsn, "SELECT id FROM pgflow.workflows")}


def put(dsn: str, name: str, days: float, count: int = 1, status: str = "completed") -> set[UUID]:
    """Workflows that ended so many days ago."""
    before = ids(dsn)
    ask(
        dsn,
        "WITH made AS (INSERT INTO pgflow.workflows (id, name, input, status, created_at, completed_at) "
        f"SELECT pgflow.uuid7(), '{name}', '{{}}', '{status}', g.at, g.at "
        f"FROM (SELECT now() - interval '{days} days' AS at FROM generate_series(1, {count})) AS g RETURNING *), "
        "stays AS (INSERT INTO pgflow.runs (workflow_id, name, status, created_at, failed_at) "
        "SELECT id, name, status, created_at, completed_at FROM made WHERE status = 'failed'), "
        "entered AS (INSERT INTO pgflow.ends (workflow_id, name, status, created_at, ended_at) "
        "SELECT id, name, status, created_at, completed_at FROM made WHERE status <> 'failed') "
        "INSERT INTO pgflow.events (workflow_id, location, kind, status, completed_at) "
        "SELECT id, '1', 'activity', 'completed', now() FROM made",
    )
    return ids(dsn) - before


async def sweep(dsn: str, declared: dict[str, float | None] | None = None) -> float:
    """What one worker does in one look; the seconds until its next."""
    sweeper = Sweeper(Database(dsn), keep=86_400, declared=declared)
    try:
        return await sweeper.look()
    finally:
        await sweeper._line.drop()


async def test_nothing_goes_until_something_is_said(dsn: str) -> None:
    old = put(dsn, "letter", 1000)
    await sweep(dsn)
    assert ids(dsn) == old and ask(dsn, "SELECT 1 FROM pgflow.chores WHERE name = 'retention'") == []


async def test_an_operators_word_goes_before_codes_and_both_before_that_for_all(dsn: str) -> None:
    kept: dict[str, dict[int, UUID]] = {}
    for name in ("by_hand", "by_code", "by_neither", "for_ever"):
        kept[name] = {days: put(dsn, name, days).pop() for days in (2, 6, 20)}
    async with pgflow.Client(dsn, actor="kim") as client:
        await client.retention.set("by_hand", keep=timedelta(days=10), reason="law")
        await client.retention.set("for_ever", keep="forever")
        await client.retention.set("*", keep=timedelta(days=4))
        declared: dict[str, float | None] = {"by_code": 86_400.0, "by_hand": 86_400.0, "by_neither": None}
        await sweep(dsn, declared)
        left = ids(dsn)
        assert {name: [days for days, id in found.items() if id in left] for name, found in kept.items()} == {
            "by_hand": [2, 6],
            "by_code": [],
            "by_neither": [2],
            "for_ever": [2, 6, 20],
        }
        assert await client.retention.reset("by_hand")
        assert not await client.retention.reset("by_hand")
        ask(dsn, "UPDATE pgflow.chores SET next_at = now()")
        await sweep(dsn, declared)
        assert not {*kept["by_hand"].values()} & ids(dsn)
        entries = await client.audit(operation="retention")
        assert [(e.actor, e.subject, e.reason) for e in entries] == [
            ("kim", "by_hand", None), ("kim", "*", None), ("kim", "for_ever", None), ("kim", "by_hand", "law")
        ]  # fmt: skip
        assert await client.audit(operation="prune") == [], "workers do what was said"


async def test_what_is_not_given_stays_as_it_is(dsn: str) -> None:
    put(dsn, "letter", 1)
    async with pgflow.Client(dsn) as client:
        await client.retention.set("letter", keep=DAY)
        await client.retention.set("letter", failed="forever")
        await client.retention.set("letter", keep=7.5)
        (rule,) = await client.retention.list()
        assert (rule.name, rule.keep, rule.failed, rule.set_by) == (
            "letter", timedelta(seconds=7.5), "forever", "operator"
        )  # fmt: skip


async def test_failed_ones_go_by_a_word_of_their_own(dsn: str) -> None:
    put(dsn, "letter", 5, status="completed")
    failed = {days: put(dsn, "letter", days, status="failed").pop() for days in (5, 50)}
    async with pgflow.Client(dsn) as client:
        await client.retention.set("letter", keep=DAY)
        await sweep(dsn)
        assert ids(dsn) == {*failed.values()}
        await client.retention.set("letter", failed=timedelta(days=10))
        await sweep(dsn)
        assert ids(dsn) == {failed[5]} and len(ask(dsn, "SELECT 1 FROM pgflow.runs")) == 1


async def test_what_code_declares_is_stored_when_a_worker_starts_and_forgotten_when_it_is_no_more_declared(
    dsn: str,
) -> None:
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=[parcel, letter]):
            await until(
                lambda: ask(dsn, "SELECT name, set_by, keep FROM pgflow.retention") == [("parcel", "code", 3 * 86_400)]
            )
            (rule,) = await client.retention.list()
            assert (rule.name, rule.keep, rule.failed, rule.set_by) == ("parcel", timedelta(days=3), None, "code")
            await client.retention.set("parcel", keep=DAY)
        await sweep(dsn, {"parcel": None})
        assert ask(dsn, "SELECT set_by FROM pgflow.retention") == [("operator",)]


async def test_a_worker_hears_of_it_at_once(dsn: str) -> None:
    """It looks once in an hour otherwise."""
    old = put(dsn, "letter", 5)
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[letter]):
        young = await client.dispatch(letter)
        await young.output(20)
        await until(lambda: ask(dsn, "SELECT 1 FROM pgflow.chores WHERE name = 'audit' AND next_at > now()"))
        await client.retention.set("letter", keep=DAY)
        await until(lambda: not old & ids(dsn))
        assert ids(dsn) == {young.id}


async def test_what_ends_later_goes_later(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[letter]):
        await client.retention.set("letter", keep=0.5, missing_ok=True)
        for _ in range(3):
            handle = await client.dispatch(letter)
            await until(lambda id=handle.id: id not in ids(dsn))  # type: ignore[misc]
            with pytest.raises(pgflow.WorkflowNotFound):
                await handle.output(20)


async def test_one_worker_at_a_time_and_the_next_goes_on_when_it_dies(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retaining, "BATCH", 10)
    put(dsn, "letter", 5, count=35)
    async with pgflow.Client(dsn) as client:
        await client.retention.set("letter", keep=DAY)

    class Died(Exception):
        pass

    async def die() -> None:
        assert await sweep(dsn) > 0, "another finds it taken"
        raise Died

    with faults.install({"sweeper.after_retention": die}), pytest.raises(Died):
        await sweep(dsn)
    assert len(ids(dsn)) == 25
    ask(dsn, "UPDATE pgflow.chores SET held_until = now()")
    await sweep(dsn)
    assert ids(dsn) == set()


async def test_whoever_has_lost_the_lease_removes_nothing(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retaining, "BATCH", 10)
    put(dsn, "letter", 5, count=35)
    async with pgflow.Client(dsn) as client:
        await client.retention.set("letter", keep=DAY)

    async def lose() -> None:
        ask(dsn, "UPDATE pgflow.chores SET held_until = now() WHERE name = 'retention'")

    with faults.install({"sweeper.after_retention": lose}):
        await sweep(dsn)
    assert len(ids(dsn)) == 25


async def test_a_longer_word_stops_a_removal_under_way(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due by the rule that the worker has read is not due any more."""
    put(dsn, "letter", 2, 1_000)
    async with pgflow.Client(dsn) as client:
        await client.retention.set("letter", keep=timedelta(days=1))
        said: list[int] = []

        async def say() -> None:
            if not said:
                await client.retention.set("letter", keep="forever")
                said.append(len(ids(dsn)))

        with faults.install({"sweeper.after_retention": say}):
            await sweep(dsn)
        assert said and len(ids(dsn)) == said[0]


async def test_the_next_look_is_when_something_is_due(dsn: str) -> None:
    put(dsn, "letter", 1)
    async with pgflow.Client(dsn) as client:
        await client.retention.set("letter", keep=DAY + timedelta(seconds=100))
        assert 50 < await sweep(dsn) < 130
        await client.retention.set("letter", keep=timedelta(days=30))
        assert await sweep(dsn) > 3000


def lengthen(dsn: str, id: UUID, active: int, forgotten: int) -> None:
    for table, count in (("events", active), ("forgotten_events", forgotten)):
        ask(
            dsn,
            f"INSERT INTO pgflow.{table} (workflow_id, location, kind, status, completed_at) "
            f"SELECT '{id}', 'd' || g, 'activity', 'completed', now() FROM generate_series(1000, 999 + {count}) AS g",
        )


async def test_a_long_history_goes_in_pieces_and_nobody_sees_half_of_it(dsn: str) -> None:
    (long,) = put(dsn, "letter", 5)
    short = put(dsn, "letter", 4, count=3)
    lengthen(dsn, long, 5_500, 7_000)
    async with pgflow.Client(dsn) as client:
        calls = 0
        while long in ids(dsn):
            calls += 1
            given = ", ".join(f"'{id}'" for id in (long, *short))
            tried = dict(
                ask(dsn, f"SELECT id, stays FROM pgflow.remove_workflows(ARRAY[{given}]::uuid[], interval '1 day')")
            )
            if tried[long] is None:
                break
            assert tried[long] == "removing" and (calls == 1) == (not set(tried.values()) - {None, "removing"})
            assert ids(dsn) == {long}, "the others need not wait for it"
            for act in (client.get, client.history, client.retry, lambda id: client.fork(id, "{1}"), client.pause):
                with pytest.raises(pgflow.WorkflowNotFound):
                    await act(long)
            with pytest.raises(pgflow.WorkflowNotFound):
                await client.output(long, timeout=0.1)
            with pytest.raises(ValueError, match=r"being removed.*Nothing was started"):
                await client.dispatch(letter.options(id=long))
            with psycopg.connect(dsn) as sql, pytest.raises(psycopg.errors.UniqueViolation, match="being removed"):
                sql.execute("SELECT pgflow.dispatch('letter', id => %s)", [long])
            ((_, name),) = ask(
                dsn,
                f"SELECT * FROM pgflow.dispatch_once('{long}', 'letter', '{{}}', '{{}}', false, now(), 0, 'default')",
            )
            assert name == "letter (being removed)"
        assert calls == 4
        for table in ("events", "forgotten_events", "ends", "runs"):
            assert ask(dsn, f"SELECT 1 FROM pgflow.{table} WHERE workflow_id = '{long}'") == []
        async with pgflow.Worker(dsn, workflows=[letter]):
            assert await (await client.dispatch(letter.options(id=long))).output(20) == "done"


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_what_was_begun_is_gone_on_with(dsn: str, status: str) -> None:
    """By whoever removes next: the process that began with it has died."""
    (long,) = put(dsn, "letter", 5, status=status)
    lengthen(dsn, long, 6_000, 0)
    remove = f"SELECT stays FROM pgflow.remove_workflows('{{{long}}}', interval '1 day')"
    assert ask(dsn, remove) == [("removing",)]
    async with pgflow.Client(dsn) as client:
        if status == "failed":
            await client.retention.set("letter", failed=DAY)
            await sweep(dsn)
        else:
            assert await client.prune(older_than=DAY, status="cancelled", name="letter") == 1
        assert ids(dsn) == set() and ask(dsn, "SELECT 1 FROM pgflow.events") == []


async def test_a_worker_that_is_killed_leaves_each_workflow_whole_or_gone(dsn: str) -> None:
    put(dsn, "letter", 5, count=30)
    (long,) = put(dsn, "letter", 4)
    lengthen(dsn, long, 12_000, 0)
    async with pgflow.Client(dsn) as client:
        await client.retention.set("letter", keep=DAY)
    program = f"""
import asyncio, os, signal
from pgflow import faults
from pgflow.store.database.connections import Database
from pgflow.store.exchange import retaining
from pgflow.store.exchange.sweeping import Sweeper
retaining.BATCH = 7
left = [{{}}]
async def die():
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
async def main():
    await Sweeper(Database({dsn!r}), keep=86400).look()
with faults.install({{"sweeper.after_retention": die}}):
    asyncio.run(main())
"""
    for deaths in (1, 2, 2):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program.replace("[{}]", f"[{deaths}]"))
        assert await process.wait() == -9
        known = "EXISTS (SELECT FROM pgflow.workflows AS w WHERE w.id = e.workflow_id)"
        halves = (
            f"SELECT 1 FROM pgflow.events AS e WHERE NOT {known} "
            f"UNION ALL SELECT 1 FROM pgflow.ends AS e WHERE NOT {known} "
            "UNION ALL SELECT 1 FROM pgflow.workflows AS w WHERE w.status <> 'removing' "
            "AND NOT EXISTS (SELECT FROM pgflow.events AS e WHERE e.workflow_id = w.id)"
        )
        assert ask(dsn, halves) == []
        ask(dsn, "UPDATE pgflow.chores SET held_until = now()")
    await sweep(dsn)
    assert ids(dsn) == set() and ask(dsn, "SELECT 1 FROM pgflow.events") == []


async def test_finders_of_before_are_entered_before_anything_goes(dsn: str) -> None:
    (found,) = put(dsn, "letter", 5)
    (holder,) = put(dsn, "parcel", 5, status="failed")
    ask(
        dsn,
        "INSERT INTO pgflow.events (workflow_id, location, kind, status, output, completed_at) "
        f"VALUES ('{holder}', '2', 'child_workflow', 'completed', '{{\"id\":\"{found}\"}}', now())",
    )
    ask(dsn, "INSERT INTO pgflow.chores (name) VALUES ('finders')")
    async with pgflow.Client(dsn) as client:
        await client.retention.set("*", keep=DAY)
        await sweep(dsn)
        assert ask(dsn, "SELECT workflow_id, finder_id, location FROM pgflow.finders") == [(found, holder, "2")]
        assert ids(dsn) == {found, holder}
        await client.retention.set("*", failed=DAY)
        await sweep(dsn)
        ask(dsn, "UPDATE pgflow.chores SET next_at = now()")
        await sweep(dsn)
        assert ids(dsn) == set()


async def test_what_is_refused(dsn: str) -> None:
    put(dsn, "letter", 5)
    async with pgflow.Client(dsn) as client:
        for given in (0, -1, timedelta(days=-1), timedelta(0), float("inf"), "a day", "never"):
            with pytest.raises(ValueError, match="keep"):
                await client.retention.set("letter", keep=given)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="failed"):
                await client.retention.set("letter", failed=given)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="keep"):
                pgflow.workflow(keep=given)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="expected keep, failed, or both"):
            await client.retention.set("letter")
        with pytest.raises(pgflow.PgflowError, match="'leter'.*spelled"):
            await client.retention.set("leter", keep=DAY)
        with pytest.raises(ValueError, match="name"):
            await client.retention.set("", keep=DAY)
        for wrong in (
            "'letter', '0 s'",
            "'letter', '-1 day'",
            "'letter', 'soon'",
            "'letter'",
            "'', '1 day'",
            "'leter', '1 day'",
        ):
            with pytest.raises(psycopg.errors.InvalidParameterValue):
                ask(dsn, f"SELECT pgflow.set_retention({wrong})")
        assert ask(dsn, "SELECT * FROM pgflow.retention") == [] == await client.audit()
        await client.retention.set("leter", keep=DAY, missing_ok=True)
        await client.retention.set("leter", keep=2 * DAY)


def test_the_commands(dsn: str) -> None:
    pgflow = Command(dsn)
    put(dsn, "letter", 5)
    pgflow("retention", "set", "letter", "--keep", "36h", "--failed", "forever", "--actor", "kim")
    pgflow("retention", "set", "*", "--keep", "2w")
    assert pgflow("retention", "list").splitlines() == [
        "*: keep 14d, failed - (operator)",
        "letter: keep 36h, failed forever (operator)",
    ]
    assert [rule["name"] for rule in json.loads(pgflow("retention", "list", "--json"))] == ["*", "letter"]
    assert "spelled" in pgflow("retention", "set", "leter", "--keep", "1d", code=1)
    assert "forever" in pgflow("retention", "set", "letter", "--keep", "0", code=2)
    assert "keep" in pgflow("retention", "set", "letter", "--keep", "0d", code=1)
    pgflow("retention", "reset", "letter")
    assert "nothing was set" in pgflow("retention", "reset", "letter", code=1)
