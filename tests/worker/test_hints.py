"""Hints that name a workflow. About 2 seconds."""

from __future__ import annotations

import psycopg

import pgflow
from pgflow.store.database.channels import wake_channel
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows


async def test_one_that_was_locked_when_it_was_named_is_looked_for_again(scene: Scene) -> None:
    """Nobody tells of it again, and the next poll is an hour away."""
    dsn = scene.database.dsn
    asked = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%%claims' AND state = 'idle' AND "
        "query_start > %s"
    )
    async with pgflow.Worker(dsn, workflows=flows.ALL, poll=3600), pgflow.Client(dsn) as client:
        await (await client.dispatch(flows.sums, 1)).output(20)  # it is idle now
        async with await psycopg.AsyncConnection.connect(dsn) as holder:
            id = scene.run(name="retried")
            await holder.execute("SELECT FROM pgflow.runs WHERE workflow_id = %s FOR NO KEY UPDATE", [id])
            before = scene.one("SELECT clock_timestamp()")
            scene.do("SELECT pg_notify(%s, %s)", wake_channel("pgflow"), f"default\n{id}")

            async def tried() -> bool:
                return bool(scene.one(asked, before))

            await until(tried)
            await holder.rollback()
        assert await client.output(id, timeout=20) == ["attempt 2"]


async def test_one_that_becomes_visible_late_is_found(scene: Scene) -> None:
    """Its transaction was open for so long that claims have moved on behind it, and nobody tells of it."""
    dsn = scene.database.dsn
    async with pgflow.Worker(dsn, workflows=flows.ALL, poll=0.05), pgflow.Client(dsn) as client:
        await (await client.dispatch(flows.sums, 1)).output(20)  # claims have moved on
        id = scene.run(name="retried", wake_in=-3600)
        assert await client.output(id, timeout=20) == ["attempt 2"]
