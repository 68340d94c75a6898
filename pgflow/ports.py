"""What execution asks of the world, in plain data: rows to write, runs to claim, loops to advance.

Execution decides *what* becomes durable and never sees SQL; the store decides *how*. The objects here are all that
crosses between the two. Times are the database's; durations are seconds.
"""

from __future__ import annotations

from concurrent.futures import Future
from datetime import datetime
from typing import Any, Protocol

from pgflow.model.writes import Advance, Crossing, Inquiry, Write


class JournalPort(Protocol):
    """Where runs hand over what must be durable (group commit)."""

    def write(self, write: Write) -> None:
        """Take one write; it is in the next transaction, or in a later one when its run's row is busy."""
        ...


class TransactionPort(Protocol):
    """A transaction that commits an activity's result together with the activity's own statements."""

    @property
    def connection(self) -> Any:
        """What the activity works with."""
        ...

    async def commit(self, write: Write) -> datetime:
        """Write what belongs to the result and make all of it durable; returns the time of that. If this raises,
        nothing is durable.
        """
        ...

    async def rollback(self) -> None:
        """Undo everything."""
        ...

    async def abort(self, work: Future[Any]) -> None:
        """Undo everything although `work`, in its thread, is still using the connection."""
        ...

    async def close(self) -> None:
        """Give the connection back."""
        ...


class TransactionsPort(Protocol):
    """Where transactional activities get their transactions."""

    async def begin(self, *, blocking: bool, timeout: float | None) -> TransactionPort:
        """Begin a transaction, for a thread or for the event loop, for an activity that may take `timeout` seconds."""
        ...


class LoopsPort(Protocol):
    """Where runs hand over the forgetting of finished turns."""

    def advance(self, advance: Advance) -> None:
        """Take one advancement; the caller has made sure that all rows of the ended turns are committed."""
        ...


class CrossingsPort(Protocol):
    """Where runs hand over what they do to other workflows, and ask how those have ended."""

    def cross(self, crossing: Crossing) -> None:
        """Take one crossing; those of one workflow are made in the order in which they are handed over."""
        ...

    def ask(self, inquiry: Inquiry) -> None:
        """Take one question; it is put to the database after this call."""
        ...
