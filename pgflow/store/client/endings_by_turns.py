"""Waiting for the ends of workflows in threads: they take turns at reading the notifications, each for all of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from uuid import UUID

import psycopg
from psycopg import sql

from pgflow import forking
from pgflow.model.commands import Standing
from pgflow.store.client.endings import FIRST_LOOK, Waiting, between_looks
from pgflow.store.client.on_threads import ThreadWork
from pgflow.store.client.sync.pool import Connections
from pgflow.store.database.backoff import Backoff
from pgflow.store.database.channels import done_channel, parse_done
from pgflow.store.database.connections import Database
from pgflow.store.database.pipeline import flush_blocking
from pgflow.store.database.pooler import Connection, is_shared
from pgflow.store.database.silence import ALIVE, ANSWER, ASK_EVERY
from pgflow.store.notify.receiving import receive_blocking
from pgflow.store.queries.dispatching import standings

_log = logging.getLogger("pgflow.store")

QUIET = 1.0
"""Seconds without a waiter after which the thread reads the notifications, so that the server need not keep them."""

_LONGEST_PAUSE = 10.0


class _Waiter:
    """Somebody who waits for a workflow's end."""

    __slots__ = ("hinted", "woken")

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.hinted = False
        """A reason to look at the workflow has come up."""


class TurnEndings:
    """Waits for the ends of workflows.

    One of those who wait has the turn to read the notifications, for all of them, and asks on that same connection: no
    other thread and no other connection stands between the end of what it waits for and its answer. A thread that gives
    up the turn wakes another one to take it. A background thread connects, and takes the turn when nobody has waited
    for a while, so that the server can drop its notifications.
    """

    def __init__(self, database: Database, connections: Connections) -> None:
        self._database = database
        self._connections = connections
        self._closed = threading.Event()
        self._begin()
        forking.watch(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Waiting[_Waiter] = Waiting()
        self._work = ThreadWork("pgflow endings")
        self._listening: Connection | None = None
        self._turn = threading.Lock()
        """Held by the thread that uses the listening connection."""
        self._waited_at = 0.0
        self._woken = threading.Event()

    def after_fork(self) -> None:
        """Those who wait, the thread and its connection are the parent's."""
        forking.leave(self._waiting, self._work, self._listening)
        self._closed = _same(self._closed)
        self._begin()

    def standing(self, workflow_id: UUID, seconds: float | None) -> Standing | None:
        """How a workflow stands once it has ended, or after the given seconds; None: there is no such workflow."""
        until = None if seconds is None else time.monotonic() + seconds
        waiter = _Waiter()
        with self._lock:
            self._waiting.add(workflow_id, waiter)
            pause = self._waiting.until_first_look(workflow_id, self._listening is not None)
        try:
            self._wait(waiter, pause)
            while True:
                waiter.hinted = False
                standing = self._look(workflow_id, until)
                left = between_looks(self._listening is not None)
                if until is not None:
                    left = min(left, until - time.monotonic())
                if standing is None or standing.ended or left <= 0:
                    return standing
                self._start()
                self._wait(waiter, left)
        finally:
            with self._lock:
                self._waiting.discard(workflow_id, waiter)
            self._hand_on()

    def _look(self, workflow_id: UUID, until: float | None) -> Standing | None:
        if self._closed.is_set():
            raise RuntimeError("this client is closed")
        if until is not None:
            until = max(until, time.monotonic() + FIRST_LOOK)
        query = standings(self._database.schema, [workflow_id])
        connection = self._listening
        if connection is not None and self._turn.acquire(blocking=False):
            try:
                (answer,) = flush_blocking(connection, (query.sql, query.params), until=until)
                if not isinstance(answer, psycopg.Error):
                    return query.read(answer).get(workflow_id)
            except psycopg.OperationalError:
                self._lose(connection)
            finally:
                self._turn.release()
                self._hand_on()
        return self._connections.execute(query, until).get(workflow_id)

    def _wait(self, waiter: _Waiter, seconds: float) -> None:
        """Wait up to the given seconds for a hint: by reading, or until the thread that reads reports one."""
        until = time.monotonic() + seconds
        while not waiter.hinted and (left := until - time.monotonic()) > 0:
            self._waited_at = time.monotonic()
            connection = self._listening
            if connection is not None and self._turn.acquire(blocking=False):
                try:
                    receive_blocking(connection, self._hear, left, lambda: waiter.hinted)
                except psycopg.OperationalError:
                    self._lose(connection)
                finally:
                    self._turn.release()
                    self._hand_on()
            else:
                waiter.woken.wait(left)
                waiter.woken.clear()

    def _hand_on(self) -> None:
        """Let one of the waiting threads take the turn, if none has it."""
        if self._turn.locked():
            return
        with self._lock:
            for waiter in self._waiting.of(self._waiting):
                waiter.woken.set()
                return

    def _lose(self, connection: Connection) -> None:
        """Have another connection opened, since the one that listens broke."""
        connection.close()
        self._listening = None
        self._woken.set()

    def _start(self) -> None:
        with self._lock:
            if not self._closed.is_set():
                self._work.start(self._run)

    def _hear(self, channel: str, payload: str) -> None:
        self._hint(parse_done(payload), ended=True)

    def _hint(self, ids: Iterable[UUID], *, ended: bool = False) -> None:
        with self._lock:
            if ended:
                self._waiting.heard.add(ids)
            for waiter in self._waiting.of(ids):
                waiter.hinted = True
                waiter.woken.set()

    def _run(self) -> None:
        backoff = Backoff(0.1, _LONGEST_PAUSE)
        while not self._closed.is_set():
            began = time.monotonic()
            try:
                with self._database.connect_blocking("endings") as connection:
                    if is_shared(connection):
                        _log.info(
                            "notifications do not pass through a pooler: ends of workflows are found by polling alone"
                        )
                        return
                    self._listen(connection)
            except psycopg.OperationalError as error:
                if not self._closed.is_set():
                    _log.warning("listening for ends of workflows failed, polling finds them meanwhile: %s", error)
            except psycopg.Error as error:
                _log.info(
                    "notifications are not available here, ends of workflows are found by polling alone: %s", error
                )
                return
            finally:
                self._listening = None
            if time.monotonic() - began > _LONGEST_PAUSE:
                backoff.reset()
            self._closed.wait(backoff.pause())

    def _listen(self, connection: Connection) -> None:
        channel = done_channel(self._database.schema)
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        connection.add_notify_handler(lambda notify: self._hear(notify.channel, notify.payload))  # comes with an answer
        with self._lock:
            if self._closed.is_set():
                return
            self._listening = connection
            waiting = list(self._waiting)
        self._hint(waiting)  # what was sent before has been missed, so all waiters look
        ask_at = time.monotonic() + ASK_EVERY
        while not self._closed.is_set() and not connection.closed:
            if self._waiting or time.monotonic() - self._waited_at < QUIET:
                self._woken.wait(QUIET)
                self._woken.clear()
                continue
            with self._turn:
                receive_blocking(connection, self._hear, QUIET, self._closed.is_set)
                if time.monotonic() > ask_at and not self._closed.is_set():
                    flush_blocking(connection, ALIVE, until=time.monotonic() + ANSWER)  # does the server live?
                    ask_at = time.monotonic() + ASK_EVERY
            self._hand_on()
        with self._turn:
            connection.close()

    def close(self) -> None:
        """Stop listening; calls that still wait raise an error that says that the client is closed."""
        self._closed.set()
        self._woken.set()
        with self._lock:
            connection, waiting = self._listening, list(self._waiting)
        self._hint(waiting)
        self._work.end(connection)


def _same(event: threading.Event) -> threading.Event:
    """A new event in place of one whose lock may be held by a thread that does not exist in this process."""
    made = threading.Event()
    if event.is_set():
        made.set()
    return made
