"""Servers that freeze: their kernel acknowledges what is sent, and no answer ever comes. About a minute."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import pgflow
from pgflow.store.client import endings_by_turns
from pgflow.store.database.connections import Database
from pgflow.store.database.pipeline import flush
from pgflow.store.database.silence import EngineAsyncConnection, NoAnswer
from pgflow.store.notify import notifier
from pgflow.store.notify.notifier import Listener
from tests.failover.servers import Place, Server, place
from tests.failover.test_failover import come_true, follows
from tests.failover.test_waiting import WAITING, wait_for


@pgflow.signal
@dataclass
class Go:
    by: int


@pgflow.activity
async def add(ctx: pgflow.ActivityContext, number: int) -> int:
    return number + 1


@pgflow.workflow
async def job(ctx: pgflow.WorkflowContext, number: int = 0) -> int:
    go = await ctx.listen(Go)
    assert go is not None
    return await ctx.activity(add, number + go.by)


@pytest.fixture(scope="module")
def servers() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.fixture(scope="module")
def alone(servers: Place) -> Iterator[Server]:
    """A server without a standby."""
    with servers.server("alone") as server:
        yield server


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


def told_id(error: pytest.ExceptionInfo[Any]) -> str:
    """The id that an error says to ask for again with."""
    found = re.search(r"again with id='([0-9a-f-]{36})'", str(error.value))
    assert found is not None, str(error.value)
    return found[1]


async def test_calls_of_a_client_end(alone: Server) -> None:
    """By their deadline, without a word to the server, and what they sent can be sent again."""
    async with asyncio.timeout(120), pgflow.Client(alone.dsn, call_timeout=1.5) as client:
        handle = await client.dispatch(job, 1)
        waiting = asyncio.create_task(handle.output())
        with frozen(alone):
            with pytest.raises(TimeoutError, match="call_timeout") as of_dispatch:
                await client.dispatch(job, 2)
            assert isinstance(of_dispatch.value, psycopg.OperationalError)
            with pytest.raises(TimeoutError, match="may have been done") as of_signal:
                await client.signal(Go(1), to=handle.id)
            with pytest.raises(TimeoutError):
                await asyncio.gather(*[client.list() for _ in range(9)])  # more than there are connections
            with pytest.raises(TimeoutError):
                await handle.output(timeout=0.1)
            with pytest.raises(TimeoutError):
                async with pgflow.Client(alone.dsn, call_timeout=1):
                    pass
        for _ in range(2):
            assert str((await client.dispatch(job, 2, id=told_id(of_dispatch))).id) == told_id(of_dispatch)
        assert told_id(of_signal) != told_id(of_dispatch)
        waiting.cancel()


async def test_calls_of_a_synchronous_client_end(alone: Server) -> None:
    def calls() -> None:
        with pgflow.SyncClient(alone.dsn, call_timeout=1.5) as client:
            handle = client.dispatch(job, 1)
            with pytest.raises(TimeoutError):
                handle.output(timeout=0.05)  # it listens now
            with frozen(alone):
                with pytest.raises(TimeoutError, match="call_timeout") as of_dispatch:
                    client.dispatch(job, 2)
                with pytest.raises(TimeoutError, match="may have been done"):
                    client.signal(Go(1), to=handle.id)
                for _ in range(2):
                    with pytest.raises((TimeoutError, psycopg.OperationalError)):
                        handle.output(timeout=0.1)
                with pytest.raises((TimeoutError, psycopg.OperationalError)):
                    pgflow.SyncClient(alone.dsn, call_timeout=1).__enter__()
            assert str(client.dispatch(job, 2, id=told_id(of_dispatch)).id) == told_id(of_dispatch)
            assert handle.info().status == "pending"

    async with asyncio.timeout(120):
        await asyncio.to_thread(calls)


@pytest.mark.parametrize("value", [0, -1, float("nan"), "soon"])
def test_deadlines_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match="call_timeout"):
        pgflow.SyncClient("postgresql:///", call_timeout=value)


async def test_a_listener_asks_whether_its_server_lives(alone: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "ASK_EVERY", 0.2)
    monkeypatch.setattr(notifier, "ANSWER", 0.5)
    woken: list[str] = []
    listener = Listener(Database(alone.dsn), wake=lambda queue, id: woken.append(queue))
    listener.start()
    async with asyncio.timeout(60), pgflow.Client(alone.dsn) as client:
        await listener.listening.wait()
        with frozen(alone):
            while listener.listening.is_set():
                await asyncio.sleep(0.01)
        await listener.listening.wait()
        for _ in range(4):  # also while it asks
            await client.dispatch(job, queue="told")
            await asyncio.sleep(0.1)
        while woken.count("told") < 4:
            await asyncio.sleep(0.01)
    await listener.close()
    assert woken.count("told") == 4


async def test_a_synchronous_listener_asks_as_well(alone: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while nobody waits: whoever comes next does not find a connection on which nothing will ever be told."""
    monkeypatch.setattr(endings_by_turns, "ASK_EVERY", 0.2)
    monkeypatch.setattr(endings_by_turns, "ANSWER", 0.5)
    async with asyncio.timeout(60):
        with pgflow.SyncClient(alone.dsn) as client:
            handle = await asyncio.to_thread(client.dispatch, job, 1)
            endings = client._core.endings
            while (connection := endings._listening) is None:
                with pytest.raises(TimeoutError):
                    await asyncio.to_thread(handle.output, timeout=0.05)
            with frozen(alone):
                while endings._listening is connection and not connection.closed:
                    await asyncio.sleep(0.01)


async def test_all_go_on_at_another_host(servers: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host of the DSN freezes, and its standby is promoted: workers and clients are there before long."""
    for module in (notifier, endings_by_turns):  # those that only listen ask sooner than every 10 s
        monkeypatch.setattr(module, "ASK_EVERY", 0.5)
        monkeypatch.setattr(module, "ANSWER", 1.0)
    with servers.server("first") as first, servers.standby(first) as second:
        await come_true(follows(first), "replication")
        dsn = f"postgresql://postgres@/postgres?host={first.home},{second.home}&target_session_attrs=read-write&connect_timeout=2"
        worker = pgflow.Worker(dsn, workflows=[job], lease=3, cached=0)
        async with pgflow.Client(dsn, call_timeout=3) as client, worker:
            with pgflow.SyncClient(dsn, call_timeout=3) as blocking:
                handles = [await client.dispatch(job, number) for number in range(5)]
                waiting = [asyncio.create_task(handle.output()) for handle in handles]
                await come_true(
                    lambda: first.all("SELECT count(*) FROM pgflow.runs WHERE status = 'sleeping'") == [5],
                    "five that wait",
                )
                await come_true(follows(first), "replication")
                first.freeze()
                second.promote()

                async def signalled(number: int) -> None:
                    while True:
                        try:
                            await client.signal(Go(10), to=handles[number].id)
                            return
                        except psycopg.OperationalError:
                            await asyncio.sleep(0.05)

                async with asyncio.timeout(120):
                    await asyncio.gather(*[signalled(number) for number in range(5)])
                    assert await asyncio.gather(*waiting, return_exceptions=True)
                    outputs = [await asyncio.to_thread(output_of, blocking, handle.id) for handle in handles]
                assert outputs == [11 + number for number in range(5)]
                assert worker.id is not None


def output_of(client: pgflow.SyncClient, id: Any) -> Any:
    """An output, whatever becomes of connections meanwhile."""
    while True:
        try:
            return client.output(id, timeout=60)
        except psycopg.OperationalError:
            continue


async def test_a_worker_goes_on_when_its_server_does(alone: Server) -> None:
    async with pgflow.Client(alone.dsn) as client, pgflow.Worker(alone.dsn, workflows=[job], lease=2) as worker:
        number = worker.id
        handle = await client.dispatch(job, 5)
        await come_true(lambda: alone.all("SELECT 1 FROM pgflow.runs WHERE status = 'sleeping'"), "one that waits")
        async with asyncio.timeout(120):
            with frozen(alone):
                while worker.id == number:
                    await asyncio.sleep(0.01)
            await client.signal(Go(10), to=handle.id)
            assert await handle.output() == 16


@pytest.mark.parametrize("psycopgs", [False, True])
async def test_a_commit_that_waits_for_a_standby_is_no_silence(
    alone: Server, psycopgs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody looks, finds the server alive and the commit waiting, and waits on: no other session is begun in its
    place.
    """
    looks: list[bool] = []
    at_work: Callable[[Any], Any] = EngineAsyncConnection.at_work

    async def noted(self: EngineAsyncConnection) -> bool:
        looks.append(await at_work(self))
        return looks[-1]

    monkeypatch.setattr(EngineAsyncConnection, "at_work", noted)
    connection = await Database(alone.dsn, longest_silence=0.3).connect("patience")
    await asyncio.to_thread(wait_for, alone, "nobody")
    try:
        await come_true(lambda: alone.all("SHOW synchronous_standby_names") == ["nobody"], "the setting")
        insert = b"INSERT INTO public.effects VALUES ('slow')"
        task: asyncio.Task[Any] = asyncio.create_task(
            connection.execute(insert) if psycopgs else flush(connection, (insert, {}))
        )
        await come_true(lambda: len(looks) > 2, "looks")
        assert all(looks) and not task.done()
        assert len(alone.all(WAITING.format("patience"))) == 1
    finally:
        await asyncio.to_thread(wait_for, alone, "")
    await task
    await connection.close()
    alone.do("DELETE FROM effects")


@pytest.mark.parametrize("psycopgs", [False, True])
async def test_a_session_that_does_nothing_any_more_is_given_up(alone: Server, psycopgs: bool) -> None:
    """Though the server lives: this session's process alone has stopped."""
    connection = await Database(alone.dsn, longest_silence=0.3).connect("patience")
    with pytest.raises(NoAnswer, match="said nothing for"):
        sleep = b"SELECT pg_sleep(60)"
        await (connection.execute(sleep) if psycopgs else flush(connection, (sleep, {})))
    assert connection.closed
    blocking = Database(alone.dsn, longest_silence=0.3).connect_blocking("patience")
    with pytest.raises(NoAnswer, match="said nothing for"):
        await asyncio.to_thread(blocking.execute, sleep)
    assert blocking.closed
