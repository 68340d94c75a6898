"""Transactions in one flush: each on its own, and in the order in which they were given. About a second."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from datetime import UTC, datetime
from types import FunctionType, GeneratorType
from uuid import UUID

import psycopg
import pytest

from pgflow import faults
from pgflow.store.database import pipeline as flush_module
from pgflow.store.database.connections import Database
from pgflow.store.database.pipeline import BulkStatement, FaultPoint, flush, flush_blocking, rows_of, transact
from pgflow.store.database.pooler import AsyncConnection, Connection
from pgflow.store.notify.notifier import Listener

INSERT = b"INSERT INTO public.flushed (number) VALUES (%(number)s::int) RETURNING number"
COUNT = b"SELECT count(*) FROM public.flushed"
ID = UUID("00000000-0000-7000-8000-000000000001")
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
async def connection(dsn: str) -> AsyncConnection:
    with psycopg.connect(dsn, autocommit=True) as made:
        made.execute("CREATE TABLE public.flushed (number int PRIMARY KEY)")
    return await Database(dsn).connect("test")


async def test_each_is_a_transaction_that_sees_those_before(connection: AsyncConnection) -> None:
    async with connection:
        xid = b"SELECT pg_current_xact_id()::text"
        first, second, count, one, other = await flush(
            connection, (INSERT, {"number": 1}), (INSERT, {"number": 2}), (COUNT, {}), (xid, {}), (xid, {})
        )
        assert (first, second, count) == ([(1,)], [(2,)], [(2,)])
        assert rows_of(one) != rows_of(other)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        cursor = await connection.execute("SELECT 7")  # it serves psycopg's cursors as before
        assert await cursor.fetchone() == (7,)


async def test_one_that_fails_stops_no_other(connection: AsyncConnection) -> None:
    async with connection:
        for _ in range(2):
            first, twin, wrong, count = await flush(
                connection, (INSERT, {"number": 1}), (INSERT, {"number": 1}), (b"SELECT nothing", {}), (COUNT, {})
            )
            assert isinstance(twin, psycopg.errors.UniqueViolation)
            assert isinstance(wrong, psycopg.errors.UndefinedColumn)
            assert count == [(1,)]
        assert isinstance(first, psycopg.errors.UniqueViolation)
        with pytest.raises(psycopg.errors.UniqueViolation, match="flushed_pkey"):
            rows_of(first)


async def test_statements_of_one_transaction(connection: AsyncConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """They see each other, and what others commit meanwhile; long answers are taken a part at a time."""
    monkeypatch.setattr(flush_module, "ROWS_AT_ONCE", 1)
    xid = b"SELECT pg_current_xact_id()::text, current_setting('statement_timeout')"
    taken: list[list[tuple[object, ...]]] = []
    async with connection, await Database(connection.info.dsn).connect("other") as other:

        async def commit() -> None:
            await other.execute("INSERT INTO public.flushed VALUES (7)")

        def numbers(number: int) -> tuple[list[tuple[object, ...]], ...]:
            return [(number,)], [(1,)], [(2,)], []

        with faults.install({"between": commit}):
            one, *found, last = await transact(
                connection,
                7_000,
                (xid, {}),
                (INSERT, {"number": 1}),
                (COUNT, {}),
                FaultPoint("between"),
                (COUNT, {}),
                BulkStatement(b"SELECT number, now() FROM public.flushed ORDER BY number", {}, taken.append),
                (xid, {}),
            )
        assert tuple(found) == numbers(1) and [[number for number, _ in rows] for rows in taken] == [[1], [7]]
        assert one == last and one[0][1] == "7s"
        assert await flush(connection, (b"SELECT current_setting('statement_timeout')", {})) == [[("10s",)]]
        assert await transact(connection, 7_000, FaultPoint("between"), (COUNT, {})) == [[(2,)]]


async def test_a_transaction_of_which_one_fails_never_was(connection: AsyncConnection) -> None:
    wrong = b"SELECT nothing"
    async with connection:
        for _ in range(2):
            with pytest.raises(psycopg.errors.UndefinedColumn):
                await transact(
                    connection, 7_000, (INSERT, {"number": 1}), (wrong, {}), (INSERT, {"number": 2}), (COUNT, {})
                )
            with faults.install({"between": lambda: None}), pytest.raises(psycopg.errors.UndefinedColumn):
                await transact(
                    connection, 7_000, (INSERT, {"number": 1}), (wrong, {}), FaultPoint("between"), (COUNT, {})
                )
            assert await flush(connection, (COUNT, {})) == [[(0,)]]
        one, two, count = await transact(
            connection, 7_000, (INSERT, {"number": 1}), (INSERT, {"number": 2}), (COUNT, {})
        )
        assert (one, two, count) == ([(1,)], [(2,)], [(2,)])


async def test_values_arrive_as_they_are(connection: AsyncConnection) -> None:
    sql = (
        b"SELECT %(id)s::uuid, %(at)s::timestamptz, %(yes)s::boolean, %(none)s::int, %(texts)s::text[], "
        b"%(ids)s::uuid[], "
        b"%(at)s::timestamptz, 7 %% 4"
    )
    texts = ["", "a,b", 'say "b"', "back\\slash", None, "null", "{}", "é\n"]
    given = {"id": ID, "at": NOON, "yes": True, "none": None, "texts": texts, "ids": [ID]}
    async with connection:
        (rows,) = await flush(connection, (sql, given))
        assert rows == [(ID, NOON, True, None, texts, [ID], NOON, 3)]


async def test_no_text_is_cut_off_at_a_nul(connection: AsyncConnection) -> None:
    async with connection:
        for value in ("a\0b", ["a\0b"]):
            with pytest.raises(psycopg.DataError, match="NUL"):
                await flush(connection, (INSERT, {"number": 1}), (b"SELECT %(value)s::text", {"value": value}))
        assert await flush(connection, (COUNT, {})) == [[(0,)]]


async def test_a_connection_that_breaks_is_closed(connection: AsyncConnection) -> None:
    async with connection:
        kill = b"SELECT pg_terminate_backend(pg_backend_pid())"
        with pytest.raises(psycopg.OperationalError):
            rows_of((await flush(connection, (kill, {}), (COUNT, {})))[0])
        assert connection.closed


async def test_whoever_stops_waiting_leaves_no_connection_with_answers_on_their_way(
    connection: AsyncConnection,
) -> None:
    pid, dsn = connection.info.backend_pid, connection.info.dsn
    async with await Database(dsn).connect("other") as other:

        async def at_it() -> bool:
            active = b"SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND query LIKE '%%pg_sleep%%'"
            return bool(await (await other.execute(active, [pid])).fetchall())

        stuck = asyncio.create_task(flush(connection, (b"SELECT pg_sleep(60)", {}), (COUNT, {})))
        async with asyncio.timeout(20):
            while not await at_it():
                pass
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        assert connection.closed
        assert await at_it(), "nobody cancels it: it might be a commit that waits for a standby"


async def test_a_statement_that_the_server_has_forgotten_is_prepared_again(connection: AsyncConnection) -> None:
    every = b"SELECT * FROM public.flushed"
    async with connection:
        for spoil in ("DEALLOCATE ALL", "ALTER TABLE public.flushed ADD COLUMN more int"):
            assert isinstance((await flush(connection, (every, {})))[0], list)
            await connection.execute(spoil)
            (refused,) = await flush(connection, (every, {}))
            assert isinstance(refused, psycopg.errors.InvalidSqlStatementName | psycopg.errors.FeatureNotSupported)
            assert await flush(connection, (every, {}), (COUNT, {})) == [[], [(0,)]]


async def test_answers_that_come_together_with_a_cancellation_are_waited_for_by_nobody(
    connection: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flush_module, "GIVE_UP", 3600)
    loop = asyncio.get_running_loop()
    async with connection, asyncio.timeout(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                loop.call_later(
                    0.05, time.sleep, 0.5
                )  # when the loop looks again, the answer is there and the time is over
                await flush(connection, (b"SELECT pg_sleep(0.1)", {}))


async def test_a_broken_connection_leaves_nothing_behind_in_the_loop(connection: AsyncConnection) -> None:
    """Its socket's number is the next socket's, perhaps already in the turn of the loop in which it breaks."""
    heard: list[bytes] = []
    async with connection, asyncio.timeout(20):
        dying = asyncio.create_task(
            flush(connection, (b"SELECT pg_terminate_backend(pg_backend_pid())", {}), (COUNT, {}))
        )
        while not connection.closed:
            await asyncio.sleep(0)
        heard = await heard_by_new_sockets()
        with pytest.raises(psycopg.OperationalError):
            rows_of((await dying)[0])
    assert heard == [b"word"] * 2


async def test_a_listener_that_breaks_leaves_nothing_behind_in_the_loop(dsn: str) -> None:
    listener = Listener(Database(dsn), wake=lambda *given: None)
    listener.start()
    async with asyncio.timeout(20):
        await listener.listening.wait()
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%listener'"
            )
        while listener.listening.is_set():
            await asyncio.sleep(0)
        assert await heard_by_new_sockets() == [b"word"] * 2
    await listener.close()


async def heard_by_new_sockets() -> list[bytes]:
    """What two new sockets hear: that they are made in the place of others must not matter."""
    loop = asyncio.get_running_loop()
    pair = socket.socketpair()
    heard: list[asyncio.Future[bytes]] = []
    for each in pair:
        each.setblocking(False)
        future: asyncio.Future[bytes] = loop.create_future()
        heard.append(future)

        def hear(each: socket.socket = each, future: asyncio.Future[bytes] = future) -> None:
            loop.remove_reader(each)
            future.set_result(each.recv(10))

        loop.add_reader(each, hear)  # in this turn of the loop
    for _ in range(20):
        await asyncio.sleep(0)
    for each in pair:
        each.send(b"word")
    found = await asyncio.gather(*heard)
    for each in pair:
        each.close()
    return found


def test_the_same_without_a_loop(dsn: str) -> None:
    with Database(dsn).connect_blocking("test") as connection:
        made: Connection = connection
        made.execute("CREATE TABLE public.flushed (number int PRIMARY KEY)")
        first, twin, count = flush_blocking(made, (INSERT, {"number": 1}), (INSERT, {"number": 1}), (COUNT, {}))
        assert first == [(1,)] and isinstance(twin, psycopg.errors.UniqueViolation) and count == [(1,)]


async def test_answers_are_not_left_to_the_collector(connection: AsyncConnection) -> None:
    async with connection:
        await flush(connection, (COUNT, {}))
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await flush(connection, (COUNT, {}), (COUNT, {}))
            gc.collect()
            left = [found for found in gc.garbage if isinstance(found, FunctionType | GeneratorType)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert left == []
