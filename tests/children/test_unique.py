"""Unique children: one live workflow for a key, no matter who starts it, shared by all who find it; a stranger's
transaction holds up nobody else.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from uuid import UUID

import psycopg
import pytest

import pgflow
from pgflow import faults
from tests.children.flows import WORKFLOWS, Go, doubling, family, only_one, waiting
from tests.waiting import status, until

ONLY = {"only": "one"}


async def only(client: pgflow.Client) -> list[UUID]:
    return [info.id for info in await client.list(name="waiting", tags=ONLY)]


@pytest.mark.parametrize("cached", [1000, 0])
async def test_all_who_find_it_share_its_output(dsn: str, cached: int) -> None:
    """Only the first is its parent; the others are told of its end as well, asleep as they are."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        handles = [await client.dispatch(only_one) for _ in range(20)]
        for handle in handles:
            await status(client, handle, "sleeping")
        (id,) = await only(client)
        await client.signal(Go(), to=id)
        for handle in handles:
            assert await handle.output(timeout=20) == f"{id} went"


async def test_one_that_a_client_started_is_found(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        started = await client.dispatch(waiting, tags=ONLY, unique=True)
        handle = await client.dispatch(only_one)
        await status(client, handle, "sleeping")
        await client.cancel(handle.id)  # it is no child of this one: the cancellation does not reach it
        with pytest.raises(pgflow.WorkflowCancelled):
            await handle.output(timeout=20)
        assert (await started.info()).status == "sleeping"
        second = await client.dispatch(only_one)
        await status(client, second, "sleeping")
        await client.cancel(started.id)
        with pytest.raises(pgflow.WorkflowFailed, match="WorkflowCancelled"):
            await second.output(timeout=20)


@pytest.mark.parametrize("cached", [1000, 0])
@pytest.mark.parametrize("end", ["signal", "cancel"])
async def test_who_found_it_hears_of_its_end_without_a_poll(dsn: str, end: str, cached: int) -> None:
    """The worker polls once an hour: what the finder hears, it is told."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached, poll=3600):
        started = await client.dispatch(waiting, tags=ONLY, unique=True)
        handle = await client.dispatch(only_one)
        await status(client, handle, "sleeping")
        if end == "signal":
            await client.signal(Go(), to=started.id)
            assert await handle.output(timeout=30) == f"{started.id} went"
        else:
            await client.cancel(started.id)
            with pytest.raises(pgflow.WorkflowFailed, match="WorkflowCancelled"):
                await handle.output(timeout=30)


async def test_one_that_ends_while_it_is_found(dsn: str) -> None:
    """It ends between being found and being asked to tell: who awaits it finds it ended."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        started = await client.dispatch(waiting, tags=ONLY, unique=True)

        async def end() -> None:
            await client.signal(Go(), to=started.id)
            await started.output(timeout=20)

        with faults.install({"crossings.before_wait": end}):
            handle = await client.dispatch(only_one)
            assert await handle.output(timeout=20) == f"{started.id} went"


async def test_one_whose_row_is_locked_while_it_is_found(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        started = await client.dispatch(waiting, tags=ONLY, unique=True)
        await status(client, started, "sleeping")
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            tries = 0

            async def lock() -> None:
                nonlocal tries
                tries += 1
                if tries == 1:
                    await connection.execute("SELECT FROM pgflow.runs WHERE workflow_id = %s FOR UPDATE", [started.id])
                elif tries == 3:
                    await connection.rollback()

            with faults.install({"crossings.before_wait": lock}):
                handle = await client.dispatch(only_one)
                await status(client, handle, "sleeping")
            assert tries >= 3
        await client.signal(Go(), to=started.id)
        assert await handle.output(timeout=20) == f"{started.id} went"


@pytest.mark.parametrize("commits", [True, False])
async def test_a_stranger_s_transaction_holds_up_nobody_else(dsn: str, commits: bool) -> None:
    """A client has started the same in a transaction that stays open: who starts it waits, all others go on."""

    @pgflow.workflow
    async def other_one(ctx: pgflow.WorkflowContext, number: int) -> UUID:
        return (await ctx.dispatch(doubling, number, tags={"number": number}, unique=True)).id

    workflows: list[pgflow.Workflow[Any, Any]] = [*WORKFLOWS, other_one]
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=workflows):
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            theirs = await client.dispatch(waiting, tags=ONLY, unique=True, connection=connection)
            blocked = await client.dispatch(only_one)
            others = await client.dispatch_many(other_one, [{"number": number} for number in range(60)])
            plain = await client.dispatch(family, 10)
            assert await plain.output(timeout=20) == 90
            assert len({await handle.output(timeout=20) for handle in others}) == 60
            assert (await blocked.info()).status == "running" and await client.history(blocked.id) == []
            if commits:
                await connection.commit()
            else:
                await connection.rollback()
        await status(client, blocked, "sleeping")
        (id,) = await only(client)
        assert (id == theirs.id) is commits
        await client.signal(Go(), to=id)
        assert await blocked.output(timeout=20) == f"{id} went"


async def test_a_failed_one_frees_the_key(dsn: str) -> None:
    fails = [True]

    @pgflow.workflow
    async def sole(ctx: pgflow.WorkflowContext) -> str:
        if fails.pop() if fails else False:
            raise ValueError("the first")
        return "fine"

    @pgflow.workflow
    async def starter(ctx: pgflow.WorkflowContext) -> list[str]:
        said = []
        for _ in range(2):
            try:
                said.append(await (await ctx.dispatch(sole, tags=ONLY, unique=True)).output())
            except pgflow.WorkflowFailed as error:
                said.append(error.error_message)
        return said

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[sole, starter]):
        handle = await client.dispatch(starter)
        assert await handle.output(timeout=20) == ["the first", "fine"]
        assert len(await client.list(parent_id=handle.id)) == 2


RACER = """
import sys, threading
import pgflow
from tests.children.flows import waiting

def race(barrier, found):
    with pgflow.SyncClient(sys.argv[1], connections=1) as client:
        for round in range(5):
            barrier.wait()
            found.append(f"{round} {client.dispatch(waiting, tags={'race': round}, unique=True).id}")

barrier, found = threading.Barrier(8), []
threads = [threading.Thread(target=race, args=(barrier, found)) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("\\n".join(found))
"""


async def test_processes_threads_and_workflows_race_for_a_key(dsn: str) -> None:
    """Three processes of eight threads, and twenty workflows of two workers, start the same: five rounds, five
    workflows.
    """

    @pgflow.workflow
    async def racer(ctx: pgflow.WorkflowContext) -> list[str]:
        children = [await ctx.dispatch(waiting, tags={"race": round}, unique=True) for round in range(5)]
        return [f"{round} {child.id}" for round, child in enumerate(children)]

    async with (
        pgflow.Client(dsn) as client,
        pgflow.Worker(dsn, workflows=[racer]),
        pgflow.Worker(dsn, workflows=[racer]),
    ):
        processes = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", RACER, dsn, stdout=asyncio.subprocess.PIPE)
            for _ in range(3)
        ]
        handles = await client.dispatch_many(racer, [{} for _ in range(20)])
        found: list[str] = []
        for process in processes:
            out, _ = await process.communicate()
            assert process.returncode == 0
            found += out.decode().split("\n")[:40]
        for handle in handles:
            found += await handle.output(timeout=60)
        assert len(found) == 3 * 8 * 5 + 20 * 5 and len(set(found)) == 5

        async def counted() -> bool:
            return len(await client.list(name="waiting")) == 5

        await until(counted)
