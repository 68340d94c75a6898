"""Sessions that are not ours: behind a pooler, the next transaction may be executed by another session, and this one by anybody.

A pooler in transaction mode gives its clients keys of its own to cancel by, so a connection whose session names another process than the
server had told at first is one through a pooler. Nothing may be kept in such a session: no prepared statement (somebody else's has the same
name), no setting, no lock, nobody who listens. What a session of our own is given when it begins, each transaction is given there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import psycopg

if TYPE_CHECKING:
    from pgflow.store.connections import AsyncConnection, Connection

_shared: WeakKeyDictionary[AsyncConnection | Connection, bytes | None] = WeakKeyDictionary()
"""Connections through a pooler, and what sets the engine's settings within a transaction; None: there are none to set."""

_WHOSE = b"SELECT pg_backend_pid()"

_TIMEOUTS = (
    b"SELECT set_config('statement_timeout', %(timeout)s::text, true), "
    b"set_config('idle_in_transaction_session_timeout', %(timeout)s::text, true)"
)


def refuses_settings(error: psycopg.OperationalError) -> bool:
    """Whether a connection failed since a pooler does not take settings for a session."""
    return "unsupported startup parameter" in str(error)


async def look(connection: AsyncConnection, settings: Mapping[str, str]) -> None:
    """See whether the session is the connection's own, once, when it has been opened.

    Args:
        connection: One that commits by itself.
        settings: What the session was given, or was to be given.

    Raises:
        psycopg.OperationalError: The connection broke.
    """
    cursor = await connection.execute(_WHOSE)
    _judge(connection, settings, await cursor.fetchone())


def look_blocking(connection: Connection, settings: Mapping[str, str]) -> None:
    """As `look`, on a synchronous connection."""
    _judge(connection, settings, connection.execute(_WHOSE).fetchone())


def _judge(connection: AsyncConnection | Connection, settings: Mapping[str, str], found: tuple[Any, ...] | None) -> None:
    if found is None or found[0] != connection.info.backend_pid:
        connection.prepare_threshold = None  # psycopg prepares nothing then, not even where it is asked to
        values = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
        _shared[connection] = f"SELECT {values}".encode() if settings else None


def is_shared(connection: AsyncConnection | Connection) -> bool:
    """Whether the session behind the connection may be another one for each transaction."""
    return connection in _shared


def settings_of(connection: AsyncConnection | Connection) -> bytes | None:
    """What a transaction of one statement has to begin with; None: the session is the connection's own and has its settings."""
    return _shared.get(connection)


def opening(connection: AsyncConnection | Connection, timeout: int) -> tuple[bytes, Mapping[str, Any]]:
    """The statement that a transaction of several begins with, and its parameters.

    Args:
        connection: What it is sent on.
        timeout: Milliseconds that each of them may take, and that may pass between two.
    """
    return settings_of(connection) or _TIMEOUTS, {"timeout": f"{timeout}ms"}
