"""The clients against a real database, with a worker in the same process or a few lines of SQL in its place."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import make_conninfo
from sqlalchemy.ext.asyncio import create_async_engine

import pgflow

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Order:
    id: int
    due: datetime


@pgflow.activity
async def charge(ctx: pgflow.ActivityContext, order: Order) -> Order:
    return Order(order.id + 1, order.due)


@pgflow.workflow
async def checkout(ctx: pgflow.WorkflowContext, order: Order, fail: bool = False) -> Order:
    done = await ctx.activity(charge, order)
    if fail:
        raise LookupError("no such order")
    return done


@pgflow.workflow
async def wait_long(ctx: pgflow.WorkflowContext) -> None:
    await ctx.sleep(timedelta(days=1))


ORDER = Order(7, datetime(2030, 1, 1, tzinfo=UTC))
WORKFLOWS: list[pgflow.Workflow[Any, Any]] = [checkout, wait_long]


def count(dsn: str, table: str = "workflows") -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(f"SELECT count(*) FROM pgflow.{table}".encode()).fetchone()
        assert row is not None
        return int(row[0])


async def test_dispatch_and_typed_output(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(checkout, ORDER, tags={"customer": 7})
        assert await handle.output(timeout=30) == Order(8, ORDER.due)
        assert await client.output(handle.id) == {"id": 8, "due": "2030-01-01T00:00:00+00:00"}
        info = await handle.info()
        assert (info.name, info.status, info.tags) == ("checkout", "completed", {"customer": 7})
        assert info.input == {"order": {"id": 7, "due": "2030-01-01T00:00:00+00:00"}}
        (event,) = await client.history(handle.id)
        assert (event.location, event.kind, event.name, event.status) == ("{1}", "activity", "charge", "completed")
        assert [found.id for found in await client.list(tags={"customer": 7})] == [handle.id]
        assert await client.list(status="failed") == []


async def test_any_encoding_of_the_callers(dsn: str) -> None:
    """What the DSN says of the client's encoding is for other programs: texts go as UTF-8 and come back
    as they were.
    """

    @pgflow.activity
    async def echo(ctx: pgflow.ActivityContext, text: str) -> str:
        return text

    @pgflow.workflow
    async def say(ctx: pgflow.WorkflowContext, text: str) -> str:
        return await ctx.activity(echo, text)

    other = make_conninfo(dsn, client_encoding="LATIN1")
    async with pgflow.Client(other) as client, pgflow.Worker(other, workflows=[say]):
        handle = await client.dispatch(say, "caf\u00e9 \u20ac")
        assert await handle.output(timeout=20) == "caf\u00e9 \u20ac"
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        cursor = await connection.execute("SELECT input->>'text', output #>> '{}' FROM pgflow.events")
        assert await cursor.fetchall() == [("caf\u00e9 \u20ac", "caf\u00e9 \u20ac")]


async def test_failure(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(checkout, ORDER, fail=True)
        with pytest.raises(pgflow.WorkflowFailed, match="no such order") as caught:
            await handle.output(timeout=30)
        assert (caught.value.error_type, caught.value.workflow_id) == ("LookupError", handle.id)


async def test_an_id_used_before_starts_nothing(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        id = uuid.uuid4()
        handles = await asyncio.gather(*[client.dispatch(checkout, ORDER, id=id) for _ in range(20)])
        assert {handle.id for handle in handles} == {id}
        assert count(dsn) == count(dsn, "runs") == 1
        with pytest.raises(ValueError, match='belongs to a workflow "checkout"'):
            await client.dispatch(wait_long, id=id)
        assert count(dsn) == 1


async def test_unique(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        handles = await asyncio.gather(
            *[client.dispatch(checkout, ORDER, unique=True, tags={"b": 1, "a": 2}) for _ in range(20)]
        )
        assert len({handle.id for handle in handles}) == 1
        other = await client.dispatch(checkout, ORDER, unique=True, tags={"a": 2})
        plain = await client.dispatch(checkout, ORDER, tags={"a": 2, "b": 1})
        assert len({handles[0].id, other.id, plain.id}) == 3
        with psycopg.connect(dsn) as connection:
            row = connection.execute(
                "SELECT pgflow.dispatch('checkout', '{}', '{\"a\": 2, \"b\": 1}', is_unique => true)"
            ).fetchone()
        assert row == (handles[0].id,)


async def test_dispatch_many(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handles = await client.dispatch_many(checkout, [{"order": Order(i, ORDER.due)} for i in range(5000)])
        outputs = await asyncio.gather(*[handle.output(timeout=60) for handle in handles[::50]])
        assert [output.id for output in outputs] == list(range(1, 5001, 50))
        assert await client.dispatch_many(checkout, []) == []


async def test_run_at_and_timeout(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        later = await client.dispatch(checkout, ORDER, run_at=datetime.now(UTC) + timedelta(hours=1))
        soon = await client.dispatch(checkout, ORDER, run_at=datetime.now(UTC) + timedelta(seconds=0.5))
        await soon.output(timeout=30)
        with pytest.raises(TimeoutError, match="has not ended in time; it is pending"):
            await later.output(timeout=0.01)


async def test_joining_the_callers_transaction(dsn: str) -> None:
    engine = create_async_engine("postgresql+psycopg://", async_creator=lambda: psycopg.AsyncConnection.connect(dsn))
    async with pgflow.Client(dsn) as client:
        async with await psycopg.AsyncConnection.connect(dsn, row_factory=psycopg.rows.dict_row) as connection:
            await client.dispatch(checkout, ORDER, connection=connection)
            await connection.rollback()
        assert count(dsn) == 0
        async with engine.connect() as sql:
            await client.dispatch(checkout, ORDER, connection=sql)
            assert count(dsn) == 0
            await sql.commit()
        assert count(dsn) == 1
        with pytest.raises(TypeError, match="expected a psycopg connection"):
            await client.dispatch(checkout, ORDER, connection=object())
    await engine.dispose()


def test_sync_client(dsn: str) -> None:
    stop: list[Callable[[], Any]] = []
    ready = threading.Event()

    async def work() -> None:
        worker, loop = pgflow.Worker(dsn, workflows=WORKFLOWS), asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(worker.stop))
        ready.set()
        await worker.run()

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    ready.wait()
    try:
        with pgflow.SyncClient(dsn) as client:
            handle = client.dispatch(checkout, ORDER)
            assert handle.output(timeout=30) == Order(8, ORDER.due)
            engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
            with sqlalchemy.orm.Session(engine) as session:
                inside = client.dispatch(checkout, ORDER, connection=session)
                session.commit()
            engine.dispose()
            assert inside.output(timeout=30).id == 8
            with pytest.raises(TimeoutError):
                client.dispatch(wait_long).output(timeout=0.05)
    finally:
        stop[0]()
        thread.join()


BAD: list[tuple[str, type[Exception], str, Callable[[pgflow.Client], Awaitable[Any]]]] = [
    ("signature", TypeError, "checkout", lambda c: c.dispatch(checkout)),
    ("extra", TypeError, "unexpected", lambda c: c.dispatch(checkout, ORDER, colour="red")),
    ("positional by name", TypeError, "by name", lambda c: c.dispatch("checkout", ORDER)),
    ("json", pgflow.SerializationError, "no JSON form", lambda c: c.dispatch("checkout", order=object())),
    ("nan", pgflow.SerializationError, "nan", lambda c: c.dispatch("checkout", order=float("nan"))),
    ("nul", pgflow.SerializationError, "NUL", lambda c: c.dispatch("checkout", order="a\0b")),
    ("large", pgflow.SerializationError, "at most", lambda c: c.dispatch("checkout", order="x" * (1 << 20))),
    ("naive", ValueError, "time zone", lambda c: c.dispatch(checkout, ORDER, run_at=datetime(2030, 1, 1))),
    ("tags", ValueError, "flat", lambda c: c.dispatch(checkout, ORDER, tags={"a": [1]})),
    ("priority", ValueError, "32 bits", lambda c: c.dispatch(checkout, ORDER, priority=2**31)),
    ("queue", ValueError, "queue", lambda c: c.dispatch(checkout, ORDER, queue="")),
    ("id", ValueError, "UUID", lambda c: c.dispatch(checkout, ORDER, id="seven")),
    ("unknown", pgflow.WorkflowNotFound, "no workflow", lambda c: c.get(uuid.uuid4())),
    ("unknown output", pgflow.WorkflowNotFound, "no workflow", lambda c: c.output(uuid.uuid4())),
    ("unknown history", pgflow.WorkflowNotFound, "no workflow", lambda c: c.history(uuid.uuid4())),
    (
        "one of many",
        pgflow.SerializationError,
        "order",
        lambda c: c.dispatch_many(checkout, [{"order": ORDER}, {"order": 3}]),
    ),
]


@pytest.mark.parametrize(("what", "error", "match", "call"), BAD, ids=[bad[0] for bad in BAD])
async def test_bad_input_changes_nothing(
    dsn: str, what: str, error: type[Exception], match: str, call: Callable[[pgflow.Client], Awaitable[Any]]
) -> None:
    async with pgflow.Client(dsn) as client:
        with pytest.raises(error, match=match):
            await call(client)
    assert count(dsn) == count(dsn, "runs") == 0


async def test_databases_that_do_not_fit(database_dsn: str) -> None:
    with pytest.raises(pgflow.SchemaOutdated, match="pgflow db upgrade"):
        async with pgflow.Client(database_dsn):
            pass
    with pytest.raises(pgflow.SchemaOutdated, match="pgflow db upgrade"):
        await pgflow.Worker(database_dsn, workflows=WORKFLOWS).run()
    with pytest.raises(psycopg.OperationalError, match="nowhere"):
        async with pgflow.Client("host=/nowhere"):
            pass
    pgflow.migrate(database_dsn)
    with psycopg.connect(database_dsn) as connection:
        connection.execute("UPDATE pgflow.schema_info SET compatible_from = 99, version = 99")
    with pytest.raises(pgflow.SchemaOutdated, match="too new"), pgflow.SyncClient(database_dsn):
        pass
    with psycopg.connect(database_dsn) as connection:
        connection.execute("UPDATE pgflow.schema_info SET compatible_from = 1, version = 99")
    async with pgflow.Client(database_dsn):
        pass
