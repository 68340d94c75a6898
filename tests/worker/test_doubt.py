"""While it is unknown what a worker's database has, nothing is begun. About 2 seconds."""

from __future__ import annotations

import asyncio

import pytest

import pgflow
from pgflow import faults
from pgflow.model.claimed import Claimed
from tests.store.scene import Scene
from tests.waiting import until

began: list[str] = []
go_on: asyncio.Event


@pgflow.activity
async def step(ctx: pgflow.ActivityContext, name: str) -> str:
    began.append(name)
    await go_on.wait()
    return name


@pgflow.workflow
async def single(ctx: pgflow.WorkflowContext, name: str) -> str:
    return await ctx.activity(step, name)


@pgflow.workflow
async def sleeper(ctx: pgflow.WorkflowContext, name: str) -> str:
    await ctx.sleep(1.1)
    return await ctx.activity(step, name)


async def test_what_is_being_read_moves_as_well(
    scene: Scene, client: pgflow.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workflow that has been claimed, and whose history this worker has to read, is this worker's."""
    global go_on
    go_on = asyncio.Event()
    go_on.set()
    began.clear()
    async with pgflow.Worker(scene.database.dsn, workflows=[sleeper], cached=0) as worker:
        assert worker._session is not None
        fence, claims, number = worker._session.fence, worker._session._claims, worker.id
        read = claims.read_again
        owners: list[int | None] = []

        async def slowly(runs: list[Claimed]) -> None:
            fence.doubt()
            await until(lambda: worker.id != number, "the move")
            owners.append(scene.one("SELECT worker_id FROM runs"))
            await read(runs)

        monkeypatch.setattr(claims, "read_again", slowly)
        assert await (await client.dispatch(sleeper, "once")).output(20) == "once"
        assert owners == [worker.id] != [number]
    assert began == ["once"]


async def test_what_is_given_up_while_it_is_being_read_is_not_begun(
    scene: Scene, client: pgflow.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger has it locked when the worker takes another number: whoever has it next begins it, and nobody else."""
    global go_on
    go_on = asyncio.Event()
    go_on.set()
    began.clear()
    async with pgflow.Worker(scene.database.dsn, workflows=[sleeper], cached=0) as worker:
        assert worker._session is not None
        session, number = worker._session, worker.id
        read = session._claims.read_again
        given_up: list[int] = []

        async def slowly(runs: list[Claimed]) -> None:
            if not given_up:
                stranger = scene.other()
                stranger.execute("SELECT FROM runs FOR UPDATE")
                session.fence.doubt()
                await until(lambda: worker.id != number, "the move")
                stranger.close()
                given_up.append(len(runs))
            await read(runs)

        monkeypatch.setattr(session._claims, "read_again", slowly)
        handle = await client.dispatch(sleeper, "once")
        await until(lambda: given_up, "the move while its history is read")
        scene.do("UPDATE runs SET status = 'pending', worker_id = NULL, last_worker = NULL, wake_at = now()")
        assert await handle.output(20) == "once"
        assert given_up == [0]
    assert began == ["once"]


async def test_no_attempt_begins_while_the_fence_is_in_doubt(scene: Scene, client: pgflow.Client) -> None:
    """What it would do might follow from what the database has lost."""
    global go_on
    go_on = asyncio.Event()
    began.clear()
    doubted, held = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        doubted.set()
        await held.wait()

    async with pgflow.Worker(scene.database.dsn, workflows=[single], activities=1) as worker:
        first = await client.dispatch(single, "first")
        await until(lambda: began == ["first"], "the first attempt")
        second = await client.dispatch(single, "second")
        await until(lambda: scene.all("SELECT status FROM runs") == ["running"] * 2, "the second claim")
        assert worker._session is not None
        session, number = worker._session, worker.id
        await until(lambda: len(session.runs) == 2, "its answer")
        with faults.install({"fence.before": hold}):
            session.fence.doubt()
            await doubted.wait()
            go_on.set()
            await until(lambda: session.journal.backlog, "the end of the first attempt")
            for _ in range(100):
                await asyncio.sleep(0)
            assert began == ["first"]
            held.set()
            assert [await first.output(20), await second.output(20)] == ["first", "second"]
        assert began == ["first", "second"]
        assert worker.id != number
