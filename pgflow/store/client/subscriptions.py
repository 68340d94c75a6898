"""Subscriptions of the asynchronous client: one listening connection for all, and one task that looks at the table.

`subscriptions_sync.py` has the same names for the synchronous client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import psycopg

from pgflow import forking
from pgflow.store.client import topics
from pgflow.store.client.pool import POLL, POLL_BLIND, Connections
from pgflow.store.database.channels import Notice
from pgflow.store.database.connections import Database, tell_of_death
from pgflow.store.notify.messages import POLL_AT_ONCE, body, poll, start
from pgflow.store.notify.notifier import Listener

__all__ = ["Inbox", "Subscriptions"]

PATIENCE = 10.0
"""Seconds that a subscription waits for notifications to begin; after that only looking at the table tells."""

Inbox = topics.Inbox[asyncio.Event]

_log = logging.getLogger("pgflow.store")


class Subscriptions:
    """All subscriptions of one client."""

    def __init__(self, database: Database, connections: Connections) -> None:
        self._schema = database.schema
        self._connections = connections
        self._database = database
        self._closed = False
        self._begin()
        forking.watch(self)

    def _begin(self) -> None:
        self._topics = topics.Topics()
        self._listener = Listener(self._database, message=self._topics.hear, reconnected=self._look_now)
        self._due = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._reading: dict[int, asyncio.Task[str | None]] = {}

    def after_fork(self) -> None:
        """What is subscribed to is the parent's; others may be subscribed to."""
        for inbox in self._topics.inboxes():
            inbox.arrived = asyncio.Event()
            inbox.close(RuntimeError(topics.FORKED))
        forking.leave(self._topics, self._listener, self._looking, self._reading)
        self._begin()

    def inbox(self, name: str, tags: str, limit: int, last: bool) -> Inbox:
        """An inbox, into which nothing goes yet."""
        return Inbox(name, tags, limit, last, asyncio.Event())

    async def begin(self, inbox: Inbox) -> None:
        """Let messages come: all that are sent after this has returned.

        Raises:
            psycopg.Error: the database could not be asked.
            RuntimeError: the client is closed.
        """
        if inbox.begun or inbox.closed:
            return
        if self._closed:
            raise RuntimeError("this client is closed")
        self._connections.check_loop()
        self._topics.add(inbox)
        try:
            self._listener.start()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._listener.decided.wait()
            query = start(self._schema, inbox.name, inbox.tags, inbox.last)
            top, last = await self._connections.execute(query)
        except BaseException:
            self._topics.discard(inbox)
            raise
        self._topics.begin(inbox, top, last)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="pgflow messages")
            self._looking.add_done_callback(tell_of_death)

    async def take(self, inbox: Inbox, seconds: float | None) -> tuple[Notice, str] | None:
        """The next message and its body; None: the inbox was closed by its owner.

        Raises:
            TimeoutError: none has come within so many seconds.
            psycopg.Error: a large body could not be read; the message waits for the next call.
            RuntimeError: the client is closed.
        """
        async with asyncio.timeout(seconds):
            await self.begin(inbox)
            while True:
                notice = inbox.take()
                if notice is not None:
                    if (text := await self._body(inbox, notice)) is not None:
                        return notice, text
                elif inbox.closed:
                    if inbox.error is not None:
                        raise inbox.error
                    return None
                else:
                    await inbox.arrived.wait()

    async def _body(self, inbox: Inbox, notice: Notice) -> str | None:
        if notice.body is not None:
            return notice.body
        try:
            text = await asyncio.shield(self._read(notice))
        except BaseException:
            inbox.put_back(notice)
            raise
        if text is None:
            inbox.dropped += 1  # removed before its turn came
        return text

    def _read(self, notice: Notice) -> asyncio.Task[str | None]:
        """Read a large body, once for all who want it at the moment; it goes on when one of them no longer does."""
        reading = self._reading.get(notice.id)
        if reading is None:
            query = body(self._schema, notice)
            reading = asyncio.create_task(self._connections.execute(query), name="pgflow message body")
            self._reading[notice.id] = reading
            reading.add_done_callback(lambda done: self._has_read(notice.id, done))
        return reading

    def _has_read(self, id: int, reading: asyncio.Task[str | None]) -> None:
        del self._reading[id]
        if not reading.cancelled():
            reading.exception()  # theirs who wait for it; there may be nobody left

    def leave(self, inbox: Inbox) -> None:
        """End a subscription."""
        self._topics.discard(inbox)
        inbox.close()

    def _look_now(self) -> None:
        if self._looking is not None and not self._looking.done():
            self._topics.hold()
            self._due.set()

    async def _look(self) -> None:
        """Look at the table now and then: notifications may be lost, forbidden, or not sent at all."""
        pause = POLL_BLIND
        while self._topics:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._due.wait()
            self._due.clear()
            began = time.monotonic()
            holding = self._topics.holding  # else this look began before notifications came again
            try:
                while await self._look_once():
                    pass
            except psycopg.Error as error:
                _log.warning("looking for messages failed, it is tried again: %s", error)
            if holding:
                self._topics.release()
            usual = POLL if self._listener.listening.is_set() else POLL_BLIND
            pause = max(usual, 10 * (time.monotonic() - began))

    async def _look_once(self) -> bool:
        """Look; whether there may be more."""
        look = self._topics.ask()
        if look is None:
            return False
        query = poll(self._schema, look.after, look.known)
        top, notices = await self._connections.execute(query)
        return self._topics.find(look, top, notices) or len(notices) == POLL_AT_ONCE

    async def close(self) -> None:
        """End all subscriptions; whoever waits is told that the client is closed."""
        self._closed = True
        await self._listener.close()
        for inbox in self._topics.inboxes():
            inbox.close(RuntimeError("this client is closed"))
        await asyncio.gather(*self._reading.values(), return_exceptions=True)
        task, self._looking = self._looking, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
