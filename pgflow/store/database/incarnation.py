"""Which server answers and how far its log has got, which tells whether it can have lost what it, or the one before it,
had acknowledged.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import psycopg

from pgflow.store.database.connections import is_lost
from pgflow.store.database.pooler import AsyncConnection, Connection

_log = logging.getLogger("pgflow.store")

LOOK = (
    b"SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), extract(epoch FROM "
    b"pg_postmaster_start_time())::text, "
    b"(pg_current_wal_insert_lsn() - '0/0')::bigint"
)


class Incarnation(NamedTuple):
    """A server, from one start to the next.

    Args:
        timeline: its log's timeline: a new one after each failover and each restore to a point in time.
        started: when it started.
        position: how far its log had got, in bytes.
    """

    timeline: str
    started: str
    position: int

    def same_start(self, other: Incarnation) -> bool:
        """Whether both are the same server, not restarted in between, as far as is known."""
        return self[:2] == other[:2]

    def behind(self, known: Incarnation) -> str | None:
        """Why this one may lack what `known` had; None: it seems to have all of it."""
        if self.timeline != known.timeline:
            return (
                f"its log is on timeline {self.timeline} now, and was on {known.timeline}: a standby has taken "
                "over, or it was restored"
            )
        if self.position < known.position:
            return f"its log has got to byte {self.position} and had got to {known.position}"
        return None


async def read_incarnation(connection: AsyncConnection) -> Incarnation | None:
    """Ask which server a connection leads to; None: it does not say (it lacks the functions, or this role may not call
    them).

    Raises:
        psycopg.OperationalError: the connection broke.
    """
    try:
        return Incarnation(*(await (await connection.execute(LOOK)).fetchall())[0])
    except psycopg.DatabaseError as error:
        _tolerate(error, connection)
        return None


def read_incarnation_blocking(connection: Connection) -> Incarnation | None:
    """As `read_incarnation`, over a synchronous connection."""
    try:
        return Incarnation(*connection.execute(LOOK).fetchall()[0])
    except psycopg.DatabaseError as error:
        _tolerate(error, connection)
        return None


def _tolerate(error: psycopg.DatabaseError, connection: AsyncConnection | Connection) -> None:
    if is_lost(error, connection):
        raise error
    _log.debug("this server does not say which one it is: %s", error)
