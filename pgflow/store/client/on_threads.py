"""What threads do for a client in their own way: the same names as in `on_loop.py`, which says what they are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from time import sleep
from typing import Generic, TypeVar

from pgflow.store.client.joined import execute_blocking as execute_on
from pgflow.store.database.connections import Database
from pgflow.store.database.pipeline import flush_blocking as flush
from pgflow.store.database.pooler import Connection
from pgflow.store.database.query import ask_blocking as ask
from pgflow.store.database.retrying import Retries
from pgflow.store.database.sockets import hang_up
from pgflow.store.notify.receiving import receive_blocking as receive
from pgflow.store.schema.compatibility import check_blocking as check

__all__ = [
    "SingleCommit",
    "ThreadGuard",
    "ThreadHints",
    "ThreadOwner",
    "ThreadPlaces",
    "ThreadReads",
    "ThreadWork",
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

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

ThreadGuard = threading.Lock


class ThreadOwner:
    """The owner of a client: any thread."""

    def check(self) -> None:
        """Nobody is kept out."""


class ThreadPlaces(threading.Semaphore):
    """A bounded number of places."""

    def take(self, seconds: float | None) -> bool:
        """Take one; False: none became free within the given seconds."""
        return self.acquire(timeout=seconds)


class ThreadWork:
    """Background work of the client: a thread, started by the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.thread: threading.Thread | None = None

    def start(self, run: Callable[[], None]) -> None:
        """Begin, unless it has begun; the caller holds the lock."""
        if self.thread is None:
            self.thread = threading.Thread(target=run, name=self._name, daemon=True)
            self.thread.start()

    def end(self, connection: Connection | None) -> None:
        """Wake it, since it has been asked to stop; `connection` is the one that it may be waiting on."""
        if connection is not None:
            hang_up(connection)
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(1.0)


class ThreadHints:
    """Decides when a hint is sent: right behind the rows that it announces. If that fails, polling finds the work."""

    def __init__(self, database: Database) -> None:
        pass

    def leaves_now(self) -> bool:
        """Always."""
        return True

    def later(self, queue: str) -> None:
        """Nothing is gathered."""

    def close(self) -> None:
        """Nothing is left."""


class SingleCommit(Generic[A, B]):
    """Sends each thread's statement alone, on its own connection. The arguments are those of `GroupCommit`."""

    def __init__(self, send: Callable[[Sequence[A]], Sequence[B]], size: Callable[[A], int], limit: int) -> None:
        self._send = send

    def ask(self, item: A) -> B:
        """Send one, and wait for its answer."""
        (answer,) = self._send([item])
        return answer


class ThreadReads:
    """Each thread reads for itself."""

    def read(self, id: int, read: Callable[[], T]) -> T:
        """What `read` gives."""
        return read()

    def close(self) -> None:
        """Nothing is being read by anybody else."""


def within(seconds: float | None) -> contextlib.AbstractContextManager[None]:
    """Interrupts nothing: threads cannot be."""
    return contextlib.nullcontext()


def wait(event: threading.Event, seconds: float | None) -> bool:
    """Wait for an event; False: it has not come within the given seconds."""
    return event.wait(seconds)


def connect(database: Database, purpose: str, tries: Retries | None = None) -> Connection:
    """Open a connection, each host of the DSN within the time that is left for all tries.

    Raises:
        psycopg.OperationalError: It could not be.
    """
    return database.connect_blocking(purpose, within=None if tries is None else tries.left)
