"""`ctx.heartbeat`: progress for people and for the next attempt, and how a thread learns that nobody waits for it.
About 5 seconds.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import pgflow
from tests.store.scene import Scene
from tests.waiting import until

AGAIN = pgflow.RetryPolicy(max_attempts=3, initial=0.01)


class Held:
    """What a test and the activity that it holds up have in common."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.ended_by: BaseException | None = None


held: dict[str, Held] = {}


@pgflow.activity(timeout=None, retry=AGAIN)
async def load(ctx: pgflow.ActivityContext, name: str) -> list[Any]:
    """Fails after its first heartbeats; the next attempt goes on from there."""
    begins = ctx.heartbeat_details
    if begins is None:
        for number in range(10):
            ctx.heartbeat({"lines": number})
        while not held[name].go_on.is_set():
            await asyncio.sleep(0.01)
        ctx.heartbeat({"lines": 10})
        raise ConnectionError("lost")
    return [ctx.attempt, begins]


@pgflow.activity(timeout=None)
def busy(ctx: pgflow.ActivityContext, name: str) -> None:
    """Tells of its progress far more often than anybody could want to know."""
    held[name].begun.set()
    for number in range(100_000):
        ctx.heartbeat(number)


@pgflow.activity(timeout=None, retry=AGAIN)
def deaf(ctx: pgflow.ActivityContext, name: str) -> Any:
    """A thread, which only its heartbeat tells that nobody waits for it any more."""
    if ctx.heartbeat_details is not None:
        return ctx.heartbeat_details
    held[name].begun.set()
    try:
        while True:
            ctx.heartbeat("working")
            held[name].go_on.wait(0.01)
    except pgflow.ActivityCancelled as error:
        held[name].ended_by = error
        raise


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def strange(ctx: pgflow.ActivityContext) -> None:
    ctx.heartbeat(object())


@pgflow.workflow
async def loading(ctx: pgflow.WorkflowContext, name: str) -> list[Any]:
    return await ctx.activity(load, name)


@pgflow.workflow
async def being_busy(ctx: pgflow.WorkflowContext, name: str) -> None:
    await ctx.activity(busy, name)


@pgflow.workflow
async def being_deaf(ctx: pgflow.WorkflowContext, name: str, timeout: float | None = None) -> Any:
    policy = AGAIN if timeout is None else pgflow.RetryPolicy(max_attempts=1)
    return await ctx.activity(deaf.options(timeout=timeout, retry=policy), name)


@pgflow.workflow
async def estranged(ctx: pgflow.WorkflowContext) -> None:
    await ctx.activity(strange)


FLOWS: list[pgflow.Workflow[Any, Any]] = [loading, being_busy, being_deaf, estranged]


@pytest.fixture
def hold(request: pytest.FixtureRequest) -> str:
    """The name of what a test holds up."""
    held[request.node.name] = Held()
    return str(request.node.name)


def worker(scene: Scene, **settings: Any) -> pgflow.Worker:
    return pgflow.Worker(scene.database.dsn, workflows=FLOWS, **settings)


async def test_progress_is_seen_and_the_next_attempt_goes_on_from_there(
    scene: Scene, client: pgflow.Client, hold: str
) -> None:
    async with worker(scene):
        handle = await client.dispatch(loading, hold)
        await until(lambda: scene.all("SELECT output FROM history WHERE output IS NOT NULL"), "progress")
        (event,) = await client.history(handle.id)
        assert (event.status, event.attempts, event.kind) == ("pending", 0, "activity")
        assert event.output in [{"lines": number} for number in range(10)]
        held[hold].go_on.set()
        # What was told last counts, whether or not it had been passed on.
        assert await handle.output(20) == [2, {"lines": 10}]


async def test_heartbeats_are_coalesced(scene: Scene, client: pgflow.Client, hold: str) -> None:
    """A hundred thousand of them are a handful of writes: one, and one for each second that they last."""
    scene.do("CREATE TABLE writes (at timestamptz DEFAULT clock_timestamp())")
    scene.do(
        "CREATE FUNCTION wrote() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO pgflow.writes DEFAULT VALUES; RETURN NEW; END'"
    )
    scene.do("CREATE TRIGGER wrote AFTER INSERT OR UPDATE ON events FOR EACH ROW EXECUTE FUNCTION wrote()")
    async with worker(scene):
        handle = await client.dispatch(being_busy, hold)
        await handle.output(60)
    took = "SELECT 3 + extract(epoch FROM max(at) - min(at)) >= count(*) FROM writes"
    assert scene.one(took), scene.all("SELECT at FROM writes")


async def test_a_thread_learns_of_its_timeout(scene: Scene, client: pgflow.Client, hold: str) -> None:
    async with worker(scene):
        handle = await client.dispatch(being_deaf, hold, timeout=0.2)
        with pytest.raises(pgflow.WorkflowFailed, match="did not end within its timeout of 0.2 s"):
            await handle.output(20)
        await until(lambda: held[hold].ended_by, "the end of the thread")
        assert "its timeout of 0.2 s has passed" in str(held[hold].ended_by)


async def test_a_thread_learns_that_it_was_cancelled(scene: Scene, client: pgflow.Client, hold: str) -> None:
    async with worker(scene):
        handle = await client.dispatch(being_deaf, hold)
        await until(held[hold].begun.is_set, "the thread's begin")
        await client.cancel(handle.id)
        with pytest.raises(pgflow.WorkflowCancelled):
            await handle.output(20)
        await until(lambda: held[hold].ended_by, "the end of the thread")
        assert "its step was cancelled" in str(held[hold].ended_by)


async def test_a_thread_learns_that_the_lease_is_lost(scene: Scene, client: pgflow.Client, hold: str) -> None:
    """Somebody else has taken the workflow: the next heartbeat's row is refused."""
    async with worker(scene, poll=60):
        handle = await client.dispatch(being_deaf, hold)
        await until(held[hold].begun.is_set, "the thread's begin")
        other = scene.worker()
        scene.do("UPDATE runs SET worker_id = %s, epoch = epoch + 1 WHERE workflow_id = %s", other, handle.id)
        await until(lambda: held[hold].ended_by, "the end of the thread")
        assert "its workflow has left this worker" in str(held[hold].ended_by)


async def test_a_stopping_worker_leaves_the_last_heartbeat_to_the_next(
    scene: Scene, client: pgflow.Client, hold: str
) -> None:
    async with worker(scene, grace=0):
        handle = await client.dispatch(being_deaf, hold)
        await until(held[hold].begun.is_set, "the thread's begin")
        await until(lambda: scene.all("SELECT output FROM history"), "progress")
    assert scene.one("SELECT output::text FROM events") == '"working"'
    async with worker(scene):
        assert await handle.output(20) == "working"


async def test_details_that_cannot_be_stored(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene):
        handle = await client.dispatch(estranged)
        with pytest.raises(pgflow.WorkflowFailed, match='heartbeat of activity "strange"'):
            await handle.output(20)
