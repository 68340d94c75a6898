"""One connection for transactional activities, asynchronous or synchronous as the activity is, behind the same methods.

The engine's part is written once, asynchronously; it uses the synchronous connection in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from functools import partial
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from pgflow.store.database.adapters import OwnAsyncCursor, OwnCursor
from pgflow.store.database.connections import Database
from pgflow.store.database.pooler import AsyncConnection, Connection
from pgflow.store.database.replication import uncancelled
from pgflow.store.database.sockets import hang_up

T = TypeVar("T")

PURPOSE = "activity"
"""What `pg_stat_activity` shows of these connections, after the engine's name."""

BREAK_OFF = 2.0
"""Seconds that cancelling a statement may take before its connection is cut."""


class Session(Protocol):
    """A connection with one transaction at a time, which the engine begins and ends."""

    connection: Any

    async def begin(self) -> None:
        """Begin a transaction that the connection's own `commit` and `rollback` refuse to end."""
        ...

    async def execute(self, statement: bytes, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a statement; without parameters, it may be several, of which no rows are read."""
        ...

    async def end(self, *, commit: bool) -> None:
        """Commit or roll back, once."""
        ...

    def restore(self) -> None:
        """Undo what an activity may have set on the connection object."""
        ...

    async def close(self) -> None:
        """Close the connection; what it had begun is rolled back."""
        ...

    async def abort(self, work: Future[Any]) -> None:
        """Abort the transaction while `work` is still using the connection, and close the connection when that has
        ended.
        """
        ...


def status_of(session: Session) -> TransactionStatus:
    """The state of the connection's transaction."""
    status: TransactionStatus = session.connection.info.transaction_status
    return status


class AsyncSession:
    """For `async def` activities."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._block: AbstractAsyncContextManager[Any] | None = None

    @classmethod
    async def open(cls, database: Database) -> AsyncSession:
        """Connect."""
        connection = await database.connect(PURPOSE, plain=True)
        await connection.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
        await connection.set_read_only(False)
        return cls(connection)

    async def begin(self) -> None:
        """Begin a transaction."""
        block = self.connection.transaction()
        await block.__aenter__()
        self._block = block  # one that could not be entered cannot be left

    async def execute(self, statement: bytes, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """A statement's rows."""
        async with OwnAsyncCursor(self.connection, row_factory=tuple_row) as cursor:
            if parameters is None:
                await cursor.execute(statement)
                return []
            await cursor.execute(statement, parameters, prepare=True)
            return await cursor.fetchall()

    async def end(self, *, commit: bool) -> None:
        """Commit or roll back, once."""
        block, self._block = self._block, None
        assert block is not None
        with uncancelled(self.connection):
            await block.__aexit__(*_ending(commit))

    def restore(self) -> None:
        """Undo what an activity may have set on the connection object."""
        self.connection.row_factory = tuple_row
        self.connection.cursor_factory = psycopg.AsyncCursor

    async def close(self) -> None:
        """Close the connection, and leave a block that is open, which would complain of that when it is collected."""
        await self.connection.close()
        if self._block is not None:
            with suppress(psycopg.Error):
                await self.end(commit=False)

    async def abort(self, work: Future[Any]) -> None:
        """Close the connection: an async activity has ended when its task has."""
        await self.close()


class ThreadSession:
    """For plain `def` activities."""

    def __init__(self, connection: Connection, executor: Executor) -> None:
        self.connection = connection
        self._executor = executor
        self._block: AbstractContextManager[Any] | None = None

    @classmethod
    async def open(cls, database: Database, executor: Executor) -> ThreadSession:
        """Connect."""

        def connect() -> Connection:
            connection = database.connect_blocking(PURPOSE, plain=True)
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            connection.read_only = False
            return connection

        return cls(await _in_thread(executor, connect), executor)

    async def begin(self) -> None:
        """Begin a transaction."""
        await _in_thread(self._executor, self._enter)

    def _enter(self) -> None:
        block = self.connection.transaction()
        block.__enter__()
        self._block = block  # one that could not be entered cannot be left

    async def execute(self, statement: bytes, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """A statement's rows."""

        def work() -> list[tuple[Any, ...]]:
            with OwnCursor(self.connection, row_factory=tuple_row) as cursor:
                if parameters is None:
                    cursor.execute(statement)
                    return []
                cursor.execute(statement, parameters, prepare=True)
                return cursor.fetchall()

        return await _in_thread(self._executor, work)

    async def end(self, *, commit: bool) -> None:
        """Commit or roll back, once."""
        await _in_thread(self._executor, partial(self._leave, commit))

    def _leave(self, commit: bool) -> None:
        block, self._block = self._block, None
        assert block is not None
        block.__exit__(*_ending(commit))

    def restore(self) -> None:
        """Undo what an activity may have set on the connection object."""
        self.connection.row_factory = tuple_row
        self.connection.cursor_factory = psycopg.Cursor

    async def close(self) -> None:
        """Close the connection, and leave a block that is open, which would complain of that when it is collected."""
        self._close()

    def _close(self) -> None:
        self.connection.close()
        if self._block is not None:
            with suppress(psycopg.Error):
                self._leave(commit=False)

    async def abort(self, work: Future[Any]) -> None:
        """Cancel the statement under way and cut the connection, which `work` then finds broken."""
        connection = self.connection
        work.add_done_callback(lambda _: self._close())
        try:
            await asyncio.to_thread(connection.cancel_safe, timeout=BREAK_OFF)
        except psycopg.Error:
            pass  # it is cut all the same, which also ends the transaction, only later
        hang_up(connection)


def _ending(commit: bool) -> tuple[type[BaseException] | None, BaseException | None, None]:
    """The exception with which a transaction's block is left."""
    return (None, None, None) if commit else (psycopg.Rollback, psycopg.Rollback(), None)


async def _in_thread(executor: Executor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(executor, work)
