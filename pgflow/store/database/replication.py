"""Commits that wait for a standby: the engine never cancels them, and one that was cancelled is not a commit yet.

Where standbys are synchronous a commit waits for them. If it is cancelled meanwhile, the server gives up the wait and
reports the commit as done, with a warning that it might not have been replicated: a client that trusts this goes on
from something that a failover loses. So the engine's connections cancel nothing when nobody waits for their answer any
more: they wait a moment and are closed. And a connection that gets this warning counts as broken, the fate of its last
commit as unknown: it is made again, and waits again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.errors import Diagnostic
from psycopg.rows import TupleRow

_SOURCE = "SyncRepWaitForLSN"
"""The function of the server that raises this warning: unlike the message, it is the same in every language."""


def is_cancelled_wait(warning: Diagnostic) -> bool:
    """Whether the server warns that a commit might not have been replicated."""
    return warning.source_function == _SOURCE


class ReplicationAware(psycopg.BaseConnection[TupleRow]):
    """What the engine's connections, synchronous and asynchronous ones, know of their commits."""

    unreplicated = False
    """Whether a commit on it has been reported as done that might not have been replicated."""
    never_cancelled = False
    """Whether what it executes is the engine's own, which is never cancelled."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_notice_handler(self._note_warning)

    def _note_warning(self, warning: Diagnostic) -> None:
        if is_cancelled_wait(warning):
            self.unreplicated = True


class ReplicationAwareConnection(ReplicationAware, psycopg.Connection[TupleRow]):
    """A synchronous connection of the engine's."""

    def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Cancel what is being executed, unless it is the engine's: that may be a commit, and psycopg waits a moment
        for it.
        """
        if not self.never_cancelled:
            super().cancel_safe(timeout=timeout)


class ReplicationAwareAsyncConnection(ReplicationAware, psycopg.AsyncConnection[TupleRow]):
    """An asynchronous connection of the engine's."""

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """As `ReplicationAwareConnection` does."""
        if not self.never_cancelled:
            await super().cancel_safe(timeout=timeout)


@contextmanager
def uncancelled(connection: object) -> Iterator[None]:
    """Do not cancel what is executed in this block, though the connection is for others' statements as well."""
    if not isinstance(connection, ReplicationAware):
        yield
        return
    before, connection.never_cancelled = connection.never_cancelled, True
    try:
        yield
    finally:
        connection.never_cancelled = before


def check_replicated(connection: object) -> None:
    """Check that the last answer of a connection can be trusted.

    Raises:
        psycopg.OperationalError: a commit might not have been replicated. Close the connection: the fate of the commit
            is not known.
    """
    if getattr(connection, "unreplicated", False):
        raise psycopg.OperationalError(
            "a commit that was waiting for a standby was cancelled: it might not have been replicated, and "
            "does not count as done"
        )
