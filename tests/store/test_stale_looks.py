"""Statements that look before they lock: what was done between the look and the lock counts, whatever the look showed.

A policy on a table holds up whoever reads it in the role `slow` until a lock is free: its snapshot is then older than
its locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from pgflow.model.outcomes import Suspended
from pgflow.model.writes import RunChanges, Write
from pgflow.store.database.pooler import AsyncConnection
from pgflow.store.exchange.deliveries import DeliveryQueue, DeliveryRound
from pgflow.store.journal.journal import Journal
from pgflow.store.leasing.fencing import Fence
from pgflow.uuid7 import uuid7
from tests.store.scene import Scene, row
from tests.waiting import until

GATE = 4711

PREPARE = f"""
DO $$ BEGIN CREATE ROLE pgflow_slow; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT USAGE ON SCHEMA pgflow TO pgflow_slow;
GRANT ALL ON ALL TABLES IN SCHEMA pgflow TO pgflow_slow;
GRANT ALL ON ALL SEQUENCES IN SCHEMA pgflow TO pgflow_slow;
CREATE FUNCTION public.pass_the_gate() RETURNS boolean LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN true; END';
ALTER TABLE requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE signals ENABLE ROW LEVEL SECURITY;
CREATE POLICY slow ON requests TO pgflow_slow USING (public.pass_the_gate()) WITH CHECK (true);
CREATE POLICY slow ON signals TO pgflow_slow USING (public.pass_the_gate()) WITH CHECK (true);
"""


@pytest_asyncio.fixture
async def boxes(scene: Scene) -> AsyncIterator[tuple[DeliveryQueue, DeliveryQueue]]:
    """Two deliverers: one whose looks are held up at the gate, and a quick one."""
    scene.do(PREPARE)
    slow, quick = DeliveryQueue(scene.database, scene.worker()), DeliveryQueue(scene.database, scene.worker())

    async def become_slow(connection: AsyncConnection) -> None:
        await connection.execute("SET ROLE pgflow_slow")

    slow._line.on_open = become_slow
    yield slow, quick
    await slow.close()
    await quick.close()


async def held_up(scene: Scene, slow: DeliveryQueue, meanwhile: Callable[[], object]) -> DeliveryRound:
    """`slow` looks; then something happens; then `slow` goes on: what it has delivered."""
    with scene.other() as gate:
        gate.execute("SELECT pg_advisory_xact_lock(%s)", [GATE])
        late = asyncio.create_task(slow.deliver())
        waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted)"
        await until(lambda: scene.one(waiting, GATE), "a look that is held up")
        found = meanwhile()
        if asyncio.iscoroutine(found):
            await found
    return await late


async def test_a_cancel_is_delivered_once(
    scene: Scene, boxes: tuple[DeliveryQueue, DeliveryQueue], worker: int, journal: Journal
) -> None:
    """The workflow has taken its cancellation when another worker, which had seen the request before, delivers it."""
    slow, quick = boxes
    run = scene.run(worker)
    scene.do("SELECT pgflow.cancel(%s)", run)

    async def deliver_and_take() -> None:
        await quick.deliver()
        assert scene.one("SELECT cancel_requested FROM runs WHERE workflow_id = %s", run)
        taken = scene.write(run, [row("1", status="cancelled", seq=1)])
        taken.run_changes = RunChanges(cancels=1)
        journal.write(taken)
        assert await scene.fates(taken) == ["committed"]

    await held_up(scene, slow, deliver_and_take)
    assert not scene.one("SELECT cancel_requested FROM runs WHERE workflow_id = %s", run)
    assert scene.all("SELECT id FROM requests") == []


async def test_a_pause_is_not_undone_by_a_cancel_that_was_taken_before(
    scene: Scene, boxes: tuple[DeliveryQueue, DeliveryQueue], worker: int, journal: Journal
) -> None:
    slow, quick = boxes
    run = scene.run(worker)
    scene.do("SELECT pgflow.cancel(%s)", run)

    async def deliver_and_pause() -> None:
        await quick.deliver()
        taken = Write(
            scene.write(run).run, [], Suspended(None), lambda *_: None, lambda *_: None, RunChanges(cancels=1)
        )
        journal.write(taken)
        await until(lambda: scene.one("SELECT status = 'sleeping' FROM runs"), "sleep")
        scene.do("SELECT pgflow.pause(%s)", run)

    await held_up(scene, slow, deliver_and_pause)
    assert scene.one("SELECT status FROM runs WHERE workflow_id = %s", run) == "paused"


@pytest.mark.parametrize("what", ["signal", "child"])
async def test_news_are_counted_once_and_wake_once(
    scene: Scene, boxes: tuple[DeliveryQueue, DeliveryQueue], worker: int, journal: Journal, what: str
) -> None:
    """A run that has taken what came, and sleeps again, is not woken by whoever had seen it before."""
    slow, quick = boxes
    run = scene.run(worker)
    if what == "signal":
        scene.do("SELECT pgflow.signal(%s, 'go', '{}')", run)
    else:
        scene.do("INSERT INTO requests (workflow_id, kind) VALUES (%s, 'child')", run)

    async def deliver_and_sleep() -> None:
        await quick.deliver()
        mailbox = scene.one("SELECT mailbox FROM runs WHERE workflow_id = %s", run)
        assert mailbox == 1
        asleep = scene.write(run, [], Suspended(None, ("go",), mailbox, awaits_children=True))
        journal.write(asleep)
        assert await scene.fates(asleep) == ["committed"]

    await held_up(scene, slow, deliver_and_sleep)
    assert scene.one("SELECT status, mailbox FROM runs WHERE workflow_id = %s", run) == ("sleeping", 1)


async def test_what_is_seen_and_what_is_new_are_numbered_in_order(
    scene: Scene, boxes: tuple[DeliveryQueue, DeliveryQueue], worker: int
) -> None:
    """Of three signals the first is delivered by another in between: the others take later numbers, and the mailbox
    ends at the last.
    """
    slow, quick = boxes
    run = scene.run(worker)
    first, second, third = uuid7(), uuid7(), uuid7()
    insert = "INSERT INTO signals (id, workflow_id, name, body) VALUES (%s, %s, 'go', '{}')"
    for id in (first, second, third):
        scene.do(insert, id, run)

    def deliver_the_first() -> None:
        scene.do(
            "WITH s AS (UPDATE signals SET number = 1 WHERE id = %s) UPDATE runs SET mailbox = 1 WHERE workflow_id = "
            "%s",
            first,
            run,
        )

    await held_up(scene, slow, deliver_the_first)
    numbers = scene.all("SELECT number FROM signals ORDER BY arrival")
    assert numbers == sorted(set(numbers)) and numbers[0] == 1
    assert scene.one("SELECT mailbox FROM runs WHERE workflow_id = %s", run) == numbers[-1]
    await quick.deliver()
    assert scene.all("SELECT number FROM signals ORDER BY arrival") == numbers


async def test_a_number_that_moves_while_a_delivery_is_on_its_way(scene: Scene) -> None:
    """What is delivered to this worker's run under its new number is not told as news without the signals: it has to be
    looked for.
    """
    scene.do(PREPARE)
    fence = Fence(scene.worker())
    slow = DeliveryQueue(scene.database, fence)

    async def become_slow(connection: AsyncConnection) -> None:
        await connection.execute("SET ROLE pgflow_slow")

    slow._line.on_open = become_slow
    run = scene.run(fence.id)
    scene.do("SELECT pgflow.signal(%s, 'go', '{}')", run)

    def move() -> None:
        former, number = fence.id, scene.worker()
        scene.do("UPDATE runs SET worker_id = %s WHERE worker_id = %s", number, former)
        fence.former.add(former)
        fence.id = number

    delivery = await held_up(scene, slow, move)
    assert (delivery.moved, delivery.arrived, delivery.owners) == (True, [], set())
    (arrived,) = await slow.attend({run: 0})
    assert [signal.name for signal in arrived.signals] == ["go"]
    await slow.close()


async def test_a_signal_to_what_is_rewound_meanwhile_is_not_dropped(
    scene: Scene, boxes: tuple[DeliveryQueue, DeliveryQueue]
) -> None:
    """The delivery has seen no run, since the workflow had ended."""
    slow, _ = boxes
    run = scene.run()
    scene.do(
        "INSERT INTO events (workflow_id, location, seq, kind, status) VALUES (%s, '1', 1, 'sleep', 'completed')", run
    )
    scene.do("UPDATE workflows SET status = 'completed', completed_at = now()")
    scene.do("DELETE FROM runs")
    scene.do("INSERT INTO signals (id, workflow_id, name, body) VALUES (%s, %s, 'go', '{}')", uuid7(), run)
    await held_up(scene, slow, lambda: scene.do("SELECT rewind(%s, '1')", run))
    assert scene.all("SELECT number, dropped_at FROM signals") == [(1, None)]
    assert scene.one("SELECT mailbox FROM runs") == 1
