"""Workflows that send signals: to an id or by tags, once whatever crashes, with the result in history."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

import pgflow
from tests.waiting import status


@pgflow.signal
@dataclass
class Ping:
    sender: str


@pgflow.workflow
async def receiver(ctx: pgflow.WorkflowContext, wanted: int) -> list[str]:
    found = [await ctx.listen(Ping) for _ in range(wanted)]
    return [ping.sender for ping in found]


@pgflow.workflow
async def sender(ctx: pgflow.WorkflowContext, to: UUID, name: str = "eva") -> UUID | None:
    return await ctx.signal(Ping(name), to=to)


@pgflow.workflow
async def by_tags(ctx: pgflow.WorkflowContext, order: int, missing_ok: bool = False) -> UUID | None:
    return await ctx.signal(Ping("tags"), workflow="receiver", tags={"order": order}, missing_ok=missing_ok)


@pgflow.workflow
async def careful(ctx: pgflow.WorkflowContext, to: UUID) -> str:
    try:
        await ctx.signal(Ping("lost"), to=to)
    except pgflow.WorkflowNotFound as error:
        await ctx.sleep(1.2)  # over a sleep: the replay raises the same
        return str(error)
    return "sent"


@pgflow.workflow
async def crowd(ctx: pgflow.WorkflowContext, to: UUID, count: int) -> int:
    return len(await asyncio.gather(*[ctx.signal(Ping(str(i)), to=to) for i in range(count)]))


WORKFLOWS: list[pgflow.Workflow[Any, Any]] = [receiver, sender, by_tags, careful, crowd]


async def test_to_an_id(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        listening = await client.dispatch(receiver, 1)
        sending = await client.dispatch(sender, listening.id)
        id = await sending.output(timeout=20)
        assert await listening.output(timeout=20) == ["eva"]
        (event,) = await client.history(sending.id)
        assert (event.kind, event.name, event.status) == ("signal_send", "ping", "completed")
        assert event.input == {"to": str(listening.id), "body": {"sender": "eva"}}
        assert event.output == {"id": str(id), "to": str(listening.id)}
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT id, sender_id FROM pgflow.signals").fetchall() == [(id, sending.id)]


async def test_by_workflow_and_tags(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        listening = await client.dispatch(receiver, 1, tags={"order": 7, "shop": "north"})
        await client.dispatch(receiver, 1, tags={"order": 7, "shop": "south"})
        sending = await client.dispatch(by_tags, 7)
        await sending.output(timeout=20)
        assert await listening.output(timeout=20) == ["tags"]
        (event,) = await client.history(sending.id)
        assert event.input == {"workflow": "receiver", "tags": {"order": 7}, "body": {"sender": "tags"}}
        assert event.output is not None and event.output["to"] == str(listening.id)


@pytest.mark.parametrize("cached", [1000, 0])
async def test_nobody_receives(dsn: str, cached: int) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        handle = await client.dispatch(careful, uuid4())
        assert "nothing was sent" in await handle.output(timeout=20)
        event, _ = await client.history(handle.id)
        assert (event.kind, event.status) == ("signal_send", "failed")
        assert event.error is not None and event.error["type"] == "WorkflowNotFound"
        assert await (await client.dispatch(by_tags, 9, missing_ok=True)).output(timeout=20) is None
        with pytest.raises(pgflow.WorkflowFailed, match="WorkflowNotFound.*no live workflow"):
            await (await client.dispatch(by_tags, 9)).output(timeout=20)


async def test_many_at_once_arrive_in_the_order_of_their_calls(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        listening = await client.dispatch(receiver, 1200)
        sending = await client.dispatch(crowd, listening.id, 1200)
        assert await sending.output(timeout=30) == 1200
        assert await listening.output(timeout=30) == [str(i) for i in range(1200)]


def test_what_does_not_fit_is_refused_where_it_is_called(dsn: str) -> None:
    @pgflow.workflow
    async def wrong(ctx: pgflow.WorkflowContext) -> list[str]:
        said: list[str] = []
        attempts: list[dict[str, Any]] = [
            {"body": "text", "to": ctx.id},
            {"body": Ping("x")},
            {"body": Ping("x"), "to": ctx.id, "workflow": "receiver"},
            {"body": Ping("x"), "to": "no id"},
            {"body": Ping("x"), "workflow": "receiver", "tags": {"deep": {}}},
        ]
        for attempt in attempts:
            try:
                await ctx.signal(attempt.pop("body"), **attempt)
            except (TypeError, ValueError) as error:
                said.append(str(error))
        return said

    async def run() -> None:
        async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[wrong]):
            handle = await client.dispatch(wrong)
            said = await handle.output(timeout=20)
            assert await client.history(handle.id) == []
        for text, expected in zip(
            said,
            ["declared by @pgflow.signal", "found neither", "found both", "expected a UUID", "not flat"],
            strict=True,
        ):
            assert expected in text

    asyncio.run(run())


async def test_whoever_sent_may_do_nothing_more(dsn: str) -> None:
    """The hint leaves with the signals: an event loop that stands still afterwards holds nobody up, though nobody
    polls.
    """

    def send(id: UUID) -> None:
        with asyncio.Runner() as runner:
            client = pgflow.Client(dsn)
            runner.run(client.__aenter__())

            async def both() -> None:
                await asyncio.gather(*[client.signal(Ping(name), to=id) for name in ("a", "b")])

            runner.run(both())
            ended.wait(60)
            runner.run(client.__aexit__(None, None, None))

    ended = threading.Event()
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, poll=3600):
        handle = await client.dispatch(receiver, 2)
        await status(client, handle, "sleeping")
        sending = asyncio.create_task(asyncio.to_thread(send, handle.id))
        try:
            assert await handle.output(timeout=20) == ["a", "b"]
        finally:
            ended.set()
            await sending
