"""Which workflows recovery suspects of a worker's death, which are claimed together, and what ends a suspicion."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from pgflow.history.events import STATUS_PENDING
from pgflow.model.outcomes import Failed, Released, Suspended
from pgflow.model.writes import RunChanges
from pgflow.store.database.connections import Database
from pgflow.store.journal.journal import Journal
from pgflow.store.leasing import leases
from pgflow.store.leasing.claims import Claims
from pgflow.store.leasing.leases import Lease
from tests.store.scene import Scene, row
from tests.waiting import until

GONE = 4711
"""A lock that nobody holds."""


async def recover(scene: Scene, worker: int) -> int:
    """Look until nothing is in doubt, as a worker that holds a lock itself."""
    scene.do("SELECT pg_advisory_lock(8)")
    return await leases.recover(scene.database, worker, own_key=lambda: 8)


def suspicion(scene: Scene, run: UUID) -> Any:
    """Whose deaths it is suspected of, those that count, and one that may."""
    return scene.one("SELECT suspicions, crashes, presumed FROM runs WHERE workflow_id = %s", run)


def die(scene: Scene, *runs: UUID, expired: bool = False, process: uuid.UUID | None = None) -> int:
    """A worker that holds these runs has died: its session has ended, or all that is known is that its
    lease ran out.
    """
    dead = scene.worker(lease=-1.0 if expired else 3600.0, lock_key=None if expired else GONE)
    scene.do("UPDATE workers SET process = %s WHERE id = %s", process, dead)
    scene.do(
        "UPDATE runs SET status = 'running', worker_id = %s, wake_at = NULL, epoch = epoch + 1 WHERE workflow_id = "
        "ANY(%s)",
        dead,
        [*runs],
    )
    return dead


@pytest.mark.parametrize("expired", [False, True])
async def test_of_several_each_is_suspected_and_none_counted(scene: Scene, worker: int, expired: bool) -> None:
    runs = [scene.run(), scene.run()]
    first = die(scene, *runs, expired=expired)
    assert await recover(scene, worker) == 2
    second = die(scene, *runs, expired=expired)
    assert await recover(scene, worker) == 2
    assert [suspicion(scene, run) for run in runs] == [([first, second], None, None)] * 2


async def test_a_death_with_one_suspect_counts(scene: Scene, worker: int) -> None:
    run = scene.run()
    first = die(scene, run)
    assert await recover(scene, worker) == 1
    assert suspicion(scene, run) == ([first], [first], None)
    due = "SELECT wake_at <= now() FROM runs WHERE workflow_id = %s"
    assert scene.one(due, run), "the first may be an accident, and keeps nobody waiting"
    second = die(scene, run)
    assert await recover(scene, worker) == 1
    assert suspicion(scene, run) == ([first, second], [first, second], None)
    assert scene.one("SELECT wake_at - suspected_at = interval '1 s' FROM runs WHERE workflow_id = %s", run)


async def test_a_lease_that_ran_out_counts_when_another_follows(scene: Scene, worker: int) -> None:
    run = scene.run()
    deaths = [die(scene, run, expired=True)]
    await recover(scene, worker)
    assert suspicion(scene, run) == (deaths, None, deaths[0])
    deaths.append(die(scene, run, expired=True))
    await recover(scene, worker)
    assert suspicion(scene, run) == (deaths, deaths[:1], deaths[1])
    deaths.append(die(scene, run))
    await recover(scene, worker)
    assert suspicion(scene, run) == (deaths, deaths, None)


async def test_a_session_that_ended_with_its_server_proves_nothing(scene: Scene, worker: int) -> None:
    run = scene.run()
    dead = die(scene, run)
    scene.do("UPDATE workers SET heartbeat_at = pg_postmaster_start_time() - interval '1 s' WHERE id = %s", dead)
    await recover(scene, worker)
    assert suspicion(scene, run) == ([dead], None, dead)


async def test_workers_of_one_process_die_together(scene: Scene, worker: int) -> None:
    """Whichever is found first, and even if the other is buried by then."""
    one, other = scene.run(), scene.run()
    process = uuid.uuid4()
    first = die(scene, one, process=process)
    second = die(scene, other, process=process)
    scene.do("UPDATE workers SET lock_key = NULL WHERE id = %s", second)  # nobody notices it yet
    assert await recover(scene, worker) == 1
    assert scene.one("SELECT held FROM workers WHERE id = %s", second) == 2
    scene.do("UPDATE workers SET lock_key = %s WHERE id = %s", GONE, second)
    assert await recover(scene, worker) == 1
    assert [suspicion(scene, run) for run in (one, other)] == [([first], None, None), ([second], None, None)]


async def test_a_worker_that_beats_was_not_dead(scene: Scene) -> None:
    lease = await Lease.register(scene.database, queues=["default"], on_lost=lambda reason: None)
    scene.do("UPDATE workers SET held = 1")
    scene.do(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%%heartbeat%%' AND "
        "datname = current_database()"
    )
    await until(lambda: scene.all("SELECT 1 FROM workers WHERE held IS NULL"), "a heartbeat")
    await lease.release()


async def test_what_is_handed_back_is_suspected_of_nothing(scene: Scene) -> None:
    lease = await Lease.register(scene.database, queues=["default"], on_lost=lambda reason: None)
    run = scene.run(lease.worker_id)
    await lease.release()
    assert suspicion(scene, run) == (None, None, None)
    assert scene.one("SELECT status FROM runs") == "pending"


async def test_owners_that_are_no_workers_are_no_deaths(scene: Scene, worker: int) -> None:
    run = scene.run(999)
    assert await recover(scene, worker) == 1
    assert suspicion(scene, run) == (None, None, None)


async def test_whoever_has_a_connection_again_clears_what_was_suspected(scene: Scene, worker: int) -> None:
    """Its session had ended, and a part of what it held was freed before its next heartbeat told that it lives."""
    lease = await Lease.register(
        Database(scene.database.dsn, lease=8.0), queues=["default"], on_lost=lambda reason: None
    )
    earlier = die(scene, scene.run())
    free = partial(scene.run, status="pending", epoch=1)
    mine = free(suspicions=[lease.worker_id], crashes=[lease.worker_id], presumed=lease.worker_id)
    both = free(suspicions=[earlier, lease.worker_id], crashes=[earlier])
    others = free(suspicions=[earlier], crashes=[earlier], presumed=earlier)
    locked = free(suspicions=[lease.worker_id])
    stranger = scene.other()
    stranger.execute("SELECT FROM runs WHERE workflow_id = %s FOR UPDATE", [locked])
    scene.do(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name LIKE '%%heartbeat%%' AND datname = current_database()"
    )
    await until(lambda: suspicion(scene, mine) == (None, None, None), "the end of the suspicion")
    await until(lambda: suspicion(scene, both) == ([earlier], [earlier], None), "the end of the one that is its own")
    assert suspicion(scene, others) == ([earlier], [earlier], earlier)
    assert suspicion(scene, locked) == ([lease.worker_id], None, None)
    stranger.rollback()
    stranger.close()
    await until(lambda: suspicion(scene, locked) == (None, None, None), "what somebody had locked")
    await lease.release()


@pytest.mark.parametrize("expired", [False, True])
async def test_whoever_comes_back_clears_what_was_suspected(scene: Scene, worker: int, expired: bool) -> None:
    alone, one, other, locked = (scene.run() for _ in range(4))
    earlier = die(scene, one)
    await recover(scene, worker)
    gone = die(scene, one, other, locked, expired=expired)
    await recover(scene, worker)
    again = die(scene, alone, expired=expired)
    await recover(scene, worker)
    assert suspicion(scene, one)[0] == [earlier, gone]
    stranger = scene.other()
    stranger.execute("SELECT FROM runs WHERE workflow_id = %s FOR UPDATE", [locked])
    registering = [
        await Lease.register(scene.database, queues=["default"], on_lost=lambda reason: None, formerly=[formerly])
        for formerly in (again,)
    ]
    assert suspicion(scene, alone) == (None, None, None)
    assert suspicion(scene, one) == ([earlier, gone], [earlier], None)
    stranger.rollback()
    stranger.close()
    registering.append(
        await Lease.register(scene.database, queues=["default"], on_lost=lambda reason: None, formerly=[gone])
    )
    assert [suspicion(scene, run) for run in (one, other, locked)] == [
        ([earlier], [earlier], None),
        (None, None, None),
        (None, None, None),
    ]
    for lease in registering:
        await lease.release()


async def test_suspects_are_taken_apart_from_others(scene: Scene, worker: int) -> None:
    times: dict[int, set[UUID]] = {}
    for suspected in (1, 1, 1, 2, 2, 3, 7):
        run = scene.run(epoch=1, suspicions=[*range(suspected)], crashes=[1])
        times.setdefault(min(suspected, 3), set()).add(run)
    scene.run(epoch=1, wake_in=60.0, suspicions=[1])
    scene.run(epoch=1, suspicions=[1], queue="other")
    free = scene.run()  # it has waited for the shortest time
    claims = Claims(scene.database, worker)
    try:
        batch = await claims.claim(100, ["default"], ["flow"])
        assert [run.workflow_id for run in batch.runs] == [free]
        assert batch.suspected == 7
        assert not batch.left, "nothing that this claim could take"
        taken = (await claims.claim_suspected((2, 0, 1), ["default"], ["flow"])).runs
        ids = {run.workflow_id for run in taken}
        assert [len(ids & times[number]) for number in (1, 2, 3)] == [2, 0, 1]
        assert {run.suspicions for run in taken} <= {1, 3, 7} and all(
            list(run.crashes) == [1] and run.epoch == 2 for run in taken
        )
        rest = (await claims.claim_suspected((10, 10, 10), ["default"], ["flow"])).runs
        assert ids | {run.workflow_id for run in rest} == set().union(*times.values())
        assert (await claims.claim(100, ["default"], ["flow"])).suspected == 0
    finally:
        await claims.close()


LIFTED = (None, None, None)
COUNTED = ([1, 2], None, 2)
KEPT = ([1, 2], [1], 2)


@pytest.mark.parametrize(
    ("rows", "outcome", "run_changes", "left"),
    [
        ([row("1")], None, RunChanges(suspicion="lifted"), LIFTED),
        ([row("1")], Suspended(None), RunChanges(suspicion="lifted"), LIFTED),
        ([row("1", None, status=STATUS_PENDING)], None, None, KEPT),
        ([row("1", None, status=STATUS_PENDING)], Suspended(None), None, KEPT),
        ([row("1", None, status=STATUS_PENDING)], None, RunChanges(suspicion="counted"), COUNTED),
        ([row("1", None, status=STATUS_PENDING)], Suspended(None), RunChanges(suspicion="counted"), COUNTED),
        ([], Released(), None, KEPT),
        ([], Failed("{}"), None, LIFTED),
    ],
)
async def test_what_becomes_of_a_suspicion(
    scene: Scene,
    worker: int,
    journal: Journal,
    rows: list[Any],
    outcome: Any,
    run_changes: RunChanges | None,
    left: Any,
) -> None:
    run = scene.run(worker, suspicions=[1, 2], crashes=[1], presumed=2)
    other = scene.run(worker, suspicions=[1, 2], crashes=[1], presumed=2)
    write = scene.write(run, rows, outcome)
    write.run_changes = run_changes
    beside_it = scene.write(other, [row("1", None, status=STATUS_PENDING)])
    journal.write(write)
    journal.write(beside_it)
    assert await scene.fates(write, beside_it) == ["committed"] * 2
    assert suspicion(scene, run) == left
    assert suspicion(scene, other) == KEPT


async def test_writes_that_leave_together_keep_what_each_says(scene: Scene, worker: int, journal: Journal) -> None:
    """Progress prevails, in whichever order."""
    for marks in (("counted", "lifted"), ("lifted", "counted"), ("", "lifted")):
        run = scene.run(worker, suspicions=[1, 2], crashes=[1], presumed=2)
        writes = [scene.write(run, [row(str(number))]) for number in (1, 2)]
        for write, mark in zip(writes, marks, strict=True):
            write.run_changes = RunChanges(suspicion=mark)
            journal.write(write)
        assert await scene.fates(*writes) == ["committed"] * 2
        assert suspicion(scene, run) == LIFTED
