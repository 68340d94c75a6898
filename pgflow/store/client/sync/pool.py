"""What the synchronous client does its work with: the same names as in `client_async.py`, for threads."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar
from uuid import UUID

import psycopg
from psycopg import sql

from pgflow import forking
from pgflow.definitions.calls import Sending, Sent, Standing
from pgflow.store.client.caller import execute_blocking as execute_on
from pgflow.store.client.caller import mail_blocking as mail_on
from pgflow.store.client.caller import wake_blocking as wake_on
from pgflow.store.database import standby
from pgflow.store.database.channels import Recent, done_channel, parse_done
from pgflow.store.database.connections import Connection, Database
from pgflow.store.database.pipeline import Statement, flush_blocking, rows_of, tell_of_lost_hints
from pgflow.store.database.pooler import is_shared
from pgflow.store.database.query import Query
from pgflow.store.database.retrying import Tries, is_meeting, with_id
from pgflow.store.database.silence import ALIVE, ANSWER, ASK_EVERY, NoAnswer
from pgflow.store.queries.dispatching import outcomes, reach, wake
from pgflow.store.queries.signalling import mail_behind, send
from pgflow.store.schema.compatibility import check_blocking as check
from pgflow.uuid7 import MOMENT, is_fresh

__all__ = ["Connections", "Endings", "execute_on", "mail_on", "wake_on"]

T = TypeVar("T")

_log = logging.getLogger("pgflow.store")

POLL = 5.0
"""Seconds between two looks at a workflow that somebody waits for, while notifications come."""

POLL_BLIND = 0.5
"""The same while none come."""

QUIET = 1.0
"""Seconds without anybody who waits after which the thread reads what is told, so that the server need not keep it."""

FIRST_LOOK = 1.0
"""Seconds that a look at a workflow may take however short the caller's timeout is."""

_LONGEST_PAUSE = 10.0


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
        self._closed = False
        self._begin()
        forking.watch(self)

    def _begin(self) -> None:
        self._free: list[Connection] = []
        self._places = threading.Semaphore(self._limit)

    def after_fork(self) -> None:
        """Connections are the parent's, and so are the places that its threads have taken."""
        forking.leave(self._free)
        self._begin()

    def check(self) -> None:
        """Connect, and see that server and schema fit; raises as `pgflow.store.schema.compatibility.check` does."""
        with self._one(Tries(self._timeout)) as connection:
            check(connection, self._database.schema)
        may_notify, is_standby = self.execute(reach(self._database.schema))
        self._may_notify = self.hints and may_notify
        standby.tell(is_standby)

    def execute(self, query: Query[T], until: float | None = None) -> T:
        """Send a statement that may be sent again, and read its answer.

        Parameters:
            query: the statement.
            until: the monotonic time by which the caller wants the answer.

        Raises:
            psycopg.Error: it failed, and another try would not help or did not.
            NoAnswer: none came in time.
            RuntimeError: the client is closed.
        """
        return self._exchange(query, [], until)

    def start(self, query: Query[T], queue: str | None, id: UUID | None) -> T:
        """Send a dispatch, and a hint at the queue that has work then; raises as `execute` does.

        Parameters:
            queue: None: it has none yet.
            id: the work, if it is a single workflow.
        """
        hints = [] if queue is None else [wake(self._database.schema, [queue], id=id, quick=True)]
        try:
            return self._exchange(query, [(hint.sql, hint.params) for hint in hints])
        except NoAnswer as error:
            raise error if id is None else with_id(error, id, "workflow") from error

    def _exchange(self, query: Query[T], behind: Sequence[Statement], until: float | None = None) -> T:
        tries = Tries(self._timeout, until)
        hints = behind if self._may_notify else []
        while True:
            try:
                with self._one(tries) as connection:
                    answer, *told = flush_blocking(connection, (query.sql, query.params), *hints, until=tries.until)
                    found = rows_of(standby.refuse(answer, connection))
            except psycopg.Error as error:
                if query.again is not None and is_meeting(error):
                    query = query.again()
                    continue
                pause = tries.pause(error)
                if isinstance(error, psycopg.OperationalError):
                    self._drop_free()  # most likely they broke as well
            else:
                tell_of_lost_hints(told)
                return query.read(found)
            time.sleep(pause)

    def send(self, sending: Sending) -> Sent:
        """Send a signal; raises as `execute` does."""
        schema = self._database.schema
        try:
            (sent,) = self._exchange(send(schema, [sending]), [mail_behind(schema, [sending])])
        except NoAnswer as error:
            raise with_id(error, sending.id, "signal") from error
        return sent

    @contextlib.contextmanager
    def _one(self, tries: Tries) -> Iterator[Connection]:
        places = self._places
        if not places.acquire(timeout=tries.left):
            raise tries.late("all connections of the client are in use")
        try:
            if self._closed:
                raise RuntimeError("this client is closed")
            try:
                connection = self._free.pop()
            except IndexError:
                connection = self._database.connect_blocking("client", within=tries.left)
            try:
                yield connection
            finally:
                if not self._closed and _is_idle(connection):
                    self._free.append(connection)
                else:
                    connection.close()
        finally:
            places.release()

    def _drop_free(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._free.pop().close()

    def close(self) -> None:
        """Close all connections; those in use when their statement has ended."""
        self._closed = True
        self._drop_free()


def _is_idle(connection: Connection) -> bool:
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


class _Waiter:
    """Somebody who waits for a workflow's end."""

    __slots__ = ("hinted", "woken")

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.hinted = False
        """A reason to look at the workflow has come up."""


class Endings:
    """Waits for the ends of workflows.

    One of those who wait has the turn to read the notifications, for all of them, and asks on that same connection: no
    other thread and no other connection stands between the end of what it waits for and its answer. Whoever gives the
    turn up wakes another one to take it. A thread connects, and takes the turn when nobody has waited for a while, so
    that the server is rid of what it tells.
    """

    def __init__(self, database: Database, connections: Connections) -> None:
        self._database = database
        self._connections = connections
        self._closed = threading.Event()
        self._begin()
        forking.watch(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[UUID, set[_Waiter]] = {}
        self._ended = Recent()
        self._thread: threading.Thread | None = None
        self._listening: Connection | None = None
        self._turn = threading.Lock()
        """Held by whoever uses the connection that listens."""
        self._waited_at = 0.0
        self._stirred = threading.Event()

    def after_fork(self) -> None:
        """Those who wait, the thread and its connection are the parent's."""
        forking.leave(self._waiting, self._thread, self._listening)
        self._closed = _same(self._closed)
        self._begin()

    def outcome(self, workflow_id: UUID, seconds: float | None) -> Standing | None:
        """How a workflow stands once it has ended, or after so many seconds; None: there is no such workflow."""
        until = None if seconds is None else time.monotonic() + seconds
        waiter = _Waiter()
        with self._lock:
            self._waiting.setdefault(workflow_id, set()).add(waiter)
            soon = self._listening and is_fresh(workflow_id) and workflow_id not in self._ended
        try:
            if soon:
                self._wait(waiter, MOMENT)
            while True:
                waiter.hinted = False
                outcome = self._look(workflow_id, until)
                left = POLL if self._listening else POLL_BLIND
                if until is not None:
                    left = min(left, until - time.monotonic())
                if outcome is None or outcome.ended or left <= 0:
                    return outcome
                self._start()
                self._wait(waiter, left)
        finally:
            with self._lock:
                waiters = self._waiting[workflow_id]
                waiters.discard(waiter)
                if not waiters:
                    del self._waiting[workflow_id]
            self._hand_on()

    def _look(self, workflow_id: UUID, until: float | None) -> Standing | None:
        if self._closed.is_set():
            raise RuntimeError("this client is closed")
        if until is not None:
            until = max(until, time.monotonic() + FIRST_LOOK)
        query = outcomes(self._database.schema, [workflow_id])
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
        """Wait for a hint, so many seconds at most: reading, or until whoever reads says so."""
        until = time.monotonic() + seconds
        while not waiter.hinted and (left := until - time.monotonic()) > 0:
            self._waited_at = time.monotonic()
            connection = self._listening
            if connection is not None and self._turn.acquire(blocking=False):
                try:
                    self._read(connection, until, lambda: waiter.hinted)
                except psycopg.OperationalError:
                    self._lose(connection)
                finally:
                    self._turn.release()
                    self._hand_on()
            else:
                waiter.woken.wait(left)
                waiter.woken.clear()

    def _read(self, connection: Connection, until: float, enough: Callable[[], bool]) -> None:
        """Read notifications until it is enough or the time has come; whoever calls it has the turn."""
        pgconn = connection.pgconn
        with selectors.DefaultSelector() as selector:
            selector.register(pgconn.socket, selectors.EVENT_READ)
            while True:
                pgconn.consume_input()
                while (told := pgconn.notifies()) is not None:
                    self._hear(told.extra.decode())
                if enough() or (left := until - time.monotonic()) <= 0:
                    return
                selector.select(left)

    def _hand_on(self) -> None:
        """Have somebody who waits take the turn, if nobody has it."""
        if self._turn.locked():
            return
        with self._lock:
            for waiters in self._waiting.values():
                for waiter in waiters:
                    waiter.woken.set()
                    return

    def _lose(self, connection: Connection) -> None:
        """The connection that listens broke: another is opened."""
        connection.close()
        self._listening = None
        self._stirred.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="pgflow endings", daemon=True)
                self._thread.start()

    def _hear(self, payload: str) -> None:
        ids = parse_done(payload)
        self._hint(ids, ended=True)

    def _hint(self, ids: Iterable[UUID], *, ended: bool = False) -> None:
        with self._lock:
            if ended:
                self._ended.add(ids)
            for workflow_id in ids:
                for waiter in self._waiting.get(workflow_id, ()):
                    waiter.hinted = True
                    waiter.woken.set()

    def _run(self) -> None:
        pause = 0.1
        while not self._closed.is_set():
            began = time.monotonic()
            try:
                with self._database.connect_blocking("endings") as connection:
                    if is_shared(connection):
                        _log.info("no notifications through a pooler, polling alone tells of ends")
                        return
                    self._listen(connection)
            except psycopg.OperationalError as error:
                if not self._closed.is_set():
                    _log.warning("no word of workflows that end, polling tells of them: %s", error)
            except psycopg.Error as error:
                _log.info("no notifications here, polling alone tells of ends: %s", error)
                return
            finally:
                self._listening = None
            if time.monotonic() - began > _LONGEST_PAUSE:
                pause = 0.1
            self._closed.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _listen(self, connection: Connection) -> None:
        channel = done_channel(self._database.schema)
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        connection.add_notify_handler(lambda told: self._hear(told.payload))  # what comes with the answer to a question
        with self._lock:
            if self._closed.is_set():
                return
            self._listening = connection
            waiting = list(self._waiting)
        self._hint(waiting)  # what was told before is missed: everybody looks
        ask_at = time.monotonic() + ASK_EVERY
        while not self._closed.is_set() and not connection.closed:
            if self._waiting or time.monotonic() - self._waited_at < QUIET:
                self._stirred.wait(QUIET)
                self._stirred.clear()
                continue
            with self._turn:
                self._read(connection, time.monotonic() + QUIET, self._closed.is_set)
                if time.monotonic() > ask_at and not self._closed.is_set():
                    flush_blocking(connection, ALIVE, until=time.monotonic() + ANSWER)  # does the server live?
                    ask_at = time.monotonic() + ASK_EVERY
            self._hand_on()
        with self._turn:
            connection.close()

    def close(self) -> None:
        """Stop listening; whoever still waits is told that the client is closed."""
        self._closed.set()
        self._stirred.set()
        with self._lock:
            connection, thread = self._listening, self._thread
            waiting = list(self._waiting)
        self._hint(waiting)
        if connection is not None:
            hang_up(connection)
        if thread is not None:
            thread.join(1.0)


def _same(event: threading.Event) -> threading.Event:
    """An event like one whose lock may be held by a thread that is not there."""
    made = threading.Event()
    if event.is_set():
        made.set()
    return made


def hang_up(connection: Connection) -> None:
    """End a connection that another thread waits on: that its other end is gone is what wakes it."""
    with contextlib.suppress(OSError, psycopg.Error):
        with socket.socket(fileno=os.dup(connection.fileno())) as ending:
            ending.shutdown(socket.SHUT_RDWR)
