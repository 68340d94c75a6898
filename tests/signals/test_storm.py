"""Workflows by thousands that listen, sleep and are woken by random senders: every signal is taken once, in order.

Two workers with a small cache share the work, so that runs go on in memory, replay, and change hands; one of them is
dropped now and then as if it had died. Senders are clients, SQL, and transactions that stay open for a while or are
rolled back.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg

import pgflow

WORKFLOWS = int(os.environ.get("PGFLOW_STORM", "1500"))
SENDERS = 24


@pgflow.signal
@dataclass
class Ping:
    number: int


@pgflow.signal
@dataclass
class Pong:
    number: int


@pgflow.activity
async def think(ctx: pgflow.ActivityContext) -> None:
    await asyncio.sleep(0)


@pgflow.workflow
async def ear(ctx: pgflow.WorkflowContext, seed: int, wanted: int) -> list[list[int]]:
    """Listens in a way of its own, given by the seed, until it has heard `wanted` signals."""
    way = random.Random(seed)
    pings: list[int] = []
    pongs: list[int] = []

    def take(signal: Ping | Pong) -> None:
        (pings if isinstance(signal, Ping) else pongs).append(signal.number)

    while len(pings) + len(pongs) < wanted:
        match way.randrange(5):
            case 0:
                take(await ctx.listen(Ping, Pong))
            case 1:
                for signal in await ctx.listen_many(Pong, Ping, limit=2):
                    take(signal)
            case 2:
                found = await ctx.listen(Ping, timeout=way.choice([0.0, 0.01, 1.5]))
                if found is not None:
                    take(found)
            case 3:
                await ctx.activity(think)
            case 4:
                found = await ctx.listen(Pong, timeout=way.choice([0.0, 0.02, 1.2]))
                if found is not None:
                    take(found)
    return [pings, pongs]


async def send(
    dsn: str,
    client: pgflow.Client,
    targets: asyncio.Queue[tuple[pgflow.WorkflowHandle[list[list[int]]], int]],
    chance: random.Random,
) -> None:
    """Send each workflow of the queue its signals, `Ping(0)`, `Pong(0)`, `Ping(1)` ..., in one of several ways."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        while not targets.empty():
            handle, wanted = targets.get_nowait()
            for number in range(wanted):
                signal = Ping(number // 2) if number % 2 == 0 else Pong(number // 2)
                match chance.randrange(4):
                    case 0:
                        kind = "ping" if isinstance(signal, Ping) else "pong"
                        body = f'{{"number": {signal.number}}}'
                        await connection.execute("SELECT pgflow.signal(%s, %s, %s)", [handle.id, kind, body])
                        await connection.commit()
                    case 1:
                        await client.signal(Ping(-1), to=handle.id, connection=connection)
                        await connection.rollback()
                        await client.signal(signal, to=handle.id, connection=connection)
                        await asyncio.sleep(chance.random() * 0.01)
                        await connection.commit()
                    case _:
                        await client.signal(signal, to=handle.id)
                if chance.random() < 0.05:
                    await asyncio.sleep(chance.random() * 0.02)


@asynccontextmanager
async def restless(dsn: str, chance: random.Random) -> AsyncIterator[None]:
    """A worker whose lease is found expired now and then, in the middle of what it does; it registers anew."""
    async with pgflow.Worker(dsn, workflows=[ear], cached=40, concurrency=200, lease=1.0) as worker:

        async def disturb() -> None:
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
                while True:
                    await asyncio.sleep(0.2 + chance.random())
                    query = "UPDATE pgflow.workers SET expires_at = now() - interval '1 s' WHERE id = %s"
                    await connection.execute(query, [worker.id])

        task = asyncio.create_task(disturb())
        try:
            yield
        finally:
            task.cancel()


async def test_every_signal_is_taken_once_and_in_order(dsn: str) -> None:
    chance = random.Random(7)
    async with pgflow.Client(dsn, connections=8) as client:
        wanted = [chance.randint(1, 5) for _ in range(WORKFLOWS)]
        handles = await client.dispatch_many(
            ear, [{"seed": number, "wanted": count} for number, count in enumerate(wanted)]
        )
        targets: asyncio.Queue[tuple[pgflow.WorkflowHandle[list[list[int]]], int]] = asyncio.Queue()
        pairs = list(zip(handles, wanted, strict=True))
        chance.shuffle(pairs)
        for pair in pairs:
            targets.put_nowait(pair)
        async with pgflow.Worker(dsn, workflows=[ear], cached=60, concurrency=300), restless(dsn, chance):
            async with asyncio.TaskGroup() as group:
                for number in range(SENDERS):
                    group.create_task(send(dsn, client, targets, random.Random(number)))
            async with asyncio.timeout(120):
                for handle, count in pairs:
                    pings, pongs = await handle.output()
                    assert [pings, pongs] == [list(range((count + 1) // 2)), list(range(count // 2))], handle
    with psycopg.connect(dsn) as connection:
        query = (
            "SELECT count(*), count(consumed_at), count(dropped_at), count(DISTINCT (workflow_id, number)) FROM "
            "pgflow.signals"
        )
        total = sum(wanted)
        assert connection.execute(query).fetchone() == (total, total, 0, total)
