"""A lock that a stranger holds, on a run or on any row of one workflow, delays that workflow alone, whichever of the
worker's writers meets it.

A second connection holds the lock for as long as the test says; the others have to be done by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio

import pgflow
from pgflow import faults
from pgflow.model.outcomes import Completed, Failed, Outcome, Suspended
from pgflow.model.writes import RunChanges, Write
from pgflow.store.journal.forgetting import LoopAdvancer
from pgflow.store.journal.journal import Journal
from tests.store.scene import Scene, loop_row, row
from tests.waiting import until

OTHERS = 19


@contextmanager
def locked(scene: Scene, query: str, *values: Any) -> Iterator[psycopg.Connection[Any]]:
    """A stranger's open transaction, with the lock that a query takes."""
    stranger = scene.other()
    try:
        assert stranger.execute(query.encode(), values).fetchall(), "there is nothing to lock"
        yield stranger
    finally:
        stranger.rollback()
        stranger.close()


def deadlocks(scene: Scene) -> int:
    scene.do("SELECT pg_stat_force_next_flush()")
    return int(scene.one("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))


@pytest_asyncio.fixture
async def advancer(scene: Scene, worker: int) -> AsyncIterator[LoopAdvancer]:
    advancer = LoopAdvancer(scene.database, worker)
    advancer.start()
    yield advancer
    await advancer.close()


# The journal


def consuming(scene: Scene, run: UUID, signal: UUID) -> Write:
    write = scene.write(run, [row("2", kind="listen")])
    write.run_changes = RunChanges(consumed=[(signal, "2")])
    return write


LOCKS = {
    "run": "SELECT FROM runs WHERE workflow_id = %s FOR UPDATE",
    "row of history": "SELECT FROM events WHERE workflow_id = %s AND location = '1' FOR UPDATE",
    "workflow": "SELECT FROM workflows WHERE id = %s FOR UPDATE",
    "signal": "SELECT FROM signals WHERE workflow_id = %s FOR UPDATE",
}


@pytest.mark.parametrize("outcome", [None, Completed('"over"'), Failed("{}"), Suspended(None)])
@pytest.mark.parametrize("what", LOCKS)
async def test_the_journal(scene: Scene, worker: int, journal: Journal, what: str, outcome: Outcome | None) -> None:
    """Writes of others are committed, batch after batch, while one is held up, and that one when its turn has come."""
    busy, others = scene.run(worker), [scene.run(worker) for _ in range(OTHERS)]
    opened = [scene.write(run, [row("1", None, status="pending")]) for run in [busy, *others]]
    for write in opened:
        journal.write(write)
    assert set(await scene.fates(*opened)) == {"committed"}
    signal = scene.one(
        "INSERT INTO signals (id, workflow_id, name, body, number) VALUES (gen_random_uuid(), %s, 'go', '{}', 1) "
        "RETURNING id",
        busy,
    )
    with locked(scene, LOCKS[what], busy) as stranger:
        if what == "signal":
            late = consuming(scene, busy, signal)
            late.outcome = outcome
        elif what == "workflow" and not isinstance(outcome, Completed | Failed):
            late = scene.write(busy, [row("1")], outcome)
            late.run_changes = RunChanges(state='{"kept": 1}')
        else:
            late = scene.write(busy, [row("1")], outcome)
        journal.write(late)
        for location in ("1", "2", "3"):
            writes = [scene.write(run, [row(location)]) for run in others]
            for write in writes:
                journal.write(write)
            assert set(await scene.fates(*writes)) == {"committed"}
        assert scene.fate(late) is None
        assert journal.held_up <= 1  # from the second batch on it passes over what is locked
        stranger.rollback()
        assert await scene.fates(late) == ["committed"]
    assert deadlocks(scene) == 0


async def test_the_journal_when_it_cannot_see_what_is_locked(scene: Scene, worker: int, journal: Journal) -> None:
    """Even a lock that no look before the write finds: a row that a stranger has inserted and not committed."""
    busy, others = scene.run(worker), [scene.run(worker) for _ in range(OTHERS)]
    insert = (
        "INSERT INTO events (workflow_id, location, kind, name, status) VALUES (%s, '1', 'activity', 'x', "
        "'pending') RETURNING 1"
    )
    with locked(scene, insert, busy) as stranger:
        late = scene.write(busy, [row("1")])
        writes = [scene.write(run, [row("1")]) for run in others]
        for write in [late, *writes]:
            journal.write(write)
        assert set(await scene.fates(*writes)) == {"committed"}
        assert scene.fate(late) is None
        stranger.rollback()
        assert await scene.fates(late) == ["committed"]


# Loops


async def looping(scene: Scene, worker: int, journal: Journal, count: int) -> list[UUID]:
    """Workflows with a loop each, one turn of which has ended."""
    runs = [scene.run(worker) for _ in range(count)]
    writes = [
        scene.write(run, [loop_row(), row("1,1,1", turn_state="0"), row("1,2,1", iteration=1, turn_state="1")])
        for run in runs
    ]
    for write in writes:
        journal.write(write)
    assert set(await scene.fates(*writes)) == {"committed"}
    return runs


LOOP_LOCKS = {
    "run": "SELECT FROM runs WHERE workflow_id = %s FOR UPDATE",
    "loop": "SELECT FROM events WHERE workflow_id = %s AND location = '1' FOR UPDATE",
    "turn": "SELECT FROM events WHERE workflow_id = %s AND location = '1,1,1' FOR UPDATE",
}


@pytest.mark.parametrize("what", LOOP_LOCKS)
async def test_loops_of_one_group(
    scene: Scene, worker: int, journal: Journal, advancer: LoopAdvancer, what: str
) -> None:
    """Those of the others advance, turn after turn, and the journal writes for them; the busy one follows."""
    busy, *others = await looping(scene, worker, journal, 1 + OTHERS)
    with locked(scene, LOOP_LOCKS[what], busy) as stranger:
        late = scene.advance(busy, 1)
        advancer.advance(late)
        for turns in (1, 2, 3):
            advances = [scene.advance(run, turns) for run in others]
            for advance in advances:
                advancer.advance(advance)
            writes = [scene.write(run, [row(f"1,{turns + 2},1", iteration=turns + 1)]) for run in others]
            for write in writes:
                journal.write(write)
            assert set(await scene.fates(*advances, *writes)) == {"committed"}
        assert scene.fate(late) is None
        stranger.rollback()
        assert await scene.fates(late) == ["committed"]
    assert scene.all("SELECT loop_progress FROM events WHERE workflow_id = %s AND location = '1'", busy) == [1]
    assert advancer.held_up > 0
    assert deadlocks(scene) == 0


async def test_many_loops_that_are_held_up(scene: Scene, worker: int, journal: Journal, advancer: LoopAdvancer) -> None:
    """More than a group of them: those that come later go on all the same."""
    runs = await looping(scene, worker, journal, 70)
    held, free = runs[:50], runs[50:]
    with locked(scene, "SELECT FROM runs WHERE workflow_id = ANY(%s) FOR UPDATE", held) as stranger:
        late = [scene.advance(run, 1) for run in held]
        early = [scene.advance(run, 1) for run in free]
        for advance in [*late, *early]:
            advancer.advance(advance)
        assert set(await scene.fates(*early)) == {"committed"}
        assert {scene.fate(advance) for advance in late} == {None}
        stranger.rollback()
        assert set(await scene.fates(*late)) == {"committed"}


async def test_what_is_held_up_is_refused_when_the_worker_ends(scene: Scene, worker: int, journal: Journal) -> None:
    (run,) = await looping(scene, worker, journal, 1)
    advancer = LoopAdvancer(scene.database, worker)
    advancer.start()
    with locked(scene, "SELECT FROM runs WHERE workflow_id = %s FOR UPDATE", run):
        advance = scene.advance(run, 1)
        advancer.advance(advance)
        await until(lambda: advancer.held_up, "the lock")
        await until(lambda: advancer._aside, "that it is set aside")
        await advancer.close()
    assert scene.fate(advance) == "refused"


@pytest.mark.parametrize("point", ["loops.after_progress", "loops.after_move", "loops.before_commit"])
@pytest.mark.parametrize("status", ["failed", "cancelled", "abandoned"])
@pytest.mark.parametrize("zombie", [False, True])
async def test_a_loop_that_ends_while_it_is_advanced(
    scene: Scene, worker: int, journal: Journal, advancer: LoopAdvancer, point: str, status: str, zombie: bool
) -> None:
    """An advancement is held open, this worker's or that of one that has lost its lease: the journal
    waits for neither.
    """
    ending, *others = await looping(scene, worker, journal, 1 + OTHERS)
    gate, reached = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await gate.wait()

    with faults.install({point: hold}):
        advance = scene.advance(ending, 1)
        advancer.advance(advance)
        await reached.wait()
        epoch = 1
        if zombie and point != "loops.before_commit":  # there it has the run's row: nobody takes it over
            epoch = 2
            scene.do("UPDATE runs SET epoch = 2 WHERE workflow_id = %s", ending)
        late = scene.write(ending, [row("1", None, kind="loop", status=status, error="{}")], epoch=epoch)
        writes = [scene.write(run, [row("2")]) for run in others]
        for write in [late, *writes]:
            journal.write(write)
        assert set(await scene.fates(*writes)) == {"committed"}
        assert scene.fate(late) is None
        assert journal.held_up == 0
        gate.set()
        assert await scene.fates(late) == ["committed"]
        await scene.fates(advance)
    assert scene.all("SELECT status FROM events WHERE workflow_id = %s AND location = '1'", ending) == [status]
    assert deadlocks(scene) == 0


@pgflow.workflow
async def failing(ctx: pgflow.WorkflowContext, how: str) -> None:
    async def turn(ctx: pgflow.WorkflowContext, state: int) -> pgflow.Continue[int]:
        await ctx.activity(nothing)
        if state == 3:
            if how == "raises":
                raise ValueError("no")
            await ctx.sleep(3600)
        return pgflow.Continue(state + 1)

    await ctx.loop(turn, state=0, commit_interval=3)


@pgflow.activity
async def nothing(ctx: pgflow.ActivityContext) -> None: ...


@pytest.mark.parametrize("how", ["raises", "is cancelled"])
async def test_a_workflow_whose_loop_ends_while_it_is_advanced(scene: Scene, how: str) -> None:
    """The write that says how the loop ends is made when the advancement has ended."""
    dsn = scene.database.dsn
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[failing]):
        handle = None

        async def hold() -> None:
            assert handle is not None
            if how == "is cancelled":
                await until(lambda: scene.all("SELECT FROM events WHERE kind = 'sleep'"), "the sleep")
                await client.cancel(handle.id)
            else:
                await until(lambda: scene.all("SELECT FROM events WHERE location = '1,4,1'"), "the last step")

        with faults.install({"loops.after_progress": hold}):
            handle = await client.dispatch(failing, how)
            with pytest.raises(pgflow.WorkflowFailed if how == "raises" else pgflow.WorkflowCancelled):
                await handle.output(timeout=30)
    wanted = "failed" if how == "raises" else "cancelled"
    assert scene.one("SELECT status || ' ' || loop_progress FROM events WHERE kind = 'loop'") == f"{wanted} 3"
    assert deadlocks(scene) == 0


# What else a worker writes, and clients


@pgflow.signal
@dataclass
class Go:
    pass


@pgflow.activity(transactional=True)
async def booking(ctx: pgflow.ActivityContext) -> None:
    await ctx.connection.execute("SELECT 1")


GATE: dict[str, asyncio.Event] = {}


@pgflow.activity(timeout=None)
async def gated(ctx: pgflow.ActivityContext) -> None:
    GATE["reached"].set()
    await GATE["open"].wait()


@pgflow.workflow
async def listening(ctx: pgflow.WorkflowContext) -> None:
    await ctx.listen(Go)


@pgflow.workflow
async def acting(ctx: pgflow.WorkflowContext, how: str, to: str) -> str:
    """Does something that another transaction than the journal's commits, after a row that tells where it stands."""
    await ctx.activity(gated)
    if how == "signal":
        await ctx.signal(Go(), to=UUID(to), missing_ok=True)
    elif how == "child":
        await ctx.dispatch(listening)
    elif how == "unique child":
        await ctx.dispatch(listening, tags={"of": str(ctx.id)}, unique=True)
    else:
        await ctx.activity(booking)
    return how


@pytest.mark.parametrize("how", ["signal", "child", "unique child", "transaction"])
async def test_a_worker(scene: Scene, how: str) -> None:
    """The row of one of its workflows is locked while that is about to act: the others act."""
    dsn = scene.database.dsn
    GATE["reached"], GATE["open"] = asyncio.Event(), asyncio.Event()
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[acting, listening]):
        to = await client.dispatch(listening)
        busy = await client.dispatch(acting, how, str(to.id))
        await GATE["reached"].wait()
        with locked(scene, "SELECT FROM runs WHERE workflow_id = %s FOR UPDATE", busy.id) as stranger:
            GATE["open"].set()
            others = [await client.dispatch(acting, how, str(to.id)) for _ in range(OTHERS)]
            for handle in others:
                assert await handle.output(timeout=30) == how
            assert (await busy.info()).status != "completed"
            stranger.rollback()
        assert await busy.output(timeout=30) == how


@pytest.mark.parametrize("what", ["pause", "resume", "cancel", "signal", "fork"])
async def test_a_client(scene: Scene, what: str) -> None:
    """What it asks of one workflow, whose row is locked, holds up nothing that it asks of others, nor of that one if no
    lock is needed.
    """
    dsn = scene.database.dsn
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[listening]):
        busy, other = await client.dispatch(listening), await client.dispatch(listening)
        asleep = "SELECT count(*) = 2 FROM runs WHERE status = 'sleeping'"
        await until(lambda: scene.one(asleep), "sleep")

        def ask(handle: pgflow.WorkflowHandle[None]) -> Any:
            if what == "signal":
                return client.signal(Go(), to=handle.id)
            return client.fork(handle.id, before="{1}") if what == "fork" else getattr(client, what)(handle.id)

        with locked(scene, "SELECT FROM runs WHERE workflow_id = %s FOR UPDATE", busy.id) as stranger:
            late = asyncio.ensure_future(ask(busy))
            await ask(other)
            if what in ("cancel", "signal", "resume"):  # these lock no run, or none that is not paused
                await late
            else:
                waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                await until(lambda: scene.all(waits), "somebody who waits")
                assert not late.done()
            stranger.rollback()
            await late
