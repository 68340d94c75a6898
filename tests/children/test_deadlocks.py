"""Signals, completions, wake-ups and cancellations on the same few workflows from many connections: nothing deadlocks,
and all get through.

About 5 seconds.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import psycopg

import pgflow
from tests.children.flows import Doubled, Go, doubling, waiting


@pgflow.workflow
async def busy(ctx: pgflow.WorkflowContext, peers: int, rounds: int) -> int:
    """Children, signals to its peers and from them, all at once."""
    total = 0
    for number in range(rounds):
        children = await asyncio.gather(*[ctx.dispatch(doubling, i) for i in range(4)])
        sends = [
            ctx.signal(Go(), workflow="busy", tags={"peer": (number + i) % peers}, missing_ok=True) for i in range(3)
        ]
        outputs = [child.output() for child in children]
        done = await asyncio.gather(*outputs, *sends, ctx.listen_many(Go, limit=5, timeout=0.2))
        total += sum(output.value for output in done if isinstance(output, Doubled))
    return total


async def test_nobody_deadlocks(dsn: str) -> None:
    peers, rounds = 12, 6
    workflows: list[pgflow.Workflow[Any, Any]] = [busy, doubling, waiting]
    async with (
        pgflow.Client(dsn, connections=8) as client,
        pgflow.Worker(dsn, workflows=workflows),
        pgflow.Worker(dsn, workflows=workflows, cached=0),
        pgflow.Worker(dsn, workflows=workflows),
    ):
        handles = [await client.dispatch(busy, peers, rounds, tags={"peer": peer}) for peer in range(peers)]
        victims = [await client.dispatch(busy, peers, 1000, tags={"peer": peer}) for peer in range(peers)]
        ended = asyncio.Event()

        async def strangers(seed: int) -> int:
            """Clients that signal, some within transactions of several receivers in random order."""
            chance, sent = random.Random(seed), 0
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                while not ended.is_set():
                    for handle in chance.sample(handles, 4):
                        sent += (
                            await client.signal(Go(), to=handle.id, missing_ok=True, connection=connection) is not None
                        )
                    await (connection.commit if chance.random() < 0.8 else connection.rollback)()
            return sent

        storm = [asyncio.create_task(strangers(seed)) for seed in range(6)]
        await asyncio.sleep(0)
        for victim in victims:
            await client.cancel(victim.id)
        for handle in handles:
            assert await handle.output(timeout=120) == rounds * (0 + 2 + 4 + 6)
        for victim in victims:
            assert (await client.get(victim.id)).status == "cancelled" or await fails(victim)
        ended.set()
        assert sum(await asyncio.gather(*storm)) > 0
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
        assert found == (0,)


async def fails(handle: pgflow.WorkflowHandle[int]) -> bool:
    """Whether it is cancelled in the end."""
    try:
        await handle.output(timeout=60)
    except pgflow.WorkflowCancelled:
        return True
    return False
