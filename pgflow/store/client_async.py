"""What the asynchronous client does its work with: a few connections, and word of workflows that have ended.

`client_sync.py` has the same names for the synchronous client, which is generated from the asynchronous one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypeVar
from uuid import UUID

import psycopg

from pgflow.store.compatibility import check_async as check
from pgflow.store.connections import AsyncConnection, Database, is_lost
from pgflow.store.hints import Listener
from pgflow.store.joining import execute_async as execute_on
from pgflow.store.query import Query

__all__ = ["Connections", "Endings", "execute_on"]

T = TypeVar("T")

TRIES = 4
"""Times that a statement is sent whose connection breaks, or that meets its like at the same moment."""


class Connections:
    """A bounded number of connections, opened when needed, each used by one statement at a time."""

    def __init__(self, database: Database, limit: int) -> None:
        self._database = database
        self._free: list[AsyncConnection] = []
        self._places = asyncio.Semaphore(limit)

    async def check(self) -> None:
        """Connect, and see that server and schema fit; raises as `pgflow.store.compatibility.check` does."""
        async with self._one() as connection:
            await check(connection, self._database.schema)

    async def execute(self, query: Query[T]) -> T:
        """Send a statement that may be sent again, and read its answer."""
        for attempt in range(TRIES):
            async with self._one() as connection:
                try:
                    cursor = await connection.execute(query.sql, query.params)
                    return query.read(await cursor.fetchall())
                except psycopg.errors.UniqueViolation:
                    if attempt == TRIES - 1:
                        raise
                except psycopg.OperationalError as error:
                    if attempt == TRIES - 1 or not is_lost(error, connection):
                        raise
            await asyncio.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    @contextlib.asynccontextmanager
    async def _one(self) -> AsyncIterator[AsyncConnection]:
        async with self._places:
            connection = self._free.pop() if self._free else await self._database.connect("client")
            try:
                yield connection
            except asyncio.CancelledError:
                await connection.close()  # its answer is still on the way
                raise
            finally:
                if not connection.closed:
                    self._free.append(connection)

    async def close(self) -> None:
        """Close all that are free."""
        while self._free:
            await self._free.pop().close()


class Endings:
    """Hints that workflows have ended; begins to listen when somebody first waits."""

    def __init__(self, database: Database) -> None:
        self._listener = Listener(database, done=self._hint, reconnected=self._hint_all)
        self._waiting: dict[UUID, set[asyncio.Event]] = {}

    @contextlib.asynccontextmanager
    async def watch(self, workflow_id: UUID) -> AsyncIterator[asyncio.Event]:
        """An event that is set when the workflow may have ended."""
        self._listener.start()
        event = asyncio.Event()
        self._waiting.setdefault(workflow_id, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[workflow_id].discard(event)
            if not self._waiting[workflow_id]:
                del self._waiting[workflow_id]

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for the event, so long at most, and clear it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
        event.clear()

    def _hint(self, ids: list[UUID]) -> None:
        for workflow_id in ids:
            for event in self._waiting.get(workflow_id, ()):
                event.set()

    def _hint_all(self) -> None:
        self._hint(list(self._waiting))

    async def close(self) -> None:
        """Stop listening."""
        await self._listener.close()
