"""A few connections over which a client's statements are sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

import psycopg

from pgflow import forking
from pgflow.model.commands import Sending, Sent
from pgflow.store.client.examining import ExaminingSession
from pgflow.store.client.on_loop import (
    GroupCommit,
    LoopHints,
    LoopOwner,
    LoopPlaces,
    check,
    connect,
    flush,
    sleep,
)
from pgflow.store.database import standby
from pgflow.store.database.channels import is_near
from pgflow.store.database.connections import Database
from pgflow.store.database.pipeline import Statement, log_lost_hints, rows_of
from pgflow.store.database.pooler import AsyncConnection
from pgflow.store.database.query import Query
from pgflow.store.database.retrying import Retries, is_meeting, with_id
from pgflow.store.database.silence import NoAnswer
from pgflow.store.queries import rights, signalling
from pgflow.store.queries.dispatching import wake

T = TypeVar("T")

SIGNAL_BYTES = 8 << 20
"""The most characters of signals in one statement, unless a single signal has more."""


class Connections:
    """A bounded number of connections, opened when needed, each used by one statement at a time."""

    def __init__(self, database: Database, limit: int, timeout: float | None = None, *, hints: bool = True) -> None:
        """
        Args:
            database: Where to.
            limit: The most connections to open.
            timeout: Seconds that one call may take, with all its tries; None: any.
            hints: Whether to send notifications where they can be sent.
        """
        self._database = database
        self._timeout = timeout
        self._limit = limit
        self.hints = hints
        """Whether notifications are sent where they can be."""
        self.rights = rights.UNKNOWN
        """What the role may do, and whether notifications can be sent at all."""
        self._may_notify = False
        self._closed = False
        self._begin()
        forking.watch(self)

    def _begin(self) -> None:
        self._owner = LoopOwner()
        self._free: list[AsyncConnection] = []
        self._places = LoopPlaces(self._limit)
        self._hinting = LoopHints(self._database)
        self._signals = GroupCommit(self._send_signals, lambda sending: len(sending.body), SIGNAL_BYTES)

    def after_fork(self) -> None:
        """Forget what is open or under way: it belongs to the parent process."""
        forking.leave(self._free, self._places, self._hinting, self._signals)
        self._begin()

    def check_owner(self) -> None:
        """Check that the caller may use the client.

        Raises:
            RuntimeError: They may not.
        """
        self._owner.check()

    async def check(self) -> None:
        """Connect, and check that server and schema fit; raises as `pgflow.store.schema.compatibility.check` does."""
        async with self._one(Retries(self._timeout)) as connection:
            await check(connection, self._database.schema)
        self.rights = await self.execute(rights.find(self._database.schema))
        self._may_notify = self.hints and self.rights.may_notify
        standby.warn(self.rights.is_standby)

    async def execute(self, query: Query[T], until: float | None = None) -> T:
        """Send a statement that may be sent again, and read its answer.

        Args:
            query: The statement.
            until: The monotonic time by which the caller wants the answer.

        Raises:
            PgflowError: The role may not do that.
            psycopg.Error: It failed, and another try would not help or did not.
            NoAnswer: None came in time.
            RuntimeError: The client is closed.
        """
        return await self._exchange(query, [], until)

    async def start(self, query: Query[T], queue: str | None, id: UUID | None, timeout: float | None = None) -> T:
        """Send a dispatch, and a hint at the queue that has work then; raises as `execute` does.

        Args:
            query: The dispatch.
            queue: None: It has no work yet.
            id: The work, if it is a single workflow.
            timeout: Seconds until its deadline; None: it has none.
        """
        hints: list[Statement] = []
        if queue is not None and self._may_notify and self._hinting.leaves_now():
            hint = wake(self._database.schema, [queue], id=id, quick=True)
            hints = [(hint.sql, hint.params)]
        further: list[Statement] = []
        if is_near(timeout) and self._may_notify:
            hint = signalling.expect(self._database.schema, timeout)
            further = [(hint.sql, hint.params)]
        try:
            found = await self._exchange(query, [*hints, *further])
        except NoAnswer as error:
            raise error if id is None else with_id(error, id, "workflow") from error
        if queue is not None and self.hints and not hints:
            self._hinting.later(queue)
        return found

    async def send(self, sending: Sending) -> Sent:
        """Send a signal; raises as `execute` does."""
        self._owner.check()
        try:
            return await self._signals.ask(sending)
        except NoAnswer as error:
            raise with_id(error, sending.id, "signal") from error

    async def _send_signals(self, sendings: Sequence[Sending]) -> Sequence[Sent]:
        schema = self._database.schema
        if not self.rights.writes:
            return await self._exchange(signalling.send_called(schema, sendings, quiet=not self.hints), [])
        hints = [signalling.mail_behind(schema, sendings)] if self._may_notify else []
        return await self._exchange(signalling.send(schema, sendings), hints)

    async def _exchange(self, query: Query[T], hints: Sequence[Statement], until: float | None = None) -> T:
        self._owner.check()
        tries = Retries(self._timeout, until)
        while True:
            try:
                async with self._one(tries) as connection:
                    answer, *hint_answers = await flush(
                        connection, (query.sql, query.params), *hints, until=tries.until
                    )
                    found = rows_of(standby.refuse(answer, connection))
            except psycopg.errors.InsufficientPrivilege as error:
                raise rights.denied(error) from error
            except psycopg.Error as error:
                if query.again is not None and is_meeting(error):
                    query = query.again()
                    continue
                pause = tries.pause(error)
                if isinstance(error, psycopg.OperationalError):
                    await self._drop_free()  # most likely they broke as well
            else:
                log_lost_hints(hint_answers)
                return query.read(found)
            await sleep(pause)

    @asynccontextmanager
    async def _one(self, tries: Retries) -> AsyncIterator[AsyncConnection]:
        places = self._places
        if not await places.take(tries.left):
            raise tries.late("all connections of the client are in use")
        try:
            if self._closed:
                raise RuntimeError("this client is closed")
            connection = self._kept()
            if connection is None:
                connection = await connect(self._database, "client", tries)
            try:
                yield connection
            finally:
                if not self._closed and _is_idle(connection):
                    self._free.append(connection)
                else:
                    await connection.close()
        finally:
            places.release()

    @asynccontextmanager
    async def examining(self) -> AsyncIterator[ExaminingSession]:
        """A connection on which the database is examined, whether or not its schema fits this code.

        Raises:
            psycopg.OperationalError: It cannot be reached.
        """
        self._owner.check()
        async with self._one(Retries(self._timeout)) as connection:
            yield ExaminingSession(connection, self._database.schema)

    def _kept(self) -> AsyncConnection | None:
        try:
            return self._free.pop()
        except IndexError:
            return None

    async def _drop_free(self) -> None:
        while (connection := self._kept()) is not None:
            await connection.close()

    async def close(self) -> None:
        """Close all connections; those in use when their statement has ended."""
        self._closed = True
        await self._hinting.close()
        await self._drop_free()


def _is_idle(connection: AsyncConnection) -> bool:
    """Whether it can be used again: if a statement was given up, its answer may still be on its way."""
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
