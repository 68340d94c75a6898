"""What an event loop does for a client in its own way; `on_threads.py` has the same names for threads.

Everything else is written once, for an event loop, in terms of these. From it `scripts/sync_twins.py` makes what stands
in `sync/`, with the names of `on_threads.py` in place of those of this file.

    LoopOwner      one event loop                               any thread
    LoopGuard      nothing comes between                        a lock
    LoopPlaces     a semaphore of the loop's                    one of threads
    LoopWork       a task                                       a thread
    LoopHints      those that follow at once are gathered       each leaves with what it tells of
    LoopReads      who wants the same waits for one reading     each reads for itself
    GroupCommit    signals of many leave together               each sends its own
    within         a task is interrupted                        a thread is not: it only waits no longer
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from asyncio import sleep
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from pgflow.store.client.group_commit import GroupCommit
from pgflow.store.client.joined import execute_async as execute_on
from pgflow.store.database.background import report_death
from pgflow.store.database.connections import Database
from pgflow.store.database.pipeline import flush
from pgflow.store.database.pooler import AsyncConnection
from pgflow.store.database.query import ask
from pgflow.store.database.retrying import Retries
from pgflow.store.notify.notifier import GATHER, Notifier
from pgflow.store.notify.receiving import receive
from pgflow.store.schema.compatibility import check_async as check

__all__ = [
    "GroupCommit",
    "LoopGuard",
    "LoopHints",
    "LoopOwner",
    "LoopPlaces",
    "LoopReads",
    "LoopWork",
    "ask",
    "check",
    "connect",
    "execute_on",
    "flush",
    "receive",
    "sleep",
    "wait",
    "within",
]

T = TypeVar("T")

within = asyncio.timeout
"""Interrupts what takes longer than the given seconds; None: never."""


class LoopOwner:
    """The owner of a client: the event loop on which it is used first."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> None:
        """Check that the connections, and all who wait, belong to the running event loop.

        Raises:
            RuntimeError: It is another.
        """
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        elif self._loop is not running:
            raise RuntimeError(
                "this client was opened on another event loop, to which its connections belong. Expected: a client for "
                "each loop (each `asyncio.run`, each thread that runs one); `SyncClient` serves any number of threads"
            )


class LoopGuard(contextlib.nullcontext[None]):
    """A lock that does nothing: without an `await` in between, nothing else runs."""


class LoopPlaces(asyncio.Semaphore):
    """A bounded number of places."""

    async def take(self, seconds: float | None) -> bool:
        """Take one; False: none became free within the given seconds."""
        if not self.locked():
            return await self.acquire()
        try:
            async with asyncio.timeout(seconds):
                return await self.acquire()
        except TimeoutError:
            return False


class LoopWork:
    """Background work of the client: a task, started by the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.task: asyncio.Task[None] | None = None

    def start(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin, unless it has begun."""
        if self.task is None:
            self.task = asyncio.create_task(run(), name=self._name)
            self.task.add_done_callback(report_death)

    async def end(self, connection: AsyncConnection | None) -> None:
        """Stop it; `connection` is the one it may be waiting on."""
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task


class LoopHints:
    """Decides when a hint is sent: right behind the rows that it announces, or, if one was just sent, gathered with
    others.
    """

    def __init__(self, database: Database) -> None:
        self._notifier = Notifier(database)
        self._next_at = 0.0

    def leaves_now(self) -> bool:
        """Whether the next one does."""
        now = time.monotonic()
        if now < self._next_at:
            return False
        self._next_at = now + GATHER
        return True

    def later(self, queue: str) -> None:
        """Gather one."""
        self._notifier.start()
        self._notifier.wake(queue)

    async def close(self) -> None:
        """Send what is left."""
        await self._notifier.close()


class LoopReads:
    """Reads once for all callers that want the same thing at the same time, even if one of them is cancelled."""

    def __init__(self) -> None:
        self._reading: dict[int, asyncio.Task[Any]] = {}

    async def read(self, id: int, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `read` returns, or has just returned to another caller for the same `id`."""
        reading: asyncio.Task[T] | None = self._reading.get(id)
        if reading is None:
            reading = self._reading[id] = asyncio.create_task(read(), name="pgflow message body")
            reading.add_done_callback(lambda done: self._has_read(id, done))
        return await asyncio.shield(reading)

    def _has_read(self, id: int, reading: asyncio.Task[Any]) -> None:
        del self._reading[id]
        if not reading.cancelled():
            reading.exception()  # it belongs to those who wait, and there may be nobody left

    async def close(self) -> None:
        """Wait for what is being read."""
        await asyncio.gather(*self._reading.values(), return_exceptions=True)


async def wait(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for an event; False: it has not come within the given seconds."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def connect(database: Database, purpose: str, tries: Retries | None = None) -> AsyncConnection:
    """Open a connection.

    Raises:
        psycopg.OperationalError: It could not be, or the time for all tries is over (`NoAnswer`).
    """
    return await _in_time(database.connect(purpose), tries)


async def _in_time(connecting: Awaitable[AsyncConnection], tries: Retries | None) -> AsyncConnection:
    if tries is None:
        return await connecting
    try:
        async with asyncio.timeout(tries.left) as limit:
            return await connecting
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise tries.late("it could not be connected to") from error
