"""What the synchronous client does its work with: the same names as in `client_async.py`, for threads."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import TypeVar
from uuid import UUID

import psycopg
from psycopg import sql

from pgflow.store.channels import done_channel, parse_done
from pgflow.store.compatibility import check_blocking as check
from pgflow.store.connections import Connection, Database, is_lost
from pgflow.store.joining import execute_blocking as execute_on
from pgflow.store.query import Query

__all__ = ["Connections", "Endings", "execute_on"]

T = TypeVar("T")

_log = logging.getLogger("pgflow.store")

TRIES = 4
"""Times that a statement is sent whose connection breaks, or that meets its like at the same moment."""


class Connections:
    """A bounded number of connections, opened when needed, each used by one statement at a time."""

    def __init__(self, database: Database, limit: int) -> None:
        self._database = database
        self._free: list[Connection] = []
        self._places = threading.Semaphore(limit)

    def check(self) -> None:
        """Connect, and see that server and schema fit; raises as `pgflow.store.compatibility.check` does."""
        with self._one() as connection:
            check(connection, self._database.schema)

    def execute(self, query: Query[T]) -> T:
        """Send a statement that may be sent again, and read its answer."""
        for attempt in range(TRIES):
            with self._one() as connection:
                try:
                    return query.read(connection.execute(query.sql, query.params).fetchall())
                except psycopg.errors.UniqueViolation:
                    if attempt == TRIES - 1:
                        raise
                except psycopg.OperationalError as error:
                    if attempt == TRIES - 1 or not is_lost(error, connection):
                        raise
            time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def _one(self) -> Iterator[Connection]:
        with self._places:
            try:
                connection = self._free.pop()
            except IndexError:
                connection = self._database.connect_blocking("client")
            try:
                yield connection
            finally:
                if not connection.closed:
                    self._free.append(connection)

    def close(self) -> None:
        """Close all that are free."""
        while self._free:
            self._free.pop().close()


class Endings:
    """Hints that workflows have ended, received by a thread that lives while somebody waits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._waiting: dict[UUID, set[threading.Event]] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._connection: Connection | None = None

    @contextlib.contextmanager
    def watch(self, workflow_id: UUID) -> Iterator[threading.Event]:
        """An event that is set when the workflow may have ended."""
        event = threading.Event()
        with self._lock:
            self._waiting.setdefault(workflow_id, set()).add(event)
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="pgflow endings", daemon=True)
                self._thread.start()
        try:
            yield event
        finally:
            with self._lock:
                self._waiting[workflow_id].discard(event)
                if not self._waiting[workflow_id]:
                    del self._waiting[workflow_id]

    def wait(self, event: threading.Event, seconds: float) -> None:
        """Wait for the event, so long at most, and clear it."""
        event.wait(seconds)
        event.clear()

    def _hint(self, ids: list[UUID]) -> None:
        with self._lock:
            for workflow_id in ids:
                for event in self._waiting.get(workflow_id, ()):
                    event.set()

    def _listen(self) -> None:
        channel = done_channel(self._database.schema)
        pause = 0.1
        while not self._closed.is_set():
            try:
                with self._database.connect_blocking("endings") as connection:
                    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                    pause = 0.1
                    with self._lock:
                        waiting = list(self._waiting)
                    self._hint(waiting)  # what was told before is missed: everybody looks
                    while not self._closed.is_set():
                        for told in connection.notifies(timeout=1.0):
                            self._hint(parse_done(told.payload))
            except psycopg.Error as error:
                _log.warning("no word of workflows that end, polling tells of them: %s", error)
                self._closed.wait(pause)
                pause = min(pause * 2, 10.0)

    def close(self) -> None:
        """Stop listening; the thread ends within a second."""
        self._closed.set()
