"""Real servers that fail over, restart and wait for their standby, while a worker keeps running. About 40 seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import pgflow
from tests.failover.servers import Place, Server, place
from tests.pooler import pooler
from tests.waiting import until

STEPS = 60
PATIENCE = 60.0
ROWS = "SELECT count(*) FROM pgflow.events"


class Gate:
    """What steps run, and how far they may go."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self._limit = 0
        self._moved = asyncio.Event()

    def open(self, limit: int) -> None:
        """Let all steps below this one end."""
        self._limit = limit
        self._moved.set()

    async def passing(self, number: int) -> None:
        """Begin a step, and wait until it may end."""
        self.began.append(number)
        while number >= self._limit:
            self._moved.clear()
            await self._moved.wait()


gate: Gate


@pgflow.activity
async def step(ctx: pgflow.ActivityContext, number: int) -> int:
    await gate.passing(number)
    return number


@pgflow.workflow
async def counting(ctx: pgflow.WorkflowContext) -> int:
    return sum([await ctx.activity(step, number) for number in range(STEPS)])


@pgflow.workflow
async def turning(ctx: pgflow.WorkflowContext) -> int:
    async def turn(ctx: pgflow.WorkflowContext, state: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        state += await ctx.activity(step, state)
        return pgflow.Break(state) if state >= STEPS else pgflow.Continue(state + 1)

    return await ctx.loop(turn, state=0)


@pytest.fixture(autouse=True)
async def fresh_gate() -> None:
    global gate
    gate = Gate()


@pytest.fixture(scope="module")
def servers() -> Iterator[Place]:
    with place() as made:
        yield made


async def come_true(condition: Callable[[], Any], what: str) -> None:
    """Wait for something that a server says, without being in the worker's way."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while not await asyncio.to_thread(_held, condition):
        assert loop.time() < deadline, f"waited in vain for: {what}"
        await asyncio.sleep(0.02)


def _held(condition: Callable[[], Any]) -> Any:
    try:
        return condition()
    except psycopg.OperationalError:
        return False


def follows(primary: Server) -> Callable[[], Any]:
    """Whether a standby has all that the primary has."""
    return lambda: primary.all("SELECT 1 FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()")


def no_hole(server: Server) -> None:
    """All steps are there, each with its own result."""
    rows = server.all(
        "SELECT pgflow.display_location(location), output::text, status FROM pgflow.events ORDER BY location"
    )
    assert rows == [(f"{{{number + 1}}}", str(number), "completed") for number in range(STEPS)]


@pytest.mark.parametrize("synchronous", [False, True])
async def test_failover(servers: Place, synchronous: bool) -> None:
    """An asynchronous standby has lost the last commits that were acknowledged, a synchronous one none."""
    with servers.server(f"primary-{synchronous:d}") as primary, servers.standby(primary) as standby:
        await come_true(follows(primary), "replication")
        if synchronous:
            primary.do("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        dsn = f"postgresql://postgres@/postgres?host={primary.home},{standby.home}&target_session_attrs=read-write"
        async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[counting]) as worker:
            handle = await client.dispatch(counting)
            number = worker.id
            gate.open(20)
            await come_true(lambda: standby.all(ROWS) == [20], "rows on the standby")
            if not synchronous:
                await come_true(follows(primary), "the claim")
                standby.do("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
                await come_true(lambda: not standby.all("SELECT 1 FROM pg_stat_wal_receiver"), "the end of replication")
            gate.open(40)
            await come_true(lambda: 40 in gate.began, "the last step before the failover")
            before = len(gate.began)
            assert gate.began == list(range(41))
            await asyncio.to_thread(primary.die)
            await asyncio.to_thread(standby.promote)
            gate.open(STEPS)
            assert await handle.output(PATIENCE) == sum(range(STEPS))
            assert worker.id != number
        no_hole(standby)
        again = gate.began[before:]
        assert again[: len(range(again[0], STEPS))] == list(range(again[0], STEPS))
        assert again[0] == (40 if synchronous else 20), "what was acknowledged and is there does not run again"
        assert standby.all("SELECT count(*) FROM pgflow.workers") == [0]


async def test_failover_behind_a_pooler(servers: Place) -> None:
    """No connection breaks, and nobody hears of it: the next transaction is refused by the other server."""
    with servers.server("pooled") as primary, servers.standby(primary) as standby:
        await come_true(follows(primary), "replication")
        with pooler(primary.dsn) as between:
            async with (
                pgflow.Client(between.dsn) as client,
                pgflow.Worker(between.dsn, workflows=[counting], lease=120),
            ):
                handle = await client.dispatch(counting)
                gate.open(20)
                await come_true(lambda: standby.all(ROWS) == [20], "rows on the standby")
                await come_true(follows(primary), "the claim")
                standby.do("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
                await come_true(lambda: not standby.all("SELECT 1 FROM pg_stat_wal_receiver"), "the end of replication")
                gate.open(40)
                await come_true(lambda: 40 in gate.began, "the last step before the failover")
                before = len(gate.began)

                def fail_over() -> None:
                    primary.die()
                    standby.promote()

                await asyncio.to_thread(between.redirect, standby.dsn, fail_over)
                gate.open(STEPS)
                assert await handle.output(PATIENCE) == sum(range(STEPS))
        no_hole(standby)
        assert gate.began[before : before + STEPS - 20] == list(range(20, STEPS))


async def test_a_restart_costs_no_attempt(servers: Place) -> None:
    """Nothing is lost by it: what is in memory goes on."""
    with servers.server("restarted") as server:
        async with pgflow.Client(server.dsn) as client, pgflow.Worker(server.dsn, workflows=[counting], lease=120):
            handle = await client.dispatch(counting)
            gate.open(10)
            await until(lambda: 10 in gate.began, "an activity in flight")
            await asyncio.to_thread(server.restart)
            gate.open(STEPS)
            assert await handle.output(PATIENCE) == sum(range(STEPS))
        no_hole(server)
        assert gate.began == list(range(STEPS))


async def test_a_restored_copy(servers: Place, tmp_path: Any) -> None:
    """A database that has gone back to what it was some steps ago, on the same timeline."""
    with servers.server("restored") as server:
        async with pgflow.Client(server.dsn) as client, pgflow.Worker(server.dsn, workflows=[counting], lease=120):
            handle = await client.dispatch(counting)
            gate.open(20)
            await until(lambda: 20 in gate.began, "some steps")
            await asyncio.to_thread(server.control, "-m", "fast", "stop")
            await asyncio.to_thread(server.keep)
            await asyncio.to_thread(server.start)
            gate.open(40)
            await until(lambda: 40 in gate.began, "more steps")
            await asyncio.to_thread(server.die)
            await asyncio.to_thread(server.restore)
            await asyncio.to_thread(server.start)
            gate.open(STEPS)
            assert await handle.output(PATIENCE) == sum(range(STEPS))
        no_hole(server)
