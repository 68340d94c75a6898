"""A handle does what the client does with its workflow."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

import pgflow
from tests.waiting import status

BROKEN: list[int] = []


@pgflow.signal
@dataclass
class Word:
    text: str


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def work(ctx: pgflow.ActivityContext) -> int:
    if BROKEN:
        raise ValueError("broken")
    return 7


@pgflow.workflow
async def flow(ctx: pgflow.WorkflowContext) -> tuple[str, int]:
    word = await ctx.listen(Word)
    return word.text, await ctx.activity(work)


@pytest.fixture(autouse=True)
def clean() -> None:
    BROKEN.clear()


async def outcome_of(found: Any) -> Any:
    return await found if inspect.isawaitable(found) else found


@pytest.mark.parametrize("synchronous", [False, True])
async def test_what_a_handle_does(dsn: str, synchronous: bool) -> None:
    BROKEN.append(1)
    with pgflow.SyncClient(dsn, actor="kim") as other:
        async with pgflow.Client(dsn, actor="kim") as client, pgflow.Worker(dsn, workflows=[flow]):
            started = await client.dispatch(flow)
            await status(client, started, "sleeping")
            handle: Any = (other if synchronous else client).handle(flow, str(started.id))
            assert await outcome_of(handle.pause(reason="one")) is True
            assert await outcome_of(handle.update(priority=7, reason="sooner")) is True
            assert await outcome_of(handle.resume(reason="two")) is True
            id = uuid4()
            assert await outcome_of(handle.signal(Word("go"), id=id)) == id
            with pytest.raises(pgflow.WorkflowFailed, match="broken"):
                await started.output(20)
            BROKEN.clear()
            await outcome_of(handle.retry(reason="three"))
            assert await started.output(20) == ("go", 7)
            events = await outcome_of(handle.history())
            assert [event.kind for event in events] == ["listen", "activity"]
            assert await outcome_of(handle.cancel()) is False and await outcome_of(handle.terminate()) is False
            with pytest.raises(pgflow.WorkflowNotFound, match="is completed, nothing was sent"):
                await outcome_of(handle.signal(Word("late")))
            last = await client.dispatch(flow)
            await status(client, last, "sleeping")
            assert await outcome_of((other if synchronous else client).handle("flow", last.id).terminate(reason="four"))
            told = [(entry.operation, entry.actor, entry.reason) for entry in await client.audit()]
            assert told == [
                ("terminate", "kim", "four"),
                ("retry", "kim", "three"),
                ("resume", "kim", "two"),
                ("update", "kim", "sooner"),
                ("pause", "kim", "one"),
            ]


async def test_handles_of_what_was_dispatched_elsewhere(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[flow]):
        started = await client.dispatch(flow)
        await client.handle(flow, started.id).signal(Word("go"))
        assert await client.handle(flow, started.id).output(20) == ("go", 7), "converted by its annotation"
        assert await client.handle("flow", started.id).output(20) == ["go", 7], "and as it is stored"
        with pytest.raises(pgflow.WorkflowNotFound):
            await client.handle(flow, uuid4()).history()
        with pytest.raises(ValueError, match="UUID"):
            client.handle(flow, "me")
        with pytest.raises(TypeError, match="workflow"):
            client.handle(work, started.id)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="1 to 200 printable"):
            client.handle("", started.id)
