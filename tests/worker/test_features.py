"""Each feature once, by a worker and a client, through the database. About 5 seconds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

import pgflow
from tests.store.scene import Scene
from tests.worker import flows


@pytest_asyncio.fixture
async def worker(scene: Scene) -> AsyncIterator[pgflow.Worker]:
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL) as worker:
        yield worker


async def told(client: pgflow.Client, handle: pgflow.WorkflowHandle[object]) -> list[tuple[str, str, str, int]]:
    """History as kinds, names, statuses and attempts."""
    return [(e.kind, e.name, e.status, e.attempts) for e in await client.history(handle.id)]


async def test_activities(client: pgflow.Client, worker: pgflow.Worker) -> None:
    handle = await client.dispatch(flows.sums, 4)
    assert await handle.output(20) == 50
    assert await told(client, handle) == [
        ("activity", "add", "completed", 1),
        ("activity", "multiply", "completed", 1),
    ]


async def test_retries_are_recorded(client: pgflow.Client, worker: pgflow.Worker) -> None:
    handle = await client.dispatch(flows.retried)
    assert await handle.output(20) == ["attempt 2"]
    assert await told(client, handle) == [
        ("activity", "second_time", "completed", 2),
        ("activity", "never", "failed", 2),
    ]


async def test_failure(client: pgflow.Client, worker: pgflow.Worker) -> None:
    handle = await client.dispatch(flows.failing)
    with pytest.raises(pgflow.WorkflowFailed, match="never"):
        await handle.output(20)
    assert (await handle.info()).status == "failed"


@pytest.mark.parametrize("seconds", [0.05, 1.2])
async def test_sleep(client: pgflow.Client, worker: pgflow.Worker, seconds: float) -> None:
    """The longer one leaves memory, and this worker takes it up again with its input and history."""
    handle = await client.dispatch(flows.sleeper, 1, seconds)
    assert await handle.output(20) == 3
    history = await client.history(handle.id)
    assert [(e.kind, e.status, e.attempts) for e in history] == [
        ("activity", "completed", 1),
        ("sleep", "completed", 0),
        ("activity", "completed", 1),
    ]
    assert history[1].completed_at is not None and history[0].completed_at is not None
    assert (history[1].completed_at - history[0].completed_at).total_seconds() >= seconds


@pytest.mark.parametrize("seconds", [0.05, 1.2])
async def test_timeout(client: pgflow.Client, worker: pgflow.Worker, seconds: float) -> None:
    handle = await client.dispatch(flows.hurried, seconds)
    assert await handle.output(20) == "late"
    assert [(e.kind, e.status) for e in await client.history(handle.id)] == [
        ("timeout", "failed"),
        ("sleep", "cancelled"),
        ("sleep", "cancelled"),
    ]


async def test_branches_join_gather_and_inline(client: pgflow.Client, worker: pgflow.Worker) -> None:
    handle = await client.dispatch(flows.parted, 3)
    assert await handle.output(20) == [4, 12, 5, 12, 40]
    assert [(e.location, e.kind, e.name) for e in await client.history(handle.id)] == [
        ("{1}", "activity", "add"),
        ("{2}", "branch", "twice"),
        ("{2, 1}", "activity", "multiply"),
        ("{2, 2}", "activity", "multiply"),
        ("{3}", "activity", "add"),
        ("{4}", "branch", "twice"),
        ("{4, 1}", "activity", "multiply"),
        ("{4, 2}", "activity", "multiply"),
        ("{5}", "sleep", ""),
        ("{6}", "branch", "sums"),
        ("{6, 1}", "activity", "add"),
        ("{6, 2}", "activity", "multiply"),
    ]


async def test_what_a_hint_brings_puts_nothing_off(scene: Scene, client: pgflow.Client) -> None:
    """A worker that never polls takes up what hints name, and whatever else is due at its time."""
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL, poll=3600.0):
        later = await client.dispatch(flows.sums, 1, run_at=datetime.now(UTC) + timedelta(seconds=1.5))
        await client.dispatch_many(
            flows.sums, [{"number": 2}]
        )  # its hint names no workflow: the worker learns what is due later
        assert await (await client.dispatch(flows.sums, 3)).output(20) == 40
        assert await (await client.dispatch(flows.sums, 4, priority=5)).output(20) == 50
        assert await later.output(20) == 20


async def test_many_at_once_in_one_process(scene: Scene, client: pgflow.Client, worker: pgflow.Worker) -> None:
    """Two thousand, while two thousand others sleep."""
    await client.dispatch_many(flows.sleeper, [{"number": n, "seconds": 3600} for n in range(2000)])
    handles = await client.dispatch_many(flows.sums, [{"number": n} for n in range(2000)])
    assert [await handle.output(60) for handle in handles] == [(n + 1) * 10 for n in range(2000)]
