"""The thread that keeps a worker's lease: CPU-bound code on the event loop must not cost a worker what it holds.

It has a synchronous connection of its own and does three things: it extends the lease well before it expires, it holds
a session lock by whose absence others notice a killed process at once, and it watches the connection, so that a
broken one is replaced before anybody takes the worker for dead.
"""

from __future__ import annotations

import logging
import random
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import psycopg

from pgflow import faults
from pgflow.store.database.connections import Database
from pgflow.store.database.incarnation import Incarnation, read_incarnation_blocking
from pgflow.store.database.pooler import Connection, is_shared
from pgflow.store.database.sockets import hang_up

_log = logging.getLogger("pgflow.store")

LAST_LOCKS = "2s"
"""How long a worker that signs off waits for its own last transactions."""

SHORTEST_SILENCE = 1.0
"""The least seconds that the server has to answer a heartbeat. It has a fifth of the lease if that is more, so that a
lease outlives a frozen server where there is another one to go to.
"""

RETRY = 0.1
"""Seconds between two attempts to connect again."""

NO_LOCK = 0
"""Stands for the lock of a session that has none."""

LOCKS_KNOWN = 1_000
"""The most of its past locks that a worker remembers."""

CLEARINGS = 10
"""The most times that a worker that has come back tries to clear the suspicions of its death."""


class LeaseThread(threading.Thread):
    """Registers a worker, then extends its lease until it is stopped or the lease is lost.

    Args:
        database: Where the worker registers, and the lease's length.
        row: Host, pid, version, queues and process of the worker.
        lost: Called once, in any thread, with the reason, when the lease can no longer be trusted.
        numbers: Gives the numbers of which one is the worker's in the database, once it is registered.
        doubt: Called in this thread when a new connection leads to another server, or to a restarted one.
        formerly: The numbers of its last registration, if that was lost.
    """

    def __init__(
        self,
        database: Database,
        row: dict[str, Any],
        lost: Callable[[str], None],
        numbers: Callable[[], Sequence[int]],
        doubt: Callable[[], None],
        formerly: Sequence[int] = (),
    ) -> None:
        super().__init__(name="pgflow heartbeat", daemon=True)
        self.registered: Future[Incarnation | None] = Future()
        """The server that the worker is registered at, as far as it says, or why the worker is not registered."""
        self.deadline = 0.0
        """The monotonic time until which the lease can be trusted: counted from before the heartbeat was sent."""
        self.lock_key: int | None = None
        """The session lock that the connection holds; None: the database does not let this role hold any."""
        self._database = database
        self._row = row
        self._lost = lost
        self._numbers = numbers
        self._doubt = doubt
        self.incarnation: Incarnation | None = None
        """The server that the last connection led to, as far as it says."""
        self._formerly = formerly
        self._locks: deque[int] = deque(maxlen=LOCKS_KNOWN)
        """The locks that its sessions have had: a heartbeat replaces none that was taken after it had been sent."""
        self._wronged = False
        """Whether runs may still be suspected of its death, though it lives."""
        self._connection: Connection | None = None
        self._stopping = threading.Event()
        self._woken, self._waker = socket.socketpair()

    # What other threads call

    def stop(self) -> None:
        """End, and hand back what the worker still holds, if the lease is good."""
        self._stopping.set()
        self._waker.send(b"x")

    def abandon(self) -> None:
        """End at once: cut a connection that does not answer."""
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            hang_up(connection)

    # The thread

    def run(self) -> None:
        """Register, keep the lease, return it."""
        try:
            self._register()
        except BaseException as error:
            self.registered.set_exception(error)
        else:
            self.registered.set_result(self.incarnation)
            reason = self._keep()
            if reason is None:
                self._return()
            else:
                self._lost(reason)
        finally:
            if self._connection is not None:
                self._connection.close()

    def _register(self) -> None:
        connection = self._connect()
        sent = time.monotonic()
        statement = self._database.statement("leases_register")
        (number,) = self._numbers()
        connection.execute(
            statement,
            {**self._row, "number": number, "lock_key": self.lock_key, "lease": self._database.lease},
        )
        self.deadline = sent + self._database.lease
        if self._formerly:
            self._clear(connection, list(self._formerly))

    def _clear(self, connection: Connection, formerly: list[int]) -> None:
        """Record that the process lives: what its last registration held is handed back, and no workflow is suspected
        of having killed it.

        Rows that others have locked are tried again for a while.
        """
        statement = self._database.statement
        ids = {"ids": formerly, "limit": 100_000, "gone": None, "confirm": None}
        try:
            with connection.transaction():
                connection.execute(statement("lock_timeout"), {"lock_timeout": LAST_LOCKS})
                for name in ("leases_close", "leases_free", "leases_bury"):
                    connection.execute(statement(name), ids)
        except psycopg.errors.LockNotAvailable as error:
            _log.info("what worker %d held is left to the recovery: %s", formerly[0], error)
        for _ in range(CLEARINGS):
            if not self._lift(connection, formerly):
                return
            self._stopping.wait(RETRY)

    def _lift(self, connection: Connection, numbers: Sequence[int]) -> bool:
        """Clear the suspicions about the death of these numbers; return whether some are left since others have their
        rows locked.
        """
        found = connection.execute(self._database.statement("leases_return"), {"workers": list(numbers)}).fetchone()
        return found is not None and found[0] > 0

    def _keep(self) -> str | None:
        """Send heartbeats until a stop is asked for (None), or until the lease is lost (the reason)."""
        every = self._database.lease / 4
        pause = every
        while True:
            self._wait(pause)
            if self._stopping.is_set():
                return None
            if time.monotonic() >= self.deadline:
                return f"no heartbeat reached the database for {self._database.lease:g} s"
            faults.hit("leases.before_heartbeat")
            try:
                if self._beat():
                    pause = min(pause * 2, every) if self._wronged else every
                    continue
            except psycopg.Error as error:
                _log.warning("a heartbeat of worker %d failed and is repeated: %s", self._numbers()[0], error)
                if self._connection is not None:
                    self._connection.close()
                pause = RETRY * random.uniform(0.5, 1.0)
            else:
                self.deadline = 0.0
                return "others have found the lease expired"

    def _beat(self) -> bool:
        connection = self._connection
        if connection is None or connection.closed:
            before = self.incarnation
            self._wronged = (
                True  # it may have been taken for dead, and some of its runs freed, while it had no connection
            )
            connection = self._connect()
            if before is not None and self.incarnation is not None and not before.same_start(self.incarnation):
                self._doubt()
        for _ in range(2):  # it may have moved to another number while the first one waited for its row
            sent = time.monotonic()
            found = connection.execute(
                self._database.statement("leases_extend"),
                {
                    "numbers": list(self._numbers()),
                    "lock_key": self.lock_key,
                    "locks": list(self._locks),
                    "lease": self._database.lease,
                },
            ).fetchone()
            if found is not None:
                self.deadline = sent + self._database.lease
                if self._wronged:
                    self._wronged = self._lift(connection, self._numbers())
                return True
        return False

    def _wait(self, seconds: float) -> None:
        """Sleep, but no longer than until a stop, or until something happens to the connection."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            connection = self._connection
            if connection is not None and not connection.closed:
                selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.select(min(seconds, max(0.0, self.deadline - time.monotonic())))

    def _connect(self) -> Connection:
        """Open the session and take its lock, under a key of its own: the last one may not have ended on the server."""
        connection = self._connection = self._database.connect_blocking(
            "heartbeat", within=self._database.lease / 5, silence=max(SHORTEST_SILENCE, self._database.lease / 5)
        )
        self.lock_key = self._take_lock(connection)
        self._locks.append(NO_LOCK if self.lock_key is None else self.lock_key)
        self.incarnation = read_incarnation_blocking(connection)
        return connection

    def _take_lock(self, connection: Connection) -> int | None:
        key = random.getrandbits(63)
        try:
            if is_shared(connection):
                return None
            (taken,) = connection.execute("SELECT pg_try_advisory_lock(%s::bigint)", [key]).fetchone() or (False,)
        except (psycopg.errors.InsufficientPrivilege, psycopg.NotSupportedError) as error:
            _log.info(
                "session locks are not available here, dead workers are found by their expired leases alone: %s", error
            )
            return None
        except psycopg.errors.UndefinedFunction as error:
            _log.info(
                "session locks are not available here, dead workers are found by their expired leases alone: %s", error
            )
            return None
        return key if taken else None

    def _return(self) -> None:
        """Hand back what is still held, and take the worker off the list.

        Its last transactions may still be under way though nobody waits for their answers: what a claim among them
        takes, and what they have locked, is handed back after them. It does not wait for a stranger who has locked it.
        """
        ids = {"ids": list(self._numbers()), "limit": 100_000, "gone": None, "confirm": None}
        connection, statement = self._connection, self._database.statement
        if connection is None or connection.closed:
            return
        try:
            try:
                with connection.transaction():
                    connection.execute(statement("lock_timeout"), {"lock_timeout": LAST_LOCKS})
                    for name in ("leases_close", "leases_wait", "leases_free", "leases_bury"):
                        connection.execute(statement(name), ids)
            except psycopg.errors.LockNotAvailable:
                for name in ("leases_free", "leases_bury"):
                    connection.execute(statement(name), ids)
        except psycopg.Error as error:
            _log.warning("worker %d could not sign off, others will notice: %s", self._numbers()[0], error)
