"""Calls of clients that wait for somebody else's transaction: the right answer if that ends in time, otherwise an error
that says so.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import pgflow
from pgflow.store.database.connections import Database
from tests.store.scene import Scene
from tests.waiting import until

TAGS = {"only": "one"}
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pgflow.signal
@dataclass
class Go:
    pass


@pgflow.workflow
async def waiting(ctx: pgflow.WorkflowContext) -> None:
    await ctx.sleep(3600)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements may take two seconds."""
    monkeypatch.setattr(Database, "statement_timeout", property(lambda self: 2000))


START = "SELECT pgflow.dispatch('waiting', '{}', '{\"only\": \"one\"}', is_unique => true)"


@pytest.mark.parametrize("commits", [True, False])
async def test_a_unique_one_that_somebody_is_starting(dsn: str, commits: bool) -> None:
    scene = Scene(dsn)
    async with pgflow.Client(dsn) as client:
        with scene.other() as stranger:
            ((id,),) = stranger.execute(START).fetchall()
            late = asyncio.ensure_future(client.dispatch(waiting, tags=TAGS, unique=True))
            await until(lambda: scene.one(WAITS), "the wait")
            stranger.commit() if commits else stranger.rollback()
            handle = await late
        assert (handle.id == id) is commits
        assert len(await client.list()) == 1
    scene.close()


@pytest.mark.parametrize("how", ["async", "sync", "in a transaction"])
async def test_a_unique_one_that_somebody_does_not_end_starting(dsn: str, impatient: None, how: str) -> None:
    def blocking() -> None:
        with pgflow.SyncClient(dsn) as client:
            client.dispatch(waiting, tags=TAGS, unique=True)

    scene = Scene(dsn)
    with scene.other() as stranger:
        stranger.execute(START)
        with pytest.raises(
            pgflow.PgflowError, match=r'a live workflow "waiting" has the tags .*"only".* still open'
        ) as caught:
            if how == "sync":
                await asyncio.to_thread(blocking)
            else:
                async with pgflow.Client(dsn) as client, await psycopg.AsyncConnection.connect(dsn) as connection:
                    await connection.execute("SET LOCAL lock_timeout = '100ms'")
                    mine = connection if how == "in a transaction" else None
                    await client.dispatch(waiting, tags=TAGS, unique=True, connection=mine)
        assert isinstance(caught.value.__context__, psycopg.Error)
    scene.close()


@pytest.mark.parametrize("what", ["pause", "fork"])
async def test_a_workflow_whose_row_somebody_has_locked(dsn: str, impatient: None, what: str) -> None:
    scene = Scene(dsn)
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[waiting]):
        handle = await client.dispatch(waiting)
        await until(lambda: scene.all("SELECT FROM runs WHERE status = 'sleeping'"), "sleep")
        with scene.other() as stranger:
            stranger.execute("SELECT FROM runs FOR UPDATE")
            with pytest.raises(pgflow.PgflowError, match="most likely somebody else's transaction has it locked"):
                await (client.fork(handle.id, before="{1}") if what == "fork" else client.pause(handle.id))
        assert await client.pause(handle.id)
    scene.close()


CALLS: dict[str, Callable[[pgflow.Client], Any]] = {
    "dispatch": lambda client: client.dispatch(waiting),
    "list": lambda client: client.list(),
    "output": lambda client: client.output("00000000-0000-0000-0000-000000000000", timeout=5),
    "signal": lambda client: client.signal(Go(), to="00000000-0000-0000-0000-000000000000", missing_ok=True),
    "cancel": lambda client: client.cancel("00000000-0000-0000-0000-000000000000"),
}


@pytest.mark.parametrize("call", CALLS)
async def test_another_event_loop(dsn: str, call: str) -> None:
    """The error says so, at once; the client goes on working where it was opened."""
    async with pgflow.Client(dsn) as client:
        raised: list[BaseException] = []

        async def elsewhere() -> None:
            await CALLS[call](client)

        def run() -> None:
            try:
                asyncio.run(elsewhere())
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        await asyncio.to_thread(thread.join)
        (error,) = raised
        assert isinstance(error, RuntimeError) and "opened on another event loop" in str(error)
        assert await client.list() == []


async def test_a_unique_one_whose_id_is_started_and_ends_meanwhile(dsn: str) -> None:
    """While it waits for a stranger with the same key, the same id is started otherwise, and has ended: it is found,
    and nothing is left half.
    """
    scene, id = Scene(dsn), uuid.uuid4()
    async with pgflow.Client(dsn) as client:
        with scene.other() as stranger:
            stranger.execute(START)
            late = asyncio.ensure_future(client.dispatch(waiting, tags=TAGS, unique=True, id=id))
            await until(lambda: scene.one(WAITS), "the wait")
            await client.dispatch(waiting, id=id)
            assert await client.cancel(id)
            scene.do("UPDATE workflows SET status = 'cancelled', completed_at = now() WHERE id = %s", id)
            scene.do("DELETE FROM runs WHERE workflow_id = %s", id)
            stranger.rollback()
            handle = await late
        assert handle.id == id
        assert scene.all("SELECT workflow_id FROM runs") == []
        assert (await handle.info()).status == "cancelled"
    scene.close()
