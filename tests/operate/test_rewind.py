"""Rewinding: a workflow runs again under its own id from before a step."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import pgflow
from tests.store.scene import Scene
from tests.waiting import status, until

RAN: list[str] = []
KEYS: dict[str, list[str]] = {}


@pgflow.signal
@dataclass
class Note:
    text: str


@pgflow.activity
async def work(ctx: pgflow.ActivityContext, name: str) -> str:
    RAN.append(name)
    KEYS.setdefault(name, []).append(ctx.idempotency_key)
    return name


@pgflow.workflow
async def sequence(ctx: pgflow.WorkflowContext, last: str) -> list[str]:
    first = [await ctx.activity(work, name) for name in "ab"]
    chance = str(ctx.uuid4())
    return [*first, await ctx.activity(work, last), chance]


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
async def listening(ctx: pgflow.WorkflowContext, first: int, then: int) -> list[str]:
    """Takes notes one by one, then several at once."""
    taken = [(await ctx.listen(Note)).text for _ in range(first)]
    await ctx.activity(work, "between")
    return taken + [note.text for note in await ctx.listen_many(Note, limit=then)] if then else taken


@pgflow.workflow
async def forgetful(ctx: pgflow.WorkflowContext, turns: int) -> list[str]:
    """A loop whose turns are forgotten, each of which starts a child that it does not await."""

    async def turn(ctx: pgflow.WorkflowContext, seen: list[str]) -> Any:
        await ctx.activity(work, str(len(seen)))
        started = await ctx.dispatch(child, f"child {len(seen)}")
        seen = [*seen, str(started.id)]
        return pgflow.Break(seen) if len(seen) == turns else pgflow.Continue(seen)

    return await ctx.loop(turn, [], commit_interval=1, keep_iterations=2)


@pgflow.workflow
async def saga(ctx: pgflow.WorkflowContext) -> str:
    """Charges, and refunds when shipping fails."""
    await ctx.activity(work, "charge")
    try:
        await ctx.activity(ship)
    except pgflow.ActivityFailed:
        await ctx.activity(work, "refund")
        raise
    return "shipped"


BROKEN: list[bool] = []


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def ship(ctx: pgflow.ActivityContext) -> None:
    if BROKEN:
        raise ValueError("no ship")


WORKFLOWS: list[pgflow.Workflow[Any, Any]] = [sequence, child, parent, listening, forgetful, saga]


@pytest.fixture(autouse=True)
def clean() -> None:
    RAN.clear()
    KEYS.clear()
    BROKEN.clear()


@pytest.mark.parametrize(("before", "again"), [("{1}", "abc"), ("{2}", "bc"), ("3", "c")])
async def test_a_completed_one(dsn: str, before: str, again: str) -> None:
    async with pgflow.Client(dsn, actor="kim") as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(sequence, "c", tags={"order": 7})
        output = await handle.output(timeout=60)
        for number in (1, 2, 3):
            RAN.clear()
            undone = await client.rewind(handle.id, before=before, reason="once more")
            assert (undone.number, undone.steps, undone.signals) == (number, len(again), 0)
            assert await handle.output(timeout=60) == output  # the seed stays
            assert RAN == list(again)
        assert all(len(set(KEYS[name])) == (4 if name in again else 1) for name in "abc")
        found = await handle.history(forgotten=True)
        assert [(event.location, event.rewind) for event in found if event.name == "work" and event.rewind == 2] == [
            (f"{{{'abc'.index(name) + 1}}}", 2) for name in again
        ]
        assert len(await handle.history()) == 3
        assert (await handle.info()).name == "sequence"
        (entry, *_) = await client.audit(handle.id, operation="rewind")
        assert (entry.actor, entry.reason) == ("kim", "once more")


async def test_a_compensated_saga(dsn: str) -> None:
    """What a retry refuses: the charge is made again, under another key."""
    BROKEN.append(True)
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(saga)
        with pytest.raises(pgflow.WorkflowFailed):
            await handle.output(timeout=60)
        with pytest.raises(pgflow.PgflowError, match=r"Rewind it: rewind\(.*, before=\{2\}\); or fork it: fork\("):
            await handle.retry()
        BROKEN.clear()
        await handle.rewind(before="{1}")
        assert await handle.output(timeout=60) == "shipped"
        assert RAN == ["charge", "refund", "charge"]
        assert len(set(KEYS["charge"])) == 2


async def test_a_paused_one(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(listening, 2, 0)
        await handle.signal(Note("a"))
        await until(lambda: taken(dsn, handle), "the first note")
        with pytest.raises(pgflow.PgflowError, match="is sleeping, expected one that is paused.*Pause it first"):
            await handle.rewind(before="{1}")
        await handle.pause()
        assert (await handle.rewind(before="{1}")).signals == 1
        await handle.signal(Note("b"))
        assert await handle.output(timeout=60) == ["a", "b"]


def taken(dsn: str, handle: pgflow.WorkflowHandle[Any]) -> bool:
    with psycopg.connect(dsn) as sql:
        asked = (
            "SELECT count(*) > 0 FROM pgflow.runs AS r JOIN pgflow.events AS e USING (workflow_id) "
            "WHERE r.status = 'sleeping' AND e.status = 'completed' AND workflow_id = %s"
        )
        found = sql.execute(asked, [handle.id]).fetchone()
        return found is not None and bool(found[0])


@pytest.mark.parametrize("gone", [False, True])
async def test_signals_return_in_their_order(dsn: str, gone: bool) -> None:
    """Those that were taken one by one, those taken together, and those that the end dropped; rows may be gone."""
    scene = Scene(dsn)
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            handle = await client.dispatch(listening, 2, 2)
            for text in "abcdef":
                await handle.signal(Note(text))
            assert await handle.output(timeout=60) == ["a", "b", "c", "d"]
        assert scene.one("SELECT count(*) FROM signals WHERE dropped_at IS NOT NULL") == 2
        if gone:
            scene.all("DELETE FROM signals WHERE consumed_at IS NOT NULL RETURNING id")
        for before, returned in (("{2}", "bcdef"), ("{3}", "cdef"), ("{1}", "abcdef")):
            assert (await client.rewind(handle.id, before)).signals == len(returned)
            waiting = (
                "SELECT body->>'text', number FROM signals WHERE num_nonnulls(consumed_at, dropped_at) = 0 ORDER BY 2"
            )
            rows = scene.all(waiting)
            assert "".join(text for text, _ in rows) == returned
            assert scene.one("SELECT mailbox FROM runs") == rows[-1][1]
            await handle.signal(Note("g"))
            async with pgflow.Worker(dsn, workflows=WORKFLOWS):
                assert await handle.output(timeout=60) == ["a", "b", "c", "d"]
            scene.all("DELETE FROM signals WHERE body->>'text' = 'g' RETURNING id")
            if gone:
                scene.all("DELETE FROM signals WHERE consumed_at IS NOT NULL RETURNING id")
    scene.close()


async def test_what_a_person_dropped_stays_dropped(dsn: str) -> None:
    scene = Scene(dsn)
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(listening, 1, 0)
        scene.all("SELECT signal(%s::uuid, 'note'::text, %s::json)", handle.id, '{"number": 1}')
        await until(lambda: scene.one("SELECT count(*) FROM signals WHERE problem IS NOT NULL"), "a dead signal")
        (dead,) = await client.dead_signals()
        await client.drop(dead.id)
        await handle.signal(Note("a"))
        assert await handle.output(timeout=60) == ["a"]
        assert (await handle.rewind(before="{1}")).signals == 1
        assert await handle.output(timeout=60) == ["a"]
    scene.close()


@pytest.mark.parametrize("what", ["leave", "cancel"])
async def test_children(dsn: str, what: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(parent, "slow")
        await status(client, handle, "sleeping")
        (first,) = await client.list(name="child")
        await handle.pause()
        assert (await handle.rewind(before="{2}", children=what)).children == [first.id]
        await until(lambda: asleep_with(client, handle, 2), "another child")
        (second,) = [one for one in await client.list(name="child") if one.id != first.id]
        await client.signal(Note("answer"), to=second.id)
        assert await handle.output(timeout=60) == ["before", "answer"]
        if what == "cancel":
            await status(client, pgflow.WorkflowHandle(client, first.id, child), "cancelled")
        else:
            assert (await client.get(first.id)).status == "sleeping"
        # One that had been started before the place is asked again for its output, and has ended.
        RAN.clear()
        await handle.rewind(before="{3}")
        assert await handle.output(timeout=60) == ["before", "answer"]
        assert RAN == []


async def asleep_with(client: pgflow.Client, handle: pgflow.WorkflowHandle[Any], children: int) -> bool:
    return (await handle.info()).status == "sleeping" and len(await client.list(name="child")) == children


async def test_parents(dsn: str) -> None:
    """One that has recorded the output keeps it; one that still waits gets the new one."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(parent, "slow")
        await status(client, handle, "sleeping")
        (one,) = await client.list(name="child")
        below = pgflow.WorkflowHandle(client, one.id, child)
        await below.pause()
        await client.signal(Note("first"), to=one.id)
        assert (await below.rewind(before="{1}", dry_run=True)).recorded_by == []
        await below.resume()
        assert await handle.output(timeout=60) == ["before", "first"]
        undone = await below.rewind(before="{2}")
        assert undone.recorded_by == [handle.id]
        assert await below.output(timeout=60) == "first"
        assert await handle.output(timeout=60) == ["before", "first"]


async def test_a_parent_that_waits(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=[parent]):
            handle = await client.dispatch(parent, "slow")
            await status(client, handle, "sleeping")
        (one,) = await client.list(name="child")
        below = pgflow.WorkflowHandle(client, one.id, child)
        await below.signal(Note("first"))
        async with pgflow.Worker(dsn, workflows=[child]):  # nobody tells the parent
            assert await below.output(timeout=60) == "first"
        assert (await below.rewind(before="{1}")).recorded_by == []
        await client.signal(Note("second"), to=one.id)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            assert await handle.output(timeout=60) == ["before", "first"]  # the signal came back


async def test_turns_that_are_trimmed(dsn: str) -> None:
    """Children of turns whose rows are gone have been started under ids that must not come again."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(forgetful, 6)
        first = await handle.output(timeout=60)
        for before, text in (("{1, 1, 1}", "trimmed"), ("{1, 6}", "Name a step in it"), ("{7}", "has no step at")):
            with pytest.raises(pgflow.WorkflowNotFound, match=text):
                await handle.rewind(before=before)
        assert await handle.output(timeout=60) == first
        RAN.clear()
        await handle.rewind(before="{1, 5, 2}")
        second = await handle.output(timeout=60)
        assert second[:4] == first[:4] and not set(second[4:]) & set(first)
        assert [name for name in RAN if name.isdigit()] == ["5"]
        await handle.rewind(before="{1}")
        third = await handle.output(timeout=60)
        assert not set(third) & {*first, *second}


async def test_unique_keys_queue_and_priority_stay(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        asked: dict[str, Any] = {"tags": {"order": 7}, "unique": True}
        async with pgflow.Worker(dsn, workflows=WORKFLOWS, queues=["other"]):
            handle = await client.dispatch(sequence, "c", queue="other", priority=3, **asked)
            await handle.output(timeout=60)
            other = await client.dispatch(sequence, "d", queue="elsewhere", **asked)
            assert other.id != handle.id
            with pytest.raises(pgflow.PgflowError, match=f"unique, and meanwhile the live workflow {other.id}"):
                await handle.rewind(before="{1}")
            assert (await handle.info()).status == "completed"
            await client.terminate(other.id)
        await handle.rewind(before="{1}")
        info = await handle.info()
        assert (info.status, info.queue, info.priority, info.name) == ("pending", "other", 3, "sequence")
        assert (await client.dispatch(sequence, "e", **asked)).id == handle.id
        with Scene(dsn).other() as sql:
            (found,) = sql.execute("SELECT dispatch('sequence', '{}', '{\"order\": 7}', is_unique => true)").fetchone()  # type: ignore[misc]
        assert found == handle.id


async def test_refusals_change_nothing(dsn: str) -> None:
    scene = Scene(dsn)
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            handle = await client.dispatch(sequence, "c")
            await handle.output(timeout=60)
        tables = "SELECT (SELECT json_agg(e) FROM {} AS e)::text"
        kept = [
            scene.one(tables.format(table)) for table in ("events", "forgotten_events", "workflows", "runs", "audit")
        ]
        with pytest.raises(pgflow.WorkflowNotFound, match="there is no workflow"):
            await client.rewind(uuid.uuid4(), before="{1}")
        with pytest.raises(pgflow.WorkflowNotFound, match=r"rewind: history of workflow .* has no step at \{9\}"):
            await client.rewind(handle.id, before="{9}")
        with pytest.raises(ValueError, match="is no location"):
            await client.rewind(handle.id, before="one")
        with pytest.raises(ValueError, match='children=\'kill\': expected "leave" or "cancel"'):
            await client.rewind(handle.id, before="{1}", children="kill")
        with pytest.raises(pgflow.PgflowError, match="children='kill': expected leave or cancel"):
            scene_rewind(dsn, handle.id, "1", "kill")
        assert (await client.rewind(handle.id, before="{2}", dry_run=True)).steps == 2
        now = [
            scene.one(tables.format(table)) for table in ("events", "forgotten_events", "workflows", "runs", "audit")
        ]
        assert now == kept
        await client.rewind(handle.id, before="{2}")
        with pytest.raises(pgflow.PgflowError, match="is pending, expected one that is paused or failed, or has ended"):
            await client.rewind(handle.id, before="{1}")
    scene.close()


def scene_rewind(dsn: str, *values: Any) -> None:
    with psycopg.connect(dsn) as sql:
        try:
            sql.execute("SELECT pgflow.rewind(%s, %s, %s)", values)
        except psycopg.Error as error:
            raise pgflow.PgflowError(str(error)) from error


async def test_cancellations_that_came_there(dsn: str) -> None:
    """They are not delivered again: neither to what had been cancelled, nor to a step beside."""

    @pgflow.workflow
    async def beside(ctx: pgflow.WorkflowContext) -> list[str]:
        listening = asyncio.ensure_future(ctx.listen(Note))
        first = await ctx.activity(work, "a")
        return [first, await ctx.activity(work, "b"), (await listening).text]

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[beside]):
        handle = await client.dispatch(beside)
        await status(client, handle, "sleeping")
        await handle.cancel()
        with pytest.raises(pgflow.WorkflowCancelled):
            await handle.output(timeout=60)
        await handle.rewind(before="{3}")
        await handle.signal(Note("c"))
        assert await handle.output(timeout=60) == ["a", "b", "c"]
        assert RAN == ["a", "b", "b"]


async def test_what_goes_on_keeps_its_key(dsn: str) -> None:
    """An attempt that had failed before the place is tried again under the key that it had."""
    scene, failing = Scene(dsn), [True]

    @pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=5, initial=3600, jitter=False))
    async def slow(ctx: pgflow.ActivityContext) -> str:
        KEYS.setdefault("slow", []).append(ctx.idempotency_key)
        if failing:
            raise ValueError("not yet")
        return "slow"

    @pgflow.workflow
    async def beside(ctx: pgflow.WorkflowContext) -> list[str]:
        waiting = asyncio.ensure_future(ctx.activity(slow))
        first = await ctx.activity(work, "a")
        note = (await ctx.listen(Note)).text
        return [first, note, await ctx.activity(work, "b"), await waiting]

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[beside]):
        handle = await client.dispatch(beside)
        await status(client, handle, "sleeping")
        await handle.signal(Note("n"))
        await until(lambda: scene.one("SELECT count(*) FROM events WHERE name = 'work'") == 2, "the second step")
        await status(client, handle, "sleeping")
        await handle.pause()
        failing.clear()
        await handle.rewind(before="{3}")
        scene.do("UPDATE events SET wake_at = now() WHERE name = 'slow'")
        scene.do("UPDATE runs SET wake_at = now(), status = 'pending' WHERE status = 'sleeping'")
        assert await handle.output(timeout=60) == ["a", "n", "b", "slow"]
        assert len(set(KEYS["slow"])) == 1 < len(KEYS["slow"])
        assert len(KEYS["a"]) == 1 and len(set(KEYS["b"])) == 2
    scene.close()
