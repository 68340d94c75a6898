"""Transactional activities: an activity's own writes and its result are durable together, or not at all. About 10
seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import pgflow
from tests.activities import flows
from tests.store.scene import Scene
from tests.waiting import until

SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgflow activity'"
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


def steps(scene: Scene) -> list[tuple[str, str, str, int]]:
    return scene.all("SELECT location, name, status, attempts FROM events ORDER BY location")


@pytest.mark.parametrize("thread", [False, True])
async def test_effect_and_result_are_one_transaction(scene: Scene, client: pgflow.Client, thread: bool) -> None:
    async with worker(scene):
        handle = await client.dispatch(flows.booking, thread=thread)
        assert await handle.output(20) == [1, "room booked", 2]
    assert effects(scene) == [("room", 1)]
    assert scene.one("SELECT xmin::text FROM effects") == scene.one(
        "SELECT xmin::text FROM events WHERE location = '2'"
    )
    assert scene.one("SELECT state FROM workflows") == {"plain": 2, "room": 1}
    assert steps(scene)[1][1:] == ("book_in_thread" if thread else "book", "completed", 1)


@pytest.mark.parametrize("thread", [False, True])
async def test_a_failed_attempt_is_rolled_back_and_repeated(scene: Scene, client: pgflow.Client, thread: bool) -> None:
    async with worker(scene):
        handle = await client.dispatch(flows.booking, fail=2, thread=thread)
        assert await handle.output(20) == [1, "room booked", 2]
    assert effects(scene) == [("room", 3)]
    assert scene.one("SELECT state ->> 'room' FROM workflows") == "3"
    assert steps(scene)[1][2:] == ("completed", 3)


async def test_when_the_last_attempt_fails_nothing_is_left(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene):
        handle = await client.dispatch(flows.booking, fail=3)
        with pytest.raises(pgflow.WorkflowFailed, match="failed after 3 attempts: ConnectionError"):
            await handle.output(20)
    assert effects(scene) == []
    assert scene.one("SELECT state FROM workflows") == {"plain": 1}


async def test_refused_at_the_commit(scene: Scene, client: pgflow.Client) -> None:
    """A deferred constraint: the database says no to the COMMIT itself."""
    async with worker(scene):
        handle = await client.dispatch(flows.one, "duplicate", [])
        assert await handle.output(20) == 2
    assert scene.all("SELECT what FROM strict") == ["one"]
    assert steps(scene) == [("1", "duplicate", "completed", 2)]


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (["COMMIT"], "has ended its transaction itself. Expected"),
        (["ROLLBACK"], "has ended its transaction itself. Expected"),
        (["COMMIT", "BEGIN"], "has ended its transaction itself and begun another"),
        (["SELECT 1 / 0"], "caught an error of a statement"),
        (["SET search_path = public"], "has changed the search_path of its transaction from"),
        (["SET LOCAL search_path = public"], "has changed the search_path of its transaction from"),
        (["SET TRANSACTION READ ONLY"], "has changed the read-only mode of its transaction from 'off' to 'on'"),
        (["COMMIT", "BEGIN ISOLATION LEVEL SERIALIZABLE"], "has ended its transaction itself and begun another"),
        (["SET ROLE pg_monitor"], "has changed the role of its transaction from"),
    ],
)
async def test_misuse_is_told_and_not_repeated(
    scene: Scene, client: pgflow.Client, statements: list[str], told: str
) -> None:
    async with worker(scene):
        handle = await client.dispatch(flows.one, "misuse", [statements])
        with pytest.raises(pgflow.WorkflowFailed, match="TransactionMisused") as failed:
            await handle.output(20)
    assert told in failed.value.error_message and "Nothing is recorded as done" in failed.value.error_message
    # What it has committed itself stands, and is not done again.
    assert effects(scene) == ([("misused", 1)] if statements[0] == "COMMIT" else [])
    assert steps(scene) == [("1", "misuse", "failed", 1)]


@pytest.mark.parametrize("name", ["commit", "rollback", "close"])
async def test_the_connection_does_not_end_it_either(scene: Scene, client: pgflow.Client, name: str) -> None:
    async with worker(scene):
        handle = await client.dispatch(flows.one, "call_method", [name])
        with pytest.raises(pgflow.WorkflowFailed, match="closed or broke|Transaction context"):
            await handle.output(20)
        # The next one gets a connection that works.
        assert await (await client.dispatch(flows.booking, thread=True)).output(20)
    assert effects(scene) == [("room", 1)]


async def test_statements_that_may_fail_have_blocks_of_their_own(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene):
        handle = await client.dispatch(flows.one, "savepoint", [])
        assert await handle.output(20) == 1
    assert effects(scene) == [("one", 1), ("two", 1)]


async def test_a_client_joins_the_transaction(
    scene: Scene, client: pgflow.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "clients", [client])
    async with worker(scene):
        await (await client.dispatch(flows.one, "start_another", [])).output(20)
        (started,) = await client.list(name="booking")
        assert started.tags == {"attempt": 2}
        assert await client.output(started.id, 20) == [1, "room booked", 2]


@pytest.mark.parametrize("where", ["result", "state"])
async def test_what_cannot_be_stored_is_rolled_back(scene: Scene, client: pgflow.Client, where: str) -> None:
    async with worker(scene):
        handle = await client.dispatch(flows.one, "unstorable", [where])
        with pytest.raises(pgflow.WorkflowFailed, match="SerializationError"):
            await handle.output(20)
    assert effects(scene) == []


async def test_no_connection_without_asking_for_it(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene):
        handle = await client.dispatch(flows.one, "without", [])
        with pytest.raises(pgflow.WorkflowFailed, match=r"Expected: @pgflow.activity\(transactional=True\)"):
            await handle.output(20)


@pytest.mark.parametrize("name", ["too_late", "too_late_in_thread"])
async def test_a_timeout_rolls_back(scene: Scene, client: pgflow.Client, name: str) -> None:
    """Even out of a thread that is in the middle of a statement."""
    async with worker(scene):
        handle = await client.dispatch(flows.one, name, [])
        with pytest.raises(pgflow.WorkflowFailed, match="did not end within its timeout of 0.5 s"):
            await handle.output(20)
        active = f"{SESSIONS} AND state <> 'idle'"
        await until(lambda: scene.one(active) == 0, "the end of the transaction")
    assert effects(scene) == []


async def test_among_others(scene: Scene, client: pgflow.Client) -> None:
    """Transactional and plain ones at once: each effect once, in the transaction of its result, and the
    state of all.
    """
    async with worker(scene):
        handle = await client.dispatch(flows.together, 6)
        found = await handle.output(60)
    assert [found[4 * n : 4 * n + 4] for n in range(6)] == [[n, f"a{n} booked", None, f"t{n} booked"] for n in range(6)]
    assert found[24] == [7, "branch booked", 8]
    expected = [*((f"a{n}", 1 + n % 2) for n in range(6)), ("branch", 1), *((f"t{n}", 1) for n in range(6))]
    assert effects(scene) == sorted(expected)
    assert scene.one("SELECT count(DISTINCT seq) = count(*) FROM events WHERE seq IS NOT NULL")
    own = "SELECT count(*) FROM effects AS f JOIN events AS e ON e.xmin = f.xmin"
    assert scene.one(own) == 13
    state = scene.one("SELECT state FROM workflows")
    assert {key: value for key, value in state.items() if key != "plain"} == dict(expected)


async def test_in_turns_of_a_loop(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene):
        handle = await client.dispatch(flows.turning, 9)
        assert await handle.output(20) == 9
    assert sorted(effects(scene)) == [(str(n), 1) for n in range(9)]
    assert steps(scene) == [("1", "turn", "completed", 0)]
    kept = scene.all("SELECT location, turn_state FROM forgotten_events ORDER BY location")
    assert kept == [("1,7,1", 6), ("1,8,1", 7), ("1,9,1", 8)]


async def test_the_session_is_clean_for_the_next(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene, transactions=1):
        first, second, *found = await (await client.dispatch(flows.tidy)).output(20)
    assert first == second, "expected one connection for both"
    assert found == [True, True, 0, 0]


async def test_so_many_at_once(scene: Scene, client: pgflow.Client) -> None:
    scene.do("SELECT pg_advisory_lock(7)")
    waiting = f"{SESSIONS} AND state <> 'idle'"
    async with worker(scene, transactions=2):
        handles = [await client.dispatch(flows.waiting, thread=number % 2 == 0) for number in range(5)]
        await until(lambda: scene.one(waiting) == 2, "two transactions")
        assert scene.one("SELECT count(*) FROM events WHERE location = '1'") == 5, "all have come as far"
        assert scene.one(waiting) == 2
        now = scene.one("SELECT clock_timestamp()")
        scene.do("SELECT pg_advisory_unlock(7)")
        for handle in handles:
            assert await handle.output(20) == [1, "room booked", 2]
    assert len(effects(scene)) == 5
    assert min(scene.all("SELECT completed_at FROM events WHERE location = '2'")) > now, "not the time of their begin"
