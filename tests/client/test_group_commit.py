"""What many callers ask for at the same time leaves together, and each gets its own answer. About 2 seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
import pytest

import pgflow
from pgflow.store.client.group_commit import MOST, GroupCommit
from pgflow.store.client.pool import Connections
from tests.client.fake import count
from tests.waiting import until


@pgflow.signal
@dataclass
class Ping:
    number: int


@pgflow.workflow
async def listener(ctx: pgflow.WorkflowContext) -> int:
    signal: Ping | None = await ctx.listen(Ping)
    assert signal is not None
    return signal.number


class Wire:
    """Stands for the database: it answers when it is let, and refuses what is odd."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.open = asyncio.Event()
        self.error: Exception | None = None

    async def send(self, items: Sequence[int]) -> list[int]:
        self.sent.append(list(items))
        await self.open.wait()
        if self.error is not None:
            raise self.error
        if any(item % 2 for item in items):
            raise psycopg.errors.DataError("odd")
        return [item * 10 for item in items]


def group_commit(wire: Wire, limit: int = 1_000) -> GroupCommit[int, int]:
    return GroupCommit(wire.send, lambda item: 1, limit)


async def test_the_first_leaves_at_once_and_the_others_together() -> None:
    wire = Wire()
    found = group_commit(wire)
    asked = [asyncio.create_task(found.ask(item)) for item in range(0, 20, 2)]
    await until(lambda: wire.sent, "the first to leave")
    asked += [asyncio.create_task(found.ask(item)) for item in range(20, 30, 2)]
    wire.open.set()
    assert await asyncio.gather(*asked) == [item * 10 for item in range(0, 30, 2)]
    assert sum(wire.sent, []) == list(range(0, 30, 2)) and len(wire.sent) == 2
    assert await found.ask(4) == 40


async def test_one_that_is_refused_is_refused_alone() -> None:
    wire = Wire()
    wire.open.set()
    found = group_commit(wire)
    answers = await asyncio.gather(*[found.ask(item) for item in (0, 2, 3, 4, 6)], return_exceptions=True)
    assert [answer if isinstance(answer, int) else type(answer) for answer in answers] == [
        0, 20, psycopg.errors.DataError, 40, 60,
    ]  # fmt: skip


async def test_an_error_that_is_nobodys_fault_is_everybodys_and_ends_nothing() -> None:
    wire = Wire()
    wire.open.set()
    wire.error = psycopg.OperationalError("gone")
    found = group_commit(wire)
    answers = await asyncio.gather(*[found.ask(item) for item in (0, 2, 4)], return_exceptions=True)
    assert answers == [wire.error] * 3 and len(wire.sent) == 1
    wire.error = None
    assert await found.ask(6) == 60


async def test_whoever_gives_up_is_not_sent_and_holds_up_nobody() -> None:
    wire = Wire()
    found = group_commit(wire)
    first = asyncio.create_task(found.ask(0))
    await until(lambda: wire.sent, "the first to leave")
    second, third = [asyncio.create_task(found.ask(item)) for item in (2, 4)]
    await asyncio.sleep(0)
    second.cancel()
    first.cancel()
    wire.open.set()
    assert await third == 40
    assert wire.sent == [[0], [4]]


async def test_statements_have_bounds() -> None:
    wire = Wire()
    wire.open.set()
    found = group_commit(wire, limit=100)
    await asyncio.gather(*[found.ask(item) for item in range(0, 500, 2)])
    assert [len(items) for items in wire.sent] == [100, 100, 50]
    wide = group_commit(wire, limit=10_000)
    wire.sent.clear()
    await asyncio.gather(*[wide.ask(2) for _ in range(MOST + 1)])
    assert [len(items) for items in wire.sent] == [MOST, 1]


async def test_many_signals_are_sent_in_a_few_statements(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    statements = 0
    execute = Connections.execute

    async def counted(self: Connections, query: object) -> object:
        nonlocal statements
        statements += 1
        return await execute(self, query)  # type: ignore[arg-type]

    async with pgflow.Client(dsn) as client:
        handles = await client.dispatch_many(listener, [{}] * 300)
        monkeypatch.setattr(Connections, "execute", counted)
        sent = await asyncio.gather(
            *[client.signal(Ping(number), to=handle.id) for number, handle in enumerate(handles)],
            client.signal(Ping(0), to="0" * 32, missing_ok=True),
            client.signal(Ping(0), to="1" * 32),
            return_exceptions=True,
        )
        monkeypatch.undo()
        assert statements <= 3
        assert sent[300] is None and isinstance(sent[301], pgflow.WorkflowNotFound)
        assert len(set(sent[:300])) == 300 and count(dsn, "signals") == 300
        async with pgflow.Worker(dsn, workflows=[listener]):
            assert await asyncio.gather(*[handle.output(timeout=30) for handle in handles]) == list(range(300))
