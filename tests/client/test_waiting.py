"""Waiting for outputs: by hints, by polling without them, and for many at the cost of a few statements."""

from __future__ import annotations

import asyncio
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg
import pytest

import pgflow
from pgflow.store.client import endings, endings_by_turns
from tests.client.fake import end, kill_connections
from tests.waiting import until

NEVER = 100_000.0


@pgflow.workflow
async def job(ctx: pgflow.WorkflowContext, number: int = 0) -> int:
    return number


@pytest.fixture
def hints_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits learns of an end by a hint or not at all."""
    monkeypatch.setattr(endings, "POLL", NEVER)
    monkeypatch.setattr(endings, "POLL_BLIND", NEVER)


async def test_a_hint_ends_the_wait(dsn: str, hints_alone: None) -> None:
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(job)
        waiting = asyncio.create_task(handle.output())
        await until(client._core.endings._listener.listening.is_set, "listening")
        end(dsn, [handle.id], "7")
        assert await asyncio.wait_for(waiting, 20) == 7


async def test_what_was_told_before_listening_began_is_seen(dsn: str, hints_alone: None) -> None:
    async with pgflow.Client(dsn) as client:
        handle, other = await client.dispatch(job), await client.dispatch(job)
        waiting = [asyncio.create_task(one.output()) for one in (handle, other)]
        await until(client._core.endings._listener.listening.is_set, "listening")
        end(dsn, [handle.id], "7")
        await asyncio.wait_for(waiting[0], 20)
        end(dsn, [other.id], "8", tell=False)
        kill_connections(dsn)
        assert await asyncio.wait_for(waiting[1], 20) == 8, "the listener looks when it is back"


async def listening_client(client: pgflow.Client, dsn: str) -> None:
    """Have the client begin to listen for ends."""
    first = await client.dispatch(job)
    waiting = asyncio.create_task(first.output())
    await until(client._core.endings._listener.listening.is_set, "listening")
    end(dsn, [first.id], "1")
    assert await asyncio.wait_for(waiting, 20) == 1


async def test_what_was_just_dispatched_is_looked_at_when_it_has_ended(
    dsn: str, hints_alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endings, "MOMENT", NEVER)
    async with pgflow.Client(dsn) as client:
        await listening_client(client, dsn)
        fresh, old = await client.dispatch(job), await client.dispatch(job)
        monkeypatch.setattr(endings, "is_fresh", lambda id: id == fresh.id)
        looks: list[Any] = []
        look = client._core.endings._look_at

        async def noting(ids: Any) -> None:
            looks.extend(ids)
            await look(ids)

        monkeypatch.setattr(client._core.endings, "_look_at", noting)
        waiting = [asyncio.create_task(handle.output()) for handle in (fresh, old)]
        await until(lambda: looks, "the look at the one that may have ended long ago")
        end(dsn, [fresh.id, old.id], "7")
        assert await asyncio.wait_for(asyncio.gather(*waiting), 20) == [7, 7]
        assert looks.count(fresh.id) == 1 and looks.count(old.id) == 2


async def test_an_end_that_was_heard_of_is_looked_at_at_once(
    dsn: str, hints_alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endings, "MOMENT", NEVER)
    async with pgflow.Client(dsn) as client:
        await listening_client(client, dsn)
        handle = await client.dispatch(job)
        end(dsn, [handle.id], "7")
        await until(lambda: handle.id in client._core.endings._waiting.heard, "hearing of it")
        monkeypatch.setattr(endings, "is_fresh", lambda id: True)
        assert await handle.output(timeout=20) == 7


async def test_an_end_that_was_told_too_early_is_seen_a_moment_later(
    dsn: str, hints_alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pgflow.Client(dsn) as client:
        await listening_client(client, dsn)
        monkeypatch.setattr(endings, "is_fresh", lambda id: True)
        handle = await client.dispatch(job)
        end(dsn, [handle.id], "7")
        assert await handle.output(timeout=20) == 7


async def test_without_hints_polling_tells(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "POLL", 0.05)
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(job)
        waiting = asyncio.create_task(handle.output())
        await until(client._core.endings._listener.listening.is_set, "listening")
        end(dsn, [handle.id], "7", tell=False)
        assert await asyncio.wait_for(waiting, 20) == 7


async def test_many_wait_at_the_price_of_a_few_statements(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pgflow.Client(dsn) as client:
        handles = await client.dispatch_many(job, [{"number": i} for i in range(3000)])
        sent = 0
        execute = client._core.connections.execute

        async def counting(query: Any) -> Any:
            nonlocal sent
            sent += 1
            return await execute(query)

        monkeypatch.setattr(client._core.connections, "execute", counting)
        waiting = [asyncio.create_task(handle.output()) for handle in handles]
        await until(client._core.endings._listener.listening.is_set, "listening")
        end(dsn, [handle.id for handle in handles], "1")
        assert await asyncio.gather(*waiting) == [1] * 3000
        assert sent < 200
        assert await asyncio.gather(*[handle.output() for handle in handles[:100]]) == [1] * 100
    assert not client._core.endings._waiting


async def test_whoever_stops_waiting_leaves_nothing_behind(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(job)
        with pytest.raises(TimeoutError, match="it is pending"):
            await handle.output(timeout=0)
        waiting = [asyncio.create_task(handle.output()) for _ in range(3)]
        await until(lambda: client._core.endings._waiting, "somebody to wait")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not client._core.endings._waiting
        looking = client._core.endings._looking
        await until(lambda: looking is None or looking.done(), "the looking to end")
        end(dsn, [handle.id], "7")
        assert await handle.output(timeout=20) == 7


async def test_closing_tells_those_who_wait(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(job)
        waiting = asyncio.create_task(handle.output())
        await until(client._core.endings._listener.listening.is_set, "listening")
    with pytest.raises(RuntimeError, match="client is closed"):
        await waiting
    with pytest.raises(RuntimeError, match="client is closed"):
        await client.get(handle.id)


@pytest.mark.parametrize(
    ("status", "error"), [("failed", pgflow.WorkflowFailed), ("cancelled", pgflow.WorkflowCancelled)]
)
async def test_other_ends(dsn: str, status: str, error: type[Exception]) -> None:
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(job)
        end(dsn, [handle.id], status=status)
        with pytest.raises(error, match=f'"job" {handle.id}'):
            await client.output(handle.id)
        unknown = uuid.uuid4()
        with pytest.raises(pgflow.WorkflowNotFound, match=str(unknown)):
            await client.output(unknown)


def test_threads_wait_for_hints(dsn: str, hints_alone: None) -> None:
    with pgflow.SyncClient(dsn) as client, ThreadPoolExecutor(8) as pool:
        handles = client.dispatch_many(job, [{"number": i} for i in range(8)])
        outputs = [pool.submit(handle.output) for handle in handles]
        asyncio.run(until(lambda: client._core.endings._listening, "listening"))
        end(dsn, [handle.id for handle in handles], "5")
        assert [output.result(20) for output in outputs] == [5] * 8
        late = client.dispatch(job)
        waiting = pool.submit(late.output)
        asyncio.run(until(lambda: late.id in client._core.endings._waiting, "somebody to wait"))
        end(dsn, [late.id], "6", tell=False)
        kill_connections(dsn)
        assert waiting.result(20) == 6, "the listener looks when it is back"
    assert client._core.endings._work.thread is not None
    client._core.endings._work.thread.join(20)
    assert not client._core.endings._work.thread.is_alive()


def test_threads_take_turns_at_reading_what_is_told(
    dsn: str, hints_alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads leaves when its own workflow has ended; another one takes over, and the thread that connects never
    has to.
    """
    monkeypatch.setattr(endings_by_turns, "QUIET", NEVER)
    with ThreadPoolExecutor(5) as pool, pgflow.SyncClient(dsn) as client:
        handles = client.dispatch_many(job, [{"number": i} for i in range(5)])
        outputs = {handle.id: pool.submit(handle.output) for handle in handles}
        asyncio.run(
            until(lambda: client._core.endings._listening and client._core.endings._turn.locked(), "somebody to read")
        )
        for id, output in outputs.items():
            end(dsn, [id], "5")
            assert output.result(20) == 5
        with pytest.raises(TimeoutError):
            client.dispatch(job).output(timeout=0.05)
        assert not client._core.endings._turn.locked() and not client._core.endings._waiting


def test_what_is_told_while_nobody_waits_is_read_and_remembered(
    dsn: str, hints_alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the server would have to keep it. Who asks for such a workflow later has its answer at once."""
    monkeypatch.setattr(endings_by_turns, "QUIET", 0.05)
    monkeypatch.setattr(endings, "MOMENT", NEVER)
    monkeypatch.setattr(endings, "is_fresh", lambda id: True)
    with pgflow.SyncClient(dsn) as client:
        first, second = client.dispatch(job), client.dispatch(job)
        client._core.endings._start()
        asyncio.run(until(lambda: client._core.endings._listening, "listening"))
        for handle in (first, second):
            end(dsn, [handle.id], "7")
            asyncio.run(until(partial(client._core.endings._waiting.heard.__contains__, handle.id), "reading"))
            assert handle.output(timeout=20) == 7


def test_threads_see_an_end_that_was_told_too_early(
    dsn: str, hints_alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pgflow.SyncClient(dsn) as client, ThreadPoolExecutor(1) as pool:
        first = client.dispatch(job)
        waiting = pool.submit(first.output)
        asyncio.run(until(lambda: client._core.endings._listening, "listening"))
        end(dsn, [first.id], "1")
        assert waiting.result(20) == 1
        monkeypatch.setattr(endings, "is_fresh", lambda id: True)
        handle = client.dispatch(job)
        end(dsn, [handle.id], "7")
        assert handle.output(timeout=20) == 7


def test_closing_tells_threads_who_wait(dsn: str) -> None:
    told: list[BaseException] = []
    with pgflow.SyncClient(dsn) as client:
        handle = client.dispatch(job)

        def wait() -> None:
            try:
                handle.output()
            except RuntimeError as error:
                told.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        asyncio.run(until(lambda: client._core.endings._listening, "listening"))
    thread.join(20)
    assert "client is closed" in str(told[0])


def test_threads_poll_without_hints(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "POLL", 0.05)
    with pgflow.SyncClient(dsn) as client, ThreadPoolExecutor(1) as pool:
        handle = client.dispatch(job)
        waiting = pool.submit(handle.output)
        asyncio.run(until(lambda: client._core.endings._listening, "listening"))
        end(dsn, [handle.id], "7", tell=False)
        assert waiting.result(20) == 7
        with pytest.raises(TimeoutError, match="it is pending"):
            client.dispatch(job).output(timeout=0.01)
        with pytest.raises(psycopg.OperationalError), pgflow.SyncClient("host=/nowhere"):
            pass
