"""Subscriptions of the synchronous client: one thread listens for all of them and looks at the table now and then."""

from __future__ import annotations

import contextlib
import logging
import threading
import time

import psycopg
from psycopg import sql

from pgflow import forking
from pgflow.store.client import topics
from pgflow.store.client.sync.pool import POLL, POLL_BLIND, Connections, hang_up
from pgflow.store.database.channels import Notice, message_channel, parse_message
from pgflow.store.database.connections import FIRST_BACKOFF, LONGEST_BACKOFF, Connection, Database
from pgflow.store.database.pooler import is_shared
from pgflow.store.notify.messages import POLL_AT_ONCE, body, poll, start

__all__ = ["Inbox", "Subscriptions"]

PATIENCE = 10.0
"""Seconds that a subscription waits for notifications to begin; after that only looking at the table tells."""

Inbox = topics.Inbox[threading.Event]

_log = logging.getLogger("pgflow.store")


class Subscriptions:
    """All subscriptions of one client."""

    def __init__(self, database: Database, connections: Connections) -> None:
        self._database = database
        self._connections = connections
        self._closed = threading.Event()
        self._begin()
        forking.watch(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._topics = topics.Topics()
        self._thread: threading.Thread | None = None
        self._listening: Connection | None = None
        self._blind = False
        self._decided = threading.Event()

    def after_fork(self) -> None:
        """What is subscribed to is the parent's; others may be subscribed to."""
        for inbox in self._topics.inboxes():
            inbox.arrived = threading.Event()
            inbox.close(RuntimeError(topics.FORKED))
        forking.leave(self._thread, self._listening)
        closed, self._closed = self._closed, threading.Event()
        if closed.is_set():
            self._closed.set()
        self._begin()

    def inbox(self, name: str, tags: str, limit: int, last: bool) -> Inbox:
        """An inbox, into which nothing goes yet."""
        return Inbox(name, tags, limit, last, threading.Event())

    def begin(self, inbox: Inbox) -> None:
        """Let messages come: all that are sent after this has returned.

        Raises:
            psycopg.Error: the database could not be asked.
            RuntimeError: the client is closed.
        """
        if inbox.begun or inbox.closed:
            return
        if self._closed.is_set():
            raise RuntimeError("this client is closed")
        with self._lock:
            self._topics.add(inbox)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pgflow messages", daemon=True)
                self._thread.start()
        try:
            self._decided.wait(PATIENCE)
            query = start(self._database.schema, inbox.name, inbox.tags, inbox.last)
            top, last = self._connections.execute(query)
        except BaseException:
            with self._lock:
                self._topics.discard(inbox)
            raise
        with self._lock:
            self._topics.begin(inbox, top, last)

    def take(self, inbox: Inbox, seconds: float | None) -> tuple[Notice, str] | None:
        """The next message and its body; None: the inbox was closed by its owner.

        Raises:
            TimeoutError: none has come within so many seconds.
            psycopg.Error: a large body could not be read; the message waits for the next call.
            RuntimeError: the client is closed.
        """
        until = None if seconds is None else time.monotonic() + seconds
        self.begin(inbox)
        while True:
            with self._lock:
                notice = inbox.take()
            if notice is not None:
                if (text := self._body(inbox, notice)) is not None:
                    return notice, text
            elif inbox.closed:
                if inbox.error is not None:
                    raise inbox.error
                return None
            elif until is None:
                inbox.arrived.wait()
            elif not inbox.arrived.wait(max(0.0, until - time.monotonic())):
                raise TimeoutError

    def _body(self, inbox: Inbox, notice: Notice) -> str | None:
        if notice.body is not None:
            return notice.body
        try:
            text = self._connections.execute(body(self._database.schema, notice))
        except BaseException:
            with self._lock:
                inbox.put_back(notice)
            raise
        if text is None:
            with self._lock:
                inbox.dropped += 1  # removed before its turn came
        return text

    def leave(self, inbox: Inbox) -> None:
        """End a subscription."""
        with self._lock:
            self._topics.discard(inbox)
            inbox.close()

    def _run(self) -> None:
        backoff = FIRST_BACKOFF
        while not self._closed.is_set():
            try:
                if self._blind:
                    self._closed.wait(self._look(POLL_BLIND))
                    continue
                with self._database.connect_blocking("messages") as connection:
                    if self._listen(connection):
                        backoff = FIRST_BACKOFF
                        self._receive(connection)
            except psycopg.OperationalError as error:
                if not self._closed.is_set():
                    _log.warning("no word of messages, it is tried again: %s", error)
                self._closed.wait(backoff)
                backoff = min(backoff * 2, LONGEST_BACKOFF)
            except psycopg.Error as error:
                _log.info("no notifications here, looking at the table alone tells of messages: %s", error)
                self._blind = True
                self._closed.wait(POLL_BLIND)
            except RuntimeError:
                if not self._closed.is_set():
                    raise
            finally:
                with self._lock:
                    self._listening = None
                if self._blind:
                    self._decided.set()

    def _listen(self, connection: Connection) -> bool:
        """Begin to listen; whether notifications will come."""
        if is_shared(connection):
            _log.info("no notifications through a pooler, looking at the table alone tells of messages")
            self._blind = True
            return False
        channel = message_channel(self._database.schema)
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        with self._lock:
            if self._closed.is_set():
                return False
            self._listening = connection
        self._decided.set()
        return True

    def _receive(self, connection: Connection) -> None:
        while not self._closed.is_set():
            pause = self._look(POLL)  # what was sent before is missed
            for told in connection.notifies(timeout=pause):
                if (notice := parse_message(told.payload)) is not None:
                    with self._lock:
                        self._topics.hear(notice)
            connection.execute("SELECT")  # does the server live? One that is silent is given up in time

    def _look(self, usual: float) -> float:
        """Look at the table until nothing more is found; seconds until the next look."""
        began = time.monotonic()
        more = True
        while more and not self._closed.is_set():
            with self._lock:
                look = self._topics.ask()
            if look is None:
                break
            query = poll(self._database.schema, look.after, look.known)
            top, notices = self._connections.execute(query)
            with self._lock:
                more = self._topics.find(look, top, notices) or len(notices) == POLL_AT_ONCE
        return max(usual, 10 * (time.monotonic() - began))

    def close(self) -> None:
        """End all subscriptions; whoever waits is told that the client is closed."""
        self._closed.set()
        with self._lock:
            connection, thread = self._listening, self._thread
            for inbox in self._topics.inboxes():
                inbox.close(RuntimeError("this client is closed"))
        self._decided.set()
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                hang_up(connection)
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)
