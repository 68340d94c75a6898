"""Subscriptions of a client: one connection listens for all of them, and the table is looked at now and then.

    connect -- LISTEN -> look -- the table is read -> receive -- POLL seconds -> ask whether the server lives --.
       ^ |                ^                                                                                     |
       | |                '-------------------------------------------------------------------------------------'
       | '- no notifications here -> look, every POLL_BLIND seconds
       '--- the connection broke, or could not be opened (then a look as well)

What was sent while nobody listened is found by the look. Until that has ended, notifications wait in the socket, so
that none overtakes what was missed.
"""

from __future__ import annotations

import asyncio
import logging
import time

import psycopg
from psycopg import sql

from pgflow import forking
from pgflow.store.client import topics
from pgflow.store.client.endings import FIRST_LOOK, between_looks
from pgflow.store.client.on_loop import LoopGuard, LoopReads, LoopWork, connect, flush, receive, wait, within
from pgflow.store.client.pool import Connections
from pgflow.store.database.backoff import Backoff
from pgflow.store.database.channels import Notice, message_channel, parse_message
from pgflow.store.database.connections import Database
from pgflow.store.database.pooler import AsyncConnection, is_shared
from pgflow.store.database.silence import ALIVE, ANSWER
from pgflow.store.notify.messages import POLL_AT_ONCE, body, poll, start

__all__ = ["Inbox", "Subscriptions"]

PATIENCE = 10.0
"""Seconds that a subscription waits for notifications to begin; after that it only looks at the table."""

Inbox = topics.Inbox[asyncio.Event]

_log = logging.getLogger("pgflow.store")


class Subscriptions:
    """All subscriptions of one client."""

    def __init__(self, database: Database, connections: Connections) -> None:
        self._database = database
        self._connections = connections
        self._closed = asyncio.Event()
        self._begin()
        forking.watch(self)

    def _begin(self) -> None:
        self._guard = LoopGuard()
        self._topics = topics.Topics()
        self._work = LoopWork("pgflow messages")
        self._bodies = LoopReads()
        self._listening: AsyncConnection | None = None
        self._decided = asyncio.Event()
        """Set once notifications have begun to arrive, or it is known that none will."""

    def after_fork(self) -> None:
        """What is subscribed to is the parent's; others may be subscribed to."""
        for inbox in self._topics.inboxes():
            inbox.arrived = asyncio.Event()
            inbox.close(RuntimeError(topics.FORKED))
        forking.leave(self._topics, self._work, self._bodies, self._listening)
        closed, self._closed = self._closed, asyncio.Event()
        if closed.is_set():
            self._closed.set()
        self._begin()

    def inbox(self, name: str, tags: str, limit: int, last: bool) -> Inbox:
        """An inbox, into which nothing goes yet."""
        return Inbox(name, tags, limit, last, asyncio.Event())

    async def begin(self, inbox: Inbox, until: float | None = None) -> None:
        """Let messages come: all that are sent after this has returned.

        Args:
            inbox: Into which they go.
            until: The monotonic time until which the caller waits for it; None: any.

        Raises:
            psycopg.Error: The database could not be asked.
            RuntimeError: The client is closed.
        """
        if inbox.begun or inbox.closed:
            return
        if self._closed.is_set():
            raise RuntimeError("this client is closed")
        self._connections.check_owner()
        with self._guard:
            self._topics.add(inbox)
            self._work.start(self._run)
        try:
            now = time.monotonic()
            await wait(self._decided, PATIENCE if until is None else min(PATIENCE, max(0.0, until - now)))
            query = start(self._database.schema, inbox.name, inbox.tags, inbox.last)
            top, last = await self._connections.execute(query, None if until is None else max(until, now + FIRST_LOOK))
        except BaseException:
            with self._guard:
                self._topics.discard(inbox)
            raise
        with self._guard:
            self._topics.begin(inbox, top, last)

    async def take(self, inbox: Inbox, seconds: float | None) -> tuple[Notice, str] | None:
        """The next message and its body; None: the inbox was closed by its owner.

        Raises:
            TimeoutError: None has come within the given seconds.
            psycopg.Error: A large body could not be read; the message waits for the next call.
            RuntimeError: The client is closed.
        """
        until = None if seconds is None else time.monotonic() + seconds
        async with within(seconds):
            await self.begin(inbox, until)
            while True:
                with self._guard:
                    notice = inbox.take()
                if notice is not None:
                    if (text := await self._body(inbox, notice)) is not None:
                        return notice, text
                elif inbox.closed:
                    if inbox.error is not None:
                        raise inbox.error
                    return None
                elif not await wait(inbox.arrived, None if until is None else max(0.0, until - time.monotonic())):
                    raise TimeoutError

    async def _body(self, inbox: Inbox, notice: Notice) -> str | None:
        if notice.body is not None:
            return notice.body
        try:
            text = await self._bodies.read(notice.id, lambda: self._read(notice))
        except BaseException:
            with self._guard:
                inbox.put_back(notice)
            raise
        if text is None:
            with self._guard:
                inbox.dropped += 1  # removed before its turn came
        return text

    async def _read(self, notice: Notice) -> str | None:
        return await self._connections.execute(body(self._database.schema, notice))

    def leave(self, inbox: Inbox) -> None:
        """End a subscription."""
        with self._guard:
            self._topics.discard(inbox)
            inbox.close()

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._closed.is_set():
            try:
                async with await connect(self._database, "messages") as connection:
                    if not await self._listen(connection):
                        break
                    backoff.reset()
                    await self._receive(connection)
            except psycopg.OperationalError as error:
                if not self._closed.is_set():
                    _log.warning("no word of messages, it is tried again: %s", error)
                if self._listening is None:
                    await self._look()  # until then nothing else finds them
            except psycopg.Error as error:  # the server refuses to listen, or does not know what that is
                _log.info(
                    "notifications are not available here, messages are found by looking at the table alone: %s", error
                )
                break
            finally:
                with self._guard:
                    self._listening = None
            await wait(self._closed, backoff.pause())
        self._decided.set()
        while not self._closed.is_set():
            await wait(self._closed, await self._look(listening=False))

    async def _listen(self, connection: AsyncConnection) -> bool:
        """Begin to listen; whether notifications will come."""
        if is_shared(connection):
            _log.info("notifications do not pass through a pooler: messages are found by looking at the table alone")
            return False
        channel = message_channel(self._database.schema)
        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        connection.add_notify_handler(lambda notify: self._hear(notify.channel, notify.payload))  # comes with an answer
        with self._guard:
            if self._closed.is_set():
                return False
            self._listening = connection
        self._decided.set()
        return True

    async def _receive(self, connection: AsyncConnection) -> None:
        while not self._closed.is_set():
            pause = await self._look(listening=True)
            await receive(connection, self._hear, pause)
            await flush(connection, ALIVE, until=time.monotonic() + ANSWER)  # a server that is silent is given up

    def _hear(self, channel: str, payload: str) -> None:
        if (notice := parse_message(payload)) is not None:
            with self._guard:
                self._topics.hear(notice)

    async def _look(self, *, listening: bool = False) -> float:
        """Look at the table until nothing more is found; seconds until the next look."""
        usual, began = between_looks(listening), time.monotonic()
        try:
            while not self._closed.is_set() and await self._look_once():
                pass
        except psycopg.Error as error:
            _log.warning("looking for messages failed, it is tried again: %s", error)
            return usual
        except RuntimeError:  # the client has been closed
            if not self._closed.is_set():
                raise
        return max(usual, 10 * (time.monotonic() - began))

    async def _look_once(self) -> bool:
        """Look; whether there may be more."""
        with self._guard:
            look = self._topics.ask()
        if look is None:
            return False
        query = poll(self._database.schema, look.after, look.known)
        top, notices = await self._connections.execute(query)
        with self._guard:
            return self._topics.find(look, top, notices) or len(notices) == POLL_AT_ONCE

    async def close(self) -> None:
        """End all subscriptions; calls that wait raise an error that says that the client is closed."""
        self._closed.set()
        with self._guard:
            connection = self._listening
            for inbox in self._topics.inboxes():
                inbox.close(RuntimeError("this client is closed"))
        self._decided.set()
        await self._bodies.close()
        await self._work.end(connection)
