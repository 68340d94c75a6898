"""Sessions that are not ours: behind a pooler the next transaction may run in another session, and somebody else's in
this one.

A pooler in transaction mode gives its clients cancel keys of its own, so a connection goes through a pooler if its
session names another process than the one announced at the start. Nothing may be kept in such a session: no prepared
statement (another client's has the same name), no setting, no lock, no `LISTEN`. There each transaction is given what a
session of our own is given when it begins (`session_settings.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg.rows import TupleRow

from pgflow.errors import PgflowError
from pgflow.store.database.session_settings import KEPT, setting

_log = logging.getLogger("pgflow.store")

_shared: WeakKeyDictionary[AsyncConnection | Connection, bytes | None] = WeakKeyDictionary()
"""Connections through a pooler, and what sets the engine's settings within a transaction; None: there
are none to set.
"""

AsyncConnection = psycopg.AsyncConnection[TupleRow]
Connection = psycopg.Connection[TupleRow]

_WHOSE = (
    b"SELECT pg_backend_pid() = %d, current_setting('default_transaction_isolation'), "
    b"current_setting('default_transaction_read_only'), "
    b"current_setting('synchronous_commit')"
)

_ELSEWHERE = "pgflow.another_server"
"""A setting that does not exist: asking for it is an error."""

_PLAIN = ("read committed", "off")
"""How a transaction begins by default."""

_TIMEOUTS = (
    b"SELECT set_config('statement_timeout', %(timeout)s::text, true), "
    b"set_config('idle_in_transaction_session_timeout', %(timeout)s::text, true)"
)


async def begin(connection: AsyncConnection, settings: Mapping[str, str]) -> None:
    """See whether the session is the connection's own, once, when it has been opened, and set it if it is.

    Args:
        connection: One that commits by itself.
        settings: The engine's; none: the session stays as it is.

    Raises:
        psycopg.OperationalError: The connection broke.
        PgflowError: Transactions of this role begin in a way in which the engine cannot work, and this cannot be
            changed from here.
    """
    cursor = await connection.execute(_beginning(connection, settings))
    _judge(connection, settings, await cursor.fetchone())


def begin_blocking(connection: Connection, settings: Mapping[str, str]) -> None:
    """As `begin`, on a synchronous connection."""
    _judge(connection, settings, connection.execute(_beginning(connection, settings)).fetchone())


def _beginning(connection: AsyncConnection | Connection, settings: Mapping[str, str]) -> bytes:
    """One statement, which leaves nothing behind in a session that another client uses a moment later."""
    pid = connection.info.backend_pid
    items = setting(settings, local=f"pg_backend_pid() <> {pid}")
    return _WHOSE % pid + (b", " + items if items else b"")


def _judge(
    connection: AsyncConnection | Connection, settings: Mapping[str, str], found: tuple[Any, ...] | None
) -> None:
    if found is not None and settings and found[3] == "off":
        _tell_of_durability(connection.info.dbname, connection.info.user)
    if found is not None and found[0]:
        return
    connection.prepare_threshold = None  # then psycopg prepares nothing, not even where it is asked to
    if not settings:
        _shared[connection] = None
        return
    if found is not None and tuple(found[1:3]) != _PLAIN:
        raise PgflowError(
            "there is a pooler in between, and transactions of this role begin with "
            f"default_transaction_isolation={found[1]!r} and default_transaction_read_only={found[2]!r}. Expected: "
            f"{_PLAIN[0]!r} and {_PLAIN[1]!r}. Reset them for the role and the database (ALTER ROLE ... RESET), or "
            "let pgflow connect directly."
        )
    lasting = {name: value for name, value in settings.items() if value != KEPT.get(name)}
    _shared[connection] = b"SELECT " + setting(lasting)


@cache
def _tell_of_durability(database: str, user: str) -> None:
    """Log it once in each process."""
    _log.warning(
        "synchronous_commit is off for the database %s and the role %s: a crash of the server would lose workflows "
        "and results that were acknowledged. The sessions of pgflow set it to on",
        database,
        user,
    )


def pin(connection: AsyncConnection | Connection, timeline: str, started: str) -> None:
    """Let transactions on this connection run on this server only: behind a pooler nobody learns that another server
    has taken over.

    Args:
        connection: One through a pooler.
        timeline: That of the server's log.
        started: When it started.
    """
    opening = _shared[connection]
    if opening is not None:
        _shared[connection] = opening + b", " + elsewhere(timeline, started)


def elsewhere(timeline: str, started: str) -> bytes:
    """The item of a SELECT that fails on any other server than this one, and on this one after a restart."""
    return (
        f"CASE WHEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) = '{timeline}' AND extract(epoch FROM "
        f"pg_postmaster_start_time())::text = '{started}' THEN '' ELSE current_setting('{_ELSEWHERE}') END"
    ).encode()


def is_elsewhere(error: BaseException) -> bool:
    """Whether a transaction was refused because it reached another server than the known one."""
    return isinstance(error, psycopg.errors.UndefinedObject) and _ELSEWHERE in str(error)


def is_shared(connection: AsyncConnection | Connection) -> bool:
    """Whether each transaction on the connection may run in another session."""
    return connection in _shared


def settings_of(connection: AsyncConnection | Connection) -> bytes | None:
    """What a transaction of one statement has to begin with; None: the session is the connection's own and has its
    settings.
    """
    return _shared.get(connection)


def opening(connection: AsyncConnection | Connection, timeout: int) -> tuple[bytes, Mapping[str, Any]]:
    """The statement that a transaction of several begins with, and its parameters.

    Args:
        connection: What it is sent on.
        timeout: Milliseconds that each of them may take, and that may pass between two.
    """
    return settings_of(connection) or _TIMEOUTS, {"timeout": f"{timeout}ms"}
