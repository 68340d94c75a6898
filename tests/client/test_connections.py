"""Connections that break, callers' transactions, and servers where something is forbidden."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import pgflow
from pgflow.client.filters import parts_of
from pgflow.model.commands import Dispatch
from pgflow.store.database import retrying
from pgflow.store.database.channels import parse_wake, wake_channel, wake_payload
from tests.client.fake import count, kill_connections, proxy
from tests.waiting import until


@pgflow.workflow
async def job(ctx: pgflow.WorkflowContext, workflow: str = "", *, self: int = 0) -> None: ...


@pgflow.signal
@dataclass
class Nudge:
    """Says nothing."""


async def test_an_answer_that_was_lost_starts_nothing_twice(dsn: str) -> None:
    async with proxy(dsn) as way, pgflow.Client(way.dsn) as client:
        way.cut_after = b"job"
        handle = await client.dispatch(job)
        assert way.cuts == 1
        assert count(dsn) == count(dsn, "runs") == 1
        assert (await handle.info()).status == "pending"
        way.cut_after = b"job"
        handles = await client.dispatch_many(job, [{}] * 50)
        assert way.cuts == 2
        assert len({one.id for one in handles}) == 50 and count(dsn) == 51


async def test_connections_that_all_broke_are_opened_again(dsn: str) -> None:
    async with pgflow.Client(dsn, connections=8) as client:
        await asyncio.gather(*[client.dispatch(job) for _ in range(50)])
        assert kill_connections(dsn) >= 2
        await client.dispatch(job)
        assert count(dsn) == 51


def test_the_synchronous_client_opens_connections_again(dsn: str) -> None:
    with pgflow.SyncClient(dsn) as client:
        client.dispatch(job)
        assert kill_connections(dsn) == 1
        client.dispatch(job)
        assert count(dsn) == 2


async def test_trying_ends(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "PATIENCE", 0.2)
    async with proxy(dsn) as way, pgflow.Client(way.dsn) as client:
        monkeypatch.setattr(way, "_open", _refuse)
        kill_connections(dsn)
        with pytest.raises(psycopg.OperationalError):
            await client.dispatch(job)
    assert count(dsn) == 0


async def _refuse() -> Any:
    raise ConnectionRefusedError


async def test_no_more_connections_than_were_allowed(dsn: str) -> None:
    async with pgflow.Client(dsn, connections=2) as client:
        await asyncio.gather(*[client.dispatch(job) for _ in range(50)])
        with psycopg.connect(dsn) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'pgflow client client'"
            ).fetchone()
        assert row is not None and 1 <= row[0] <= 2
    with pytest.raises(ValueError, match="at least 1"):
        pgflow.Client(dsn, connections=0)


async def test_a_cancelled_statement_does_not_poison_its_connection(dsn: str) -> None:
    async with pgflow.Client(dsn, connections=1) as client:
        with psycopg.connect(dsn) as blocker:
            blocker.execute("LOCK TABLE pgflow.workflows")
            stuck = asyncio.create_task(client.dispatch(job))
            await until(lambda: _waits_for_lock(dsn), "the dispatch to wait")
            stuck.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stuck
        handle = await client.dispatch(job)
        assert (await client.get(handle.id)).name == "job"


def _waits_for_lock(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone() is not None


@contextmanager
def _engine(dsn: str) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    yield engine
    engine.dispose()


@asynccontextmanager
async def _callers_connection(kind: str, dsn: str) -> AsyncIterator[tuple[Any, Any, Any]]:
    """A connection or session of the caller's, its commit and its rollback."""
    if kind == "psycopg async":
        async with await psycopg.AsyncConnection.connect(dsn, row_factory=psycopg.rows.dict_row) as found:
            yield found, found.commit, found.rollback
    elif kind == "psycopg raw cursors":
        async with await psycopg.AsyncConnection.connect(dsn, cursor_factory=psycopg.AsyncRawCursor) as found:
            yield found, found.commit, found.rollback
    elif kind == "psycopg sync":
        with psycopg.connect(dsn, cursor_factory=psycopg.ClientCursor) as blocking:
            yield blocking, blocking.commit, blocking.rollback
    elif kind.endswith("async"):
        engine = create_async_engine(
            "postgresql+psycopg://", async_creator=lambda: psycopg.AsyncConnection.connect(dsn)
        )
        try:
            if kind == "session async":
                async with AsyncSession(engine) as session:
                    yield session, session.commit, session.rollback
            else:
                async with engine.connect() as connection:
                    yield connection, connection.commit, connection.rollback
        finally:
            await engine.dispose()
    elif kind == "session sync":
        with _engine(dsn) as plain, sqlalchemy.orm.Session(plain) as one:
            yield one, one.commit, one.rollback
    else:
        with _engine(dsn) as plain, plain.connect() as other:
            yield other, other.commit, other.rollback


KINDS = [
    "psycopg async",
    "psycopg raw cursors",
    "psycopg sync",
    "connection async",
    "session async",
    "connection sync",
    "session sync",
]


async def _done(result: Any) -> None:
    if hasattr(result, "__await__"):
        await result


@pytest.mark.parametrize("kind", KINDS)
async def test_a_dispatch_joins_the_callers_transaction(dsn: str, kind: str) -> None:
    async with pgflow.Client(dsn) as client, _callers_connection(kind, dsn) as (connection, commit, rollback):
        await client.dispatch(job, connection=connection)
        await client.dispatch_many(job, [{}, {}], connection=connection)
        assert count(dsn) == 0
        await _done(rollback())
        assert count(dsn) == 0
        handle = await client.dispatch(job, connection=connection)
        await _done(commit())
        assert count(dsn) == count(dsn, "runs") == 1
        assert (await handle.info()).id == handle.id


@pytest.mark.parametrize("kind", KINDS)
async def test_a_signal_joins_the_callers_transaction(dsn: str, kind: str) -> None:
    async with pgflow.Client(dsn) as client, _callers_connection(kind, dsn) as (connection, commit, rollback):
        handle = await client.dispatch(job)
        await client.signal(Nudge(), to=handle.id, connection=connection)
        await _done(rollback())
        await client.signal(Nudge(), to=handle.id, connection=connection)
        assert count(dsn, "signals") == 0
        await _done(commit())
        assert count(dsn, "signals") == 1


async def test_two_callers_that_cross_each_other_do_not_wait(dsn: str) -> None:
    """Each sends to a workflow that the other has sent to in a transaction that is still open, and starts one."""
    async with pgflow.Client(dsn) as client, AsyncExitStack() as stack:
        handles = [await client.dispatch(job) for _ in range(2)]
        callers = [await stack.enter_async_context(await psycopg.AsyncConnection.connect(dsn)) for _ in range(2)]
        async with asyncio.timeout(20):
            for order in ((0, 1), (1, 0)):
                for caller, receiver in zip(callers, order, strict=True):
                    await client.signal(Nudge(), to=handles[receiver].id, connection=caller)
                    await client.dispatch(job, connection=caller)
            for caller in callers:
                await caller.commit()
        assert (count(dsn, "signals"), count(dsn)) == (4, 6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("sync") and "async" not in kind])
async def test_a_synchronous_dispatch_joins_the_callers_transaction(dsn: str, kind: str) -> None:
    async with _callers_connection(kind, dsn) as (connection, commit, rollback):
        with pgflow.SyncClient(dsn) as client:
            client.dispatch(job, connection=connection)
            rollback()
            assert count(dsn) == 0
            client.dispatch(job, connection=connection)
            commit()
            assert count(dsn) == 1


async def test_the_synchronous_client_takes_no_asynchronous_connection(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        with pgflow.SyncClient(dsn) as client, pytest.raises(TypeError, match="asynchronous client"):
            client.dispatch(job, connection=connection)
    with pgflow.SyncClient(dsn) as client, pytest.raises(TypeError, match="expected a psycopg connection"):
        client.dispatch(job, connection="postgresql://")
    assert count(dsn) == 0


@pytest.fixture
def modest_dsn(dsn: str) -> Iterator[str]:
    """As a role that may work on the tables but not notify."""
    role = f"modest_{uuid.uuid4().hex[:12]}"
    name = sql.Identifier(role)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for text in (
            "CREATE ROLE {} LOGIN PASSWORD 'modest'",
            "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) FROM PUBLIC",
            "GRANT USAGE ON SCHEMA pgflow TO {}",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgflow TO {}",
        ):
            connection.execute(sql.SQL(text).format(name))
        try:
            yield make_conninfo(dsn, user=role, password="modest")
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
            connection.execute(sql.SQL("DROP ROLE {}").format(name))


async def test_dispatch_where_notifications_are_forbidden(modest_dsn: str) -> None:
    async with pgflow.Client(modest_dsn) as client:
        await client.dispatch(job)
        async with await psycopg.AsyncConnection.connect(modest_dsn) as connection:
            await client.dispatch(job, connection=connection)
        await client.dispatch(job)
    with pgflow.SyncClient(modest_dsn) as blocking:
        blocking.dispatch(job)
        with psycopg.connect(modest_dsn) as connection:
            blocking.dispatch(job, connection=connection)
    assert count(modest_dsn) == 5


async def test_hints_go_out_after_the_commit(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listener:
        await listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(wake_channel("pgflow"))))
        async with pgflow.Client(dsn) as client:
            one = await client.dispatch(job, queue="one")
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                await client.dispatch(job, queue="two", connection=connection)
        with pgflow.SyncClient(dsn) as blocking:
            three = blocking.dispatch(job, queue="three")
        told = set()
        async for notification in listener.notifies(timeout=20):
            told.add(parse_wake(notification.payload))
            if len(told) == 3:
                break
        assert told == {("one", one.id), ("two", None), ("three", three.id)}


def test_hints_name_queues_and_workflows() -> None:
    """Whatever a queue is called, and whoever notifies."""
    for queue in ("default", "", "two\nlines", "\n", "9"):
        for id in (uuid.uuid4(), None):
            assert parse_wake(wake_payload(queue, id)) == (queue, id)
    assert parse_wake("a\nb\nc") == ("a\nb\nc", None)


async def test_parameters_may_be_called_as_ours_are(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(job, workflow="w", self=3)
        assert (await handle.info()).input == {"workflow": "w", "self": 3}
        named = await client.dispatch("job", workflow="w", self=3)
        assert (await named.info()).input == {"workflow": "w", "self": 3}


def test_many_requests_go_in_parts_by_number_and_size() -> None:
    made = [Dispatch(uuid.uuid4(), "job", "x" * size) for size in (10, 10, 10, 100, 1, 1, 1, 1)]
    parts = list(parts_of(made, 3, 25))
    assert [request for part in parts for request in part] == made
    assert [len(part) for part in parts] == [2, 1, 1, 3, 1]
    assert list(parts_of([], 3, 25)) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"a": 1}, "sequence of mappings"),
        ("ab", "sequence of mappings"),
        (7, "sequence of mappings"),
        ([{}, 5], "at 1: 5"),
    ],
)
def test_arguments_of_many_are_mappings(dsn: str, arguments: Any, told: str) -> None:
    with pgflow.SyncClient(dsn) as client:
        with pytest.raises(TypeError, match=told):
            client.dispatch_many(job, arguments)
        assert [handle.id for handle in client.dispatch_many("other", iter([{}]))]
        assert count(dsn) == 1


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"status": "done"}, "expected one of pending"),
        ({"limit": 0}, "at least 1"),
        ({"limit": -1}, "at least 1"),
        ({"limit": 1.5}, "whole number"),
        ({"tags": {"a": []}}, "flat"),
        ({"before": "x"}, "UUID"),
        ({"name": "a\0"}, "text"),
    ],
)
def test_lists_that_cannot_be(dsn: str, asked: dict[str, Any], told: str) -> None:
    with pgflow.SyncClient(dsn) as client, pytest.raises(ValueError, match=told):
        client.list(**asked)


def test_lists(dsn: str) -> None:
    with pgflow.SyncClient(dsn) as client:
        ids = [client.dispatch("ab"[i % 2], tags={"n": i, "even": i % 2 == 0}, queue=f"q{i % 3}").id for i in range(12)]
        assert [found.id for found in client.list()] == ids[::-1]
        assert [found.id for found in client.list("a")] == ids[::2][::-1]
        assert {found.id for found in client.list(tags={"even": True})} == set(ids[::2])
        assert {found.id for found in client.list("b", "pending", {"even": False}, queue="q1")} == {ids[1], ids[7]}
        page = client.list(limit=5)
        rest = client.list(limit=100, before=page[-1].id)
        assert [found.id for found in page + rest] == ids[::-1]
        assert client.list(status="completed") == client.list(tags={"n": 99}) == []


def test_lists_agree_with_looking_at_everything(dsn: str) -> None:
    with pgflow.SyncClient(dsn) as client:
        for i in range(40):
            client.dispatch("ab"[i % 2], tags={"n": i % 4} if i % 5 else {}, queue=f"q{i % 3}")
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE pgflow.runs SET status = 'sleeping' WHERE queue = 'q1'")
            connection.execute("UPDATE pgflow.runs SET status = 'failed' WHERE queue = 'q2' AND name = 'a'")
            connection.execute(
                "UPDATE pgflow.workflows AS w SET status = 'failed' FROM pgflow.runs AS r "
                "WHERE r.workflow_id = w.id AND r.status = 'failed'"
            )
            connection.execute(
                "UPDATE pgflow.workflows SET status = 'completed' WHERE name = 'b' AND tags @> '{\"n\": 3}'"
            )
            connection.execute(
                "DELETE FROM pgflow.runs WHERE workflow_id IN (SELECT id FROM pgflow.workflows WHERE status = "
                "'completed')"
            )
        everything = client.list(limit=1000)
        assert len(everything) == 40
        options: dict[str, list[Any]] = {
            "name": [None, "a", "b", "none"],
            "status": [None, "pending", "sleeping", "failed", "completed", "cancelled"],
            "tags": [None, {}, {"n": 3}],
            "queue": [None, "q1", "none"],
            "before": [None, everything[15].id],
            "limit": [3, 1000],
        }
        for values in itertools.product(*options.values()):
            asked = dict(zip(options, values, strict=True))
            expected = [
                found
                for found in everything
                if asked["name"] in (None, found.name)
                and asked["status"] in (None, found.status)
                and found.tags.items() >= (asked["tags"] or {}).items()
                and asked["queue"] in (None, found.queue)
                and (asked["before"] is None or found.id < asked["before"])
            ]
            assert client.list(**asked) == expected[: asked["limit"]], asked


def test_endless_moments_can_be_read(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT pgflow.dispatch('job', run_at => 'infinity')").fetchone()
    assert row is not None
    with pgflow.SyncClient(dsn) as client:
        assert client.get(row[0]).wake_at is None
        assert client.list()[0].status == "pending"
        with pytest.raises(ValueError, match="out of the range"):
            client.dispatch(job, run_at=datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))))
