"""What was sent on a connection that was lost takes no effect any more, whoever sent it, once it has been sent again.
About 10 seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio

from pgflow import faults
from pgflow.errors import LeaseLost
from pgflow.model.commands import Dispatch, Sending
from pgflow.model.writes import Crossing
from pgflow.store.database.connections import Database
from pgflow.store.exchange.crossing_batch import Crossings
from pgflow.store.exchange.deliveries import DeliveryQueue
from pgflow.store.journal.forgetting import LoopAdvancer
from pgflow.store.journal.journal import Journal
from pgflow.store.leasing.claims import Claims
from pgflow.store.leasing.fencing import HeldRun
from pgflow.store.leasing.leases import Lease, recover
from pgflow.uuid7 import uuid7
from tests.client.fake import Proxy, proxy
from tests.store.late import Late, late
from tests.store.scene import Scene, loop_row, row
from tests.waiting import until

NAMES = "SELECT array_agg(DISTINCT worker_id) FROM runs WHERE status = 'running'"


class Registered:
    """A worker with a real lease, and the runs that the test says are in its memory."""

    def __init__(self, scene: Scene, lease: Lease, lost: list[str]) -> None:
        self.scene, self.lease, self.lost = scene, lease, lost
        self.memory: dict[UUID, HeldRun] = {}
        self.moves: list[tuple[set[UUID], int]] = []
        lease.fence.held = lambda: list(self.memory.values())
        lease.fence.moved = lambda kept, freed: self.moves.append(({key.workflow_id for key in kept}, freed))

    def run(self, **columns: Any) -> UUID:
        workflow_id = self.scene.run(self.lease.worker_id, **columns)
        self.memory[workflow_id] = HeldRun(workflow_id, 1, 0, None, False)
        return workflow_id


@pytest_asyncio.fixture
async def registered(scene: Scene) -> AsyncIterator[Registered]:
    lost: list[str] = []
    lease = await Lease.register(scene.database, queues=["default"], on_lost=lost.append)
    yield Registered(scene, lease, lost)
    await lease.release()


@pytest_asyncio.fixture
async def between(scene: Scene) -> AsyncIterator[Late]:
    async with late(scene.database.dsn) as made:
        yield made


@asynccontextmanager
async def journal_of(registered: Registered, between: Late | Proxy | Database) -> AsyncIterator[Journal]:
    journal = Journal(Database(between.dsn), registered.lease.fence)
    journal.start()
    yield journal
    await journal.close()


async def test_a_batch_of_the_journal(scene: Scene, registered: Registered, between: Late) -> None:
    """Its rows have been forgotten by the time that it arrives, as a finished turn's are."""
    workflow, before = registered.run(), registered.lease.worker_id
    told = "SELECT to_jsonb(w) - '{id,heartbeat_at,expires_at}'::text[] FROM workers AS w"
    as_registered = scene.one(told)
    async with journal_of(registered, between) as journal:
        between.hold("journal", "comes late")
        write = scene.write(workflow, [row("1", '"comes late"'), row("2")])
        journal.write(write)
        assert await scene.fates(write) == ["committed"]
        assert between.held.is_set()
        assert scene.locations(workflow) == ["1", "2"]
        scene.do("DELETE FROM events")
        await between.deliver()
        assert scene.locations(workflow) == []
        assert registered.moves == [({workflow}, 0)]
        assert scene.one(NAMES) == [registered.lease.worker_id] != [before]
        assert scene.one(told) == as_registered, "its registration goes with it"
        after = scene.write(workflow, [row("3")])
        journal.write(after)
        assert await scene.fates(after) == ["committed"]


@asynccontextmanager
async def crossings_of(registered: Registered, between: Late) -> AsyncIterator[Crossings]:
    crossings = Crossings(Database(between.dsn), registered.lease.fence, lambda queues: None, lambda workers: None)
    crossings.start()
    yield crossings
    await crossings.close()


@pytest.mark.parametrize("unique", [None, False, True])
async def test_a_crossing(scene: Scene, registered: Registered, between: Late, unique: bool | None) -> None:
    """What it did has been removed by the time that it arrives, as consumed signals and old workflows are."""
    sender, receiver = registered.run(), scene.run()
    table, id = ("signals" if unique is None else "workflows"), uuid7()
    command: Sending | Dispatch
    if unique is None:
        command = Sending(id, receiver, None, None, "news", '"comes late"')
    else:
        command = Dispatch(id, "child", '{"comes": "late"}', unique=unique)
    done: list[object] = []
    crossing = Crossing(sender, 1, command, lambda _, answer: done.append(answer), lambda _, error: done.append(error))
    async with crossings_of(registered, between) as crossings:
        between.hold("signals" if unique is None else "unique children" if unique else "children", "late")
        crossings.cross(crossing)
        await until(lambda: done, "the crossing")
        assert not isinstance(done[0], BaseException)
        assert between.held.is_set()
        assert scene.one(f"SELECT count(*) FROM {table} WHERE id = %s", id) == 1
        scene.do(f"DELETE FROM {table} WHERE id = %s", id)
        scene.do("DELETE FROM runs WHERE workflow_id = %s", id)
        await between.deliver()
        assert scene.one(f"SELECT count(*) FROM {table} WHERE id = %s", id) == 0
        assert scene.one("SELECT count(*) FROM runs WHERE workflow_id = %s", id) == 0


async def test_an_advancement(scene: Scene, registered: Registered, between: Late) -> None:
    workflow = registered.run()
    async with journal_of(registered, scene.database) as journal:
        write = scene.write(workflow, [loop_row(), row("1,1.1"), row("1,2.1")])
        journal.write(write)
        assert await scene.fates(write) == ["committed"]
    rows = scene.all("SELECT location, e::text FROM events AS e ORDER BY location")
    advancer = LoopAdvancer(Database(between.dsn), registered.lease.fence)
    advancer.start()
    between.hold("loops", "loop_progress")
    advance = scene.advance(workflow, 1, keep=0)
    advancer.advance(advance)
    assert await scene.fates(advance) == ["committed"]
    assert scene.locations(workflow) == ["1", "1,2.1"]
    scene.do("UPDATE events SET loop_progress = 0 WHERE location = '1'")
    await between.deliver()
    assert scene.one("SELECT loop_progress FROM events WHERE location = '1'") == 0
    assert len(rows) == 3
    await advancer.close()


async def test_a_claim(scene: Scene, registered: Registered, between: Late) -> None:
    """It would take runs for a worker that never hears of it."""
    first = scene.run()
    claims = Claims(Database(between.dsn), registered.lease.fence)
    await claims.warm_up(["default"], ["flow"])
    between.hold("claims")
    with pytest.raises(psycopg.OperationalError):
        await claims.claim(10, ["default"], ["flow"])
    (claimed,) = (await claims.claim(10, ["default"], ["flow"])).runs
    assert (claimed.workflow_id, claimed.epoch) == (first, 1)
    second = scene.run()
    await between.deliver()
    assert scene.one("SELECT status, epoch FROM runs WHERE workflow_id = %s", second) == ("pending", 0)
    await claims.close()


@pytest.mark.parametrize("hinted", [False, True])
async def test_what_a_claim_took_whose_answer_was_lost_is_free_again(
    scene: Scene, registered: Registered, hinted: bool
) -> None:
    kept = registered.run()
    workflow = scene.run(name="cut here")
    async with proxy(scene.database.dsn) as between:
        claims = Claims(Database(between.dsn), registered.lease.fence)
        await claims.warm_up(["default"], [])
        between.cut_after = b"cut here"
        with pytest.raises(psycopg.OperationalError):
            if hinted:
                await claims.claim_hinted([workflow], ["default"], ["cut here"])
            else:
                await claims.claim(10, ["default"], ["cut here"])
        assert between.cuts == 1
        assert scene.one("SELECT status, epoch FROM runs WHERE workflow_id = %s", workflow) == ("running", 1)
        (claimed,) = (await claims.claim(10, ["default"], ["cut here"])).runs
        assert (claimed.workflow_id, claimed.epoch) == (workflow, 2)
        assert registered.moves == [({kept}, 1)]
        await claims.close()


async def test_what_was_sent_while_the_fence_moved_is_sent_again(
    scene: Scene, registered: Registered, between: Late
) -> None:
    """It is refused under the number of before, on a connection that is whole, and that is no lost lease."""
    workflow, other = registered.run(), registered.run()
    built, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        if not built.is_set():
            built.set()
            await go_on.wait()

    async with journal_of(registered, scene.database) as journal, crossings_of(registered, between) as crossings:
        with faults.install({"journal.before": hold}):
            write = scene.write(workflow, [row("1")])
            journal.write(write)
            await built.wait()
            done: list[object] = []
            command = Sending(uuid7(), other, None, None, "news", '"comes late"')
            between.hold("signals", "late")
            crossings.cross(
                Crossing(other, 1, command, lambda _, answer: done.append(answer), lambda _, error: done.append(error))
            )
            await until(lambda: registered.moves, "the move")
            go_on.set()
            assert await scene.fates(write) == ["committed"]
            await until(lambda: done, "the crossing")
    assert scene.locations(workflow) == ["1"]


async def test_a_run_that_a_stranger_holds_is_given_up_and_the_others_move(
    scene: Scene, registered: Registered, between: Late
) -> None:
    busy, workflow = registered.run(), registered.run()
    stranger = scene.other()
    stranger.execute("SELECT FROM runs WHERE workflow_id = %s FOR UPDATE", [busy])
    async with journal_of(registered, between) as journal:
        between.hold("journal", "comes late")
        write = scene.write(workflow, [row("1", '"comes late"')])
        journal.write(write)
        assert await scene.fates(write) == ["committed"]
        assert registered.moves == [({workflow}, 0)]
        lost = scene.write(busy, [row("1")])
        journal.write(lost)
        assert await scene.fates(lost) == ["refused"]
        assert isinstance(scene.told(lost), LeaseLost)
    stranger.close()


@pytest.mark.parametrize("committed", [False, True])
async def test_a_move_of_unknown_fate_is_made_again(scene: Scene, registered: Registered, committed: bool) -> None:
    workflow, before = registered.run(), registered.lease.worker_id
    async with proxy(scene.database.dsn) as between, journal_of(registered, between) as journal:
        first = scene.write(workflow, [row("1")])
        journal.write(first)
        await scene.fates(first)
        times = 0

        def cut() -> None:
            nonlocal times
            times += 1
            if times == 1 and committed:
                between.cut_after = b"COMMIT"
            elif times == 1:
                scene.do(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE "
                    "'%%journal'"
                )

        with faults.install({"fence.before_commit": cut}):
            between.cut_after = b"cut here"
            write = scene.write(workflow, [row("2", '"cut here"')])
            journal.write(write)
            assert await scene.fates(write) == ["committed"]
    assert times == 2
    assert scene.locations(workflow) == ["1", "2"]
    assert scene.all("SELECT id FROM workers") == scene.one(NAMES) == [registered.lease.worker_id] != [before]
    assert not registered.lost


def behind(what: str) -> Sequence[str]:
    """What a database does that has lost it."""
    return {
        "the registration": ["DELETE FROM workers"],
        "the claim": ["UPDATE runs SET epoch = 0, status = 'pending', worker_id = NULL"],
        "the workflow": ["DELETE FROM runs", "DELETE FROM workflows WHERE name = 'flow'"],
        "the last row": ["DELETE FROM events WHERE location = '2'"],
        "the end of the last row": ["UPDATE events SET status = 'pending', output = NULL WHERE location = '2'"],
        "a delivery": ["UPDATE runs SET mailbox = 0"],
        "a signal": ["DELETE FROM signals"],
        "a child": ["DELETE FROM workflows WHERE name = 'child'"],
    }[what]


@pytest.mark.parametrize(
    "what",
    [
        "the registration",
        "the claim",
        "the workflow",
        "the last row",
        "the end of the last row",
        "a delivery",
        "a signal",
        "a child",
    ],
)
async def test_a_database_that_is_behind_is_noticed_when_a_connection_is_opened_again(
    scene: Scene, registered: Registered, what: str
) -> None:
    """Nothing is written then, and the worker is told to drop everything."""
    workflow = registered.run(mailbox=3)
    registered.memory[workflow] = HeldRun(workflow, 1, 3, "2", True)
    signal, child = uuid7(), scene.run(name="child")
    scene.do("INSERT INTO signals (id, workflow_id, name, body) VALUES (%s, %s, 'news', '{}')", signal, child)
    registered.lease.fence.note("signal", signal)
    registered.lease.fence.note("child", child)
    async with proxy(scene.database.dsn) as between, journal_of(registered, between) as journal:
        first = scene.write(workflow, [row("1"), row("2")])
        journal.write(first)
        assert await scene.fates(first) == ["committed"]
        between.cut_after = b"cut here"
        second = scene.write(workflow, [row("3", '"cut here"')])

        def go_behind() -> None:
            for each in behind(what):
                scene.do(each)

        with faults.install({"fence.before": go_behind}):
            journal.write(second)
            await until(lambda: registered.lost, "the loss")
    assert await scene.fates(second) == ["refused"]
    assert not registered.moves


async def test_a_database_that_has_gone_back_gives_no_worker_the_number_of_another(scene: Scene) -> None:
    """Whoever had a number before still lives, and believes that it is its own."""
    numbers = set()
    for _ in range(3):
        lease = await Lease.register(scene.database, queues=["default"], on_lost=pytest.fail)
        numbers.add(lease.worker_id)
        await lease.release()
        scene.do("TRUNCATE workers RESTART IDENTITY CASCADE")
    assert len(numbers) == 3


async def test_nothing_is_lost_when_nothing_is_behind(scene: Scene, registered: Registered) -> None:
    workflow = registered.run(mailbox=3)
    async with proxy(scene.database.dsn) as between, journal_of(registered, between) as journal:
        first = scene.write(workflow, [row("1"), row("2")])
        journal.write(first)
        assert await scene.fates(first) == ["committed"]
        registered.memory[workflow] = HeldRun(workflow, 1, 3, "2", True)
        between.cut_after = b"cut here"
        second = scene.write(workflow, [row("3", '"cut here"')])
        journal.write(second)
        assert await scene.fates(second) == ["committed"]
    assert registered.moves and not registered.lost


async def test_a_move_that_the_server_refuses_is_made_again(scene: Scene, registered: Registered) -> None:
    """It was a standby, say, that has become the primary by the next time; the journal goes on."""
    refused: list[int] = []

    def refuse() -> None:
        if not refused:
            refused.append(1)
            raise psycopg.errors.ReadOnlySqlTransaction("cannot execute SELECT FOR UPDATE in a read-only transaction")

    workflow, before = registered.run(), registered.lease.worker_id
    async with journal_of(registered, scene.database) as journal:
        first, second = scene.write(workflow, [row("1")]), scene.write(workflow, [row("2")])
        journal.write(first)
        assert await scene.fates(first) == ["committed"]
        with faults.install({"fence.before": refuse}):
            scene.do("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgflow journal'")
            journal.write(second)
            assert await scene.fates(second) == ["committed"]
    assert refused and registered.lease.worker_id != before


async def test_a_heartbeat(scene: Scene, between: Late) -> None:
    """It would put the lock of its lost session in the place of the one that the worker holds now, and have it taken
    for dead.
    """
    lost: list[str] = []
    lease = await Lease.register(Database(between.dsn, lease=8.0), queues=["default"], on_lost=lost.append)
    run = scene.run(lease.worker_id)
    key = "SELECT lock_key FROM workers"
    before = scene.one(key)
    between.hold("heartbeat", "heartbeat_at")
    await until(lambda: scene.one(key) != before, "a heartbeat on another connection")
    now = scene.one(key)
    await between.deliver()
    assert scene.one(key) == now == lease.lock_key
    scene.do("SELECT pg_advisory_lock(8)")
    assert await recover(scene.database, scene.worker(lock_key=8), own_key=lambda: 8) == 0
    assert scene.one("SELECT worker_id FROM runs WHERE workflow_id = %s", run) == lease.worker_id
    assert lease.trusted and not lost
    await lease.release()


async def test_a_delivery(scene: Scene, registered: Registered, between: Late) -> None:
    """It delivers what is undelivered by then, and nothing of what it was sent for: that has been
    delivered, and taken.
    """
    workflow = registered.run()
    first, second = uuid7(), uuid7()
    send = "INSERT INTO signals (id, workflow_id, name, body) VALUES (%s, %s, 'news', '{}')"
    mailbox = DeliveryQueue(Database(between.dsn), registered.lease.fence)
    await mailbox.deliver()
    scene.do(send, first, workflow)
    scene.do("INSERT INTO requests (workflow_id, kind) VALUES (%s, 'cancel')", workflow)
    between.hold("mailbox")
    with pytest.raises(psycopg.OperationalError):
        await mailbox.deliver()
    (arrived,) = (await mailbox.deliver()).arrived
    assert [(signal.id, signal.number) for signal in arrived.signals] == [(first, 1)] and arrived.cancel
    scene.do("UPDATE runs SET cancel_requested = false")  # the code has taken it
    scene.do(send, second, workflow)
    await between.deliver()
    numbers = "SELECT number FROM signals ORDER BY number"
    assert scene.all(numbers) == [1, 2]
    assert scene.one("SELECT mailbox, cancel_requested FROM runs WHERE workflow_id = %s", workflow) == (2, False)
    assert not (await mailbox.deliver()).arrived
    (news,) = await mailbox.attend({workflow: 1})
    assert [(signal.id, signal.number) for signal in news.signals] == [(second, 2)]
    await mailbox.close()
