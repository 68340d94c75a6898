"""Servers that fall silent: their kernel acknowledges what is sent, and no answer ever comes.

A statement of the engine's has a timeout on the server, which answers by then, if only with an error. So a server from
which nothing has come for a little longer than that is frozen, or somebody in between is. Or it is a commit that waits
for a standby, which has no timeout; so another connection looks. If that gets no answer either, the connection is
closed. No request to cancel is sent, which a frozen server would not take. What became of the statement is not known,
as with any lost connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar
from weakref import ref

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.waiting import Ready

from pgflow.store.database import pooler
from pgflow.store.database.replication import ReplicationAwareAsyncConnection, ReplicationAwareConnection

T = TypeVar("T")

SLACK = 2.0
"""Seconds after the end of a statement's timeout by which the server must have said so."""

GIVE_UP = 1.0
"""Seconds that a request to cancel may take, and what it cancels to end."""

ASK_EVERY = 10.0
"""Seconds after which a connection that only listens checks that the server is alive."""

ANSWER = 5.0
"""Seconds that the answer to that may take."""

LOOK = 2
"""Seconds that such a look may take to connect, and again to be answered."""

ALIVE: tuple[bytes, Mapping[str, Any]] = (b"SELECT", {})
"""The question."""

INTERVAL = 0.1
"""Seconds between two looks at the clock of a thread that waits."""


class NoAnswer(psycopg.OperationalError, TimeoutError):
    """The database has said nothing for so long that it is not waited for any more; the connection is closed."""


class AnswerTimeout:
    """How long an answer is waited for, from one piece of it to the next.

    Args:
        silence: Seconds without a word from the server; None: any.
        until: The monotonic time by which the whole answer must be there; None: none.
        heard: When the server last sent something; None: now.
    """

    __slots__ = ("heard", "silence", "until")

    def __init__(self, silence: float | None, until: float | None, heard: float | None = None) -> None:
        self.silence, self.until = silence, until
        self.heard = time.monotonic() if heard is None else heard

    @property
    def due(self) -> float | None:
        """When it ends if nothing more arrives."""
        if self.silence is None:
            return self.until
        due = self.heard + self.silence
        return due if self.until is None else min(due, self.until)

    @property
    def over(self) -> bool:
        """Whether it is too late for the whole answer, whatever the server does."""
        return self.until is not None and time.monotonic() >= self.until

    def ended(self) -> NoAnswer | None:
        """The error with which it has ended, if it has."""
        due = self.due
        return None if due is None or time.monotonic() < due else self.no_answer()

    def no_answer(self) -> NoAnswer:
        """The error for a server that has been silent for so long."""
        return NoAnswer(
            f"the database, or what is in between, has said nothing for {time.monotonic() - self.heard:.3g} s: the "
            "connection was closed, and what became of the last statement is not known"
        )


def too_late() -> NoAnswer:
    """The error for an answer that was not complete in time."""
    return NoAnswer(
        "no answer came in time: the connection was closed, and what became of the last statement is not known"
    )


class SilenceTimer:
    """Ends the wait for a silent server: one timer for all exchanges of a connection, one after the other.

    Args:
        connection: The connection.
    """

    __slots__ = ("_connection", "_give_up", "_looking", "_loop", "_timer", "heard")

    def __init__(self, connection: EngineAsyncConnection) -> None:
        self._connection = ref(connection)
        self._give_up: Callable[[NoAnswer], None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.heard = 0.0
        """When the server said something last, on the monotonic clock."""

    def begin(self, loop: asyncio.AbstractEventLoop, give_up: Callable[[NoAnswer], None]) -> None:
        """Begin to watch an exchange, which is given up if the server falls silent."""
        self.heard = time.monotonic()
        self._give_up = give_up
        if self._timer is None:
            self._loop = loop
            self._arm()

    def end(self) -> None:
        """It has ended."""
        self._give_up = None

    def stop(self) -> None:
        """There will be no other exchange."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        connection = self._connection()
        if (
            self._loop is not None
            and connection is not None
            and connection.silence is not None
            and not connection.closed
        ):
            left = self.heard + connection.silence - time.monotonic()
            self._timer = self._loop.call_later(max(0.0, left), self._tick)

    def _tick(self) -> None:
        self._timer = None
        connection, give_up = self._connection(), self._give_up
        if connection is None or connection.silence is None or give_up is None or self._loop is None:
            return
        if time.monotonic() < self.heard + connection.silence:
            self._arm()
        elif self._looking is None:
            self._looking = self._loop.create_task(self._look(connection, give_up), name="pgflow look")

    async def _look(self, connection: EngineAsyncConnection, give_up: Callable[[NoAnswer], None]) -> None:
        try:
            lives = await connection.at_work()
        finally:
            self._looking = None
        if self._give_up is give_up and not lives:
            give_up(AnswerTimeout(None, None, self.heard).no_answer())
        elif self._give_up is not None:
            self.heard = max(self.heard, time.monotonic() if self._give_up is give_up else 0.0)
            if self._timer is None:
                self._arm()


class SilentServer:
    """What `bounded` returns when the server has been silent for too long; the exchange can be gone on with."""


def bounded(exchange: PQGen[T], patience: AnswerTimeout) -> Generator[Any, Any, T | SilentServer]:
    """An exchange that is interrupted when the time is over; for code that drives it and looks at the clock now and
    then.

    Raises:
        NoAnswer: The whole answer was not there in time.
    """
    try:
        wanted = next(exchange)
        while True:
            ready = yield wanted
            if ready & Ready.R:
                patience.heard = time.monotonic()
            elif not ready and (error := patience.ended()) is not None:
                if patience.over:
                    raise error
                return SilentServer()
            wanted = exchange.send(ready)
    except StopIteration as end:
        found: T = end.value
        return found


def in_time(exchange: PQGen[T], until: float) -> Generator[Any, Any, T]:
    """An exchange that must be through by a monotonic time.

    Raises:
        NoAnswer: It was not.
    """
    found = yield from bounded(exchange, AnswerTimeout(None, until))
    assert not isinstance(found, SilentServer)
    return found


class EngineConnection(ReplicationAwareConnection):
    """A connection of the engine that does not wait for ever for a silent server."""

    silence: float | None = None
    """Seconds without a word from the server after which the connection checks that it is alive."""
    conninfo = ""
    """Where to look."""

    def wait(self, gen: PQGen[T], interval: float = INTERVAL, timeout: float | None = None) -> T:
        """As psycopg's; what has a timeout waits for nothing that must come."""
        if self.silence is None or timeout is not None:
            return super().wait(gen, interval, timeout)
        patience = AnswerTimeout(self.silence, None)
        try:
            while isinstance(found := super().wait(bounded(gen, patience), interval), SilentServer):
                if not self._at_work():
                    raise patience.no_answer()
                patience.heard = time.monotonic()
        except NoAnswer:
            self.close()
            raise
        return found

    def _at_work(self) -> bool:
        try:
            with EngineConnection.connect(_beside(self), autocommit=True) as other:
                other.silence = LOOK
                return _works(self, other.execute(_LOOK % self.info.backend_pid).fetchone())
        except (psycopg.Error, OSError) as error:
            return _is_full(error)


class EngineAsyncConnection(ReplicationAwareAsyncConnection):
    """As `EngineConnection`, asynchronous. A cancelled task waits only a moment for a silent server."""

    silence: float | None = None
    """Seconds without a word from the server after which the connection checks that it is alive."""
    conninfo = ""
    """Where to look."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.watch = SilenceTimer(self)
        """Of exchanges that are driven past psycopg (`pipeline.py`)."""

    async def close(self) -> None:
        """As psycopg's."""
        self.watch.stop()
        await super().close()

    async def wait(self, gen: PQGen[T], interval: float = INTERVAL, timeout: float | None = None) -> T:
        """As psycopg's; what has a timeout waits for nothing that must come."""
        if self.silence is None or timeout is not None:
            return await super().wait(gen, interval, timeout)
        patience, socket = AnswerTimeout(self.silence, None), self.pgconn.socket
        try:
            while isinstance(
                found := await waiting.wait_async(bounded(gen, patience), socket, interval=interval), SilentServer
            ):
                if not await self.at_work():
                    raise patience.no_answer()
                patience.heard = time.monotonic()
        except NoAnswer:
            await self.close()
            raise
        except (asyncio.CancelledError, KeyboardInterrupt):
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                try:
                    async with asyncio.timeout(GIVE_UP):
                        await self.cancel_safe(timeout=GIVE_UP)
                        await waiting.wait_async(gen, socket, interval=interval)
                except psycopg.errors.QueryCanceled:
                    pass
                except (psycopg.Error, OSError):  # a timeout among them
                    await self.close()
                except BaseException:  # interrupted again
                    await self.close()
                    raise
            raise
        return found

    async def at_work(self) -> bool:
        """Whether the server lives and this session's commit waits for a standby, so that the wait goes on."""
        try:
            async with await EngineAsyncConnection.connect(_beside(self), autocommit=True) as other:
                other.silence = LOOK
                cursor = await other.execute(_LOOK % self.info.backend_pid)
                return _works(self, await cursor.fetchone())
        except (psycopg.Error, OSError) as error:
            return _is_full(error)


_LOOK = b"SELECT state IS NULL OR wait_event = 'SyncRep' FROM pg_catalog.pg_stat_activity WHERE pid = %d"
"""A role that may not see the session's state at least sees that the session is there."""


def _beside(connection: EngineConnection | EngineAsyncConnection) -> str:
    """Where another connection to the very same server leads."""
    info = connection.info
    place: dict[str, Any] = {"host": info.host or None, "port": info.port, "hostaddr": info.hostaddr or None}
    return make_conninfo(connection.conninfo, **place, target_session_attrs="any", connect_timeout=str(LOOK))


def _works(connection: EngineConnection | EngineAsyncConnection, row: tuple[Any, ...] | None) -> bool:
    return pooler.is_shared(connection) or (row is not None and bool(row[0]))


def _is_full(error: Exception) -> bool:
    """A server that refuses the look for want of connections is alive."""
    return isinstance(error, psycopg.errors.TooManyConnections)
