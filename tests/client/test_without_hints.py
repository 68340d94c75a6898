"""Clients without hints: what they start is found by polling, and their transactions can be prepared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgflow
from tests import databases


@pgflow.signal
@dataclass
class Word:
    text: str


@pgflow.workflow
async def hears(ctx: pgflow.WorkflowContext) -> str:
    word: Word = await ctx.listen(Word)
    return word.text


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that prepares transactions, migrated."""
    with databases.embedded({"max_prepared_transactions": "10"}) as dsn:
        pgflow.migrate(dsn)
        yield dsn


@pytest.fixture
def heard(server: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that hears every notification of the schema."""
    with psycopg.connect(server, autocommit=True) as connection:
        from pgflow.store.database.channels import mail_channel, wake_channel

        for channel in (wake_channel("pgflow"), mail_channel("pgflow")):
            connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
        yield connection


def told(connection: psycopg.Connection[Any]) -> list[str]:
    """What has been told since: notifications come in the order of commits, so one of its own is the last."""
    connection.execute("LISTEN marks")
    connection.execute("NOTIFY marks, 'now'")
    found: list[str] = []
    for notice in connection.notifies(timeout=20):
        if notice.channel == "marks":
            return found
        found.append(notice.channel)
    raise AssertionError("the mark did not arrive")


async def test_a_two_phase_commit(server: str) -> None:
    """Dispatches, signals and cancellations of a prepared transaction are there when it is committed,
    and not before.
    """
    async with pgflow.Client(server, hints=False) as client, pgflow.Worker(server, workflows=[hears], poll=0.05):
        there = await client.dispatch(hears)
        doomed = await client.dispatch(hears)
        with psycopg.connect(server) as connection, pgflow.SyncClient(server, hints=False) as sync:
            connection.tpc_begin(connection.xid(1, "order 7", "pgflow"))
            new = sync.dispatch(hears, connection=connection)
            sync.signal(Word("prepared"), to=new.id, connection=connection)
            sync.signal(Word("there"), to=there.id, connection=connection)
            assert sync.cancel(doomed.id, connection=connection)
            sync.dispatch_many(hears, [{}], tags={"many": True}, connection=connection)
            connection.tpc_prepare()
            with pytest.raises(pgflow.WorkflowNotFound):
                await client.get(new.id)
            connection.tpc_commit()
        assert await there.output(timeout=30) == "there"
        assert await client.output(new.id, timeout=30) == "prepared"
        with pytest.raises(pgflow.WorkflowCancelled):
            await doomed.output(timeout=30)
        assert len(await client.list("hears", tags={"many": True})) == 1


async def test_an_asynchronous_two_phase_commit(server: str) -> None:
    async with (
        pgflow.Client(server, hints=False) as client,
        await psycopg.AsyncConnection.connect(server) as connection,
    ):
        await connection.tpc_begin(connection.xid(1, "order 8", "pgflow"))
        handle = await client.dispatch(hears, connection=connection)
        await client.signal(Word("hello"), to=handle.id, connection=connection)
        await client.cancel(handle.id, connection=connection)
        await connection.tpc_prepare()
        await connection.tpc_rollback()
        with pytest.raises(pgflow.WorkflowNotFound):
            await client.get(handle.id)


def test_with_hints_it_cannot_be_prepared(server: str) -> None:
    """PostgreSQL's own rule; so the setting is needed."""
    with psycopg.connect(server) as connection, pgflow.SyncClient(server) as client:
        connection.tpc_begin(connection.xid(1, "order 9", "pgflow"))
        client.dispatch(hears, connection=connection)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="NOTIFY"):
            connection.tpc_prepare()
        connection.close()


async def test_nobody_is_notified(server: str, heard: psycopg.Connection[Any]) -> None:
    """By anything that a client does, on connections of its own as well; and everything is done all the same."""
    async with pgflow.Client(server, hints=False) as client:
        handle = await client.dispatch(hears)
        (other,) = await client.dispatch_many(hears, [{}])
        await client.signal(Word("a"), to=handle.id)
        await client.pause(handle.id)
        await client.resume(handle.id)
        await client.cancel(handle.id)
        await client.cancel(other.id)
        assert told(heard) == []

    def call() -> None:
        with pgflow.SyncClient(server, hints=False) as sync:
            handle = sync.dispatch(hears)
            sync.signal(Word("a"), to=handle.id)
            sync.cancel(handle.id)

    await asyncio.to_thread(call)
    assert told(heard) == []
    async with pgflow.Client(server) as client:
        await client.dispatch(hears)
        assert len(told(heard)) == 1


async def test_clients_heed_the_setting(server: str, heard: psycopg.Connection[Any]) -> None:
    """Of the sessions that they open, and of the connection that they are given: its transaction can be prepared."""
    async with pgflow.Client(make_conninfo(server, options="-c pgflow.hints=off")) as client:
        handle = await client.dispatch(hears)
        await client.signal(Word("a"), to=handle.id)
        await client.cancel(handle.id)
    assert told(heard) == []

    def call() -> None:
        with pgflow.SyncClient(server) as sync, psycopg.connect(server) as connection:
            connection.tpc_begin(connection.xid(1, "heeded", "client"))
            connection.execute("SET LOCAL pgflow.hints = off")
            handle = sync.dispatch(hears, connection=connection)
            sync.signal(Word("a"), to=handle.id, connection=connection)
            connection.tpc_prepare()
            connection.tpc_commit()

    await asyncio.to_thread(call)
    assert told(heard) == []


@pytest.mark.parametrize(
    "call",
    [
        "dispatch('hears')",
        "signal('{id}'::uuid, 'word', '{{\"text\": \"a\"}}')",
        "cancel('{id}')",
        "pause('{id}')",
        "resume('{id}')",
    ],
)
def test_functions_heed_the_setting(server: str, heard: psycopg.Connection[Any], call: str) -> None:
    """Called from SQL, in a transaction that says so."""
    with psycopg.connect(server, autocommit=True) as connection:
        (id,) = connection.execute("SELECT pgflow.dispatch('hears')").fetchone() or ("",)
        connection.execute("UPDATE pgflow.runs SET epoch = 1")  # a worker has had it
        if "resume" in call:
            connection.execute("SELECT pgflow.pause(%s)", [id])
        told(heard)
        for off in ("off", "FALSE", "no", "0"):
            with connection.transaction(force_rollback=off != "0"):
                connection.execute(psycopg.sql.SQL("SET LOCAL pgflow.hints = {}").format(off))
                connection.execute(f"SELECT pgflow.{call.format(id=id)}".encode())
        assert told(heard) == []
        if "pause" not in call:
            if "resume" in call:
                connection.execute("SELECT pgflow.pause(%s)", [id])
            connection.execute(f"SELECT pgflow.{call.format(id=id)}".encode())
            assert told(heard) != []


def test_every_function_asks(server: str) -> None:
    """None sends a hint past the setting."""
    with psycopg.connect(server, autocommit=True) as connection:
        found = connection.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'pgflow'::regnamespace AND proname <> 'may_hint' AND "
            "prosrc LIKE '%pg_notify(%' AND (prosrc LIKE '%has_function_privilege%' OR prosrc NOT LIKE '%may_hint()%')"
        ).fetchall()
    assert found == []
