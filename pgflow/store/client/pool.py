"""What the asynchronous client does its work with: a few connections, and word of workflows that have ended.

`client_sync.py` has the same names for the synchronous client, which is generated from the asynchronous one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import TypeVar
from uuid import UUID

import psycopg

from pgflow import forking
from pgflow.definitions.calls import Sending, Sent, Standing
from pgflow.store.client.caller import execute_async as execute_on
from pgflow.store.client.caller import mail_async as mail_on
from pgflow.store.client.caller import wake_async as wake_on
from pgflow.store.client.gathering import Gathering
from pgflow.store.database import standby
from pgflow.store.database.channels import Recent
from pgflow.store.database.connections import AsyncConnection, Database
from pgflow.store.database.pipeline import Statement, flush, rows_of, tell_of_lost_hints
from pgflow.store.database.query import Query
from pgflow.store.database.retrying import Tries, is_meeting, with_id
from pgflow.store.database.silence import NoAnswer
from pgflow.store.notify.notifier import GATHER, Listener, Notifier
from pgflow.store.queries.dispatching import outcomes, reach, wake
from pgflow.store.queries.signalling import mail_behind, send
from pgflow.store.schema.compatibility import check_async as check
from pgflow.uuid7 import MOMENT, is_fresh

__all__ = ["Connections", "Endings", "execute_on", "mail_on", "wake_on"]

T = TypeVar("T")

LOOK_TOGETHER = 1_000
"""Workflows that one statement looks at."""

SIGNAL_BYTES = 8 << 20
"""Characters of the signals that one statement sends, at most, unless one signal has more."""

FIRST_LOOK = 1.0
"""Seconds that the first look at a workflow may take however short the caller's timeout is."""

POLL = 5.0
"""Seconds between two looks at all workflows that somebody waits for, while notifications come."""

POLL_BLIND = 0.5
"""The same while none come."""


class Connections:
    """A bounded number of connections, opened when needed, each used by one statement at a time."""

    def __init__(self, database: Database, limit: int, timeout: float | None = None, *, hints: bool = True) -> None:
        """
        Parameters:
            database: where to.
            limit: how many connections, at most.
            timeout: seconds that one call may take, with all its tries; None: any.
            hints: whether to send notifications where they can be sent.
        """
        self._database = database
        self._timeout = timeout
        self._limit = limit
        self.hints = hints
        """Whether notifications are sent where they can be."""
        self._may_notify = False
        self._hint_at = 0.0
        self._closed = False
        self._begin()
        forking.watch(self)

    def _begin(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._free: list[AsyncConnection] = []
        self._places = asyncio.Semaphore(self._limit)
        self._notifier = Notifier(self._database)
        self._signals = Gathering(self._send_signals, lambda sending: len(sending.body), SIGNAL_BYTES)

    def after_fork(self) -> None:
        """Connections and tasks are the parent's."""
        forking.leave(self._free, self._places, self._notifier, self._signals)
        self._begin()

    def check_loop(self) -> None:
        """See that the running event loop is the one that the connections, and all who wait, belong to.

        Raises:
            RuntimeError: it is another.
        """
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        elif self._loop is not running:
            raise RuntimeError(
                "this client was opened on another event loop, to which its connections belong. Expected: a client "
                "for each loop (each `asyncio.run`, each thread that runs one); `SyncClient` serves any number of "
                "threads"
            )

    async def check(self) -> None:
        """Connect, and see that server and schema fit; raises as `pgflow.store.schema.compatibility.check` does."""
        async with self._one(Tries(self._timeout)) as connection:
            await check(connection, self._database.schema)
        may_notify, is_standby = await self.execute(reach(self._database.schema))
        self._may_notify = self.hints and may_notify
        standby.tell(is_standby)

    async def execute(self, query: Query[T]) -> T:
        """Send a statement that may be sent again, and read its answer.

        Raises:
            psycopg.Error: it failed, and another try would not help or did not.
            NoAnswer: none came in time.
            RuntimeError: the client is closed.
        """
        return await self._exchange(query, [])

    async def start(self, query: Query[T], queue: str | None, id: UUID | None) -> T:
        """Send a dispatch, and a hint at the queue that has work then; raises as `execute` does.

        Parameters:
            queue: None: it has none yet.
            id: the work, if it is a single workflow.
        """
        hints = self._right_behind(queue, id)
        try:
            found = await self._exchange(query, hints)
        except NoAnswer as error:
            raise error if id is None else with_id(error, id, "workflow") from error
        if queue is not None and not hints and self.hints:
            self._notifier.start()
            self._notifier.wake(queue)
        return found

    async def _exchange(self, query: Query[T], hints: Sequence[Statement]) -> T:
        self.check_loop()
        tries = Tries(self._timeout)
        while True:
            try:
                async with self._one(tries) as connection:
                    answer, *told = await flush(connection, (query.sql, query.params), *hints, until=tries.until)
                    found = rows_of(standby.refuse(answer, connection))
            except psycopg.Error as error:
                if query.again is not None and is_meeting(error):
                    query = query.again()
                    continue
                pause = tries.pause(error)
                if isinstance(error, psycopg.OperationalError):
                    await self._drop_free()  # most likely they broke as well
            else:
                tell_of_lost_hints(told)
                return query.read(found)
            await asyncio.sleep(pause)

    def _right_behind(self, wakes: str | None, id: UUID | None) -> list[Statement]:
        """The hint to send in one flush with what it tells of; none when one has just left: then it is gathered with
        others.
        """
        now = time.monotonic()
        if wakes is None or not self._may_notify or now < self._hint_at:
            return []
        self._hint_at = now + GATHER
        hint = wake(self._database.schema, [wakes], id=id, quick=True)
        return [(hint.sql, hint.params)]

    async def send(self, sending: Sending) -> Sent:
        """Send a signal, together with those that others send at the same time; raises as `execute` does."""
        self.check_loop()
        try:
            return await self._signals.ask(sending)
        except NoAnswer as error:
            raise with_id(error, sending.id, "signal") from error

    async def _send_signals(self, sendings: Sequence[Sending]) -> Sequence[Sent]:
        schema = self._database.schema
        return await self._exchange(send(schema, sendings), [mail_behind(schema, sendings)] if self._may_notify else [])

    @contextlib.asynccontextmanager
    async def _one(self, tries: Tries) -> AsyncIterator[AsyncConnection]:
        places = self._places
        if places.locked():
            await _in_time(places.acquire(), tries, "all connections of the client are in use")
        else:
            await places.acquire()
        try:
            if self._closed:
                raise RuntimeError("this client is closed")
            if self._free:
                connection = self._free.pop()
            else:
                connection = await _in_time(self._database.connect("client"), tries, "it could not be connected to")
            try:
                yield connection
            finally:
                if not self._closed and _is_idle(connection):
                    self._free.append(connection)
                else:
                    await connection.close()
        finally:
            places.release()

    async def _drop_free(self) -> None:
        while self._free:
            await self._free.pop().close()

    async def close(self) -> None:
        """Close all connections; those in use when their statement has ended."""
        self._closed = True
        await self._notifier.close()
        await self._drop_free()


async def _in_time(awaitable: Awaitable[T], tries: Tries, found: str) -> T:
    try:
        async with asyncio.timeout(tries.left) as limit:
            return await awaitable
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise tries.late(found) from error


def _is_idle(connection: AsyncConnection) -> bool:
    """Whether it can be used again; a cancelled statement's answer may still be on its way."""
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


class _Waiter:
    """Somebody who waits for a workflow's end."""

    __slots__ = ("ended", "last", "seen")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.seen: asyncio.Future[None] = loop.create_future()
        """Done when the workflow has been looked at once."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when it has ended, or is not there."""
        self.last: Standing | None = None

    def see(self, outcome: Standing | None) -> None:
        self.last = outcome
        if not self.seen.done():
            self.seen.set_result(None)
        if (outcome is None or outcome.ended) and not self.ended.done():
            self.ended.set_result(None)

    def fail(self, error: BaseException) -> None:
        for future in (self.seen, self.ended):
            if not future.done():
                future.set_exception(error)
            future.exception()  # whoever left meanwhile does not ask for it


class Endings:
    """Waits for the ends of workflows: one task looks for all who wait, at the workflows that a hint names.

    All that are waited for are looked at now and then, since a hint may be lost.
    """

    def __init__(self, database: Database, connections: Connections) -> None:
        self._database = database
        self._schema = database.schema
        self._connections = connections
        self._begin()
        forking.watch(self)

    def _begin(self) -> None:
        self._listener = Listener(self._database, done=self._hear, reconnected=self._hint_all)
        self._waiting: dict[UUID, set[_Waiter]] = {}
        self._due: dict[UUID, None] = {}
        self._ended = Recent()
        self._wanted = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def after_fork(self) -> None:
        """Those who wait, and the tasks, are the parent's."""
        forking.leave(self._listener, self._waiting, self._looking)
        self._begin()

    async def outcome(self, workflow_id: UUID, seconds: float | None) -> Standing | None:
        """How a workflow stands once it has ended, or after so many seconds; None: there is no such workflow.

        Raises:
            TimeoutError: the database did not answer.
        """
        self._connections.check_loop()
        waiter = _Waiter()
        self._waiting.setdefault(workflow_id, set()).add(waiter)
        if self._listener.listening.is_set() and is_fresh(workflow_id) and workflow_id not in self._ended:
            asyncio.get_running_loop().call_later(MOMENT, self._hint, [workflow_id])
        else:
            self._hint([workflow_id])
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="pgflow endings")
        start = time.monotonic()
        try:
            first = None if seconds is None else max(seconds, FIRST_LOOK)
            await asyncio.wait([waiter.seen], timeout=first)
            if not waiter.seen.done():
                raise TimeoutError(f"the database did not say in time how workflow {workflow_id} stands")
            waiter.seen.result()
            if not waiter.ended.done():
                self._listener.start()
                left = None if seconds is None else max(0.0, start + seconds - time.monotonic())
                await asyncio.wait([waiter.ended], timeout=left)
            if waiter.ended.done():
                waiter.ended.result()
            return waiter.last
        finally:
            self._leave(workflow_id, waiter)

    def _leave(self, workflow_id: UUID, waiter: _Waiter) -> None:
        waiters = self._waiting[workflow_id]
        waiters.discard(waiter)
        if not waiters:
            del self._waiting[workflow_id]
            self._wanted.set()

    async def _look(self) -> None:
        """Look at what is due, as long as anybody waits."""
        poll_at = time.monotonic() + POLL_BLIND
        while self._waiting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, poll_at - time.monotonic())):
                    await self._wanted.wait()
            self._wanted.clear()
            start = time.monotonic()
            if start >= poll_at:
                self._due.update(dict.fromkeys(self._waiting))
            due, self._due = [id for id in self._due if id in self._waiting], {}
            for first in range(0, len(due), LOOK_TOGETHER):
                await self._look_at(due[first : first + LOOK_TOGETHER])
            if start >= poll_at:
                now = time.monotonic()
                usual = POLL if self._listener.listening.is_set() else POLL_BLIND
                poll_at = now + max(usual, 10 * (now - start))

    async def _look_at(self, ids: Sequence[UUID]) -> None:
        try:
            found = await self._connections.execute(outcomes(self._schema, ids))
        except Exception as error:  # theirs to handle
            for id in ids:
                for waiter in self._waiting.get(id, ()):
                    waiter.fail(error)
            return
        for id in ids:
            for waiter in self._waiting.get(id, ()):
                waiter.see(found.get(id))

    def _hear(self, ids: Sequence[UUID]) -> None:
        self._ended.add(ids)
        self._hint(ids)

    def _hint(self, ids: Iterable[UUID]) -> None:
        for id in ids:
            if id in self._waiting:
                self._due[id] = None
                self._wanted.set()

    def _hint_all(self) -> None:
        self._hint(self._waiting)

    async def close(self) -> None:
        """Stop: whoever still waits is told so."""
        await self._listener.close()
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.fail(RuntimeError("this client is closed"))
        task, self._looking = self._looking, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
