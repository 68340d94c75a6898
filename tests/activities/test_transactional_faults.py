"""Transactional activities that are cut off: killed, fenced out, cancelled, or without an answer to their COMMIT.

Whatever happens, an effect stands exactly once, with the result of its activity. About 15 seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import pgflow
from pgflow import faults
from tests.activities import flows
from tests.activities.proxy import Proxy
from tests.store.late import late
from tests.store.scene import Scene
from tests.waiting import until

BACKENDS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgflow activity'"
HELD = f"SELECT count(*) {BACKENDS} AND wait_event = 'advisory'"

ASKED = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name LIKE '%%fate' AND wait_event_type = 'Lock'"
)


@pytest.fixture
def scene(dsn: str) -> Iterator[Scene]:
    """A fresh database with the schema and the tables of effects."""
    scene = Scene(dsn)
    scene.do(flows.TABLES)
    yield scene
    scene.close()


def worker(scene: Scene, **settings: Any) -> pgflow.Worker:
    return pgflow.Worker(scene.database.dsn, workflows=flows.ALL, **settings)


def effects(scene: Scene) -> list[tuple[str, int]]:
    return scene.all("SELECT what, attempt FROM effects ORDER BY what, attempt")


def statuses(scene: Scene) -> list[tuple[str, str]]:
    return scene.all("SELECT location, status FROM history ORDER BY location")


class Gate:
    """A fault point at which everything stands still until the test opens it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()


@contextmanager
def process(scene: Scene, *points: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a process of its own."""
    environment = {**os.environ, "PGFLOW_DATABASE_URL": scene.database.dsn}
    child = subprocess.Popen([sys.executable, "-m", "tests.activities.process", *points], env=environment)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


# Nobody waits for a slow one


async def test_a_slow_one_holds_up_nobody(scene: Scene, client: pgflow.Client) -> None:
    """While its transaction is open the workflow's row is free, and a cancel reaches it."""
    scene.do("SELECT pg_advisory_lock(7)")
    async with worker(scene):
        handle = await client.dispatch(flows.waiting)
        await until(lambda: scene.one(HELD), "the transaction")
        scene.do("BEGIN")
        assert scene.all("SELECT status FROM runs FOR UPDATE NOWAIT") == ["running"]
        scene.do("COMMIT")
        assert await client.cancel(handle.id)
        with pytest.raises(pgflow.WorkflowCancelled):
            await handle.output(20)
        await until(lambda: scene.one(f"SELECT count(*) {BACKENDS} AND state <> 'idle'") == 0, "the rollback")
    assert effects(scene) == []
    assert statuses(scene) == [("1", "completed"), ("2", "cancelled")]


@pytest.mark.parametrize("hints", [True, False])
async def test_one_whose_workflow_is_terminated_leaves_no_effect(
    scene: Scene, client: pgflow.Client, hints: bool
) -> None:
    """Whether its worker hears of it meanwhile or finds out as it commits."""
    scene.do("SELECT pg_advisory_lock(7)")
    async with worker(scene, poll=60), pgflow.Client(scene.database.dsn, hints=hints) as operator:
        handle = await client.dispatch(flows.waiting)
        await until(lambda: scene.one(HELD), "the transaction")
        assert await operator.terminate(handle.id)
        if not hints:
            scene.do("SELECT pg_advisory_unlock(7)")
        await until(lambda: scene.one(f"SELECT count(*) {BACKENDS} AND state <> 'idle'") == 0, "the rollback")
        with pytest.raises(pgflow.WorkflowTerminated):
            await handle.output(20)
    assert effects(scene) == []
    assert scene.all("SELECT status FROM workflows") == ["cancelled"]


# The run leaves memory while the commit is on its way


@pytest.mark.parametrize("thread", [False, True])
async def test_a_commit_of_a_run_that_has_left_memory(
    scene: Scene, client: pgflow.Client, thread: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker drops its runs, as it does when it cannot trust its lease any more: the commit stands, and nobody
    stumbles over it.
    """
    gate = Gate()
    with faults.install({"transactions.after_commit": gate}):
        async with worker(scene) as first:
            handle = await client.dispatch(flows.booking, thread=thread)
            await gate.reached.wait()
            assert first._session is not None
            first._session._discard()
            gate.open.set()
            await until(
                lambda: scene.one(f"SELECT count(*) {BACKENDS} AND state <> 'idle'") == 0, "the end of the transaction"
            )
    async with worker(scene):
        await handle.output(30)
    assert len(effects(scene)) == len({what for what, _ in effects(scene)})
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


# The lease is lost between the write and the commit


def taken_over(scene: Scene, connection: psycopg.Connection[Any] | None = None) -> None:
    """Another worker has the workflow."""
    other = scene.worker()
    (connection or scene.sql).execute("UPDATE runs SET worker_id = %s, epoch = epoch + 1", [other])


@pytest.mark.parametrize("thread", [False, True])
async def test_a_lease_lost_before_the_fence(scene: Scene, client: pgflow.Client, thread: bool) -> None:
    with faults.install({"transactions.before_fence": lambda: taken_over(scene)}):
        async with worker(scene, poll=60):
            await client.dispatch(flows.booking, thread=thread)
            await until(lambda: scene.one("SELECT epoch FROM runs") == 2, "the takeover")
            await until(lambda: scene.one(f"SELECT count(*) {BACKENDS} AND state <> 'idle'") == 0, "the rollback")
    assert effects(scene) == []
    assert statuses(scene) == [("1", "completed")]


async def test_a_lease_that_is_being_lost_at_the_fence(scene: Scene, client: pgflow.Client) -> None:
    """The fence waits for whoever has the row locked, and believes what that one has made of it."""
    other = scene.other()
    with faults.install({"transactions.before_fence": lambda: taken_over(scene, other)}):
        async with worker(scene, poll=60):
            await client.dispatch(flows.booking)
            waits = f"SELECT count(*) {BACKENDS} AND wait_event_type = 'Lock'"
            await until(lambda: scene.one(waits), "the fence")
            other.commit()
            await until(lambda: scene.one(f"SELECT count(*) {BACKENDS} AND state <> 'idle'") == 0, "the rollback")
    other.close()
    assert effects(scene) == []
    assert statuses(scene) == [("1", "completed")]


async def test_nobody_takes_it_between_fence_and_commit(scene: Scene, client: pgflow.Client) -> None:
    gate = Gate()
    with faults.install({"transactions.before_commit": gate}):
        async with worker(scene):
            handle = await client.dispatch(flows.booking)
            await gate.reached.wait()
            assert scene.all("SELECT 1 FROM runs FOR NO KEY UPDATE SKIP LOCKED") == []
            gate.open.set()
            assert await handle.output(20) == [1, "room booked", 2]
    assert effects(scene) == [("room", 1)]


# Nobody knows what became of the commit


@pytest.mark.parametrize("thread", [False, True])
async def test_the_answer_to_the_commit_is_lost(scene: Scene, client: pgflow.Client, thread: bool) -> None:
    """It was committed: it is not done again, and the workflow goes on with the result."""
    proxy = Proxy(scene.database.dsn, forwards=True)
    async with proxy.serving() as dsn, pgflow.Worker(dsn, workflows=flows.ALL):
        handle = await client.dispatch(flows.booking, thread=thread)
        assert await handle.output(20) == [1, "room booked", 2]
        assert proxy.cut.is_set()
    assert effects(scene) == [("room", 1)]
    assert scene.one("SELECT attempts FROM events WHERE location = '2'") == 1


@pytest.mark.parametrize("thread", [False, True])
async def test_the_commit_itself_is_lost(scene: Scene, client: pgflow.Client, thread: bool) -> None:
    """The server's side is still open: nothing is decided until that has ended, then it is done again."""
    proxy = Proxy(scene.database.dsn, forwards=False)
    async with proxy.serving() as dsn, pgflow.Worker(dsn, workflows=flows.ALL):
        handle = await client.dispatch(flows.booking, thread=thread)
        await proxy.cut.wait()
        await until(lambda: scene.one(ASKED), "the question for its fate")
        assert statuses(scene) == [("1", "completed")]
        proxy.let_go.set()
        assert await handle.output(20) == [1, "room booked", 2]
    assert effects(scene) == [("room", 2)]
    assert scene.one("SELECT attempts FROM events WHERE location = '2'") == 2


@pytest.mark.parametrize("thread", [False, True])
async def test_the_commit_comes_late(scene: Scene, client: pgflow.Client, thread: bool) -> None:
    """Whoever asks for its fate waits for it, and believes what it has done."""
    async with late(scene.database.dsn) as between, pgflow.Worker(between.dsn, workflows=flows.ALL):
        between.hold("activity", "COMMIT\0")
        handle = await client.dispatch(flows.booking, thread=thread)
        await between.held.wait()
        await until(lambda: scene.one(ASKED), "the question for its fate")
        await between.deliver()
        assert await handle.output(20) == [1, "room booked", 2]
    assert effects(scene) == [("room", 1)]
    assert scene.one("SELECT attempts FROM events WHERE location = '2'") == 1


@pytest.mark.parametrize("statement", ["FOR NO KEY UPDATE", "INSERT INTO"])
async def test_what_leads_to_the_commit_comes_late(scene: Scene, client: pgflow.Client, statement: str) -> None:
    """The fence, or the rows: no COMMIT follows, and the attempt after it stands alone."""
    async with late(scene.database.dsn) as between, pgflow.Worker(between.dsn, workflows=flows.ALL):
        between.hold("activity", f'{statement} "pgflow"' if statement == "INSERT INTO" else statement)
        handle = await client.dispatch(flows.booking)
        await between.held.wait()
        if statement == "FOR NO KEY UPDATE":
            assert await handle.output(20) == [1, "room booked", 2]
        await between.deliver()
        assert await handle.output(20) == [1, "room booked", 2]
    assert effects(scene) == [("room", 2)]
    assert statuses(scene) == [("1", "completed"), ("2", "completed"), ("3", "completed")]


async def test_a_session_killed_before_its_commit(scene: Scene, client: pgflow.Client) -> None:
    killed: list[bool] = []

    def kill() -> None:
        if not killed:
            killed.extend(scene.all(f"SELECT pg_terminate_backend(pid) {BACKENDS}"))

    with faults.install({"transactions.before_commit": kill}):
        async with worker(scene):
            handle = await client.dispatch(flows.booking)
            assert await handle.output(20) == [1, "room booked", 2]
    assert killed == [True]
    assert effects(scene) == [("room", 2)]


@pytest.mark.parametrize("thread", [False, True])
async def test_a_session_that_broke_while_idle_costs_no_attempt(
    scene: Scene, client: pgflow.Client, thread: bool
) -> None:
    async with worker(scene):
        for number in (1, 2):
            handle = await client.dispatch(flows.booking, thread=thread)
            assert await handle.output(20) == [1, "room booked", 2]
            await until(lambda: scene.one(f"SELECT count(*) {BACKENDS} AND state = 'idle'") == 1, "it is idle")
            scene.do(f"SELECT pg_terminate_backend(pid) {BACKENDS}")
            assert effects(scene) == [("room", 1)] * number


# Others of its workflow


async def test_no_row_without_rows_for_the_steps_before(scene: Scene, client: pgflow.Client) -> None:
    scene.do("SELECT pg_advisory_lock(7)")
    async with worker(scene):
        handle = await client.dispatch(flows.two)
        await until(lambda: scene.all("SELECT what FROM effects") == ["second"], "the second one")
        assert statuses(scene) == [("1", "pending"), ("2", "completed")]
        scene.do("SELECT pg_advisory_unlock(7)")
        assert await handle.output(20) == ["first booked", "second booked"]
    assert scene.all("SELECT location FROM history ORDER BY seq") == ["2", "1"]


@pytest.mark.parametrize("commits", [False, True])
async def test_what_ends_meanwhile_writes_nothing_of_its_state(
    scene: Scene, client: pgflow.Client, commits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State is written as a whole: another result of the workflow waits until the commit is decided."""
    for name in ("end_now", "has_ended"):
        monkeypatch.setattr(flows, name, asyncio.Event())

    async def other_ends() -> None:
        flows.end_now.set()
        await flows.has_ended.wait()
        if not commits:
            scene.do(f"SELECT pg_terminate_backend(pid) {BACKENDS}")

    with faults.install({"transactions.before_commit": other_ends}):
        async with worker(scene):
            handle = await client.dispatch(flows.beside)
            assert await handle.output(20) is commits
    assert scene.one("SELECT state FROM workflows") == ({"plain": True, "room": 1} if commits else {"plain": True})
    assert effects(scene) == ([("room", 1)] if commits else [])


# The code goes on without it while it commits


@pytest.mark.parametrize("lets_go", [False, True])
@pytest.mark.parametrize("commits", [False, True])
async def test_the_code_goes_on_while_it_commits(
    scene: Scene, client: pgflow.Client, commits: bool, lets_go: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another result comes first and the code wants no other: what is being committed stands, or is recorded as
    cancelled.
    """
    for name in ("end_now", "has_ended", "first_ended"):
        monkeypatch.setattr(flows, name, asyncio.Event())
    journal, commit = Gate(), Gate()
    async with worker(scene, cached=0):
        with faults.install({"transactions.before_commit": commit, "journal.before": journal}):
            handle = await client.dispatch(flows.impatient, lets_go)
            await until(lambda: scene.one(f"SELECT count(*) {BACKENDS} AND state LIKE 'idle in%%'"), "the write")
            await flows.first_ended.wait()
            flows.end_now.set()
            await flows.has_ended.wait()  # its turn comes after the other one's row, which waits in the journal
            journal.open.set()
            await commit.reached.wait()
            other = "SELECT status FROM history WHERE name = 'end_first'"
            await until(lambda: scene.all(other) == ["completed"], "the other result")
            if not commits:
                scene.do(f"SELECT pg_terminate_backend(pid) {BACKENDS}")
            commit.open.set()
        await until(lambda: scene.one("SELECT status FROM runs") == "sleeping", "the workflow goes on")
        last = "completed" if commits else "cancelled"
        assert scene.all("SELECT status FROM history WHERE name = 'book_on_time'") == [last]
        assert effects(scene) == ([("on time", 1)] if commits else [])
        await client.signal(flows.Go(), to=handle.id)
        assert await handle.output(20) == [False, True], "replay goes the same way"
    assert effects(scene) == ([("on time", 1)] if commits else [])


async def test_a_stopping_worker_lets_it_commit(scene: Scene, client: pgflow.Client) -> None:
    gate = Gate()
    with faults.install({"transactions.before_commit": gate}):
        async with worker(scene, grace=0):
            handle = await client.dispatch(flows.booking)
            await gate.reached.wait()
            asyncio.get_running_loop().call_later(0.3, gate.open.set)
    assert effects(scene) == [("room", 1)]
    assert statuses(scene) == [("1", "completed"), ("2", "completed")]
    assert scene.one("SELECT status FROM runs") == "pending"
    async with worker(scene):
        assert await handle.output(20) == [1, "room booked", 2]
    assert effects(scene) == [("room", 1)]


async def test_a_stopping_worker_cuts_a_slow_one_off(scene: Scene, client: pgflow.Client) -> None:
    scene.do("SELECT pg_advisory_lock(7)")
    async with worker(scene, grace=0.1):
        handle = await client.dispatch(flows.waiting)
        await until(lambda: scene.one(HELD), "the transaction")
    assert effects(scene) == []
    scene.do("SELECT pg_advisory_unlock(7)")
    async with worker(scene):
        assert await handle.output(20) == [1, "room booked", 2]
    assert effects(scene) == [("room", 1)]


# SIGKILL, in processes of their own


@pytest.mark.parametrize(
    ("point", "committed"),
    [("transactions.before_fence", False), ("transactions.before_commit", False), ("transactions.after_commit", True)],
)
async def test_killed_at_its_commit(scene: Scene, client: pgflow.Client, point: str, committed: bool) -> None:
    handle = await client.dispatch(flows.booking)
    with process(scene, point) as child:
        assert await asyncio.to_thread(child.wait, 30) == -signal.SIGKILL
    assert [what for what, _ in effects(scene)] == (["room"] if committed else [])
    assert [location for location, _ in statuses(scene)] == (["1", "2"] if committed else ["1"])
    async with worker(scene):
        assert await handle.output(30) == [1, "room booked", 2]
    assert effects(scene) == [("room", 1 if committed else 2)], "the death has cost an attempt"


@pytest.mark.parametrize("thread", [False, True])
async def test_killed_between_the_write_and_the_commit(scene: Scene, client: pgflow.Client, thread: bool) -> None:
    """In the middle of the activity, which holds the row that the next attempt will write again."""
    scene.do("CREATE UNIQUE INDEX ON effects (what)")
    scene.do("SELECT pg_advisory_lock(7)")
    handle = await client.dispatch(flows.waiting, thread=thread)
    with process(scene) as child:
        await until(lambda: scene.one(HELD), "the write")
        first = scene.one(f"SELECT pid {BACKENDS} AND wait_event = 'advisory'")
        child.kill()
        child.wait()
    async with worker(scene):
        # The server notices the lost client during its statement, and lets go of the row.
        held = f"SELECT pid {BACKENDS} AND wait_event = 'advisory'"
        await until(lambda: scene.all(held) not in ([], [first]), "the second attempt")
        scene.do("SELECT pg_advisory_unlock(7)")
        assert await handle.output(30) == [1, "room booked", 2]
    assert effects(scene) == [("room", 2)], "the death has cost an attempt"
