"""An error in pgflow's own code that leaves one run stops neither the other runs nor the worker, which keeps its lease.
About 3 seconds.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import pgflow
from pgflow.execution.engine.run import Run
from tests.store.scene import Scene
from tests.worker import flows


def break_for(monkeypatch: pytest.MonkeyPatch, name: str, method: str) -> None:
    """Let a method of the runs of one workflow fail as a bug of the engine would."""
    sound = getattr(Run, method)

    def broken(self: Run, *args: Any, **options: Any) -> Any:
        if self.claimed.name == name:
            raise ZeroDivisionError(f"a bug in {method}")
        return sound(self, *args, **options)

    monkeypatch.setattr(Run, method, broken)


async def test_fails_the_one_workflow_and_no_other(
    scene: Scene, client: pgflow.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those pumped in the same turn, and those that come later, run on; a retry under mended code completes it."""
    async with pgflow.Worker(scene.database.dsn, workflows=[flows.sums, flows.turning]):
        with monkeypatch.context() as broken:
            break_for(broken, "sums", "_deliver_next")
            first, struck = await client.dispatch(flows.turning, 30), await client.dispatch(flows.sums, 1)
            beside = await client.dispatch_many(flows.turning, [{"turns": n} for n in range(5)])
            with pytest.raises(pgflow.WorkflowFailed, match="an error of pgflow's own code: ZeroDivisionError: a bug"):
                await struck.output(30)
            assert scene.all("SELECT 1 FROM events WHERE workflow_id = %s", struck.id) == []
            assert [await handle.output(30) for handle in [first, *beside]] == [30, 0, 1, 2, 3, 4]
        await client.retry(struck.id)
        assert await struck.output(30) == 20


@pytest.mark.parametrize(
    "methods", [("_deliver_next", "_end"), ("finish",)], ids=["in a pump", "at the end of an activity"]
)
async def test_one_that_cannot_even_be_failed_ends_the_worker(
    scene: Scene, client: pgflow.Client, monkeypatch: pytest.MonkeyPatch, methods: tuple[str, ...]
) -> None:
    """With the error, and without the lease: another worker finishes what it had."""
    worker = pgflow.Worker(scene.database.dsn, workflows=[flows.sums, flows.sleeper])
    running = asyncio.create_task(worker.run())
    await worker.ready.wait()
    with monkeypatch.context() as broken:
        for method in methods:
            break_for(broken, "sums", method)
        handles = [await client.dispatch(flows.sleeper, 1, 0.9), await client.dispatch(flows.sums, 1)]
        with pytest.raises(ZeroDivisionError, match=f"a bug in {methods[-1]}"):
            await running
    assert scene.all("SELECT 1 FROM runs WHERE worker_id IS NOT NULL") == []
    async with pgflow.Worker(scene.database.dsn, workflows=[flows.sums, flows.sleeper]):
        assert [await handle.output(30) for handle in handles] == [3, 20]


@pgflow.workflow
async def refused_behind_an_advancement(ctx: pgflow.WorkflowContext) -> None:
    async def turn(ctx: pgflow.WorkflowContext, state: int) -> pgflow.Continue[int]:
        if state == 2:
            await asyncio.sleep(1)
        await ctx.activity(flows.add, 1, 2)
        return pgflow.Continue(state + 1)

    await ctx.loop(turn, 0, commit_interval=2)


async def test_a_refusal_in_the_pump_that_hands_over_an_advancement(client: pgflow.Client, scene: Scene) -> None:
    async with pgflow.Worker(scene.database.dsn, workflows=[refused_behind_an_advancement], grace=0.1):
        handle = await client.dispatch(refused_behind_an_advancement)
        with pytest.raises(pgflow.WorkflowFailed, match="NondeterminismError"):
            await handle.output(20)
