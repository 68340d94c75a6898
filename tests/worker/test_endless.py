"""Workflows whose code does not come to rest harm only themselves. About 12 seconds."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

import pgflow
from pgflow.cli.process_end import BLOCKED
from pgflow.worker import loop_watchdog
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows
from tests.worker.processes import worker_process


async def failure(handle: pgflow.WorkflowHandle[object]) -> str:
    with pytest.raises(pgflow.WorkflowFailed) as failed:
        await handle.output(60)
    assert failed.value.error_type == "EngineError"
    return failed.value.error_message


async def test_one_that_turns_its_event_loop_fails_and_others_go_on(scene: Scene, client: pgflow.Client) -> None:
    spinning = [await client.dispatch(flows.spinning) for _ in range(3)]
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL):
        assert await (await client.dispatch(flows.sums, 1)).output(60)  # in turns with those
        for handle in spinning:
            told = await failure(handle)
            assert "spins" in told
            assert "flows.py" in told and "in spinning" in told
            assert (await handle.info()).status == "failed"


async def test_one_that_does_not_give_its_thread_back_is_ended(
    scene: Scene, client: pgflow.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop_watchdog, "LIMIT", 0.2)
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL):
        for number in range(2):
            told = await failure(await client.dispatch(flows.endless, number))
            assert "flows.py" in told and "in endless" in told
            assert await (await client.dispatch(flows.sums, 1)).output(60)
    assert sum("and is ended" in record.message for record in caplog.records) >= 2


@pgflow.workflow
async def long(ctx: pgflow.WorkflowContext, seconds: float) -> float:
    """As long as the limit, more or less: whoever ends it may come too late."""
    for _ in range(3):
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
        await ctx.activity(flows.add, 1, 1)
    return seconds


async def test_an_exception_that_comes_too_late_hits_nobody(
    scene: Scene, client: pgflow.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TICK", 0.005), ("THRESHOLD", 0.005), ("LIMIT", 0.02)):
        monkeypatch.setattr(loop_watchdog, name, value)
    handles = [await client.dispatch(long, 0.014 + 0.0005 * n) for n in range(25)]
    innocent = [await client.dispatch(flows.sums, n) for n in range(10)]
    async with pgflow.Worker(scene.database.dsn, workflows=[long, *flows.ALL]) as worker:
        number = worker.id
        ended = await asyncio.gather(*[handle.output(120) for handle in handles], return_exceptions=True)
        for handle in innocent:
            await handle.output(120)
        assert worker.id == number
    for result in ended:
        assert isinstance(result, float) or (
            isinstance(result, pgflow.WorkflowFailed) and result.error_type == "EngineError"
        ), result


async def test_sigterm_ends_a_process_whose_loop_is_blocked(scene: Scene, client: pgflow.Client) -> None:
    handle = await client.dispatch(flows.endless, 1)
    with worker_process(scene, "--grace", "0.1") as worker:
        await worker.logged("the event loop has been blocked")
        worker.send(signal.SIGTERM)
        worker.send(signal.SIGTERM)
        assert await worker.ended() == BLOCKED
        assert "asked to stop" in worker.log
    assert (await handle.info()).status == "running"  # until its lease has ended


async def test_sigterm_ends_a_process_in_which_a_workflow_spins(scene: Scene, client: pgflow.Client) -> None:
    handles = [await client.dispatch(flows.spinning) for _ in range(20)]
    with worker_process(scene, "--grace", "0.1") as worker:
        await worker.registered()
        await until(lambda: scene.one("SELECT count(*) FROM runs WHERE worker_id IS NOT NULL") > 0, "claims")
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0, worker.log
    assert {(await handle.info()).status for handle in handles} <= {"pending", "failed"}


async def test_a_process_with_code_that_swallows_everything_is_ended(
    scene: Scene, client: pgflow.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLOW_TEST_LIMIT", "0.2")
    await client.dispatch(flows.endless, 1, swallows=True)
    with worker_process(scene) as worker:
        assert await worker.ended() == BLOCKED
        assert "no exception ends it" in worker.log
        assert "blocks the event loop for good" in worker.log
