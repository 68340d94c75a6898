"""`Worker(lifespan=, objects=)`, `ctx.resource`, and methods as activities. About 5 seconds."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import pytest

import pgflow
from pgflow.execution.activities.resources import Resources
from pgflow.testing import run
from tests.activities import resources
from tests.activities.resources import Bank, Gateway, Pool, Purse, SlowPool, asking, paying, take, taking
from tests.store.scene import Scene
from tests.waiting import until

ROOT = Path(__file__).parent.parent.parent


class Diary:
    """What has become of a lifespan, in order."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def lifespan(self, *objects: Any) -> Callable[[], AbstractAsyncContextManager[Any]]:
        @asynccontextmanager
        async def lifespan() -> AsyncIterator[Any]:
            self.notes.append("entered")
            yield objects
            self.notes.append("left")

        return lifespan


def worker(scene: Scene, **settings: Any) -> pgflow.Worker:
    return pgflow.Worker(scene.database.dsn, workflows=resources.ALL, **settings)


async def test_every_sort_of_activity_gets_the_one_object(scene: Scene, client: pgflow.Client) -> None:
    """Async, in threads, and transactional of both sorts; a subclass when it alone is of the type."""
    diary, pool = Diary(), SlowPool("p")
    async with worker(scene, lifespan=diary.lifespan(pool)):
        assert diary.notes == ["entered"]
        assert await (await client.dispatch(taking)).output(timeout=30) == ["p"] * 4
        assert diary.notes == ["entered"]
    assert diary.notes == ["entered", "left"]
    assert pool.taken == 4


async def test_what_there_is_not_is_named_with_what_there_is(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene, lifespan=Diary().lifespan(SlowPool("p")), objects=[Gateway("bank")]):
        handle = await client.dispatch(asking)
        with pytest.raises(pgflow.WorkflowFailed) as caught:
            await handle.output(timeout=30)
    said = str(caught.value)
    assert 'activity "ask" asks for the resource tests.activities.resources.Purse' in said
    assert "are: tests.activities.resources.Gateway, tests.activities.resources.SlowPool" in said


def context(*given: Any) -> pgflow.ActivityContext:
    made = pgflow.ActivityContext("1", UUID(int=1), "charge", 1)
    made.provide(Resources(given, "here"))
    return made


class Closable(Protocol):
    def close(self) -> None: ...


def test_by_type() -> None:
    """The type itself goes before what is derived from it; of several derived ones, none."""
    exact, derived, other = Pool("exact"), SlowPool("derived"), type("Other", (Pool,), {})("other")
    assert context(derived, exact).resource(Pool) is exact
    assert context(derived).resource(Pool) is derived
    asked = context(derived, other)
    assert asked.resource(SlowPool) is derived
    with pytest.raises(pgflow.PgflowError, match=r"several are of that type: .*SlowPool, .*Other"):
        asked.resource(Pool)
    with pytest.raises(pgflow.PgflowError, match="are: none at all"):
        context().resource(Pool)
    with pytest.raises(TypeError, match="expected a class"):
        context(exact).resource("Pool")  # type: ignore[arg-type]  # refused
    with pytest.raises(TypeError, match="by which objects cannot be told"):
        context(exact).resource(Closable)  # type: ignore[type-abstract]  # refused


async def test_methods_of_objects(scene: Scene, client: pgflow.Client) -> None:
    """Given as an object, or by the lifespan; of both sorts, transactional, with options, an overridden one."""
    async with worker(scene, objects=[Gateway("bank")], lifespan=Diary().lifespan(Bank())):
        handle = await client.dispatch(paying, 7)
        assert await handle.output(timeout=30) == ["bank 7", "bank refunds 7", "bank 8", 1, "a bank lends 9"]
        names = [event.name for event in await client.history(handle.id)]
        assert names == ["charge", "refund", "fee", "booked", "lend"]


async def test_a_method_needs_its_object(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene):
        handle = await client.dispatch(paying, 7)
        with pytest.raises(pgflow.WorkflowFailed, match=r'"charge" asks for the resource .*Gateway.*objects=\[...\]'):
            await handle.output(timeout=30)


def test_in_memory() -> None:
    ran = run(resources.paying_in_memory, 7, resources=[Gateway("fake"), Bank()])
    assert ran.output == ["fake 7", "fake refunds 7"]
    fakes: dict[pgflow.Activity[Any, Any] | str, Any] = {
        Gateway.charge: lambda ctx, cents: "faked",
        take: lambda ctx: ctx.resource(Purse).name,
    }
    assert run(resources.paying_in_memory, 7, activities=fakes, resources=[Gateway("x")]).output[0] == "faked"
    with pytest.raises(ValueError, match="two objects of the type"):
        run(resources.paying_in_memory, 7, resources=[Gateway("x"), Gateway("y")])


async def test_a_method_is_called_as_itself() -> None:
    """With an ActivityContext: on an object, or on that of the context, as part of another activity."""
    gateway = Gateway("bank")
    assert await gateway.charge(context(), 7) == "bank 7"
    assert await Gateway.charge(context(gateway), 7) == "bank 7"
    assert Gateway.charge.name == "charge" and Gateway.charge.is_async and not Gateway.refund.is_async
    with pytest.raises(TypeError, match=r"was called as a function.*ctx.activity\(Gateway.charge"):
        gateway.charge(None, 7)  # type: ignore[arg-type]  # refused


async def test_of_one_object_it_is_refused_in_a_workflow(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene, objects=[Gateway("bank")]):
        handle = await client.dispatch(resources.astray)
        with pytest.raises(pgflow.WorkflowFailed, match=r"ctx.activity\(Gateway.charge, ...\)"):
            await handle.output(timeout=30)


@asynccontextmanager
async def refusing() -> AsyncIterator[None]:
    raise ConnectionError("no bank")
    yield


@asynccontextmanager
async def leaving_badly() -> AsyncIterator[None]:
    yield
    raise ConnectionError("the bank is gone")


@asynccontextmanager
async def twins() -> AsyncIterator[Any]:
    yield Pool("one"), Pool("other")


@asynccontextmanager
async def falling_apart() -> AsyncIterator[None]:
    async def refresh() -> None:
        raise ConnectionError("no token")

    async with asyncio.TaskGroup() as group:
        group.create_task(refresh())
        yield


@pytest.mark.parametrize(
    ("lifespan", "said"),
    [
        (refusing, "refusing failed when it was entered, before anything was claimed: ConnectionError: no bank"),
        (twins, "failed when it was entered.*two objects of the type"),
        (lambda: Pool("x"), "which is no async context manager"),
        (falling_apart, r"ended by itself|failed when it was entered"),
    ],
)
async def test_a_lifespan_that_cannot_be(scene: Scene, lifespan: Any, said: str) -> None:
    made = worker(scene, lifespan=lifespan)
    with pytest.raises(pgflow.LifespanFailed, match=said) as caught:
        await asyncio.wait_for(made.run(), 60)
    assert caught.value.__cause__ is not None
    assert scene.all("SELECT id FROM workers") == []


async def test_a_lifespan_that_is_left_badly(scene: Scene, client: pgflow.Client) -> None:
    made = worker(scene, lifespan=leaving_badly)
    with pytest.raises(pgflow.LifespanFailed, match="when it was left, after everything was handed back"):
        async with made:
            await (await client.dispatch(resources.nothing)).output(timeout=30)
    assert scene.all("SELECT id FROM workers") == []


async def test_it_outlasts_the_attempts(scene: Scene, client: pgflow.Client) -> None:
    """A stop, and a cancellation that cuts attempts off: they end first."""
    for grace in (60.0, 0.0):
        diary = Diary()
        resources.notes, resources.go_on = diary.notes, threading.Event()
        made = worker(scene, lifespan=diary.lifespan(Pool("p")), grace=grace)
        running = asyncio.create_task(made.run())
        await client.dispatch(resources.lingering)
        await until(lambda: "begun" in diary.notes, "the attempt")  # noqa: B023
        if grace:
            made.stop()
            await asyncio.sleep(0)
            resources.go_on.set()
            await running
        else:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert diary.notes[0] == "entered" and diary.notes[-2:] == ["ended", "left"]


async def test_it_outlives_a_lost_lease(scene: Scene, client: pgflow.Client) -> None:
    """One for the worker's life, whatever becomes of its sessions."""
    diary = Diary()
    async with worker(scene, lifespan=diary.lifespan(SlowPool("p"))) as made:
        first = made.id
        scene.do("DELETE FROM workers")
        await until(lambda: made.id not in (None, first), "another registration")
        assert await (await client.dispatch(taking)).output(timeout=30) == ["p"] * 4
    assert diary.notes == ["entered", "left"]


async def test_stopped_while_it_is_entered(scene: Scene) -> None:
    """Nothing is claimed, and it is taken down."""
    notes: list[str] = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        try:
            notes.append("entering")
            await asyncio.Event().wait()
            yield
        finally:
            notes.append("over")

    made = worker(scene, lifespan=slow)
    running = asyncio.create_task(made.run())
    await until(lambda: notes, "the lifespan")
    made.stop()
    await asyncio.wait_for(running, 60)
    assert notes == ["entering", "over"] and not made.ready.is_set()


async def test_a_second_cancellation_cuts_it_off(scene: Scene) -> None:
    notes: list[str] = []

    @asynccontextmanager
    async def stubborn() -> AsyncIterator[None]:
        yield
        try:
            notes.append("leaving")
            await asyncio.Event().wait()
        finally:
            notes.append("over")

    made = worker(scene, lifespan=stubborn)
    running = asyncio.create_task(made.run())
    await asyncio.wait_for(made.ready.wait(), 60)
    running.cancel()
    await until(lambda: notes, "its end")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 60)
    assert notes == ["leaving", "over"]


def process(dsn: str, *options: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "cli.py", "worker", "tests.activities.resources", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PGFLOW_DATABASE_URL": dsn, **environment},
    )


async def test_on_the_command_line(scene: Scene, client: pgflow.Client) -> None:
    """By --lifespan; it is left on SIGTERM."""
    dsn = scene.database.dsn
    running = process(dsn, "--lifespan", "tests.activities.resources:lifespan")
    try:
        assert await (await client.dispatch(taking)).output(timeout=60) == ["of the lifespan"] * 4
        running.send_signal(signal.SIGTERM)
        told, _ = await asyncio.to_thread(running.communicate, timeout=60)
        assert (running.returncode, told) == (0, "entered\nleft\n")
    finally:
        running.kill()


def test_on_the_command_line_one_that_fails(scene: Scene) -> None:
    """One line that says so, the traceback of its own error, and exit code 1."""
    running = process(scene.database.dsn, PGFLOW_LIFESPAN="tests.activities.resources:broken")
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "broken failed when it was entered, before anything was claimed: ConnectionError: no bank" in said
    assert 'raise ConnectionError("no bank")' in said and "LifespanFailed" not in said
