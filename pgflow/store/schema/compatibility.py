"""Whether this code fits a database's server and schema. Checked once by each client and worker that starts.

Yesterday's code runs on today's schema unless that schema says otherwise (`schema_info.compatible_from`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pgflow.errors import PgflowError, SchemaOutdated
from pgflow.store.database.connections import quoted
from pgflow.store.database.pooler import AsyncConnection, Connection
from pgflow.store.database.query import Query, ask, ask_blocking
from pgflow.store.schema.versions import NEEDS, SCHEMA_VERSION

OLDEST_SERVER = 150000
"""The oldest PostgreSQL that pgflow runs on, as `server_version_num` says it."""


class DatabaseState(NamedTuple):
    """What has to be known about a database.

    Attributes:
        server: its `server_version_num`.
        migrated: whether it has a `schema_info`.
    """

    server: int
    migrated: bool


def check(found: DatabaseState, info: tuple[int, int] | None, schema: str) -> None:
    """Check that a database fits this code.

    Args:
        found: the server's version, and whether there is a `schema_info`.
        info: the schema's version and the oldest code that it is for; None when it has no such row.
        schema: its name, for messages.

    Raises:
        PgflowError: the server is too old.
        SchemaOutdated: the schema is missing, too old or too new.
    """
    check_server(found.server)
    if not found.migrated or info is None:
        raise SchemaOutdated(
            f'the database has no pgflow schema "{schema}". Run `pgflow db upgrade --schema {schema}` (or '
            "`pgflow.migrate(dsn, schema)`) first, or name the right schema."
        )
    version, compatible_from = info
    if version < NEEDS:
        raise SchemaOutdated(
            f'the schema "{schema}" is of version {version}; this code needs at least {NEEDS}. Run `pgflow db upgrade`.'
        )
    if compatible_from > SCHEMA_VERSION:
        raise SchemaOutdated(
            f'the schema "{schema}" is too new: it is of version {version} and for code from version '
            f"{compatible_from} on; this code is of version {SCHEMA_VERSION}. Deploy newer code, or migrate the "
            "schema down with the code that made it."
        )


def check_server(version: int) -> None:
    """Check that the server is not too old.

    Args:
        version: its `server_version_num`.

    Raises:
        PgflowError: it is.
    """
    if version < OLDEST_SERVER:
        raise PgflowError(
            f"the server is PostgreSQL {version // 10000}; pgflow needs {OLDEST_SERVER // 10000} or later. Upgrade "
            "the server, or name another database."
        )


def find(schema: str) -> Query[DatabaseState]:
    """The statement that reads this; it works on any database."""
    return Query(
        b"SELECT current_setting('server_version_num')::int, to_regclass(%(table)s) IS NOT NULL",
        {"table": f"{quoted(schema)}.schema_info"},
        lambda rows: DatabaseState(*rows[0]),
    )


def read(schema: str) -> Query[tuple[int, int] | None]:
    """The statement that reads `schema_info`, which has to exist."""
    return Query(
        f"SELECT version, compatible_from FROM {quoted(schema)}.schema_info LIMIT 1".encode(),
        {},
        _info,
    )


def _info(rows: Sequence[tuple[Any, ...]]) -> tuple[int, int] | None:
    return (rows[0][0], rows[0][1]) if rows else None


async def check_async(connection: AsyncConnection, schema: str) -> None:
    """Check over an asynchronous connection.

    Raises:
        PgflowError: the server is too old.
        SchemaOutdated: the schema is missing, too old or too new.
    """
    found = await ask(connection, find(schema))
    check(found, await ask(connection, read(schema)) if found.migrated else None, schema)


def check_blocking(connection: Connection, schema: str) -> None:
    """Check over a synchronous connection; raises as `check_async` does."""
    found = ask_blocking(connection, find(schema))
    check(found, ask_blocking(connection, read(schema)) if found.migrated else None, schema)
