"""Servers that can only be read: what is logged of them at the first connection, and the error when something is to be
written.
"""

from __future__ import annotations

import logging
from typing import TypeVar

import psycopg

from pgflow.errors import ReadOnlyServer
from pgflow.store.database.pooler import AsyncConnection, Connection

T = TypeVar("T")

_log = logging.getLogger("pgflow.store")


def warn(standby: bool) -> None:
    """Log once what a client can do on the server that it has found."""
    if standby:
        _log.warning(
            "this client is on a standby: it reads (get, list, history, output, by polling), and cannot start, signal "
            "or change anything"
        )


def refuse(answer: T | psycopg.Error, connection: AsyncConnection | Connection) -> T | psycopg.Error:
    """Return the answer of a statement. If it is that the server only reads, close the connection, since the next one
    may lead elsewhere.

    Raises:
        ReadOnlyServer: It does not.
    """
    if not isinstance(answer, psycopg.errors.ReadOnlySqlTransaction):
        return answer
    info = connection.info
    where = f'database "{info.dbname}" at {info.host or "the local socket"}, port {info.port}'
    connection.pgconn.finish()
    raise ReadOnlyServer(
        f"the {where}, can only be read: it is a standby, or its transactions are set to be read-only. Nothing was "
        "written. Connect to the primary: name it, or name all servers and `target_session_attrs=read-write` in the "
        "DSN."
    ) from answer
