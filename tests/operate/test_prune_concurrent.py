"""Pruning beside what others do with the same workflows: locks that are held, operations that come meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

import pgflow
from tests.operate.test_prune import (
    ALL,
    BROKEN,
    HOUR,
    Go,
    age,
    ask,
    clean,
    ids,
    leaf,
)
from tests.waiting import until

__all__ = ["clean"]


async def beside(dsn: str, lock: str, act: Callable[[], Awaitable[Any]]) -> Any:
    """What an act gives while another transaction holds a lock."""
    async with await psycopg.AsyncConnection.connect(dsn) as sql:
        await sql.execute(lock.encode())
        return await act()


@pytest.mark.parametrize(
    "lock",
    [
        "SELECT 1 FROM pgflow.workflows FOR KEY SHARE",
        "SELECT 1 FROM pgflow.workflows FOR NO KEY UPDATE",
        "SELECT pgflow.fork(id, '1') FROM pgflow.workflows",
        "SELECT 1 FROM pgflow.runs FOR NO KEY UPDATE",
    ],
)
async def test_what_others_have_locked_is_passed_over(dsn: str, lock: str) -> None:
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=ALL):
            BROKEN.add("x")
            failed = await client.dispatch(leaf)
            with pytest.raises(pgflow.WorkflowFailed):
                await failed.output(20)
        age(dsn)
        kept = await beside(dsn, lock, lambda: client.prune(older_than=HOUR, status="failed"))
        assert (kept, kept.kept) == (0, {"busy": 1})
        assert await client.prune(older_than=HOUR, status="failed") == 1


@pytest.mark.parametrize("operation", ["retry", "fork", "cancel", "terminate", "pause", "signal", "dispatch", "unique"])
async def test_who_comes_while_it_goes_finds_it_gone(dsn: str, operation: str) -> None:
    """The removal has happened and is not committed. Who only reads has come before it."""
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=ALL):
            BROKEN.add("x")
            failed = await client.dispatch(leaf.options(unique=True))
            with pytest.raises(pgflow.WorkflowFailed):
                await failed.output(20)
        age(dsn)
        acts: dict[str, Callable[[], Awaitable[Any]]] = {
            "retry": lambda: client.retry(failed.id),
            "fork": lambda: client.fork(failed.id, "{1}"),
            "cancel": lambda: client.cancel(failed.id),
            "terminate": lambda: client.terminate(failed.id),
            "pause": lambda: client.pause(failed.id),
            "signal": lambda: client.signal(Go(), to=failed.id),
            "dispatch": lambda: client.dispatch(leaf.options(id=failed.id)),
            "unique": lambda: client.dispatch(leaf.options(unique=True)),
        }
        async with await psycopg.AsyncConnection.connect(dsn) as sql:
            removed = f"SELECT stays FROM pgflow.remove_workflows('{{{failed.id}}}', interval '1 hour')"
            assert await (await sql.execute(removed.encode())).fetchall() == [(None,)]
            act = asyncio.ensure_future(acts[operation]())
            blocked = (
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
                "AND pid <> pg_backend_pid()"
            )
            await until(lambda: act.done() or ask(dsn, blocked))
            await sql.commit()
            if operation in ("dispatch", "unique"):
                assert (await client.get((await act).id)).status == "pending"
                assert ((await act).id == failed.id) is (operation == "dispatch")
            elif operation == "pause":
                assert not await act
            elif not act.done():
                with pytest.raises(pgflow.WorkflowNotFound):
                    await act
            else:
                act.exception()  # it came before the removal
        if operation not in ("dispatch", "unique"):
            assert ids(dsn) == set()
            assert ask(dsn, "SELECT 1 FROM pgflow.runs") == ask(dsn, "SELECT FROM pgflow.events") == []
