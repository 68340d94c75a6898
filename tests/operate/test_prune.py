"""Removing workflows that ended long ago, and only those that nobody may still await."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

import pgflow
from pgflow import faults
from tests.cli.test_audit import Command
from tests.waiting import status, until

BROKEN: set[str] = set()
HOUR = timedelta(hours=1)


@pgflow.signal
@dataclass
class Go:
    text: str = ""


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def work(ctx: pgflow.ActivityContext) -> str:
    if BROKEN:
        raise RuntimeError("broken")
    return "done"


@pgflow.workflow
async def leaf(ctx: pgflow.WorkflowContext) -> str:
    return await ctx.activity(work)


@pgflow.workflow
async def waiting(ctx: pgflow.WorkflowContext) -> str:
    await ctx.listen(Go)
    return "went"


@pgflow.workflow
async def parent(ctx: pgflow.WorkflowContext, child: str = "leaf") -> str:
    handle = await ctx.dispatch(child)
    await ctx.listen(Go)
    return str(await handle.output())


@pgflow.workflow
async def catching(ctx: pgflow.WorkflowContext) -> str:
    """Goes on although its child failed."""
    handle = await ctx.dispatch(leaf)
    try:
        return await handle.output()
    except pgflow.WorkflowFailed:
        return "caught"


@pgflow.workflow
async def finding(ctx: pgflow.WorkflowContext, turns: int) -> None:
    """Finds the same workflow in each turn."""

    async def turn(ctx: pgflow.WorkflowContext, state: int) -> pgflow.Continue[int] | pgflow.Break[None]:
        await ctx.dispatch(waiting.options(unique=True))
        await ctx.activity(work)
        return pgflow.Break(None) if state == turns else pgflow.Continue(state + 1)

    await ctx.loop(turn, 1, commit_interval=1, keep_iterations=1)


@pgflow.workflow
async def twice(ctx: pgflow.WorkflowContext) -> str:
    handle = await ctx.dispatch(leaf)
    return await handle.output() + await handle.output()


@pgflow.workflow
async def looping(ctx: pgflow.WorkflowContext) -> None:
    """Starts a child in each turn, for ever."""

    async def turn(ctx: pgflow.WorkflowContext, state: int) -> pgflow.Continue[int]:
        child = await ctx.dispatch(leaf)
        await child.output()
        await ctx.listen(Go)
        return pgflow.Continue(state + 1)

    await ctx.loop(turn, 0, commit_interval=1, keep_iterations=0)


@pgflow.workflow
async def finder(ctx: pgflow.WorkflowContext) -> str:
    found = await ctx.dispatch(waiting.options(unique=True))
    await ctx.listen(Go)
    return await found.output()


@pgflow.workflow
async def looping_finder(ctx: pgflow.WorkflowContext) -> None:
    async def turn(ctx: pgflow.WorkflowContext, state: int) -> pgflow.Continue[int]:
        found = await ctx.dispatch(waiting.options(unique=True))
        await ctx.listen(Go)
        await found.output()
        return pgflow.Continue(state + 1)

    await ctx.loop(turn, 0, commit_interval=1, keep_iterations=0)


@pgflow.workflow
async def sender(ctx: pgflow.WorkflowContext, to: UUID) -> str:
    await ctx.signal(Go(), to=to)
    await ctx.listen(Go)
    return "sent"


@pgflow.workflow
async def chain(ctx: pgflow.WorkflowContext, left: int) -> None:
    """Hands over to the next."""
    if left:
        await ctx.dispatch(chain.options(detached=True), left - 1)


ALL: list[pgflow.Workflow[Any, Any]] = [
    leaf, waiting, parent, catching, twice, looping, finder, looping_finder, sender, chain
]  # fmt: skip


@pytest.fixture(autouse=True)
def clean() -> None:
    BROKEN.clear()


def ask(dsn: str, query: str) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as sql:
        cursor = sql.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def age(dsn: str) -> None:
    """What has ended did so a day ago."""
    for table, column in (("workflows", "completed_at"), ("ends", "ended_at"), ("runs", "failed_at")):
        ask(dsn, f"UPDATE pgflow.{table} SET {column} = {column} - interval '1 day' WHERE {column} IS NOT NULL")


def ids(dsn: str, name: str = "%") -> set[UUID]:
    return {id for (id,) in ask(dsn, f"SELECT id FROM pgflow.workflows WHERE name LIKE '{name}'")}


def rows(dsn: str, id: UUID) -> int:
    tables = ("events", "forgotten_events", "signals", "runs", "requests", "finders")
    return sum(ask(dsn, f"SELECT count(*) FROM pgflow.{table} WHERE workflow_id = '{id}'")[0][0] for table in tables)


async def ended(dsn: str, count: int) -> None:
    await until(lambda: len(ask(dsn, "SELECT 1 FROM pgflow.workflows WHERE status = 'completed'")) == count)


async def progress(dsn: str, turns: int) -> None:
    await until(lambda: ask(dsn, "SELECT loop_progress FROM pgflow.events WHERE kind = 'loop'") == [(turns,)])


async def test_what_ended_long_ago_goes_with_all_that_is_its_own(dsn: str) -> None:
    async with pgflow.Client(dsn, actor="kim") as client, pgflow.Worker(dsn, workflows=ALL):
        old = await client.dispatch(waiting, tags={"kind": "x"})
        await client.signal(Go(), to=old.id)
        await old.output(20)
        BROKEN.add("x")
        failed = await client.dispatch(leaf)
        with pytest.raises(pgflow.WorkflowFailed):
            await failed.output(20)
        age(dsn)
        BROKEN.clear()
        live = await client.dispatch(waiting)
        young = await client.dispatch(leaf)
        await young.output(20)
        assert await client.prune(older_than=HOUR, name="leaf") == 0
        assert await client.prune(older_than=HOUR, queue="other") == 0
        assert await client.prune(older_than=HOUR, tags={"kind": "y"}) == 0
        assert await client.prune(older_than=HOUR, parent_id=live.id) == 0
        assert await client.prune(older_than=HOUR, dry_run=True, queue="default", tags={"kind": "x"}) == 1
        assert await client.prune(older_than=HOUR, dry_run=True) == 1
        assert old.id in ids(dsn) and rows(dsn, old.id) > 0
        assert await client.prune(older_than=HOUR, reason="enough") == 1
        assert ids(dsn) == {failed.id, live.id, young.id}
        assert rows(dsn, old.id) == 0
        entries = await client.audit()
        assert [(e.operation, e.workflow_id, e.actor, e.reason) for e in entries] == [
            ("prune", old.id, "kim", "enough")
        ]
        with pytest.raises(pgflow.WorkflowNotFound):
            await old.output(20)
        with pytest.raises(pgflow.WorkflowNotFound):
            await client.history(old.id)
        again = await client.dispatch(leaf.options(id=old.id))
        assert await again.output(20) == "done"


async def test_a_failed_one_goes_only_when_it_is_asked_for(dsn: str) -> None:
    BROKEN.add("x")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        failed = await client.dispatch(leaf)
        with pytest.raises(pgflow.WorkflowFailed):
            await failed.output(20)
        age(dsn)
        assert await client.prune(older_than=HOUR) == 0
        assert await client.prune(older_than=HOUR, status="failed") == 1
        assert ids(dsn) == set() and rows(dsn, failed.id) == 0
        for call in (client.retry, client.cancel, client.terminate, client.get):
            with pytest.raises(pgflow.WorkflowNotFound):
                await call(failed.id)
        with pytest.raises(pgflow.WorkflowNotFound):
            await client.signal(Go(), to=failed.id)


async def test_a_child_stays_while_its_parent_holds_it(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        root = await client.dispatch(parent)
        await ended(dsn, 1)
        age(dsn)
        kept = await client.prune(older_than=HOUR)
        assert (kept, kept.kept) == (0, {"awaited": 1})
        await client.signal(Go(), to=root.id)
        assert await root.output(20) == "done"
        assert await client.prune(older_than=HOUR) == 1
        assert ids(dsn) == {root.id}


async def test_a_failed_parent_may_go_on(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=ALL):
            root = await client.dispatch(parent)
            await ended(dsn, 1)
        BROKEN.add("x")
        await client.cancel(root.id)
        ask(dsn, "UPDATE pgflow.runs SET status = 'failed', wake_at = NULL")
        ask(dsn, "UPDATE pgflow.workflows SET status = 'failed', completed_at = now() WHERE status IS NULL")
        age(dsn)
        assert await client.prune(older_than=HOUR) == 0
        assert await client.prune(older_than=HOUR, status=["failed", "completed"]) == 2, "parents were dispatched first"
        assert ids(dsn) == set()


async def test_a_failed_child_of_a_parent_that_went_on_goes(dsn: str) -> None:
    BROKEN.add("x")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        root = await client.dispatch(catching)
        assert await root.output(20) == "caught"
        age(dsn)
        assert await client.prune(older_than=HOUR, status="failed") == 1
        assert ids(dsn) == {root.id}


async def test_children_of_forgotten_turns_go_though_the_parent_lives_for_ever(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        root = await client.dispatch(looping)
        for turn in range(3):
            await ended(dsn, turn + 1)
            await progress(dsn, turn)
            await client.signal(Go(), to=root.id)
        await ended(dsn, 4)
        await progress(dsn, 3)
        age(dsn)
        kept = await client.prune(older_than=HOUR)
        assert (kept, kept.kept) == (3, {"awaited": 1}), "that of the current turn is held"


async def test_one_that_its_parent_has_not_recorded_yet_stays(dsn: str) -> None:
    """The child has come to its end before the parent's row of it: the parent would start it once more."""
    async with pgflow.Client(dsn) as client:
        seen: list[int] = []

        async def while_unrecorded() -> None:
            if not seen:
                seen.append(1)
                ask(dsn, "UPDATE pgflow.workflows SET status = 'completed', completed_at = now() WHERE name = 'leaf'")
                ask(dsn, "DELETE FROM pgflow.runs WHERE name = 'leaf'")
                age(dsn)
                seen.append(await client.prune(older_than=HOUR))

        with faults.install({"crossings.after": while_unrecorded}):
            async with pgflow.Worker(dsn, workflows=[parent]):
                root = await client.dispatch(parent)
                await status(client, root, "sleeping")
        assert seen == [1, 0] and len(ids(dsn, "leaf")) == 1


async def test_who_was_found_stays_while_the_finder_holds_it(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        found = await client.dispatch(waiting.options(unique=True))
        other = await client.dispatch(finder)
        await status(client, other, "sleeping")
        await client.signal(Go(), to=found.id)
        await found.output(20)
        age(dsn)
        assert await client.prune(older_than=HOUR) == 0
        await client.signal(Go(), to=other.id)
        assert await other.output(20) == "went"
        assert await client.prune(older_than=HOUR) == 1
        assert ids(dsn) == {other.id} and ask(dsn, "SELECT * FROM pgflow.finders") == []


async def test_who_was_found_in_a_turn_that_is_forgotten_goes(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        found = await client.dispatch(waiting.options(unique=True))
        other = await client.dispatch(looping_finder)
        await status(client, other, "sleeping")
        await client.signal(Go(), to=found.id)
        await found.output(20)
        age(dsn)
        assert await client.prune(older_than=HOUR) == 0
        await client.signal(Go(), to=other.id)
        await progress(dsn, 1)
        assert await client.prune(older_than=HOUR) == 1


async def test_finders_that_code_of_before_has_noted_count(dsn: str) -> None:
    """It notes them with the run alone, and not where."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        found = await client.dispatch(waiting.options(unique=True))
        await status(client, found, "sleeping")
        other = await client.dispatch(waiting)
        ask(dsn, f"UPDATE pgflow.runs SET waiters = '{{{other.id}}}' WHERE workflow_id = '{found.id}'")
        await client.signal(Go(), to=found.id)
        await found.output(20)
        age(dsn)
        assert await client.prune(older_than=HOUR) == 0
        await client.signal(Go(), to=other.id)
        await other.output(20)
        assert await client.prune(older_than=HOUR) == 1


async def test_one_that_goes_between_being_found_and_being_kept_is_started_anew(dsn: str) -> None:
    """The finder has its id, and has not asked yet that it be kept."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        found = await client.dispatch(waiting.options(unique=True))
        gone: list[int] = []

        async def end() -> None:
            if not gone:
                await client.signal(Go(), to=found.id)
                await found.output(20)
                age(dsn)
                gone.append(await client.prune(older_than=HOUR))

        with faults.install({"crossings.before_wait": end}):
            other = await client.dispatch(finder)
            await until(lambda: gone == [1] and len(ids(dsn, "waiting")) == 1)
        (started,) = ids(dsn, "waiting")
        assert started != found.id
        for id in (started, other.id):
            await client.signal(Go(), to=id)
        assert await other.output(20) == "went"


async def test_a_child_of_an_earlier_life_is_not_taken_for_one_of_this(dsn: str) -> None:
    """The first workflow of an id has gone, its child is kept longer: what that one gave is not the second one's."""
    id = uuid4()
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        first = await client.dispatch(catching, id=id)
        assert await first.output() == "done"
        age(dsn)
        assert await client.prune(older_than=HOUR, name="catching") == 1
        assert len(ids(dsn, "leaf")) == 1
        second = await client.dispatch(catching, id=id)
        with pytest.raises(pgflow.WorkflowFailed, match="an earlier workflow of this id had started.*pgflow prune"):
            await second.output()
        assert await client.prune(older_than=HOUR, name="leaf") == 1
        await client.rewind(id, before="{1}")
        assert await second.output() == "done"


async def test_who_found_a_workflow_in_turns_that_are_forgotten_is_not_noted_for_ever(dsn: str) -> None:
    """A loop that finds the same unique workflow in each turn leaves a row for each that history holds."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[*ALL, finding]):
        found = await client.dispatch(waiting.options(unique=True))
        loop = await client.dispatch(finding, 12)
        await loop.output(60)
        noted = ask(dsn, f"SELECT count(*) FROM pgflow.finders WHERE finder_id = '{loop.id}'")
        assert noted[0][0] <= 3
        await client.signal(Go(), to=found.id)
        await found.output(20)


async def test_a_fork_may_await_once_more_what_is_in_its_history(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=ALL):
            source = await client.dispatch(parent, "leaf")
            await client.signal(Go(), to=source.id)
            await source.output(20)
            source = await client.dispatch(twice)
            assert await source.output(20) == "donedone"
        age(dsn)
        fork = await client.fork(source.id, before="{3}")
        assert await client.prune(older_than=HOUR, name="leaf") == 1, "that of the other, and not the fork's"
        assert await client.prune(older_than=HOUR, name="twice") == 1, "a fork has a copy"
        async with pgflow.Worker(dsn, workflows=ALL):
            assert await fork.output(20) == "donedone"
            assert await client.prune(older_than=HOUR, name="leaf") == 1


async def test_a_chain_of_workflows_goes_from_its_beginning(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=ALL):
        await client.dispatch(chain, 5)
        await ended(dsn, 6)
        age(dsn)
        assert await client.prune(older_than=HOUR, limit=2) == 2
        assert await client.prune(older_than=HOUR) == 4


async def test_what_a_live_sender_may_send_again_is_still_known(dsn: str) -> None:
    """It was taken, and the sender's process died before it recorded that it had sent it."""
    async with pgflow.Client(dsn) as client:
        receiver = await client.dispatch(waiting)
        seen: list[object] = []

        async def while_unrecorded() -> None:
            if not seen:
                (id,) = ask(dsn, "SELECT id FROM pgflow.signals")[0]
                ask(dsn, "UPDATE pgflow.signals SET consumed_at = now(), number = 1")
                ask(
                    dsn, "UPDATE pgflow.workflows SET status = 'completed', completed_at = now() WHERE name = 'waiting'"
                )
                ask(dsn, "DELETE FROM pgflow.runs WHERE name = 'waiting'")
                age(dsn)
                seen.append(await client.prune(older_than=HOUR))
                seen.append([id] == [found for (found,) in ask(dsn, "SELECT id FROM pgflow.signals")])

        with faults.install({"crossings.after": while_unrecorded}):
            async with pgflow.Worker(dsn, workflows=[sender]):
                other = await client.dispatch(sender, receiver.id)
                await status(client, other, "sleeping")
        assert seen == [1, True]


async def test_what_is_refused(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        for given in (-1, timedelta(days=-1), float("nan")):
            with pytest.raises(ValueError, match="older_than"):
                await client.prune(older_than=given)
        for limit in (0, -1, True):
            with pytest.raises(ValueError, match="limit"):
                await client.prune(older_than=HOUR, limit=limit)
        for wrong in ("running", [], ["failed", "pending"]):
            with pytest.raises(ValueError, match="status"):
                await client.prune(older_than=HOUR, status=wrong)


async def test_nothing_goes_before_it_is_known_who_found_what(dsn: str) -> None:
    ask(dsn, "INSERT INTO pgflow.chores (name) VALUES ('finders')")
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(leaf)
        await client.cancel(handle.id)
        with pytest.raises(pgflow.PgflowError, match="workers do that"):
            await client.prune(older_than=0)


def test_the_command(dsn: str) -> None:
    pgflow = Command(dsn)
    id = pgflow("workflow", "dispatch", "leaf")
    pgflow("workflow", "cancel", id)
    age(dsn)
    kept = pgflow("workflow", "dispatch", "leaf", "--id", str(uuid4()))
    assert pgflow("prune", "--older-than", "12h", "--dry-run") == "would remove: 1"
    assert "12" in pgflow("prune", "--older-than", "12", "--yes", code=2)
    assert pgflow("prune", "--older-than", "12h", "--yes") == "removed: 1"
    assert ids(dsn) == {UUID(kept)}
    assert pgflow("prune", "--older-than", "12h", "--json").startswith('{"removed": 0')
