"""Servers that can only be read: what is said of them, once by whoever connects, and whenever something is to be
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
    """Say once what a client can do on the server that it has found."""
    if standby:
        _log.warning(
            "this client is on a standby: it reads (get, list, history, output, by polling), and cannot start, signal "
            "or change anything"
        )


def refuse(answer: T | psycopg.Error, connection: AsyncConnection | Connection) -> T | psycopg.Error:
    """The answer of a statement, unless it is that the server does not write; then the connection is closed: the next
    one may lead elsewhere.

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
