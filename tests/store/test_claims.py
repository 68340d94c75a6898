"""Claims: which runs a worker takes, in which order, with which history, and at what cost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from pgflow.model.claimed import Claimed
from pgflow.store.journal.journal import Journal
from pgflow.store.leasing import claims as claims_module
from pgflow.store.leasing.claims import Claims
from pgflow.uuid7 import uuid7
from tests.store.scene import Scene, row


@pytest_asyncio.fixture
async def claims(scene: Scene, worker: int) -> AsyncIterator[Claims]:
    claims = Claims(scene.database, worker)
    yield claims
    await claims.close()


async def test_claim_brings_all_that_a_replay_needs(
    scene: Scene, worker: int, claims: Claims, journal: Journal
) -> None:
    workflow = scene.run()
    scene.do(
        """UPDATE workflows SET input = '{"b": 1, "a": 2.0}', tags = '{"k": [1]}', seed = %s, parent_id = %s""",
        workflow,
        workflow,
    )
    scene.do("UPDATE runs SET mailbox = 3, cancel_requested = true, waiting_for = '{x}'")
    batch = await claims.claim(10, ["default"], ["flow"])
    (claimed,) = batch.runs
    created_at = scene.one("SELECT created_at FROM workflows")
    assert claimed.events == []
    assert (claimed.workflow_id, claimed.name, claimed.queue, claimed.epoch) == (
        workflow,
        "flow",
        "default",
        1,
    )
    assert (claimed.input, claimed.tags, claimed.created_at) == (
        '{"b": 1, "a": 2.0}',
        {"k": [1]},
        created_at,
    )
    assert (claimed.seed, claimed.parent_id) == (workflow, workflow)
    assert (claimed.mailbox, claimed.cancel_requested, claimed.now) == (3, True, batch.now)
    assert scene.one("SELECT status, worker_id, epoch, wake_at, waiting_for FROM runs") == (
        "running",
        worker,
        1,
        None,
        None,
    )

    when = datetime(2033, 1, 1, 2, 3, 4, 5, tzinfo=UTC)
    rows = [
        row(
            "1",
            '{"z": 1, "a": 1.0}',
            seq=1,
            turn_state="1",
            turn_now=when,
            turn_seq=7,
            loop_progress=2,
            loop_state="3",
        ),
        row("2", None, status="pending", wake_at=when, input="[1]", error='{"e":1}'),
        row("a10", None, kind="removed", input='{"kind":"activity"}'),
        row("a10,1"),
        row("a11"),
        row("3"),
    ]
    write = scene.write(workflow, rows)
    journal.write(write)
    assert await scene.fates(write) == ["committed"]
    scene.do("UPDATE runs SET status = 'pending', wake_at = now(), worker_id = NULL")
    batch = await claims.claim(10, ["default"], ["flow"])
    (claimed,) = batch.runs
    assert claimed.epoch == 2
    order = ["1", "2", "3", "a10", "a10,1", "a11"]
    assert [event.location for event in claimed.events] == order
    by_location = {each.location: each for each in rows}
    for event in claimed.events:
        written = by_location[event.location]
        expected: dict[str, Any] = {name: getattr(written, name) for name in written._fields}
        if written.kind != "removed":
            expected["input"] = None
        assert event._asdict() == {**expected, "loop_seq": None, "at": scene.told(write)}


async def test_first_the_highest_priority_then_the_longest_due(scene: Scene, claims: Claims) -> None:
    late = [scene.run(wake_in=-i) for i in range(1, 4)]
    urgent = [scene.run(wake_in=-i, priority=7) for i in range(1, 4)]
    minor = [scene.run(wake_in=-100, priority=-2)]
    other = [scene.run(wake_in=-i - 0.5, name="other") for i in range(1, 4)]
    names = ["flow", "other"]
    expected = [*urgent[::-1], other[2], late[2], other[1], late[1], other[0], late[0], *minor]
    await claims.claim(0, ["default"], names)  # meets the priorities that are new to it
    found = []
    for _ in range(len(expected) + 1):
        found += [run.workflow_id for run in (await claims.claim(1, ["default"], names)).runs]
    assert found == expected


async def test_only_due_runs_of_known_names_and_queues(scene: Scene, claims: Claims) -> None:
    mine = {scene.run(), scene.run(status="sleeping"), scene.run(queue="second")}
    soon = scene.run(wake_in=30, status="sleeping")
    scene.run(name="unknown")
    scene.run(queue="third")
    scene.run(wake_in=None, status="sleeping")
    scene.run(wake_in=None, status="failed")
    scene.run(status="paused")
    batch = await claims.claim(100, ["default", "second"], ["flow"])
    assert {run.workflow_id for run in batch.runs} == mine
    assert batch.next_wake_at == scene.one("SELECT wake_at FROM runs WHERE workflow_id = %s", soon)
    assert (await claims.claim(100, ["default", "second"], ["flow"])).runs == []


async def test_limit_is_kept_and_the_rest_is_found_by_the_next_claims(scene: Scene, claims: Claims) -> None:
    every = {scene.run(wake_in=-i % 7, priority=i % 3) for i in range(50)}
    scene.do("UPDATE runs SET wake_at = now() - interval '1 minute' WHERE wake_at > now()")
    found = []
    for _ in range(10):
        batch = await claims.claim(7, ["default"], ["flow"])
        assert len(batch.runs) <= 7
        found += [run.workflow_id for run in batch.runs]
    assert len(found) == 50
    assert set(found) == every
    assert (await claims.claim(0, ["default"], ["flow"])).runs == []


async def test_run_that_becomes_visible_late_is_found_by_the_sweep(
    scene: Scene, claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dispatch in a transaction that was open for long is due in the past of what the worker has already taken."""
    await claims.claim(10, ["default"], ["flow"])
    late = scene.run(wake_in=-3600)
    monkeypatch.setattr(claims, "_next_sweep", 0.0)
    assert [run.workflow_id for run in (await claims.claim(10, ["default"], ["flow"])).runs] == [late]


async def test_worker_whose_lease_has_expired_or_is_gone_claims_nothing(
    scene: Scene, worker: int, claims: Claims
) -> None:
    scene.run()
    scene.do("UPDATE workers SET expires_at = now() - interval '1 ms'")
    assert (await claims.claim(10, ["default"], ["flow"])).runs == []
    scene.do("DELETE FROM workers")
    assert (await claims.claim(10, ["default"], ["flow"])).runs == []
    assert scene.one("SELECT status, epoch FROM runs") == ("pending", 0)


async def test_a_hint_names_what_to_claim(scene: Scene, claims: Claims, journal: Journal) -> None:
    """A new run that is due, with what a replay needs. All others are left as they are, those that
    others hold as well.
    """
    wanted, signalled = scene.run(priority=7), scene.run(mailbox=2)
    for number, name in ((2, "second"), (1, "first"), (None, "not delivered")):
        scene.do(
            "INSERT INTO signals (id, workflow_id, name, body, number) VALUES (gen_random_uuid(), %s, %s, '{}', %s)",
            signalled,
            name,
            number,
        )
    others = [
        scene.run(wake_in=60),
        scene.run(wake_in=None),
        scene.run(status="paused"),
        scene.run(epoch=1),
        scene.run(scene.worker()),
        scene.run(name="unknown"),
        scene.run(queue="other"),
        uuid7(),
    ]
    held, stranger = scene.run(), scene.other()
    stranger.execute("SELECT FROM runs WHERE workflow_id = %s FOR UPDATE", [held])
    states = "SELECT r::text FROM runs AS r WHERE workflow_id = ANY (%s) ORDER BY workflow_id"
    before = scene.all(states, [*others, held])
    async with asyncio.timeout(5):
        batch = await claims.claim_hinted([*others, wanted, held, signalled], ["default"], ["flow"])
        assert batch is not None
    stranger.rollback()
    stranger.close()
    assert scene.all(states, [*others, held]) == before
    by_id = {run.workflow_id: run for run in batch.runs}
    assert set(by_id) == {wanted, signalled}
    created_at = scene.one("SELECT created_at FROM workflows WHERE id = %s", wanted)
    assert by_id[wanted] == Claimed(
        wanted, "flow", "default", 1, "{}", {}, created_at, None, wanted, 0, False, batch.now
    )
    assert [signal.name for signal in by_id[signalled].signals] == ["first", "second"]
    assert await claims.claim_hinted([wanted, *others], ["default"], ["flow"]) is None
    write = scene.write(wanted, [row("1")])
    journal.write(write)
    assert await scene.fates(write) == ["committed"], "the claim is this worker's, at this epoch"


async def test_a_hint_gives_nothing_to_a_worker_that_is_gone(scene: Scene, worker: int, claims: Claims) -> None:
    workflow = scene.run()
    scene.do("UPDATE workers SET expires_at = now() - interval '1 ms'")
    assert await claims.claim_hinted([workflow], ["default"], ["flow"]) is None
    assert scene.one("SELECT status, epoch FROM runs") == ("pending", 0)


async def test_two_workers_share_and_never_both_take_one(scene: Scene, claims: Claims) -> None:
    other = Claims(scene.database, scene.worker())
    every = {scene.run() for _ in range(200)}
    taken: list[Any] = []

    async def take(claims: Claims) -> None:
        while runs := (await claims.claim(9, ["default"], ["flow"])).runs:
            taken.extend(run.workflow_id for run in runs)

    await asyncio.gather(take(claims), take(other))
    for _ in range(2):  # what both had locked at the same moment is left over
        await take(claims)
    assert len(taken) == 200
    assert set(taken) == every
    await other.close()


async def blocks(scene: Scene, claims: Claims) -> int:
    """Pages that one claim of ten runs looks at."""
    around = claims._round(10, [("default", "flow")], claims.sweep_is_due(busy=False))
    connection = await scene.database.connect("explain")
    async with connection, connection.transaction(force_rollback=True):
        cursor = await connection.execute(
            b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + scene.database.statement("claim"),
            around.parameters,
        )
        ((plan,),) = await cursor.fetchall()
        whole = json.dumps(plan)
        assert '"Seq Scan"' not in whole, whole
        top = plan[0]["Plan"]
        return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])


async def fill(scene: Scene, count: int, **columns: str) -> None:
    values = {
        "name": "'flow'",
        "status": "'sleeping'",
        "priority": "0",
        "wake_at": "now()",
        **columns,
    }
    scene.do(
        f"INSERT INTO runs (workflow_id, {', '.join(values)}) "
        f"SELECT gen_random_uuid(), {', '.join(values.values())} FROM generate_series(1, {count}) AS i"
    )


OBSTACLES = {
    "future sleepers": {"wake_at": "now() + i * interval '1 s'"},
    "future sleepers of higher priorities": {
        "wake_at": "now() + i * interval '1 s'",
        "priority": "1 + i % 5",
    },
    "unknown names": {"name": "'unknown'", "wake_at": "now() - i * interval '1 s'"},
    "other queues": {"wake_at": "now() - interval '1 day'", "queue": "'other'"},
    "runs that wait for an event": {"wake_at": "NULL"},
    "failed runs": {"status": "'failed'", "wake_at": "NULL"},
    "younger ready runs": {"wake_at": "now() - interval '1 s'", "status": "'pending'"},
}


@pytest.mark.parametrize("what", OBSTACLES)
async def test_nothing_stands_before_ready_work(scene: Scene, claims: Claims, what: str) -> None:
    for _ in range(20):
        scene.run(wake_in=-60)
    await fill(scene, 3_000, **OBSTACLES[what])
    await claims.claim(0, ["default"], ["flow"])
    few = await blocks(scene, claims)
    await fill(scene, 30_000, **OBSTACLES[what])
    many = await blocks(scene, claims)
    # With ten times as many rows the index may be a page deeper, for each of the levels that a claim looks at.
    levels = 6 if "priority" in OBSTACLES[what] else 1
    assert many <= few + max(30, 10 * levels), (few, many)


async def test_dead_entries_that_vacuum_cannot_remove_do_not_stand_before_ready_work(
    scene: Scene, claims: Claims
) -> None:
    snapshot = scene.other()
    snapshot.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    snapshot.execute("SELECT count(*) FROM runs")
    await fill(scene, 20_000, wake_at="now() - interval '10 s'")
    scene.do("UPDATE runs SET status = 'running', worker_id = 77, wake_at = NULL")
    await claims.claim(10, ["default"], ["flow"])  # a sweep, which learns from which moment on to look
    for _ in range(20):
        scene.run()
    cost = await blocks(scene, claims)
    assert cost < 200, cost
    runs = (await claims.claim(20, ["default"], ["flow"])).runs
    assert len(runs) == 20
    snapshot.rollback()
    snapshot.close()


async def test_sleeper_that_becomes_due_is_found_without_a_sweep(scene: Scene, claims: Claims) -> None:
    for wake_in in (0.2, 0.4):
        scene.run(wake_in=wake_in, status="sleeping")
    claims._next_sweep = float("inf")
    found = 0
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 10
    while found < 2 and loop.time() < deadline:
        batch = await claims.claim(10, ["default"], ["flow"])
        found += len(batch.runs)
        if batch.next_wake_at is not None:
            assert batch.next_wake_at - batch.now < timedelta(seconds=1)
        await asyncio.sleep(0.01)
    assert found == 2


async def test_what_has_just_woken_is_left_to_whoever_had_it_but_not_by_a_first_claim(
    scene: Scene, claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has just begun may be there because that one has died."""
    monkeypatch.setattr(claims_module, "PATIENCE", timedelta(hours=1))
    other = scene.worker()
    first = scene.run(last_worker=other, status="sleeping")
    assert [run.workflow_id for run in (await claims.claim(10, ["default"], ["flow"])).runs] == [first]
    scene.run(last_worker=other, status="sleeping")
    batch = await claims.claim(10, ["default"], ["flow"])
    assert batch.runs == [] and batch.left


async def test_a_busy_worker_puts_looking_from_the_beginning_off_but_not_for_ever(scene: Scene, claims: Claims) -> None:
    flow = ["default"], ["flow"]
    assert claims.sweep_is_due(busy=True), "at first"
    await claims.claim(10, *flow)
    late = scene.run(wake_in=-3600)
    assert not claims.sweep_is_due(busy=False)
    assert (await claims.claim(10, *flow, sweep=False)).runs == []
    claims._next_sweep = time.monotonic()
    assert claims.sweep_is_due(busy=False) and not claims.sweep_is_due(busy=True)
    claims._next_sweep -= claims_module.LONGEST_WITHOUT_SWEEP
    assert claims.sweep_is_due(busy=True)
    assert [run.workflow_id for run in (await claims.claim(10, *flow, sweep=True)).runs] == [late]


@pytest.mark.parametrize("wake_in", [-1.0, 3600.0])
async def test_a_look_from_the_beginning_that_finds_nothing_but_a_new_priority_ends(
    scene: Scene, claims: Claims, wake_in: float
) -> None:
    """Whether what has it is due or not: the level is not forgotten at once, and found again, and so on for ever."""
    flow = ["default"], ["flow"]
    await claims.claim(10, *flow)
    urgent = scene.run(priority=7, wake_in=wake_in)
    batch = await asyncio.wait_for(claims.claim(10, *flow, sweep=True), 60)
    assert [run.workflow_id for run in batch.runs] == ([urgent] if wake_in < 0 else [])


async def test_a_priority_that_was_of_no_use_for_long_is_looked_for_anew(scene: Scene, claims: Claims) -> None:
    flow = ["default"], ["flow"]
    scene.run(priority=7, wake_in=3600.0)
    await claims.claim(10, *flow)
    for level in claims._levels["default", "flow"].values():
        level.used -= 2 * claims_module.FORGET_LEVEL
    await asyncio.wait_for(claims.claim(10, *flow, sweep=True), 60)
    assert set(claims._levels["default", "flow"]) == {0, 7}
    scene.do("DELETE FROM runs WHERE priority = 7")
    for level in claims._levels["default", "flow"].values():
        level.used -= 2 * claims_module.FORGET_LEVEL
    await claims.claim(10, *flow, sweep=True)
    assert set(claims._levels["default", "flow"]) == {0}
