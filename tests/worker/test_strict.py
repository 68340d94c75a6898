"""Steps that are called with other arguments than the recorded ones, on strict and other workers. About 4 seconds."""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import dataclass

import pytest

import pgflow
from pgflow.worker import unrepeatable
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows

numbers = itertools.count()


@pgflow.signal
@dataclass
class Go:
    pass


@pgflow.workflow
async def counting(ctx: pgflow.WorkflowContext) -> int:
    first = await ctx.activity(flows.add, 1, next(numbers))
    await ctx.listen(Go)
    return await ctx.activity(flows.add, first, 1)


@pgflow.workflow
async def same(ctx: pgflow.WorkflowContext) -> int:
    first = await ctx.activity(flows.add, 1, 1)
    await ctx.listen(Go)
    return await ctx.activity(flows.add, first, 1)


@pytest.mark.parametrize("by_another", [False, True])
async def test_a_strict_worker_fails_them_and_writes_nothing(
    scene: Scene, client: pgflow.Client, by_another: bool
) -> None:
    def worker(strict: bool = True) -> pgflow.Worker:
        return pgflow.Worker(scene.database.dsn, workflows=[counting, same], strict=strict, cached=0)

    handle, innocent = await client.dispatch(counting), await client.dispatch(same)

    async def go_on() -> None:
        await client.signal(Go(), to=innocent.id)
        await client.signal(Go(), to=handle.id)
        assert await innocent.output(30) == 3
        with pytest.raises(pgflow.WorkflowFailed, match="other arguments") as failed:
            await handle.output(30)
        assert failed.value.error_type == "NondeterminismError"
        assert 'activity "add" at {1}' in failed.value.error_message

    async with worker():
        await until(lambda: scene.one("SELECT count(*) FROM runs WHERE status = 'sleeping'") == 2, "both to sleep")
        if not by_another:
            await go_on()
    if by_another:
        async with worker():
            await go_on()
    assert [event.status for event in await client.history(handle.id)] == ["completed", "pending"]
    await client.retry(handle.id)
    async with worker(strict=False):
        assert await handle.output(30) >= 1


@pgflow.workflow
async def careless(ctx: pgflow.WorkflowContext) -> float:
    return time.time() + random.random()


async def test_clocks_and_chance_in_a_workflow_are_told_once(
    scene: Scene, client: pgflow.Client, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        async with pgflow.Worker(scene.database.dsn, workflows=[careless, *flows.ALL]):
            pass
    told = [record.getMessage() for record in caplog.records if "another thing on each replay" in record.getMessage()]
    line = careless.fn.__code__.co_firstlineno + 2
    mine = [text for text in told if '"careless"' in text]
    assert len(mine) == 2
    assert f"calls time.time at {__file__}:{line} in careless" in mine[0] and "ctx.now()" in mine[0]
    assert f"calls random.random at {__file__}:{line} in careless" in mine[1] and "ctx.random()" in mine[1]
    assert len(told) == len(set(told))


def test_what_is_found_in_code() -> None:
    import socket
    import urllib.request
    from datetime import UTC, date, datetime
    from uuid import uuid4

    def innocent() -> object:
        return datetime.fromisoformat("2030-01-01"), random.Random(1).random(), time.strftime("%Y"), date(2030, 1, 1)

    def called() -> object:
        return [uuid4() for _ in range(3)]

    async def body(ctx: pgflow.WorkflowContext) -> object:
        def within() -> float:
            time.sleep(1)
            socket.create_connection(("localhost", 80))
            urllib.request.urlopen("http://localhost")
            return time.monotonic()

        return datetime.now(UTC), date.today(), within(), called(), innocent()

    found = unrepeatable.unrepeatable(body)
    clocks, blocks = (
        {"datetime.now", "date.today", "time.monotonic"},
        {"socket.create_connection", "urllib.request.urlopen"},
    )
    assert {one.name for one in found} == clocks | blocks | {"time.sleep", "uuid4"}
    assert unrepeatable.unrepeatable(innocent) == []
