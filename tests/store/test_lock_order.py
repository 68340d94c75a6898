"""A transaction that waits for the row of one run holds no row of a run with a higher id; so no two transactions wait
for each other.

Everything that locks several runs is made to meet a stranger, who has locked the run with the lower id and then, as the
rule says, takes the other:

    stranger   locks the first run .................... locks the second, must get it at once ... commits
    engine                          asks for both, second first: waits for the first, or passes it over ... the rest
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgflow.model.commands import Sending
from pgflow.model.outcomes import Completed
from pgflow.model.writes import Crossing
from pgflow.store.exchange.crossing_batch import Crossings
from pgflow.store.exchange.deliveries import DeliveryQueue
from pgflow.store.journal.forgetting import LoopAdvancer
from pgflow.store.journal.journal import Journal
from pgflow.store.leasing.claims import Claims
from pgflow.store.leasing.leases import recover
from pgflow.uuid7 import uuid7
from tests.store.scene import Scene, loop_row, row
from tests.waiting import until

LOCK = "SELECT FROM runs WHERE workflow_id = %s FOR NO KEY UPDATE NOWAIT"


@dataclass
class Work:
    """What is done to both runs."""

    runs: tuple[UUID, UUID]
    step: Callable[[], Awaitable[object]]
    """Do it, as far as it goes without waiting for what others pass over; called again until both are done."""
    done: str
    """The query that tells whether it is done to a run."""


async def moment() -> None:
    """Leave it to what goes on by itself."""
    await asyncio.sleep(0.005)


@asynccontextmanager
async def deliveries(scene: Scene) -> AsyncIterator[Work]:
    """Signals, requests to cancel and ends of children are delivered, and wake who sleeps."""
    first, second = (
        scene.run(status="sleeping", wake_in=3600, waiting_for=["news"], awaits_children=True) for _ in range(2)
    )
    for run in (second, first):
        scene.all("SELECT signal(%s::uuid, 'news')", run)
        scene.all("SELECT cancel(%s)", run)
        scene.do("INSERT INTO requests (workflow_id, kind) VALUES (%s, 'child')", run)
    mailbox = DeliveryQueue(scene.database, scene.worker())
    yield Work(
        (first, second),
        mailbox.deliver,
        "SELECT mailbox = 2 AND cancel_requested AND status = 'pending' FROM runs WHERE workflow_id = %s",
    )
    await mailbox.close()


@asynccontextmanager
async def completions(scene: Scene) -> AsyncIterator[Work]:
    """Two workflows of one batch complete, and their parents are to be told."""
    worker = scene.worker()
    first, second = scene.run(worker), scene.run(worker)
    journal = Journal(scene.database, worker)
    journal.start()
    for run in (second, first):
        journal.write(scene.write(run, [row("1")], Completed("1")))
    yield Work((first, second), moment, "SELECT NOT EXISTS (SELECT FROM runs WHERE workflow_id = %s)")
    await journal.close()


@asynccontextmanager
async def advancements(scene: Scene) -> AsyncIterator[Work]:
    """Loops of two workflows forget turns in one transaction."""
    worker = scene.worker()
    first, second = scene.run(worker), scene.run(worker)
    journal, advancer = Journal(scene.database, worker), LoopAdvancer(scene.database, worker)
    journal.start()
    for run in (second, first):
        journal.write(scene.write(run, [loop_row(), row("1,1,1", turn_state="0")]))
    await until(lambda: scene.one("SELECT count(*) FROM events") == 4, "the turns")
    for run in (second, first):
        advancer.advance(scene.advance(run, 1))
    yield Work(
        (first, second),
        _started_once(advancer.start),
        "SELECT loop_progress = 1 FROM events WHERE workflow_id = %s AND location = '1'",
    )
    await advancer.close()
    await journal.close()


@asynccontextmanager
async def sendings(scene: Scene) -> AsyncIterator[Work]:
    """Two workflows send signals in one batch."""
    worker, receiver = scene.worker(), scene.run()
    first, second = scene.run(worker), scene.run(worker)
    crossings = Crossings(scene.database, worker, lambda queues: None, lambda workers: None)
    for run in (second, first):
        command = Sending(uuid7(), receiver, None, None, str(run), "{}")
        crossings.cross(Crossing(run, 1, command, lambda crossing, answer: None, lambda crossing, error: None))
    yield Work(
        (first, second), _started_once(crossings.start), "SELECT EXISTS (SELECT FROM signals WHERE name = %s::text)"
    )
    await crossings.close()


@asynccontextmanager
async def claims(scene: Scene) -> AsyncIterator[Work]:
    """A worker takes what is due."""
    claims = Claims(scene.database, scene.worker())
    first, second = (scene.run(wake_in=wake_in) for wake_in in (-1, -2))

    async def claim() -> None:
        claims._next_sweep = 0.0
        await claims.claim(10, ["default"], ["flow"])

    yield Work((first, second), claim, "SELECT status = 'running' FROM runs WHERE workflow_id = %s")
    await claims.close()


@asynccontextmanager
async def recoveries(scene: Scene) -> AsyncIterator[Work]:
    """What a dead worker held is given to others."""
    dead, worker = scene.worker(lease=-1.0), scene.worker()
    first, second = scene.run(dead), scene.run(dead)
    yield Work(
        (first, second),
        lambda: recover(scene.database, worker),
        "SELECT status = 'pending' FROM runs WHERE workflow_id = %s",
    )


@asynccontextmanager
async def retries(scene: Scene) -> AsyncIterator[Work]:
    """A failed workflow is retried together with the child whose failure left it, which has the lower id here."""
    child = scene.run(status="failed")
    parent = scene.run(status="failed", reset=["1"])
    scene.do(
        "INSERT INTO events (workflow_id, location, kind, name, status, input) VALUES (%s, '1', 'child_output', 'c', "
        "'failed', %s)",
        parent,
        f'{{"id":"{child}"}}',
    )
    connection = scene.other()
    connection.autocommit = True

    async def retry() -> None:
        await asyncio.to_thread(connection.execute, "SELECT retry(%s)", [parent])

    yield Work((child, parent), retry, "SELECT status = 'pending' FROM runs WHERE workflow_id = %s")
    connection.close()


def _started_once(start: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    started: list[bool] = []

    async def step() -> None:
        if not started:
            started.append(True)
            start()
        await moment()

    return step


async def meet(scene: Scene, work: Work, stranger: psycopg.Connection[Any]) -> None:
    """Let the engine meet a stranger who takes both runs in order."""
    first, second = work.runs
    assert first < second
    stranger.execute(LOCK, [first])

    def done(run: UUID) -> bool:
        return bool(scene.one(work.done, run))

    def waits() -> bool:
        query = "SELECT count(*) FROM pg_stat_activity WHERE %s::int = ANY (pg_blocking_pids(pid))"
        return bool(scene.one(query, stranger.info.backend_pid))

    async with asyncio.timeout(20):
        step = asyncio.ensure_future(work.step())
        while not waits() and not done(second):
            if step.done():
                step = asyncio.ensure_future(work.step())
            await moment()
        if not waits():
            await step  # it has passed over the first
        assert not done(first)
        stranger.execute(LOCK, [second])  # or "could not obtain lock": the engine holds it while it waits
        stranger.commit()
        await step
        while not (done(first) and done(second)):
            await work.step()


@pytest.mark.parametrize("kind", [deliveries, completions, advancements, sendings, claims, recoveries, retries])
async def test_who_waits_for_one_run_holds_none_with_a_higher_id(scene: Scene, kind: Callable[[Scene], object]) -> None:
    async with kind(scene) as work:  # type: ignore[attr-defined]
        with scene.other() as stranger:
            await meet(scene, work, stranger)
