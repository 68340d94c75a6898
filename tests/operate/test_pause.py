"""Pausing: whatever is asked of a workflow while it is to be paused, or was asked before, is heard once it goes on; at
once if that is now.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

import pgflow
from pgflow.store.leasing.leases import recover
from tests.store.scene import Scene
from tests.waiting import status, until


@pgflow.signal
@dataclass
class Go:
    pass


GATE: dict[str, asyncio.Event] = {}


@pgflow.activity(timeout=None)
async def long(ctx: pgflow.ActivityContext) -> None:
    GATE["began"].set()
    await GATE["end"].wait()


@pgflow.activity
async def note(ctx: pgflow.ActivityContext, text: str) -> str:
    return text


@pgflow.workflow
async def child(ctx: pgflow.WorkflowContext) -> str:
    await ctx.listen(Go)
    return "the child ended"


@pgflow.workflow
async def busy(ctx: pgflow.WorkflowContext, beside: str) -> str:
    """An activity that takes long, and something beside it that may come first."""
    working = asyncio.ensure_future(ctx.activity(long))

    async def wait(ctx: pgflow.WorkflowContext) -> str:
        if beside == "signal":
            await ctx.listen(Go)
            return "heard the signal"
        if beside == "child":
            return await (await ctx.dispatch(child, tags={"of": "busy"})).output()
        try:
            async with ctx.timeout(1.5):
                await ctx.listen(Go)
        except TimeoutError:
            pass
        return "the deadline passed"

    waiting = asyncio.ensure_future(ctx.branch(wait))
    try:
        done, _ = await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await ctx.activity(note, "cancelled")
        return "heard that it was cancelled"
    return waiting.result() if waiting in done else "the activity ended first"


@pgflow.workflow
async def tidy(ctx: pgflow.WorkflowContext) -> str:
    try:
        await ctx.listen(Go)
    except asyncio.CancelledError:
        await ctx.activity(note, "cleaning")
        await ctx.sleep(1.1)
        return "tidied up"
    return "went"


WORKFLOWS: list[pgflow.Workflow[Any, Any]] = [busy, child, tidy]


@pytest.fixture
def scene(dsn: str) -> Iterator[Scene]:
    scene = Scene(dsn)
    yield scene
    scene.close()


@dataclass
class World:
    client: pgflow.Client
    worker: pgflow.Worker
    scene: Scene

    async def ask(self, what: str, id: UUID, by: str) -> bool:
        if by == "client":
            return bool(await getattr(self.client, what)(id))
        return bool(self.scene.one(f"SELECT pgflow.{what}(%s)", id))

    async def begin(self, beside: str) -> pgflow.WorkflowHandle[str]:
        GATE["began"], GATE["end"] = asyncio.Event(), asyncio.Event()
        handle = await self.client.dispatch(busy, beside)
        await GATE["began"].wait()
        return handle

    async def noticed(self, id: UUID, pausing: bool = True) -> None:
        """Wait until the worker knows that the workflow is to be paused, or that it is not."""

        async def it_is() -> bool:
            assert self.worker._session is not None
            return self.worker._session.runs[id].pausing is pausing

        await until(it_is)


@pytest_asyncio.fixture
async def world(dsn: str, scene: Scene) -> AsyncIterator[World]:
    """A worker that polls once an hour: it hears what it is told."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, poll=3600) as worker:
        yield World(client, worker, scene)


BY = pytest.mark.parametrize("by", ["client", "sql"])


@BY
@pytest.mark.parametrize(
    "asked", ["pause cancel", "pause resume cancel", "pause pause resume cancel", "pause resume pause cancel"]
)
async def test_a_cancel_is_heard_while_an_activity_is_in_flight(world: World, asked: str, by: str) -> None:
    handle = await world.begin("signal")
    for what in asked.split():
        assert await world.ask(what, handle.id, by)
        if what != "cancel":
            await world.noticed(handle.id, what == "pause")
    assert await handle.output(timeout=30) == "heard that it was cancelled"


@BY
async def test_what_is_asked_at_once_is_heard(world: World, by: str) -> None:
    """Nothing has been noticed of the pause when it is over."""
    handle = await world.begin("signal")
    for what in ("pause", "resume", "pause", "resume"):
        assert await world.ask(what, handle.id, by)
    await world.client.signal(Go(), to=handle.id)
    assert await handle.output(timeout=30) == "heard the signal"


@pytest.mark.parametrize("before", [False, True])
async def test_a_signal_is_heard_after_the_resumption(world: World, before: bool) -> None:
    """Sent before the resumption or after it."""
    handle = await world.begin("signal")
    await world.client.pause(handle.id)
    await world.noticed(handle.id)
    if before:
        await world.client.signal(Go(), to=handle.id)
    await world.client.resume(handle.id)
    if not before:
        await world.noticed(handle.id, False)
        await world.client.signal(Go(), to=handle.id)
    assert await handle.output(timeout=30) == "heard the signal"


@pytest.mark.parametrize("passed", [False, True])
async def test_a_deadline_passes_after_the_resumption(world: World, passed: bool) -> None:
    """It is over before the resumption, or after it; never during the pause."""
    handle = await world.begin("timeout")
    await world.client.pause(handle.id)
    await world.noticed(handle.id)
    if passed:
        over = "SELECT bool_and(wake_at < now()) FROM events WHERE kind = 'timeout'"

        async def it_is() -> bool:
            return bool(world.scene.one(over))

        await until(it_is)
        assert world.scene.all("SELECT status FROM events WHERE kind = 'timeout'") == ["pending"]
    await world.client.resume(handle.id)
    assert await handle.output(timeout=30) == "the deadline passed"


@pytest.mark.parametrize("before", [False, True])
async def test_a_child_s_end_is_heard_after_the_resumption(world: World, before: bool) -> None:
    handle = await world.begin("child")

    async def started() -> list[pgflow.WorkflowInfo]:
        return await world.client.list(name="child", status="sleeping")

    await until(started)
    (one,) = await started()
    await world.client.pause(handle.id)
    await world.noticed(handle.id)
    if not before:
        await world.client.resume(handle.id)
        await world.noticed(handle.id, False)
    await world.client.signal(Go(), to=one.id)
    await world.client.output(one.id, timeout=30)
    if before:
        await world.client.resume(handle.id)
    assert await handle.output(timeout=30) == "the child ended"


async def test_it_pauses_when_its_activity_has_ended(world: World) -> None:
    """And what came in meanwhile is heard by whoever takes it up again."""
    handle = await world.begin("signal")
    await world.client.pause(handle.id)
    await world.noticed(handle.id)
    await world.client.signal(Go(), to=handle.id)
    GATE["end"].set()
    await status(world.client, handle, "paused")
    assert await world.client.resume(handle.id)
    assert await handle.output(timeout=30) in ("heard the signal", "the activity ended first")


@BY
async def test_a_cancel_that_was_asked_for_before_is_heard_before_the_pause(dsn: str, scene: Scene, by: str) -> None:
    """A waiting workflow is cancelled, then paused: its code hears of the cancellation, and pauses in its cleanup."""
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            handle = await client.dispatch(tidy)
            await status(client, handle, "sleeping")
        # No worker is there: the cancel is delivered by hand, as one would.
        world = World(client, None, scene)  # type: ignore[arg-type]
        await world.ask("cancel", handle.id, by)
        scene.do(
            "WITH gone AS (DELETE FROM requests) UPDATE runs SET cancel_requested = true, status = 'pending', wake_at "
            "= now()"
        )
        assert await world.ask("pause", handle.id, by)
        assert scene.one("SELECT status FROM runs") == "pending"
        async with pgflow.Worker(dsn, workflows=WORKFLOWS, poll=3600):
            await status(client, handle, "paused")
            assert ("cancelled",) == scene.sql.execute("SELECT status FROM events WHERE location = '1'").fetchone()
            await client.resume(handle.id)
            assert await handle.output(timeout=30) == "tidied up"


async def test_a_pause_outlives_the_worker_that_was_to_heed_it(dsn: str, scene: Scene) -> None:
    """The worker has died before its activity ended: whoever finds that out pauses the workflow, and nobody runs it."""
    dead = scene.worker(lease=-1.0)
    run, cancelled = scene.run(dead, pause_requested=True), scene.run(dead, pause_requested=True, cancel_requested=True)
    await recover(scene.database, scene.worker())
    assert scene.one("SELECT status, pause_requested, wake_at FROM runs WHERE workflow_id = %s", run) == (
        "paused",
        False,
        None,
    )
    assert scene.one("SELECT status, pause_requested FROM runs WHERE workflow_id = %s", cancelled) == ("pending", True)
