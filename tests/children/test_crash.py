"""Children of workers that die, or lose the lease, between the child's start and its row: each has one child, and its
end is noticed.
"""

from __future__ import annotations

import asyncio

import psycopg
import pytest

import pgflow
from pgflow import faults
from tests.children.flows import WORKFLOWS, branches, family, only_one, parent
from tests.crashing import until_killed
from tests.waiting import status

MODULE = "tests.children.flows"
TAKE_AWAY = "UPDATE pgflow.runs SET status = 'pending', wake_at = now(), worker_id = NULL WHERE workflow_id = %s"


def children(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT count(*) FROM pgflow.workflows WHERE parent_id IS NOT NULL").fetchone()
        assert found is not None
        return int(found[0])


@pytest.mark.parametrize(("point", "started"), [("crossings.before", 0), ("crossings.after", 1)])
async def test_killed_around_the_start_of_the_child(dsn: str, point: str, started: int) -> None:
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(parent, 21)
        await until_killed(dsn, MODULE, point)
        assert children(dsn) == started and await client.history(handle.id) == []
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            assert await handle.output(timeout=30) == 42
        assert children(dsn) == 1


@pytest.mark.parametrize("passing", [1, 2, 3, 4, 5])
async def test_killed_at_any_write_of_a_family(dsn: str, passing: int) -> None:
    """A family takes four or more, as its children's steps are in the batch of their starts or not; the other one takes
    five to start its own.
    """
    async with pgflow.Client(dsn) as client:
        one_by_one = await client.dispatch(branches, 5)
        handle = await client.dispatch(family, 30)
        await until_killed(dsn, MODULE, "journal.after", passing)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            assert await handle.output(timeout=30) == sum(2 * i for i in range(30))
            assert await one_by_one.output(timeout=30) == [0, 2, 4, 6, 8, 200]
        assert children(dsn) == 30 + 6


async def test_killed_between_the_start_of_a_unique_child_and_its_row(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        handles = [await client.dispatch(only_one) for _ in range(5)]
        await until_killed(dsn, MODULE, "crossings.after")
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            for handle in handles:
                await status(client, handle, "sleeping")
            (child,) = await client.list(name="waiting")
            await client.cancel(child.id)
            for handle in handles:
                with pytest.raises(pgflow.WorkflowFailed, match=f"{child.id} was cancelled"):
                    await handle.output(timeout=20)


async def test_the_lease_is_lost_between_the_child_and_its_row(dsn: str) -> None:
    """The old owner's row is refused; the next one starts the child again, to no effect."""
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        if not held.is_set():
            held.set()
            await go_on.wait()

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        with faults.install({"crossings.after": hold}):
            handle = await client.dispatch(parent, 21)
            await held.wait()
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
                await connection.execute(TAKE_AWAY, [handle.id])
            async with pgflow.Worker(dsn, workflows=WORKFLOWS):
                go_on.set()
                assert await handle.output(timeout=20) == 42
        assert children(dsn) == 1


async def test_a_worker_that_stops_waits_for_what_is_in_flight(dsn: str) -> None:
    """Its row is written with the hand-back: nobody has to do it again."""
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        held.set()
        await go_on.wait()

    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(parent, 21)
        with faults.install({"crossings.after": hold}):
            worker = pgflow.Worker(dsn, workflows=[parent])
            running = asyncio.create_task(worker.run())
            await held.wait()
            worker.stop()
            await asyncio.sleep(0)
            go_on.set()
            await running
        (event,) = await client.history(handle.id)
        assert (event.kind, event.status) == ("child_workflow", "completed")
        assert (await handle.info()).status == "pending"
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            assert await handle.output(timeout=30) == 42
        assert children(dsn) == 1
